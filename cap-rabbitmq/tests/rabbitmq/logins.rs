//! Ways to log in other than a fixed password, at a broker of the test's own: certificates, tokens, passwords that change.
//! Issue 8, rows 7 and 8.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use crate::support;
use crate::support::log::Log;
use crate::support::private_broker::{PrivateBroker, free_port};
use crate::support::{message, receive, soon, start};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use cap_core::error::TransportError;
use cap_core::transport::{BrokerDelay, Consumer, Delayed, Destination, Sent, Transport};
use cap_rabbitmq::{ClientIdentity, Credentials, QueueType, RabbitMq};
use p12_keystore::{Certificate, KeyStore, KeyStoreEntry, PrivateKeyChain};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

/// A broker that has just started may take its time on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// The user of the broker's settings, and so the name in the certificate.
const USER: &str = "cap";

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate for a host and of a name, with its key.
fn certificate(authority: &Authority, host: &str, name: &str) -> (rcgen::Certificate, KeyPair) {
    let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, authority).unwrap(), key)
}

fn pem(authority: &Authority, name: &str) -> ClientIdentity {
    let (certificate, key) = certificate(authority, "client", name);
    ClientIdentity::pem(certificate.pem(), key.serialize_pem())
}

fn pkcs12(authority: &Authority, name: &str) -> ClientIdentity {
    let (certificate, key) = certificate(authority, "client", name);
    let chain = PrivateKeyChain::new(
        key.serialize_der(),
        b"1",
        [certificate.der(), authority.der()].map(|der| Certificate::from_der(der).unwrap()),
    );
    let mut store = KeyStore::new();
    store.add_entry("client", KeyStoreEntry::PrivateKeyChain(chain));
    ClientIdentity::pkcs12(store.writer("s3cret").write().unwrap(), "s3cret")
}

/// What the broker signs and checks tokens with.
const TOKEN_KEY: &[u8] = b"a key of thirty-two bytes, or so";

