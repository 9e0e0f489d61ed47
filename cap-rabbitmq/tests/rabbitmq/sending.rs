//! What became of each message of a batch.

use std::sync::Arc;

use crate::support;
use crate::support::proxy::Proxy;
use crate::support::{Place, message, soon};
use cap_core::error::{TransportError, TransportErrorKind};
use cap_core::message::{Headers, Message};
use cap_core::transport::{Sent, Transport};
use lapin::BasicProperties;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, ExchangeDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};

#[tokio::test(flavor = "multi_thread")]
async fn unrouted_messages_are_told_from_the_others() {
    let place = Place::new();
    let (_channel, _queue) = place.plain_queue("some", "ok.#").await;
    let transport = place.started();
    // Few and many, several times over and several at once, since a return comes on any confirm of its batch.
    for unroutable in
        [vec![17, 500, 998], (0..1000).step_by(2).collect(), (0..1000).skip(1).step_by(7).collect()]
    {
        let batch: Vec<_> = (0..1000)
            .map(|n| {
                message(n.to_string(), if unroutable.contains(&n) { "nobody.wants" } else { "ok.this" }, "{}")
            })
            .collect();
        let sending = futures_util::future::join_all((0..5).map(|_| transport.send(&batch)));
        for answers in soon(sending).await {
            let unrouted: Vec<_> = (0..1000).filter(|n| matches!(answers[*n], Ok(Sent::Unrouted))).collect();
            assert_eq!(unrouted, unroutable);
            assert!(answers.iter().all(Result::is_ok));
        }
    }
}

#[tokio::test]
async fn messages_of_the_same_id_are_each_answered() {
    let place = Place::new();
    let (_channel, _queue) = place.plain_queue("some", "ok").await;
    let batch = [
        message("7", "ok", "a"),
        message("7", "nobody", "a"),
        message("7", "nobody", "b"),
        message("7", "ok", "a"),
        message("7", "nobody", "a"),
    ];
    let answers: Result<Vec<_>, _> = soon(place.started().send(&batch)).await.into_iter().collect();
    assert_eq!(
        answers.unwrap(),
        [Sent::Routed, Sent::Unrouted, Sent::Unrouted, Sent::Routed, Sent::Unrouted]
    );
}

#[tokio::test]
async fn an_empty_batch_needs_no_broker() {
    let transport = support::start(Place::new().transport_at("amqp://127.0.0.1:1"));
    assert!(transport.send(&[]).await.is_empty());
}

/// The broker answers each of these with the end of the channel or of the connection; the others must not suffer.
#[tokio::test]
async fn what_cannot_be_sent_is_refused_alone() {
    let place = Place::new();
    let (channel, queue) = place.plain_queue("some", "ok").await;
    let with = |id: &str, name: String, value: String| {
        let mut headers = Headers::new();
        headers.insert("cap-msg-id", id);
        headers.insert("cap-msg-name", "ok");
        headers.insert(name, value);
        Arc::new(Message::new(headers, "{}"))
    };
    let batch = [
        message("1", "ok", "{}"),
        with("2", "x".repeat(256), String::new()),
        with("3", "much".to_owned(), "x".repeat(140_000)),
        message("4", "ok", "{}"),
        with("5", "much".to_owned(), "x".repeat(120_000)),
    ];
    let transport = place.started();
    let answers = soon(transport.send(&batch)).await;
    let kinds: Vec<_> = answers.iter().map(|answer| answer.as_ref().map_err(TransportError::kind)).collect();
    let invalid = Err(TransportErrorKind::Invalid);
    assert_eq!(kinds, [Ok(&Sent::Routed), invalid, invalid, Ok(&Sent::Routed), Ok(&Sent::Routed)]);
    assert!(answers[1].as_ref().unwrap_err().to_string().contains("256 bytes"), "{answers:?}");
    assert!(answers[2].as_ref().unwrap_err().to_string().contains("headers of message \"3\""), "{answers:?}");
    assert_eq!(support::ready(&channel, &queue).await, 3);
}

/// RabbitMQ closes the channel over a header CC that is not a list, somewhere in the middle of a batch. The transport
/// would not send one, so it goes by another name until it is on the wire.
#[tokio::test(flavor = "multi_thread")]
async fn the_one_that_the_broker_closes_the_channel_for_is_found() {
    let place = Place::new();
    let (_channel, _queue) = place.plain_queue("some", "ok").await;
    let culprits = [40, 41, 170];
    let batch: Vec<_> = (0..200)
        .map(|n| {
            let mut headers = Headers::new();
            headers.insert("cap-msg-id", n.to_string());
            headers.insert("cap-msg-name", if n == 100 { "nobody" } else { "ok" });
            if culprits.contains(&n) {
                headers.insert("XC", "not a list");
            }
            Arc::new(Message::new(headers, vec![0; 10_000]))
        })
        .collect();
    let proxy = Proxy::start().await;
    proxy.replace(b"\x02XCS", b"\x02CCS");
    let transport = support::start(place.transport_at(&proxy.url()));
    let answers = soon(transport.send(&batch)).await;
    for (n, answer) in answers.iter().enumerate() {
        match answer {
            Err(error) => {
                assert!(culprits.contains(&n), "{n}: {error}");
                assert_eq!(error.kind(), TransportErrorKind::Invalid, "{error}");
            }
            Ok(Sent::Unrouted) => assert_eq!(n, 100),
            Ok(Sent::Routed) => assert!(n != 100 && !culprits.contains(&n), "{n}"),
        }
    }
    // The transport goes on as if nothing had been.
    let answers = soon(transport.send(&[message("after", "ok", "{}")])).await;
    assert_eq!(*answers[0].as_ref().unwrap(), Sent::Routed);
}

