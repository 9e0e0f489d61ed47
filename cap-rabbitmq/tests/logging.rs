//! What is logged, and what must not be.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod support;

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex};

use cap_core::transport::{Sent, Transport};
use cap_rabbitmq::RabbitMq;
use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};
use support::proxy::Proxy;
use support::{Place, message, soon};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

/// A log that the test can read.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// From version 4 on the broker drops what it has delivered often, and it is version 4 here by hearsay.
#[tokio::test]
async fn a_queue_from_before_the_delivery_limit_is_warned_of() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).with_ansi(false).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let place = Place::new();
    let proxy = Proxy::start_as(Some(4)).await;
    let channel = support::plain_channel().await;
    let durable = QueueDeclareOptions { durable: true, ..Default::default() };
    let argument = |name: &str, value| FieldTable::from(BTreeMap::from([(name.into(), value)]));
    let quorum = argument("x-queue-type", AMQPValue::LongString("quorum".into()));
    let dotnet = argument("x-message-ttl", AMQPValue::LongInt(864_000_000));
    let transport = support::start(RabbitMq::new(proxy.url()).exchange(&place.exchange));
    for (name, arguments) in [("old", Some(quorum)), ("net", Some(dotnet)), ("new", None)] {
        let spec = place.spec(name, &["p"], 10);
        if let Some(arguments) = arguments {
            channel.queue_declare((&*spec.group).into(), durable, arguments).await.unwrap();
        }
        for _ in 0..2 {
            drop(soon(transport.consume(&spec)).await.unwrap());
        }
    }
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let warned: Vec<_> = log.lines().filter(|line| line.contains(" WARN cap_rabbitmq")).collect();
    assert_eq!(warned.len(), 2, "{log}");
    assert!(warned.iter().all(|line| line.contains("x-delivery-limit") && line.contains(".old")), "{log}");
}

/// lapin's thread has a subscriber of its own making, so the one that counts is set for the whole process.
#[tokio::test]
async fn neither_bodies_nor_passwords_are_logged() {
    let log = Log::default();
    tracing_subscriber::fmt().with_writer(log.clone()).with_env_filter("debug").with_ansi(false).init();
    let place = Place::new();
    let proxy = Proxy::start().await;
    proxy.rename(b"\x02XCS", b"\x02CCS");
    let transport = support::start(place.transport_at(&proxy.url()));
    let answers = soon(transport.send(&[message("7", "nobody.wants.this", "s3cret")])).await;
    assert_eq!(*answers[0].as_ref().unwrap(), Sent::Unrouted);
    // Over a channel that breaks, lapin complains on its own thread, and that must not be lost.
    let poison = {
        let mut headers = message("8", "t", "s3cret").headers.clone();
        headers.insert("XC", "not a list");
        Arc::new(cap_core::message::Message::new(headers, "s3cret"))
    };
    soon(transport.send(&[poison])).await.remove(0).unwrap_err();
    assert_eq!(LevelFilter::current(), LevelFilter::DEBUG, "no more is asked for than the subscriber wants");
    soon(transport.close()).await;
    let uri: lapin::uri::AMQPUri = support::amqp_url().parse().unwrap();
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("connected to RabbitMQ"), "{log}");
    assert!(log.contains("ERROR io_loop: lapin::channel: Channel closed"), "{log}");
    // The body as text, or as the numbers of its bytes.
    for secret in ["s3cret", "115, 51, 99, 114, 101, 116", &format!(":{}@", uri.authority.userinfo.password)]
    {
        assert!(!log.contains(secret), "{secret}: {log}");
    }
}
