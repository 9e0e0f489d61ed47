//! Connections that break, hang, are blocked or never come about.

use std::time::Duration;

use crate::support;
use crate::support::proxy::Proxy;
use crate::support::raw::{method, short};
use crate::support::{Place, message, soon};
use cap_core::error::{TransportError, TransportErrorKind};
use cap_core::transport::{Acknowledge, BrokerDelay, Consumer, Delayed, Destination, Sent, Transport};
use tokio::net::TcpListener;

async fn send_one(transport: &impl Transport, id: &str) -> Result<Sent, TransportError> {
    soon(transport.send(&[message(id, "ok", "{}")])).await.remove(0)
}

#[tokio::test]
async fn after_a_cut_the_next_calls_work_again() {
    let place = Place::new();
    let proxy = Proxy::start().await;
    let transport = support::start(place.transport_at(&proxy.url()));
    let spec = place.spec("q", &["ok"], 10);
    let mut consumer = soon(transport.consume(&spec)).await.unwrap();
    assert_eq!(send_one(&transport, "1").await.unwrap(), Sent::Routed);
    let tag = support::receive(&mut consumer, 1).await[0].tag;
    proxy.close_connections();
    let error = soon(consumer.receive(1)).await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    // The delivery of a connection that is gone.
    consumer.acknowledge(&[tag], Acknowledge::Accept).await.unwrap();
    // Whether the publisher has noticed yet or not, it is well again at the second call.
    if let Err(error) = send_one(&transport, "2").await {
        assert!(error.is_unavailable(), "{error}");
        assert_eq!(send_one(&transport, "2").await.unwrap(), Sent::Routed);
    }
    let mut consumer = soon(transport.consume(&spec)).await.unwrap();
    let again = support::receive(&mut consumer, 2).await;
    assert!(again.iter().any(|got| got.redelivered && got.properties.get("message-id") == Some("1")));
}

/// Confirms that never come: the broker is there, and says nothing.
#[tokio::test]
async fn a_broker_that_hangs_makes_the_outcome_unknown() {
    let place = Place::new();
    let (channel, queue) = place.plain_queue("q", "ok").await;
    let proxy = Proxy::start().await;
    let transport =
        support::start(place.transport_at(&proxy.url()).confirm_timeout(Duration::from_millis(300)));
    assert_eq!(send_one(&transport, "1").await.unwrap(), Sent::Routed);
    proxy.stall(true);
    let error = send_one(&transport, "2").await.unwrap_err();
    assert!(error.is_unavailable() && error.to_string().contains("confirm_timeout"), "{error}");
    let error = soon(transport.consume(&place.spec("x", &["ok"], 1))).await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    proxy.stall(false);
    assert_eq!(send_one(&transport, "3").await.unwrap(), Sent::Routed);
    assert!(support::ready(&channel, &queue).await >= 2);
}

/// More than any socket buffers: what lapin still holds must not be sent later, on a channel of the same number.
#[tokio::test]
async fn a_batch_that_could_not_be_written_takes_its_connection_along() {
    let place = Place::new();
    let (channel, queue) = place.plain_queue("q", "ok").await;
    let proxy = Proxy::start().await;
    let transport =
        support::start(place.transport_at(&proxy.url()).confirm_timeout(Duration::from_millis(500)));
    assert_eq!(send_one(&transport, "1").await.unwrap(), Sent::Routed);
    proxy.stall(true);
    let batch: Vec<_> =
        (0..7).map(|n| message(format!("lost {n}"), "ok", vec![0; 10 * 1024 * 1024])).collect();
    for answer in soon(transport.send(&batch)).await {
        assert!(answer.unwrap_err().is_unavailable());
    }
    let before = proxy.accepted();
    proxy.stall(false);
    assert_eq!(send_one(&transport, "2").await.unwrap(), Sent::Routed);
    assert_eq!(proxy.accepted(), before + 1);
    // The first of the batch may have come through whole, but none after it.
    assert!((2..=3).contains(&support::ready(&channel, &queue).await));
}

#[tokio::test]
async fn blocked_connection_is_unavailable_and_works_again_later() {
    let place = Place::new();
    let (channel, queue) = place.plain_queue("q", "ok").await;
    let proxy = Proxy::start().await;
    let transport =
        support::start(place.transport_at(&proxy.url()).confirm_timeout(Duration::from_millis(300)));
    assert_eq!(send_one(&transport, "1").await.unwrap(), Sent::Routed);
    proxy.write_to_clients(&method(0, 10, 60, &short(b"low on memory")));
    // lapin learns of it in its own time; until then messages pass.
    let error = soon(async {
        loop {
            if let Err(error) = send_one(&transport, "2").await {
                break error;
            }
        }
    });
    let error = error.await;
    assert!(error.is_unavailable(), "{error}");
    let error = send_one(&transport, "3").await.unwrap_err();
    assert!(error.is_unavailable() && error.to_string().contains("blocks publishers"), "{error}");
    let before = support::ready(&channel, &queue).await;
    proxy.write_to_clients(&method(0, 10, 61, b""));
    assert_eq!(send_one(&transport, "4").await.unwrap(), Sent::Routed);
    assert_eq!(support::ready(&channel, &queue).await, before + 1, "nothing was held back and sent later");
    assert_eq!(proxy.accepted(), 1);
}