/// Issue 8, row 14: `check_message` knows exactly which headers this broker closes a channel over.
#[tokio::test]
async fn headers_that_the_broker_refuses_are_known_beforehand() {
    let place = Place::new();
    let (_channel, queue) = place.plain_queue("some", "ok").await;
    let transport = place.started();
    let connection = support::plain_connection().await;
    let names = [
        "CC",
        "BCC",
        "cc",
        "Cc",
        "cC",
        "bcc",
        "Bcc",
        "bCC",
        "CC ",
        "x-death",
        "x-delay",
        "x-match",
        "x-delivery-count",
        "x-stream-offset",
        "expiration",
        "user-id",
        "priority",
    ];
    for name in names {
        for value in [Some("text"), Some(""), None] {
            let mut headers = message("1", "ok", "").headers.clone();
            headers.set(name, value.map(str::to_owned));
            let known = transport.check_message(&Message::new(headers, "")).map_err(|error| error.kind());
            let value = value.map_or(AMQPValue::Void, |value| AMQPValue::LongString(value.into()));
            let mut table = FieldTable::default();
            table.insert(name.into(), value);
            let channel = connection.create_channel().await.unwrap();
            channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
            let properties = BasicProperties::default().with_headers(table);
            let sent = channel
                .basic_publish(
                    "".into(),
                    queue.as_str().into(),
                    BasicPublishOptions::default(),
                    b"",
                    properties,
                )
                .await
                .unwrap()
                .await;
            match known {
                Ok(()) => assert!(sent.is_ok(), "{name}: {sent:?}"),
                Err(kind) => {
                    assert!(kind == TransportErrorKind::Invalid && sent.is_err(), "{name}: {sent:?}");
                }
            }
        }
    }
}

/// Issue 8, row 14: what is refused beforehand is refused when it is sent, and what is accepted fits, to the byte.
#[tokio::test]
async fn what_is_checked_beforehand_agrees_with_what_is_sent() {
    let place = Place::new();
    let (_channel, _queue) = place.plain_queue("some", "ok").await;
    let transport = place.started();
    let with = |name: &str, value: &str| {
        let mut headers = message("1", "ok", "").headers.clone();
        headers.insert(name.to_owned(), value);
        Arc::new(Message::new(headers, "{}"))
    };
    let mut fits = 120_000;
    while transport.check_message(&with("much", &"x".repeat(fits + 1))).is_ok() {
        fits += 1;
    }
    let long = "ü".repeat(128);
    for (message, accepted) in [
        (with("much", &"x".repeat(fits)), true),
        (with("much", &"x".repeat(fits + 1)), false),
        (with("much", &"x".repeat(200_000)), false),
        (with(&long[..254], ""), true),
        (with(&long, ""), false),
        (with("cap-exception", &"x".repeat(200_000)), true),
        (message("i".repeat(255), "ok", ""), true),
        (message("i".repeat(256), "ok", ""), false),
        (message("1", &"t".repeat(256), ""), false),
        (message("", "ok", ""), false),
    ] {
        let checked = transport.check_message(&message);
        assert_eq!(checked.is_ok(), accepted, "{checked:?}");
        let sent = soon(transport.send(&[message])).await.remove(0);
        assert_eq!(
            sent.as_ref().map_err(TransportError::kind).err(),
            checked.err().map(|error| error.kind())
        );
    }
}

/// 128 MiB is the default of `max_message_size`.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_above_the_brokers_limit_is_refused_alone() {
    let place = Place::new();
    let (_channel, _queue) = place.plain_queue("some", "ok").await;
    let transport = place.started();
    let batch =
        [message("1", "ok", "{}"), message("2", "ok", vec![0; 129 * 1024 * 1024]), message("3", "ok", "{}")];
    let answers = soon(transport.send(&batch)).await;
    let kinds: Vec<_> = answers.iter().map(|answer| answer.as_ref().map_err(TransportError::kind)).collect();
    assert_eq!(
        kinds,
        [Ok(&Sent::Routed), Err(TransportErrorKind::Invalid), Ok(&Sent::Routed)],
        "{answers:?}"
    );
}

#[tokio::test]
async fn an_exchange_deleted_under_the_bus_is_declared_anew() {
    let place = Place::new();
    let (channel, _queue) = place.plain_queue("some", "ok").await;
    let transport = place.started();
    let batch = [message("1", "ok", "{}")];
    assert_eq!(*soon(transport.send(&batch)).await[0].as_ref().unwrap(), Sent::Routed);
    channel.exchange_delete(place.exchange.as_str().into(), ExchangeDeleteOptions::default()).await.unwrap();
    let error = soon(transport.send(&batch)).await.remove(0).unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    assert_eq!(*soon(transport.send(&batch)).await[0].as_ref().unwrap(), Sent::Unrouted);
}
