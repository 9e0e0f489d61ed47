//! Several nodes on the same tables and queues: they share the work, nothing is handled twice, and what a dead one
//! leaves another goes on with.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cap_core::prelude::*;
use cap_core::{CapBuilder, Headers};
use cap_tests::{Scene, heard, scene, until};
use lapin::BasicProperties;
use tokio::sync::{Barrier, mpsc};

/// A node that tells which messages it handles, under its own name.
fn node(scene: &Scene, name: &'static str, tell: mpsc::Sender<(&'static str, u32)>) -> CapBuilder {
    scene.builder().subscribe("work", move |number: u32| {
        let tell = tell.clone();
        async move { tell.send((name, number)).await }
    })
}

#[tokio::test]
async fn a_second_delivery_is_recognised_in_each_group() {
    scene(async |scene| {
        let (tell, mut told) = mpsc::channel(16);
        let mut builder = scene.builder();
        for group in ["a", "b"] {
            let tell = tell.clone();
            builder =
                builder.subscribe(Subscribe::to("work").group(group), move |number: u32, id: MessageId| {
                    let tell = tell.clone();
                    async move { tell.send((group, number, id.to_string())).await }
                });
        }
        scene.start(builder).await;
        let foreign = scene.foreign().await;
        for (id, body) in [("same", b"1"), ("same", b"2"), ("same", b"1"), ("same", b"2"), ("other", b"3")] {
            foreign.send_named("work", id, body).await;
        }
        let mut all = Vec::new();
        for _ in 0..4 {
            all.push(heard(&mut told).await);
        }
        all.sort();
        // The second body is another message under the same id, and waits for an operator.
        let expected = [("a", 1, "same"), ("a", 3, "other"), ("b", 1, "same"), ("b", 3, "other")];
        assert_eq!(all, expected.map(|(group, number, id)| (group, number, id.to_owned())));
        assert!(told.try_recv().is_err());
    })
    .await;
}

#[tokio::test]
async fn two_nodes_share_the_work_and_nothing_is_handled_twice() {
    scene(async |scene| {
        const ALL: u32 = 300;
        let (tell, mut told) = mpsc::channel(usize::try_from(2 * ALL).unwrap());
        // Each node's first message waits for the other's, so that neither does all the work.
        let both = Arc::new(Barrier::new(2));
        let mut nodes = Vec::new();
        for name in ["one", "two"] {
            let (tell, both) = (tell.clone(), Arc::clone(&both));
            let first = Arc::new(std::sync::atomic::AtomicBool::new(true));
            let builder = scene.builder().configure(|options| options.prefetch = 1).subscribe(
                "work",
                move |number: u32, attempt: Attempt| {
                    let (tell, both) = (tell.clone(), Arc::clone(&both));
                    let first = first.swap(false, std::sync::atomic::Ordering::SeqCst);
                    async move {
                        if first {
                            both.wait().await;
                        }
                        // Some fail once, and are claimed from the store by whichever node comes first.
                        if number.is_multiple_of(10) && attempt.0 == 1 {
                            return Err(HandlerError::failed("once").retry_after(Duration::from_millis(20)));
                        }
                        tell.send((name, number)).await.map_err(HandlerError::failed)
                    }
                },
            );
            nodes.push(scene.start(builder).await);
        }
        nodes[0].publish_all("work", 0..ALL).await.unwrap();
        let mut handled = BTreeMap::new();
        for _ in 0..ALL {
            let (name, number) = heard(&mut told).await;
            assert_eq!(handled.insert(number, name), None, "{number} was handled twice");
        }
        let by_one = handled.values().filter(|name| **name == "one").count();
        assert!(by_one > 0 && by_one < handled.len(), "one node did it all");
        for node in &nodes {
            node.shutdown().await.unwrap();
        }
        assert!(told.try_recv().is_err());
    })
    .await;
}

#[tokio::test]
async fn what_a_dead_node_leaves_another_goes_on_with() {
    scene(async |scene| {
        let lease = Duration::from_secs(1);
        let (tell, mut told) = mpsc::channel(8);
        let (begin, mut running) = mpsc::channel(8);
        let dying = scene
            .builder()
            .configure(|options| options.lease = lease)
            .subscribe("work", move |_: u32| {
                let begin = begin.clone();
                async move {
                    let _ = begin.send(()).await;
                    std::future::pending::<()>().await;
                }
            })
            .start()
            .await
            .unwrap();
        scene.note(&dying).await;
        dying.publish("work", &1).await.unwrap();
        heard(&mut running).await;
        // As after a crash: nothing is given back.
        drop(dying);
        let builder = node(scene, "heir", tell).configure(|options| options.lease = lease);
        scene.start(builder).await;
        assert_eq!(heard(&mut told).await, ("heir", 1));
    })
    .await;
}

/// A node publishes, and is gone before the message has left: another sends it.
#[tokio::test]
async fn what_a_node_could_not_send_another_sends() {
    scene(async |scene| {
        let (tell, mut told) = mpsc::channel(8);
        let nowhere = scene.transport_at("amqp://guest:guest@127.0.0.1:9");
        let stranded = scene
            .builder_on(scene.storage(), nowhere)
            .configure(|options| options.lease = Duration::from_secs(1))
            .start()
            .await
            .unwrap();
        let id = stranded.publish("work", &1).await.unwrap();
        assert!(stranded.health().await.storage.up);
        drop(stranded);
        let cap = scene.start(node(scene, "heir", tell)).await;
        assert_eq!(heard(&mut told).await, ("heir", 1));
        let row =
            until("the row is there", async || cap.messages().find(id.as_str()).await.unwrap().pop()).await;
        assert_eq!(row.attempts, 0);
    })
    .await;
}

/// Senders that cannot write the two headers: a hook maps what they do write.
#[tokio::test]
async fn a_hook_gives_headers_to_foreign_messages() {
    scene(async |scene| {
        let (tell, mut told) = mpsc::channel(8);
        let builder = scene
            .builder()
            .map_incoming(|delivery| {
                let mut given = Headers::new();
                given.insert("cap-msg-id", delivery.properties.get("message-id")?);
                given.insert("cap-msg-name", &*delivery.routing_key);
                given.insert("tenant", delivery.headers.get("X-Tenant").unwrap_or("nobody"));
                Some(given)
            })
            .subscribe("legacy.*", move |order: u32, topic: Topic, id: MessageId, headers: CapHeaders| {
                let tell = tell.clone();
                let tenant = headers.get("tenant").map(str::to_owned);
                async move { tell.send((order, topic.to_string(), id.to_string(), tenant)).await }
            });
        scene.start(builder).await;
        let foreign = scene.foreign().await;
        let properties = BasicProperties::default()
            .with_message_id("legacy-1".into())
            .with_headers(cap_tests::long_strings(&[("X-Tenant", "acme")]));
        foreign.publish("legacy.order", properties.clone(), b"7").await;
        foreign.publish("legacy.order", properties, b"8").await;
        foreign
            .publish("legacy.order", BasicProperties::default().with_message_id("legacy-2".into()), b"9")
            .await;
        let topic = || "legacy.order".to_owned();
        assert_eq!(heard(&mut told).await, (7, topic(), "legacy-1".to_owned(), Some("acme".to_owned())));
        assert_eq!(heard(&mut told).await, (9, topic(), "legacy-2".to_owned(), Some("nobody".to_owned())));
    })
    .await;
}