#[tokio::test]
async fn several_batches_at_once_share_an_outage() {
    let place = Place::new();
    let (_channel, _queue) = place.plain_queue("q", "ok").await;
    let proxy = Proxy::start().await;
    let transport = support::start(place.transport_at(&proxy.url()));
    assert_eq!(send_one(&transport, "1").await.unwrap(), Sent::Routed);
    proxy.stall(true);
    let ids = ["a", "b", "c", "d", "e", "f"];
    let sending = futures_util::future::join_all(ids.map(|id| send_one(&transport, id)));
    let cutting = async {
        tokio::task::yield_now().await;
        proxy.close_connections();
        proxy.stall(false);
    };
    let (answers, ()) = tokio::join!(sending, cutting);
    // Those that had not begun may have gone through on the next connection.
    assert!(answers.iter().all(|answer| answer.as_ref().is_ok_and(|sent| *sent == Sent::Routed)
        || answer.as_ref().is_err_and(TransportError::is_unavailable)));
    assert_eq!(send_one(&transport, "g").await.unwrap(), Sent::Routed);
}

#[tokio::test]
async fn a_host_that_is_down_is_passed_over() {
    let place = Place::new();
    let proxy = Proxy::start().await;
    // Bound and dropped: nobody listens there.
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let url = support::amqp_url();
    let login = url.rsplit_once('@').map_or("amqp://", |(login, _)| login);
    let separator = if login.ends_with('/') { "" } else { "@" };
    let transport = place
        .transport_at(&format!("{login}{separator}{free},127.0.0.1:{}", proxy.port()))
        .hosts(["127.0.0.1:1"]);
    let transport = support::start(transport);
    assert_eq!(send_one(&transport, "1").await.unwrap(), Sent::Unrouted);
    assert_eq!(proxy.accepted(), 1);
}

#[tokio::test]
async fn an_unreachable_broker_is_unavailable_within_the_time_limit() {
    // Accepts, and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("amqp://shop:s3cret@{}", silent.local_addr().unwrap());
    let place = Place::new();
    let transport = support::start(place.transport_at(&url).connect_timeout(Duration::from_millis(200)));
    let error = send_one(&transport, "1").await.unwrap_err();
    assert!(error.is_unavailable() && error.to_string().contains("connect_timeout"), "{error}");
    assert!(!error.to_string().contains("s3cret"));
    // What was given up is closed, not left waiting: the peer sees the end of the stream.
    let (mut peer, _) = soon(silent.accept()).await.unwrap();
    let mut bytes = Vec::new();
    soon(tokio::io::AsyncReadExt::read_to_end(&mut peer, &mut bytes)).await.unwrap();
    assert_eq!(bytes, b"AMQP\0\0\x09\x01");
}

#[tokio::test]
async fn a_wrong_password_is_told_without_showing_it() {
    let mut uri: lapin::uri::AMQPUri = support::amqp_url().parse().unwrap();
    uri.authority.userinfo.password = "s3cret".to_owned();
    let place = Place::new();
    let error = send_one(&support::start(place.transport_at(&uri.to_string())), "1").await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    let user = &uri.authority.userinfo.username;
    assert!(error.to_string().contains(&format!("check user {user:?} and its password")), "{error}");
    assert!(!error.to_string().contains("s3cret"), "{error}");
}

#[tokio::test]
async fn a_vhost_that_is_not_there_is_named() {
    let mut uri: lapin::uri::AMQPUri = support::amqp_url().parse().unwrap();
    uri.vhost = "no-such-vhost".to_owned();
    let place = Place::new();
    let error = send_one(&support::start(place.transport_at(&uri.to_string())), "1").await.unwrap_err();
    assert!(error.is_unavailable() && error.to_string().contains("vhost \"no-such-vhost\""), "{error}");
}

#[tokio::test]
async fn closing_ends_consumers_and_later_calls() {
    let place = Place::new();
    let transport = place.started();
    let mut consumer = soon(transport.consume(&place.spec("q", &["ok"], 1))).await.unwrap();
    assert_eq!(send_one(&transport, "1").await.unwrap(), Sent::Routed);
    support::receive(&mut consumer, 1).await;
    soon(transport.close()).await;
    assert!(soon(consumer.receive(1)).await.unwrap_err().is_unavailable());
    assert!(send_one(&transport, "2").await.unwrap_err().is_unavailable());
    drop(consumer);
    soon(transport.close()).await;
}

