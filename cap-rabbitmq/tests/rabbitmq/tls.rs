//! A broker behind TLS: whom the transport trusts, and that it works the same there.

use std::sync::Arc;

use crate::support;
use crate::support::raw::{RawClient, long, short, value};
use crate::support::{Place, message, soon};
use cap_core::transport::{Sent, Transport};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;

/// Speaks TLS for the broker, with a certificate for `localhost` of an authority that nobody else knows.
struct TlsFront {
    authority: String,
    port: u16,
    _task: JoinSet<()>,
}

impl TlsFront {
    async fn start() -> Self {
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["localhost".to_owned()])
            .unwrap()
            .signed_by(&key, &authority)
            .unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key.into())
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let target: lapin::uri::AMQPUri = support::amqp_url().parse().unwrap();
        let target = format!("{}:{}", target.authority.host, target.authority.port);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (acceptor, target) = (acceptor.clone(), target.clone());
                connections.spawn(async move {
                    // A client that does not trust us breaks off.
                    let Ok(mut client) = acceptor.accept(client).await else { return };
                    let mut server = TcpStream::connect(target).await.unwrap();
                    drop(tokio::io::copy_bidirectional(&mut client, &mut server).await);
                });
            }
        });
        Self { authority: authority.pem(), port, _task: task }
    }

    fn url(&self) -> String {
        let mut uri: lapin::uri::AMQPUri = support::amqp_url().parse().unwrap();
        uri.scheme = lapin::uri::AMQPScheme::AMQPS;
        "localhost".clone_into(&mut uri.authority.host);
        uri.authority.port = self.port;
        uri.to_string()
    }
}

#[tokio::test]
async fn a_broker_behind_tls_is_used_like_any_other() {
    let place = Place::new();
    let front = TlsFront::start().await;
    let transport = support::start(place.transport_at(&front.url()).ca_certificates(&front.authority));
    let mut consumer = soon(transport.consume(&place.spec("q", &["#"], 10))).await.unwrap();
    let body = vec![7; 1024 * 1024];
    let answers = soon(transport.send(&[message("1", "ok", body.clone())])).await;
    assert_eq!(*answers[0].as_ref().unwrap(), Sent::Routed);
    assert!(support::receive(&mut consumer, 1).await[0].body == body);
    // What hostile senders write is sanitized here too.
    let mut raw = RawClient::connect().await;
    let table = [short(b"\xff"), value(b'S', b"x")].concat();
    raw.publish(&place.exchange, b"k", 1 << 13, &long(&table), b"body").await;
    raw.finish().await;
    assert_eq!(support::receive(&mut consumer, 1).await[0].headers.get("?"), Some("x"));
    drop(consumer);
    soon(transport.close()).await;
}

#[tokio::test]
async fn an_authority_that_is_not_trusted_is_an_error_that_says_so() {
    let place = Place::new();
    let front = TlsFront::start().await;
    let transport = support::start(place.transport_at(&front.url()));
    let error = soon(transport.send(&[message("1", "ok", "")])).await.remove(0).unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    assert!(error.to_string().contains("its certificate is trusted here"), "{error}");
    let error = soon(transport.consume(&place.spec("q", &["#"], 1))).await.unwrap_err();
    assert!(!error.to_string().contains("guest"), "{error}");
}

/// Issue 9, row 16: a certificate for another host is none for this one, whoever has signed it.
#[tokio::test]
async fn a_certificate_for_another_host_name_is_refused() {
    let place = Place::new();
    let front = TlsFront::start().await;
    let url = front.url().replace("localhost", "127.0.0.1");
    let transport = support::start(place.transport_at(&url).ca_certificates(&front.authority));
    let error = soon(transport.probe()).await.unwrap_err();
    assert!(error.is_unavailable() && error.requires_operator(), "{error}");
    assert!(error.to_string().contains("not valid for name"), "{error}");
}

/// Issue 9, row 16: a server that speaks TLS 1.0 or 1.1 only.
#[tokio::test]
async fn old_versions_of_tls_are_refused() {
    for version in [1, 2] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut server = JoinSet::new();
        server.spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut hello = [0; 5];
                client.read_exact(&mut hello).await.unwrap();
                // ServerHello: version, random, no session, TLS_RSA_WITH_AES_128_CBC_SHA, no compression.
                let body = [&[3, version][..], &[7; 32], &[0, 0, 0x2f, 0]].concat();
                let length = u8::try_from(body.len()).unwrap();
                let handshake = [&[2, 0, 0, length][..], &body].concat();
                let record = [&[22, 3, version, 0, length + 4][..], &handshake].concat();
                client.write_all(&record).await.unwrap();
                drop(tokio::io::copy(&mut client, &mut tokio::io::sink()).await);
            }
        });
        let place = Place::new();
        let transport = support::start(place.transport_at(&format!("amqps://u:s3cret@localhost:{port}")));
        let error = soon(transport.probe()).await.unwrap_err();
        assert!(error.is_unavailable(), "{error}");
        assert!(error.to_string().contains("of version 1.2 at least"), "{error}");
        assert!(!error.to_string().contains("s3cret"), "{error}");
    }
}