/// A token that the broker takes for so long, as its plugin for OAuth 2 wants it.
fn token(lifetime: Duration) -> String {
    let until = (SystemTime::now() + lifetime).duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let claims = format!(
        r#"{{"aud":["rabbit"],"sub":"shop","exp":{until},"scope":["rabbit.configure:*/*/*","rabbit.read:*/*/*","rabbit.write:*/*/*"]}}"#
    );
    let signed =
        format!("{}.{}", BASE64.encode(r#"{"alg":"HS256","kid":"key","typ":"JWT"}"#), BASE64.encode(claims));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, TOKEN_KEY);
    format!("{signed}.{}", BASE64.encode(ring::hmac::sign(&key, signed.as_bytes())))
}

/// A broker with certificates and tokens.
struct Scene {
    broker: PrivateBroker,
    authority: Authority,
    tls_port: u16,
}

impl Scene {
    fn start() -> Option<Self> {
        let authority = authority();
        let (certificate, key) = certificate(&authority, "localhost", "broker");
        let tls_port = free_port();
        let conf = format!(
            "listeners.ssl.1 = 127.0.0.1:{tls_port}\n\
             ssl_options.cacertfile = @HOME@/authority.pem\nssl_options.certfile = @HOME@/broker.pem\n\
             ssl_options.keyfile = @HOME@/broker.key\nssl_options.verify = verify_peer\n\
             ssl_options.fail_if_no_peer_cert = true\nssl_cert_login_from = common_name\n\
             auth_mechanisms.1 = PLAIN\nauth_mechanisms.2 = EXTERNAL\n\
             auth_backends.1 = internal\nauth_backends.2 = rabbit_auth_backend_oauth2\n"
        );
        let advanced = format!(
            "[{{rabbitmq_auth_backend_oauth2, [{{resource_server_id, <<\"rabbit\">>}}, {{key_config, [\
             {{default_key, <<\"key\">>}}, {{signing_keys, #{{<<\"key\">> => {{map, #{{<<\"kty\">> => <<\"oct\">>, \
             <<\"alg\">> => <<\"HS256\">>, <<\"k\">> => <<\"{}\">>}}}}}}}}]}}]}}].\n",
            BASE64.encode(TOKEN_KEY)
        );
        let broker = PrivateBroker::start(&[
            ("rabbitmq.conf", conf),
            ("advanced.config", advanced),
            ("enabled_plugins", "[rabbitmq_auth_mechanism_ssl, rabbitmq_auth_backend_oauth2].\n".to_owned()),
            ("authority.pem", authority.pem()),
            ("broker.pem", certificate.pem()),
            ("broker.key", key.serialize_pem()),
        ])?;
        Some(Self { broker, authority, tls_port })
    }

    /// A transport over TLS, without a login.
    fn tls(&self) -> RabbitMq {
        self.tls_as("")
    }

    fn tls_as(&self, login: &str) -> RabbitMq {
        RabbitMq::new(format!("amqps://{login}localhost:{}", self.tls_port))
            .ca_certificates(self.authority.pem())
            .queue_type(QueueType::Classic)
            .connect_timeout(PATIENCE)
    }

    /// A transport without TLS and without a login.
    fn plain(&self) -> RabbitMq {
        RabbitMq::new(format!("amqp://127.0.0.1:{}", self.broker.url.authority.port))
            .queue_type(QueueType::Classic)
            .connect_timeout(PATIENCE)
    }
}

fn spec(group: &str) -> cap_core::transport::GroupSpec {
    let topics = vec![cap_core::message::TopicPattern::parse(group).unwrap()];
    cap_core::transport::GroupSpec::new(group, topics, 10)
}

/// A message goes out and comes in.
async fn works(transport: RabbitMq, name: &str) {
    let transport = start(transport);
    let mut consumer = soon(transport.consume(&spec(name))).await.unwrap();
    let answers = soon(transport.send(&[message("1", name, "{}")])).await;
    assert_eq!(*answers[0].as_ref().unwrap(), Sent::Routed, "{name}");
    receive(&mut consumer, 1).await;
    soon(transport.close()).await;
}

/// The login is refused, and only an operator can change that.
async fn is_refused(transport: RabbitMq, reason: &str) {
    let error = fails(transport).await;
    assert!(error.requires_operator(), "{error}");
    assert!(error.to_string().contains(reason), "{error}");
}

/// The broker ends the handshake. Its reason may get lost when it closes the connection.
async fn is_shut_out(transport: RabbitMq) {
    let error = fails(transport).await;
    assert!(error.to_string().contains("its certificate is trusted here, and ours there"), "{error}");
}

async fn fails(transport: RabbitMq) -> TransportError {
    let transport = start(transport);
    let error = soon(transport.probe()).await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    assert!(!error.to_string().contains("s3cret"), "{error}");
    soon(transport.close()).await;
    error
}

/// One broker for all of them, since it takes seconds to boot.
#[tokio::test(flavor = "multi_thread")]
async fn certificates_tokens_and_changing_passwords_log_in() {
    let Some(mut scene) = tokio::task::block_in_place(Scene::start) else { return };
    let password = scene.broker.url.authority.userinfo.password.clone();
    // Certificates.
    works(scene.tls().identity(pem(&scene.authority, USER)).certificate_login(), "pem").await;
    works(scene.tls().identity(pkcs12(&scene.authority, USER)).certificate_login(), "pkcs12").await;
    works(scene.tls_as(&format!("{USER}:{password}@")).identity(pem(&scene.authority, "anyone")), "mutual")
        .await;
    is_shut_out(scene.tls()).await;
    is_shut_out(scene.tls().identity(pem(&authority(), USER)).certificate_login()).await;
    let stranger = scene.tls().identity(pem(&scene.authority, "stranger")).certificate_login();
    is_refused(stranger, "check that the broker knows a user of the certificate's name").await;
    // Tokens.
    is_refused(scene.plain().credentials(|| async { Ok(Credentials::token("s3cret")) }), "ACCESS_REFUSED")
        .await;
    tokens_are_renewed(&scene).await;
    another_user_takes_over(&scene, &password).await;
    a_user_without_rights_to_configure_joins_with_a_warning(&mut scene).await;
    the_rights_that_the_page_gives_are_enough(&mut scene).await;
    a_delay_queue_without_a_leader_is_avoided(&mut scene, &password).await;
    a_changed_password_is_asked_for(&mut scene, &password).await;
}

/// Issue 9, row 20: after a crash of the broker a quorum queue may be left without a leader, and takes nothing.
async fn a_delay_queue_without_a_leader_is_avoided(scene: &mut Scene, password: &str) {
    let (user, password) = (USER, password.to_owned());
    let transport = scene.plain().confirm_timeout(Duration::from_secs(3)).credentials(move || {
        let password = password.clone();
        async move { Ok(Credentials::new(user, password)) }
    });
    let transport = start(transport);
    let mut consumer = soon(transport.consume(&spec("delayed"))).await.unwrap();
    let delay = async |id: &str| {
        let (message, to) = (message(id, "delayed", "{}"), Destination::Group("delayed".into()));
        soon(transport.delay(&[Delayed::new(message, Duration::from_millis(500), to)])).await.remove(0)
    };
    delay("1").await.unwrap();
    receive(&mut consumer, 1).await;
    let leader = format!("{{'%2F_cap.delay.queue.delayed.500.{}',node()}}", support::today());
    tokio::task::block_in_place(|| {
        scene.broker.control(&format!("eval ra:stop_server(quorum_queues,{leader})."));
    });
    let error = delay("2").await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    delay("3").await.unwrap();
    let arrived = receive(&mut consumer, 1).await;
    assert!(arrived[0].delayed && arrived[0].headers.get("cap-msg-id") == Some("3"), "{arrived:?}");
    soon(transport.close()).await;
}

/// Issue 8, row 6: exchange and queue are joined, and that the kind could not be checked is said, once.
async fn a_user_without_rights_to_configure_joins_with_a_warning(scene: &mut Scene) {
    tokio::task::block_in_place(|| {
        scene.broker.control("add_user weak weak");
        scene.broker.control("set_permissions weak ^$ .* .*");
    });
    let (log, _guard) = Log::here("info");
    let weak = || scene.plain().credentials(|| async { Ok(Credentials::new("weak", "weak")) });
    let absent = start(weak().exchange("absent"));
    let error = soon(absent.probe()).await.unwrap_err();
    assert!(error.requires_operator() && error.to_string().contains("grant the right"), "{error}");
    assert_eq!(log.troubles(), [""; 0]);
    works(weak(), "users").await;
    let warned: Vec<_> = log.troubles().into_iter().filter(|line| line.contains(" WARN ")).collect();
    let kind = "its kind could not be checked";
    assert!(!warned.is_empty() && warned.iter().all(|line| line.contains(kind)), "{warned:?}");
    assert_eq!(warned.len(), 1, "{warned:?}");
}

/// Issue 9, row 16: `docs/security.md` has the patterns for a service with the group `stock.v1`.
async fn the_rights_that_the_page_gives_are_enough(scene: &mut Scene) {
    let page = include_str!("../../../docs/security.md");
    let pattern = |right: &str| {
        let line = page.lines().find_map(|line| line.strip_prefix(&format!("{right}: ")));
        line.unwrap().to_owned()
    };
    let [configure, write, read] = ["configure", "write", "read"].map(pattern);
    let without_default = write.replace(r"|amq\.default", "");
    assert_ne!(write, without_default);
    tokio::task::block_in_place(|| {
        for (user, write) in [("least", &write), ("less", &without_default)] {
            scene.broker.control(&format!("add_user {user} {user}"));
            scene.broker.control(&format!("set_permissions {user} {configure} {write} {read}"));
        }
    });
    let of_service = start(scene.plain().credentials(|| async { Ok(Credentials::new("least", "least")) }));
    let (log, _guard) = Log::here("info");
    let mut consumer = soon(of_service.consume(&spec("stock.v1"))).await.unwrap();
    soon(of_service.probe()).await.unwrap();
    let answers = soon(of_service.send(&[message("1", "stock.v1", "{}")])).await;
    assert_eq!(*answers[0].as_ref().unwrap(), Sent::Routed);
    receive(&mut consumer, 1).await;
    let delayed = |id, to| {
        let delay = Duration::from_millis(200);
        [Delayed::new(message(id, "stock.v1", "{}"), delay, to)]
    };
    let group = || Destination::Group("stock.v1".into());
    for (id, to) in [("2", group()), ("3", Destination::Topic)] {
        soon(of_service.delay(&delayed(id, to))).await.remove(0).unwrap();
        assert_eq!(receive(&mut consumer, 1).await[0].headers.get("cap-msg-id"), Some(id));
    }
    assert_eq!(log.troubles(), [""; 0]);
    // Nothing of others.
    let error = soon(of_service.consume(&spec("other.v1"))).await.unwrap_err();
    assert!(error.requires_operator() && error.to_string().contains("other.v1"), "{error}");
    soon(of_service.close()).await;
    // Only retries need the default exchange.
    let less = start(scene.plain().credentials(|| async { Ok(Credentials::new("less", "less")) }));
    let mut consumer = soon(less.consume(&spec("stock.v1"))).await.unwrap();
    let error = soon(less.delay(&delayed("4", group()))).await.remove(0).unwrap_err();
    assert!(error.to_string().contains("amq.default"), "{error}");
    soon(less.delay(&delayed("5", Destination::Topic))).await.remove(0).unwrap();
    // After the three that nobody has acknowledged.
    assert_eq!(receive(&mut consumer, 4).await[3].headers.get("cap-msg-id"), Some("5"));
    soon(less.close()).await;
}

/// A connection cannot change its user, as with secrets that a vault makes for a while: it is replaced.
async fn another_user_takes_over(scene: &Scene, password: &str) {
    let password = password.to_owned();
    let asked = AtomicUsize::new(0);
    let transport = start(scene.plain().credentials(move || {
        let first = asked.fetch_add(1, Ordering::Relaxed) == 0;
        let password = password.clone();
        async move {
            if first {
                return Ok(Credentials::new(USER, password).expires_in(Duration::from_millis(400)));
            }
            Ok(Credentials::token(token(Duration::from_secs(3600))))
        }
    }));
    let mut consumer = soon(transport.consume(&spec("users"))).await.unwrap();
    soon(consumer.receive(1)).await.unwrap_err();
    let mut consumer = soon(transport.consume(&spec("users"))).await.unwrap();
    assert_eq!(
        *soon(transport.send(&[message("1", "users", "{}")])).await[0].as_ref().unwrap(),
        Sent::Routed
    );
    receive(&mut consumer, 1).await;
    soon(transport.close()).await;
}

/// The broker ends a connection whose token expires. This one outlives several.
async fn tokens_are_renewed(scene: &Scene) {
    const LIFETIME: Duration = Duration::from_secs(3);
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let transport = start(scene.plain().credentials(move || {
        count.fetch_add(1, Ordering::Relaxed);
        async { Ok(Credentials::token(token(LIFETIME)).expires_in(LIFETIME)) }
    }));
    let mut consumer = soon(transport.consume(&spec("tokens"))).await.unwrap();
    soon(transport.probe()).await.unwrap();
    // Each of the two connections has renewed it twice, the second time after the first had expired.
    let renewed = async {
        while asked.load(Ordering::Relaxed) < 6 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    soon(renewed).await;
    let answers = soon(transport.send(&[message("1", "tokens", "{}")])).await;
    assert_eq!(*answers[0].as_ref().unwrap(), Sent::Routed);
    assert_eq!(receive(&mut consumer, 1).await.len(), 1);
    soon(transport.close()).await;
}

/// The provider is asked at each connect; what it gives is wrong for a while, and then right.
async fn a_changed_password_is_asked_for(scene: &mut Scene, password: &str) {
    let current = Arc::new(Mutex::new(password.to_owned()));
    let ask = Arc::clone(&current);
    let transport = start(scene.plain().credentials(move || {
        let password = ask.lock().unwrap().clone();
        async move { Ok(Credentials::new(USER, password)) }
    }));
    soon(transport.probe()).await.unwrap();
    tokio::task::block_in_place(|| {
        scene.broker.control(&format!("change_password {USER} changed"));
        scene.broker.control("close_all_connections rotated");
    });
    let refused = async {
        loop {
            match transport.probe().await {
                Err(error) if error.requires_operator() => return error,
                _ => {}
            }
        }
    };
    let error = soon(refused).await;
    assert!(error.to_string().contains("check user \"cap\" and its password"), "{error}");
    "changed".clone_into(&mut current.lock().unwrap());
    soon(transport.probe()).await.unwrap();
    soon(transport.close()).await;
}