/// As a quorum queue that has lost the majority of its nodes: whoever asks for it waits.
#[tokio::test]
async fn a_queue_that_does_not_answer_fails_alone() {
    let place = Place::new();
    let proxy = Proxy::start().await;
    let transport =
        support::start(place.transport_at(&proxy.url()).confirm_timeout(Duration::from_millis(1500)));
    let (well, dead) = (place.spec("well", &["ok"], 10), place.spec("dead", &["ok"], 10));
    let mut consumer = soon(transport.consume(&well)).await.unwrap();
    assert_eq!(send_one(&transport, "1").await.unwrap(), Sent::Routed);
    proxy.swallow(&dead.group);
    let delayed = |group: &std::sync::Arc<str>| {
        let to = Destination::Group(std::sync::Arc::clone(group));
        Delayed::new(message("2", "ok", "{}"), Duration::from_millis(200), to)
    };
    for _ in 0..2 {
        let error = soon(transport.consume(&dead)).await.unwrap_err();
        assert!(error.is_unavailable(), "{error}");
        let answers = soon(transport.delay(&[delayed(&dead.group), delayed(&well.group)])).await;
        assert!(answers[0].as_ref().unwrap_err().is_unavailable(), "{answers:?}");
        answers[1].as_ref().unwrap();
        assert_eq!(send_one(&transport, "3").await.unwrap(), Sent::Routed);
    }
    support::receive(&mut consumer, 5).await;
    assert_eq!(proxy.accepted(), 2, "one connection to publish, one to consume, and neither was given up");
}

/// lapin takes each later channel of a number that the broker has closed for the closed one.
#[tokio::test]
async fn channels_closed_by_the_broker_use_up_no_connection() {
    let place = Place::new();
    let proxy = Proxy::start().await;
    // The transport would not send such a header.
    proxy.replace(b"\x02XCS", b"\x02CCS");
    let url = format!("{}?channel_max=5", proxy.url());
    let transport = support::start(place.transport_at(&url));
    let mut bystander = soon(transport.consume(&place.spec("by", &["ok"], 10))).await.unwrap();
    let missing = place.spec("missing", &["x"], 10).on_existing_queue();
    for _ in 0..20 {
        let error = soon(transport.consume(&missing)).await.unwrap_err();
        assert!(error.is_unavailable(), "{error}");
    }
    let mut late = Err(());
    for _ in 0..3 {
        late = late.or(soon(transport.consume(&place.spec("late", &["ok"], 10))).await.map_err(drop));
    }
    let poison = {
        let mut headers = message("bad", "ok", "{}").headers.clone();
        headers.insert("XC", "not a list");
        std::sync::Arc::new(cap_core::message::Message::new(headers, "{}"))
    };
    for _ in 0..20 {
        let error = soon(transport.send(std::slice::from_ref(&poison))).await.remove(0).unwrap_err();
        assert!(error.is_unavailable() || error.kind() == TransportErrorKind::Invalid, "{error}");
    }
    let mut sent = Err(());
    for _ in 0..3 {
        sent = sent.or(send_one(&transport, "good").await.map_err(drop));
    }
    assert_eq!(sent, Ok(Sent::Routed));
    support::receive(&mut late.unwrap(), 1).await;
    // Whoever has a channel keeps it.
    assert!(!support::receive(&mut bystander, 1).await[0].redelivered);
}

#[tokio::test]
async fn a_probe_tells_whether_messages_could_be_sent() {
    let place = Place::new();
    let nobody = support::start(place.transport_at("amqp://127.0.0.1:1"));
    assert!(soon(nobody.probe()).await.unwrap_err().is_unavailable());
    let proxy = Proxy::start().await;
    let transport = support::start(place.transport_at(&proxy.url()));
    for _ in 0..5 {
        soon(transport.probe()).await.unwrap();
    }
    assert_eq!(send_one(&transport, "1").await.unwrap(), Sent::Unrouted);
    soon(transport.probe()).await.unwrap();
    assert_eq!((proxy.accepted(), proxy.count_methods(20, 10)), (1, 1), "one connection, one channel");
    proxy.write_to_clients(&method(0, 10, 60, &short(b"low on memory")));
    let error = soon(async {
        loop {
            match transport.probe().await {
                Ok(()) => tokio::task::yield_now().await,
                Err(error) => break error,
            }
        }
    });
    assert!(error.await.to_string().contains("blocks publishers"));
    // The broker goes away and comes back.
    proxy.close_connections();
    soon(async {
        while proxy.accepted() == 1 || transport.probe().await.is_err() {
            drop(transport.probe().await);
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(send_one(&transport, "2").await.unwrap(), Sent::Unrouted);
    assert_eq!(proxy.accepted(), 2);
}

#[tokio::test]
async fn a_probe_needs_a_transport_that_is_open() {
    let place = Place::new();
    let transport = place.started();
    soon(transport.probe()).await.unwrap();
    soon(transport.close()).await;
    assert!(soon(transport.probe()).await.unwrap_err().is_unavailable());
}
