//! What RabbitMQ keeps for a retry, and what somebody who may write to a group's queue can do with it. Issue 9, rows 10 and
//! 14.

use std::time::{Duration, SystemTime};

use cap_core::monitor::Row;
use cap_core::prelude::*;
use cap_core::storage::Status;
use cap_tests::{Foreign, Log, Scene, heard, long_strings, scene, until};
use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldArray, FieldTable};
use tokio::sync::mpsc;

/// Long enough to see that something waits, short enough to wait for.
const SHORT: Duration = Duration::from_millis(400);
const LONG: Duration = Duration::from_secs(600);

type Heard = mpsc::Receiver<(&'static str, u32, Vec<u8>)>;

/// A bus with two groups whose handlers of `call` fail once and then wait at the broker; each reports its attempts and the
/// body that it saw. Messages of the topic `good` succeed, in the group `a`.
async fn two_groups(scene: &Scene, pause: Duration) -> (Cap, Heard) {
    let (tell, told) = mpsc::channel(16);
    let mut builder = scene.builder();
    for group in ["a", "b"] {
        scene.waits_at_broker(group, pause);
        let tell = tell.clone();
        let subscribe = Subscribe::to("call").group(group).retry(RetryPolicy::broker([pause]));
        builder = builder.subscribe(subscribe, move |attempt: Attempt, body: RawBody| {
            let tell = tell.clone();
            async move {
                tell.send((group, attempt.0, body.0.to_vec())).await.unwrap();
                if attempt.0 == 1 { Err("nobody answers") } else { Ok(()) }
            }
        });
    }
    let builder = builder.subscribe(Subscribe::to("good").group("a"), move |body: RawBody| {
        let tell = tell.clone();
        async move { tell.send(("good", 1, body.0.to_vec())).await.unwrap() }
    });
    (scene.start(builder).await, told)
}

/// The rows of both groups once they wait for the broker.
async fn waiting(cap: &Cap) -> Vec<Row> {
    until("the messages wait", async || {
        let rows = cap.messages().status(Status::Retrying).list().await.unwrap();
        (rows.len() == 2 && rows.iter().all(|row| row.owner.is_none())).then_some(rows)
    })
    .await
}

/// What a copy that is taken would change.
fn state(row: &Row) -> (i64, Status, u32, Option<SystemTime>, bool) {
    (row.id, row.status, row.attempts, row.due, row.owner.is_some())
}

/// The headers of a copy, as they lie in the queue, without those of the broker's own.
fn headers(copy: &Delivery) -> Vec<(String, String)> {
    let table = copy.properties.headers().as_ref().unwrap().inner();
    let text = |value: &AMQPValue| value.as_long_string().unwrap().to_string();
    table.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}

/// Headers of strings, and an `x-death` that says that the message has waited in the delay queue of a group.
fn dead_of(scene: &Scene, group: &str, headers: &[(String, String)]) -> BasicProperties {
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (&**name, &**value)).collect();
    let mut table = long_strings(&headers);
    let mut death = FieldTable::default();
    death.insert("reason".into(), AMQPValue::LongString("expired".into()));
    death.insert("queue".into(), AMQPValue::LongString(scene.delay_queue(group, LONG).into()));
    death.insert("count".into(), AMQPValue::LongLongInt(1));
    table.insert(
        "x-death".into(),
        AMQPValue::FieldArray(FieldArray::from(vec![AMQPValue::FieldTable(death)])),
    );
    BasicProperties::default().with_headers(table)
}

fn changed(copy: &[(String, String)], name: &str, value: &str) -> Vec<(String, String)> {
    let mut headers = copy.to_vec();
    headers.retain(|(of, _)| of != name);
    headers.push((name.to_owned(), value.to_owned()));
    headers
}

/// Takes the only copy out of a group's delay queue.
async fn copy_of(scene: &Scene, foreign: &Foreign, group: &str) -> Delivery {
    foreign.consume(&scene.delay_queue(group, LONG)).await.next().await
}

#[tokio::test]
async fn a_copy_has_five_headers_of_ours_and_no_body() {
    scene(async |scene| {
        let (log, _guard) = Log::here();
        let (cap, mut told) = two_groups(scene, LONG).await;
        let foreign = scene.foreign().await;
        let mut table = long_strings(&[("cap-msg-id", "m-1"), ("cap-msg-name", "call"), ("tenant", "acme")]);
        // RabbitMQ takes it as a list only, and closes the channel over the text that it becomes on receipt.
        table.insert("CC".into(), AMQPValue::FieldArray(FieldArray::default()));
        foreign.publish("call", BasicProperties::default().with_headers(table), b"{}").await;
        assert_eq!([heard(&mut told).await.1, heard(&mut told).await.1], [1, 1]);
        let rows = waiting(&cap).await;
        for group in ["a", "b"] {
            let copy = copy_of(scene, &foreign, group).await;
            let row = rows.iter().find(|row| *row.group == *scene.queue(group)).unwrap();
            assert_eq!(row.message.headers.get("CC"), Some("[]"), "the row has all of it");
            let mut headers = headers(&copy);
            headers.sort();
            let names: Vec<&str> = headers.iter().map(|(name, _)| &**name).collect();
            assert_eq!(names, ["cap-msg-group", "cap-msg-id", "cap-msg-name", "cap-retry", "cap-retry-mac"]);
            // An earlier version knows the row by the first, the fourth, and the way that the copy came.
            assert_eq!(headers[0].1, scene.queue(group));
            assert_eq!(headers[3].1, format!("{}:1", row.id));
            assert_eq!(copy.data, b"");
        }
        let troubles = log.lines(&[" WARN ", " ERROR "]);
        assert!(troubles.iter().all(|line| line.contains("handler failed")), "{troubles:?}");
    })
    .await;
}

