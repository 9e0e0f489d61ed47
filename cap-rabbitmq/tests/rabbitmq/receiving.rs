//! Groups: what is declared for them, and how their messages are handed out and acknowledged.

use crate::support;
use crate::support::proxy::Proxy;
use crate::support::{Place, message, receive, soon};
use cap_core::transport::{Acknowledge, Consumer, Sent, Tag, Transport};
use futures_util::FutureExt;
use lapin::ExchangeKind;
use lapin::options::{
    ExchangeDeclareOptions, ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};

fn durable() -> QueueDeclareOptions {
    QueueDeclareOptions { durable: true, ..Default::default() }
}

async fn send(transport: &impl Transport, topic: &str, count: usize) {
    let batch: Vec<_> = (0..count).map(|n| message(n.to_string(), topic, n.to_string())).collect();
    for answer in soon(transport.send(&batch)).await {
        assert_eq!(answer.unwrap(), Sent::Routed);
    }
}

#[tokio::test]
async fn wildcards_are_the_brokers_own() {
    let place = Place::new();
    let transport = place.started();
    let spec = place.spec("wild", &["a.*", "b.#", "c"], 50);
    let mut consumer = soon(transport.consume(&spec)).await.unwrap();
    let batch: Vec<_> = ["a", "a.x", "a.x.y", "b", "b.x.y", "c", "c.x"]
        .iter()
        .map(|topic| message(*topic, topic, "{}"))
        .collect();
    let answers: Result<Vec<_>, _> = soon(transport.send(&batch)).await.into_iter().collect();
    let routed: Vec<_> = answers.unwrap().iter().map(|answer| *answer == Sent::Routed).collect();
    assert_eq!(routed, [false, true, false, true, true, true, false]);
    let keys: Vec<_> = receive(&mut consumer, 4).await.into_iter().map(|got| got.routing_key).collect();
    assert_eq!(keys, ["a.x", "b", "b.x.y", "c"]);
}

#[tokio::test]
async fn no_more_is_handed_out_than_the_prefetch_allows() {
    let place = Place::new();
    let transport = place.started();
    let mut consumer = soon(transport.consume(&place.spec("pre", &["p"], 3))).await.unwrap();
    send(&transport, "p", 5).await;
    let first = receive(&mut consumer, 3).await;
    assert_eq!(first.iter().map(|got| got.body.to_vec()).collect::<Vec<_>>(), [b"0", b"1", b"2"]);
    // The broker is asked for something else on the same queue, so it has had its say on this one.
    let channel = support::plain_channel().await;
    support::until_ready(&channel, &format!("{}.pre", place.exchange), 2).await;
    assert!(consumer.receive(9).now_or_never().is_none());
    consumer.acknowledge(&[first[0].tag], Acknowledge::Accept).await.unwrap();
    assert_eq!(receive(&mut consumer, 1).await[0].body, "3");
}

#[tokio::test]
async fn as_much_as_has_gathered_is_handed_out_up_to_the_limit() {
    let place = Place::new();
    let transport = place.started();
    let mut consumer = soon(transport.consume(&place.spec("lim", &["p"], 100))).await.unwrap();
    send(&transport, "p", 10).await;
    let mut sizes = Vec::new();
    while sizes.iter().sum::<usize>() < 10 {
        let size = soon(consumer.receive(4)).await.unwrap().len();
        assert!((1..=4).contains(&size));
        sizes.push(size);
    }
}