#[tokio::test]
async fn a_message_with_a_header_cc_is_retried_by_the_broker() {
    scene(async |scene| {
        let (log, _guard) = Log::here();
        let (_cap, mut told) = two_groups(scene, SHORT).await;
        let foreign = scene.foreign().await;
        let mut table = long_strings(&[("cap-msg-id", "m-1"), ("cap-msg-name", "call")]);
        table.insert("CC".into(), AMQPValue::FieldArray(FieldArray::default()));
        foreign.publish("call", BasicProperties::default().with_headers(table), b"{\"n\":1}").await;
        let mut seen = Vec::new();
        for _ in 0..4 {
            seen.push(heard(&mut told).await);
        }
        seen.sort();
        let body = b"{\"n\":1}".to_vec();
        let expected = [("a", 1), ("a", 2), ("b", 1), ("b", 2)].map(|(group, n)| (group, n, body.clone()));
        assert_eq!(seen, expected, "the body is the row's");
        let troubles = log.lines(&[" WARN ", " ERROR "]);
        assert!(troubles.iter().all(|line| line.contains("handler failed")), "{troubles:?}");
    })
    .await;
}

#[tokio::test]
async fn forged_copies_change_nothing_and_leave_a_trace() {
    scene(async |scene| {
        let (log, _guard) = Log::here();
        let (cap, mut told) = two_groups(scene, LONG).await;
        let foreign = scene.foreign().await;
        foreign.send_named("call", "m-1", b"{}").await;
        assert_eq!([heard(&mut told).await.1, heard(&mut told).await.1], [1, 1]);
        let before = waiting(&cap).await;
        let (a, b) = (copy_of(scene, &foreign, "a").await, copy_of(scene, &foreign, "b").await);
        let (a, b) = (headers(&a), headers(&b));
        let value = |copy: &[(String, String)], name: &str| {
            copy.iter().find(|(of, _)| of == name).map(|(_, value)| value.clone()).unwrap()
        };
        let without_proof: Vec<_> = a.iter().filter(|(name, _)| name != "cap-retry-mac").cloned().collect();
        let next_epoch = value(&a, "cap-retry").replace(":1", ":2");
        let forged = [
            changed(&a, "cap-retry-mac", &"0".repeat(32)),
            changed(&a, "cap-retry-mac", ""),
            changed(&a, "cap-retry", &next_epoch),
            changed(&a, "cap-retry", &value(&b, "cap-retry")),
            changed(&a, "cap-retry-mac", &value(&b, "cap-retry-mac")),
            changed(&b, "cap-msg-group", &scene.queue("a")),
            b.clone(),
            // As an earlier version would have made it.
            without_proof,
        ];
        let queue = scene.queue("a");
        for headers in &forged {
            foreign.publish_to_queue(&queue, dead_of(scene, "a", headers), b"{\"forged\":1}").await;
        }
        foreign.send_named("good", "m-2", b"1").await;
        assert_eq!(heard(&mut told).await.0, "good", "they are through");
        let after = waiting(&cap).await;
        assert_eq!(after.iter().map(state).collect::<Vec<_>>(), before.iter().map(state).collect::<Vec<_>>());
        let rows = cap.messages().list().await.unwrap();
        assert_eq!(rows.len(), 3, "none of them was stored");
        let lines = log.lines(&["retry copy dropped"]);
        assert_eq!(lines.len(), 2, "one for each reason, however many came: {lines:?}");
        assert!(lines.iter().all(|line| line.contains(" WARN ")), "{lines:?}");

        // The right one is taken, however it comes; and once only.
        let table: Vec<(&str, &str)> = a.iter().map(|(name, value)| (&**name, &**value)).collect();
        let right = BasicProperties::default().with_headers(long_strings(&table));
        for id in ["m-3", "m-4"] {
            foreign.publish_to_queue(&queue, right.clone(), b"").await;
            foreign.send_named("good", id, b"1").await;
        }
        let mut seen = [heard(&mut told).await, heard(&mut told).await, heard(&mut told).await];
        seen.sort();
        assert_eq!(seen[0], ("a", 2, b"{}".to_vec()), "with the body of its row");
        assert_eq!((seen[1].0, seen[2].0), ("good", "good"));
        assert_eq!(log.lines(&["retry copy dropped"]).len(), 2, "one that comes too late is nobody's fault");
    })
    .await;
}

#[tokio::test]
async fn a_queue_of_somebody_else_keeps_its_retries_in_the_storage() {
    scene(async |scene| {
        let foreign = scene.foreign().await;
        foreign.dotnet_queue(&scene.queue("a"), "call").await;
        let (_cap, mut told) = two_groups(scene, SHORT).await;
        foreign.send_named("call", "m-1", b"{}").await;
        let mut seen = Vec::new();
        for _ in 0..4 {
            let (group, attempt, _) = heard(&mut told).await;
            seen.push((group, attempt));
        }
        seen.sort_unstable();
        assert_eq!(seen, [("a", 1), ("a", 2), ("b", 1), ("b", 2)]);
        assert!(
            !foreign.has_queue(&scene.delay_queue("a", SHORT)).await,
            "a member of it may be a .NET service"
        );
        assert!(foreign.has_queue(&scene.delay_queue("b", SHORT)).await, "that one is ours");
    })
    .await;
}