#[tokio::test]
async fn a_dropped_receive_takes_nothing_with_it() {
    let place = Place::new();
    let transport = place.started();
    let mut consumer = soon(transport.consume(&place.spec("can", &["p"], 100))).await.unwrap();
    assert!(consumer.receive(10).now_or_never().is_none());
    send(&transport, "p", 20).await;
    let mut bodies = Vec::new();
    while bodies.len() < 20 {
        // Dropped again and again at its only wait.
        tokio::select! {
            biased;
            got = consumer.receive(3) => bodies.extend(got.unwrap().into_iter().map(|got| got.body)),
            () = tokio::task::yield_now() => {}
        }
    }
    assert_eq!(bodies, (0..20).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn acknowledgements_are_coalesced_and_hit_only_what_they_mean() {
    let place = Place::new();
    let proxy = Proxy::start().await;
    let transport = support::start(place.transport_at(&proxy.url()));
    let spec = place.spec("ack", &["p"], 100);
    let mut consumer = soon(transport.consume(&spec)).await.unwrap();
    send(&transport, "p", 50).await;
    let tags: Vec<Tag> = receive(&mut consumer, 50).await.iter().map(|got| got.tag).collect();
    // 30 at once, then two behind a gap, then those 30 again, which the broker must not learn of.
    consumer.acknowledge(&tags[..30], Acknowledge::Accept).await.unwrap();
    consumer.acknowledge(&tags[31..33], Acknowledge::Accept).await.unwrap();
    consumer.acknowledge(&tags[..30], Acknowledge::Accept).await.unwrap();
    drop(consumer);
    let mut consumer = soon(transport.consume(&spec)).await.unwrap();
    let left = receive(&mut consumer, 18).await;
    let expected: Vec<_> = (30..31).chain(33..50).map(|n| n.to_string()).collect();
    assert_eq!(left.iter().map(|got| got.body.clone()).collect::<Vec<_>>(), expected);
    assert!(left.iter().all(|got| got.redelivered));
    assert_eq!(proxy.count_methods(60, 80), 3, "one for the 30, two behind the gap");
}

#[tokio::test]
async fn what_is_requeued_comes_again() {
    let place = Place::new();
    let transport = place.started();
    let mut consumer = soon(transport.consume(&place.spec("re", &["p"], 10))).await.unwrap();
    send(&transport, "p", 3).await;
    let tags: Vec<Tag> = receive(&mut consumer, 3).await.iter().map(|got| got.tag).collect();
    consumer.acknowledge(&tags, Acknowledge::Requeue).await.unwrap();
    let again = receive(&mut consumer, 3).await;
    assert!(again.iter().all(|got| got.redelivered));
    consumer
        .acknowledge(&again.iter().map(|got| got.tag).collect::<Vec<_>>(), Acknowledge::Accept)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_dropped_consumer_gives_its_messages_back_at_once() {
    let place = Place::new();
    let transport = place.started();
    let spec = place.spec("drop", &["p"], 10);
    let mut consumer = soon(transport.consume(&spec)).await.unwrap();
    send(&transport, "p", 10).await;
    let got = receive(&mut consumer, 6).await;
    consumer.acknowledge(&[got[0].tag, got[1].tag], Acknowledge::Accept).await.unwrap();
    drop(consumer);
    support::until_ready(&support::plain_channel().await, &spec.group, 8).await;
}

#[tokio::test]
async fn a_queue_deleted_under_the_consumer_ends_it() {
    let place = Place::new();
    let transport = place.started();
    let spec = place.spec("del", &["p"], 10);
    let mut consumer = soon(transport.consume(&spec)).await.unwrap();
    send(&transport, "p", 1).await;
    let tag = receive(&mut consumer, 1).await[0].tag;
    let channel = support::plain_channel().await;
    channel.queue_delete((&*spec.group).into(), QueueDeleteOptions::default()).await.unwrap();
    for _ in 0..2 {
        let error = soon(consumer.receive(1)).await.unwrap_err();
        assert!(
            error.is_unavailable()
                && error.to_string().contains(&format!("queue {:?}: the queue was deleted", &*spec.group)),
            "{error}"
        );
    }
    consumer.acknowledge(&[tag], Acknowledge::Accept).await.unwrap();
    // The bus asks for a new one, and has its queue again.
    let mut consumer = soon(transport.consume(&spec)).await.unwrap();
    send(&transport, "p", 1).await;
    receive(&mut consumer, 1).await;
}

#[tokio::test]
async fn a_queue_that_is_there_is_joined_as_it_is() {
    let place = Place::new();
    let transport = support::start(
        cap_rabbitmq::RabbitMq::new(support::amqp_url()).exchange(&place.exchange), // quorum, no time to live
    );
    let spec = place.spec("net", &["p"], 10);
    let mut arguments = FieldTable::default();
    arguments.insert("x-message-ttl".into(), AMQPValue::LongInt(864_000_000));
    let channel = support::plain_channel().await;
    channel.queue_declare((&*spec.group).into(), durable(), arguments).await.unwrap();
    let mut consumer = soon(transport.consume(&spec)).await.unwrap();
    send(&transport, "p", 1).await;
    receive(&mut consumer, 1).await;
}

/// The broker takes a second declaration only if it says the same.
#[tokio::test]
async fn queues_are_declared_as_the_options_say() {
    let quorum = || {
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        arguments
    };
    let dotnet = || {
        let mut arguments = FieldTable::default();
        arguments.insert("x-message-ttl".into(), AMQPValue::LongInt(864_000_000));
        arguments
    };
    let with_ttl = || {
        let mut arguments = quorum();
        arguments.insert("x-message-ttl".into(), AMQPValue::LongInt(90_000));
        arguments
    };
    let place = Place::new();
    let plain = || cap_rabbitmq::RabbitMq::new(support::amqp_url()).exchange(&place.exchange);
    let ttl = std::time::Duration::from_secs(90);
    for (name, transport, arguments) in [
        ("quorum", plain(), quorum()),
        ("net", plain().dotnet_queues(), dotnet()),
        ("ttl", plain().message_ttl(ttl), with_ttl()),
    ] {
        let transport = support::start(transport);
        let spec = place.spec(name, &["p"], 10);
        let mut consumer = soon(transport.consume(&spec)).await.unwrap();
        let channel = support::plain_channel().await;
        channel.queue_declare((&*spec.group).into(), durable(), arguments).await.expect(name);
        send(&transport, "p", 1).await;
        receive(&mut consumer, 1).await;
        drop(consumer);
        channel.queue_delete((&*spec.group).into(), QueueDeleteOptions::default()).await.unwrap();
        transport.close().await;
    }
}

/// From version 4 on the broker drops what was delivered twenty times, unless it is told not to. It is version 4 here
/// by hearsay only, and takes any argument of that name.
#[tokio::test]
async fn a_broker_that_limits_deliveries_is_told_not_to() {
    let place = Place::new();
    let proxy = Proxy::start_as(Some(4)).await;
    let transport = support::start(cap_rabbitmq::RabbitMq::new(proxy.url()).exchange(&place.exchange));
    let spec = place.spec("v4", &["p"], 10);
    let consumer = soon(transport.consume(&spec)).await.unwrap();
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(-1));
    let channel = support::plain_channel().await;
    channel.queue_declare((&*spec.group).into(), durable(), arguments).await.unwrap();
    drop(consumer);
}

/// One after another, many topics over a slow link would not be bound in time.
#[tokio::test]
async fn all_topics_of_a_group_are_bound_together() {
    let place = Place::new();
    let proxy = Proxy::start().await;
    let transport = support::start(place.transport_at(&proxy.url()));
    let topics: Vec<_> = (0..100).map(|n| format!("topic.{n}")).collect();
    let topics: Vec<_> = topics.iter().map(String::as_str).collect();
    proxy.answer_together(50, 20, topics.len());
    let mut consumer = soon(transport.consume(&place.spec("q", &topics, 10))).await.unwrap();
    assert_eq!(proxy.count_methods(50, 20), topics.len());
    for topic in [topics[0], topics[99]] {
        send(&transport, topic, 1).await;
    }
    receive(&mut consumer, 2).await;
}

/// That a queue is not there is said with its name, of which the broker sends as much as fits, in bytes.
#[tokio::test]
async fn groups_whose_names_are_cut_in_the_middle_of_a_character() {
    for padding in ["", "a", "ab"] {
        let place = Place::new();
        let transport = place.started();
        let name = format!("{padding}{}", "\u{5b57}".repeat(74));
        let mut consumer = soon(transport.consume(&place.spec(&name, &["p"], 10))).await.unwrap();
        send(&transport, "p", 1).await;
        receive(&mut consumer, 1).await;
    }
}

#[tokio::test]
async fn another_version_has_another_exchange() {
    let place = Place::new();
    let channel = support::plain_channel().await;
    let transport = place.transport();
    let context = cap_core::transport::TransportContext::new("n", "v2");
    transport.start(&context).unwrap();
    let answers = soon(transport.send(&[message("1", "p", "{}")])).await;
    assert_eq!(*answers[0].as_ref().unwrap(), Sent::Unrouted);
    let exchange = format!("{}.v2", place.exchange);
    let passive = ExchangeDeclareOptions { passive: true, ..Default::default() };
    channel
        .exchange_declare(exchange.as_str().into(), ExchangeKind::Topic, passive, FieldTable::default())
        .await
        .unwrap();
    channel.exchange_delete(exchange.into(), ExchangeDeleteOptions::default()).await.unwrap();
}

/// Messages whose bodies have so many bytes, numbered from `first`.
async fn send_sized(transport: &impl Transport, first: usize, count: usize, size: usize) {
    let body = |number| format!("{number:08}{}", "x".repeat(size));
    let batch: Vec<_> =
        (first..first + count).map(|number| message(number.to_string(), "p", body(number))).collect();
    for answer in soon(transport.send(&batch)).await {
        assert_eq!(answer.unwrap(), Sent::Routed);
    }
}

fn number(got: &cap_core::transport::Incoming) -> usize {
    std::str::from_utf8(&got.body[..8]).unwrap().parse().unwrap()
}

mod prefetch {
    use super::*;

    const BYTES: usize = 1_000_000;

    #[tokio::test]
    async fn of_large_messages_is_small() {
        let place = Place::new();
        let transport = place.started();
        let spec = place.spec("large", &["p"], 100);
        let mut consumer = soon(transport.consume_within(&spec, BYTES)).await.unwrap();
        send_sized(&transport, 0, 20, 400_000).await;
        let channel = support::plain_channel().await;
        // The first may be of any size.
        support::until_ready(&channel, &format!("{}.large", place.exchange), 19).await;
        let first = soon(consumer.receive_within(100, BYTES)).await.unwrap();
        assert_eq!(first.iter().map(number).collect::<Vec<_>>(), [0]);
        // Two of them fit; those that were handed out do not count.
        support::until_ready(&channel, &format!("{}.large", place.exchange), 17).await;
        consumer.acknowledge(&[first[0].tag], Acknowledge::Accept).await.unwrap();
        let mut found = Vec::new();
        while found.len() < 19 {
            let got = soon(consumer.receive_within(100, BYTES)).await.unwrap();
            assert!(got.len() <= 2, "{}", got.len());
            found.extend(got.iter().map(number));
            let tags: Vec<Tag> = got.iter().map(|got| got.tag).collect();
            consumer.acknowledge(&tags, Acknowledge::Accept).await.unwrap();
        }
        assert_eq!(found, (1..20).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn of_small_messages_grows_to_the_configured_one() {
        let place = Place::new();
        let transport = place.started();
        let spec = place.spec("small", &["p"], 100);
        let mut consumer = soon(transport.consume_within(&spec, BYTES)).await.unwrap();
        send_sized(&transport, 0, 1000, 10).await;
        let mut found = Vec::new();
        while found.len() < 500 {
            let got = soon(consumer.receive_within(50, BYTES)).await.unwrap();
            assert!(got.iter().all(|got| !got.redelivered));
            found.extend(got.iter().map(number));
            let tags: Vec<Tag> = got.iter().map(|got| got.tag).collect();
            consumer.acknowledge(&tags, Acknowledge::Accept).await.unwrap();
        }
        assert_eq!(found, (0..found.len()).collect::<Vec<_>>());
        let channel = support::plain_channel().await;
        let left = u32::try_from(1000 - found.len() - 100).unwrap();
        support::until_ready(&channel, &format!("{}.small", place.exchange), left).await;
    }

    /// What stays unacknowledged for good must not stand in the way of what comes behind it.
    #[tokio::test]
    async fn is_not_used_up_by_what_is_left_unacknowledged() {
        let place = Place::new();
        let transport = place.started();
        let spec = place.spec("left", &["p"], 5);
        let mut consumer = soon(transport.consume_within(&spec, BYTES)).await.unwrap();
        send_sized(&transport, 0, 8, 900_000).await;
        let mut found = Vec::new();
        while found.len() < 5 {
            found.extend(soon(consumer.receive_within(1, BYTES)).await.unwrap().iter().map(number));
        }
        assert_eq!(found, [0, 1, 2, 3, 4]);
        assert!(
            tokio::time::timeout(std::time::Duration::from_millis(300), consumer.receive_within(1, BYTES))
                .await
                .is_err(),
            "the configured prefetch is the most"
        );
    }
}
