//! Two messages under one id: nobody can make another's message vanish. Issue 9, row 1.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what went wrong by failing")]

mod support;

use cap_core::prelude::*;
use cap_core::storage::{Reason, Status};
use cap_core::{CapBuilder, Headers};
use support::signs::Signs;
use support::{Log, alone, log, on};

fn headers(id: &str, topic: &str) -> Headers {
    [("cap-msg-id", id), ("cap-msg-name", topic)].into_iter().collect()
}

fn user(name: &str) -> Headers {
    [("user-id", name)].into_iter().collect()
}

async fn send(broker: &MemoryTransport, id: &str, body: &str) {
    broker.publish_raw("work", headers(id, "work"), user("alice"), body.to_owned()).await.unwrap();
}

/// Notes the id and the number of each message that it handles.
fn noting(builder: CapBuilder, noted: Log<(String, u32)>) -> CapBuilder {
    builder.subscribe("work", move |number: u32, id: MessageId| {
        noted.note((id.to_string(), number));
        async {}
    })
}

/// Looks again and again until it is so.
async fn until(mut is_so: impl AsyncFnMut() -> bool) {
    for _ in 0..10_000 {
        if is_so().await {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    panic!("it never was so");
}

#[tokio::test(start_paused = true)]
async fn a_conflicting_message_is_parked_and_can_be_run() {
    let signs = Signs::default();
    let (_logged, _counted) = (signs.log(), signs.count());
    let (storage, broker) = (MemoryStorage::new(), MemoryTransport::new());
    let (noted, mut seen) = log();
    let cap = noting(on(&storage, &broker), noted).start().await.unwrap();
    for body in ["1", "1", "2", "3", "2", "1", "3"] {
        send(&broker, "m", body).await;
    }
    send(&broker, "end", "9").await;
    assert_eq!(seen.take(2).await, [("m".to_owned(), 1), ("end".to_owned(), 9)]);
    let conflicts = cap.messages().parked().reason(Reason::IdConflict).list().await.unwrap();
    let bodies: Vec<&[u8]> = conflicts.iter().map(|row| &row.message.body[..]).collect();
    assert_eq!(bodies, [&b"3"[..], b"2"], "each once, however often it came");
    assert!(conflicts.iter().all(|row| row.message.id() == Some("m")), "{conflicts:?}");
    assert_eq!(signs.counter("cap_id_conflicts_total"), 2);
    // The second one is counted with the first, as all repeated errors of one kind are.
    assert_eq!(signs.lines(tracing::Level::ERROR, "was received before with another").len(), 1);
    assert!(conflicts[0].last_error.as_ref().unwrap().contains("\"m\""));
    assert_eq!(cap.messages().parked().reason(Reason::IdConflict).rerun_all().await.unwrap(), 2);
    let mut released = seen.take(2).await;
    released.sort_unstable();
    assert_eq!(released, [("m".to_owned(), 2), ("m".to_owned(), 3)]);
    send(&broker, "m", "2").await;
    send(&broker, "end", "9").await;
    cap.shutdown().await.unwrap();
    seen.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn garbage_does_not_hold_the_id_of_a_real_message() {
    let (storage, broker) = (MemoryStorage::new(), MemoryTransport::new());
    let (noted, mut seen) = log();
    let cap =
        noting(on(&storage, &broker), noted).subscribe("other", async |_: u32| {}).start().await.unwrap();
    let garbage = [
        (headers("no topic", "work"), "{"),
        ([("cap-msg-id", "no name")].into_iter().collect(), "1"),
        (headers("nobody", "nobody.wants.this"), "1"),
        (headers("odd name", &"x".repeat(300)), "1"),
    ];
    for (headers, body) in garbage.clone() {
        broker.publish_raw("work", headers, Headers::new(), body).await.unwrap();
    }
    let failed = async || {
        let rows = cap.messages().status(Status::Failed).list().await.unwrap();
        rows.len()
    };
    until(async || failed().await >= garbage.len()).await;
    for (headers, _) in &garbage {
        send(&broker, headers.get("cap-msg-id").unwrap(), "7").await;
    }
    let mut handled: Vec<String> = seen.take(garbage.len()).await.into_iter().map(|(id, _)| id).collect();
    handled.sort_unstable();
    assert_eq!(handled, ["no name", "no topic", "nobody", "odd name"]);
    assert_eq!(failed().await, garbage.len(), "the garbage stays to be looked at");
    assert_eq!(cap.messages().parked().reason(Reason::IdConflict).count().await.unwrap(), 0);
    cap.shutdown().await.unwrap();
    seen.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn ids_that_only_cap_gives_are_not_taken_from_outside() {
    let (storage, broker) = (MemoryStorage::new(), MemoryTransport::new());
    let (noted, mut seen) = log();
    let cap = noting(on(&storage, &broker), noted).start().await.unwrap();
    send(&broker, "cap-conflict:0123456789abcdef0123456789abcdef", "1").await;
    send(&broker, "end", "9").await;
    assert_eq!(seen.next().await, ("end".to_owned(), 9));
    assert_eq!(cap.messages().parked().reason(Reason::MissingHeaders).count().await.unwrap(), 1);
    cap.shutdown().await.unwrap();
    seen.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn headers_and_the_sent_time_are_not_part_of_the_identity() {
    let (storage, broker) = (MemoryStorage::new(), MemoryTransport::new());
    let (noted, mut seen) = log();
    let cap = noting(on(&storage, &broker), noted).start().await.unwrap();
    for time in ["01/01/2026 00:00:00", "01/01/2026 00:00:09"] {
        let mut headers = headers("m", "work");
        headers.insert("cap-senttime", time);
        broker.publish_raw("work", headers, Headers::new(), "1").await.unwrap();
    }
    send(&broker, "end", "9").await;
    assert_eq!(seen.take(2).await, [("m".to_owned(), 1), ("end".to_owned(), 9)]);
    assert_eq!(cap.messages().parked().count().await.unwrap(), 0);
    cap.shutdown().await.unwrap();
    seen.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn another_user_is_another_sender_where_the_option_says_so() {
    for (with_user, conflicts) in [(false, 0), (true, 2)] {
        let (storage, broker) = (MemoryStorage::new(), MemoryTransport::new());
        let (noted, mut seen) = log();
        let builder = on(&storage, &broker).configure(move |options| options.user_in_identity = with_user);
        let cap = noting(builder, noted).start().await.unwrap();
        for properties in [user("alice"), user("mallory"), Headers::new(), user("alice")] {
            broker.publish_raw("work", headers("m", "work"), properties, "1").await.unwrap();
        }
        send(&broker, "end", "9").await;
        assert_eq!(seen.take(2).await, [("m".to_owned(), 1), ("end".to_owned(), 9)]);
        assert_eq!(cap.messages().parked().reason(Reason::IdConflict).count().await.unwrap(), conflicts);
        cap.shutdown().await.unwrap();
        seen.assert_empty();
    }
}

#[tokio::test(start_paused = true)]
async fn the_name_that_a_hook_gives_is_part_of_the_identity() {
    let (noted, mut seen) = log();
    let broker = MemoryTransport::new();
    let cap = alone()
        .transport(broker.clone())
        .map_incoming(|delivery| {
            let mut headers = Headers::new();
            headers.insert("cap-msg-id", delivery.properties.get("message-id")?);
            headers.insert("cap-msg-name", delivery.properties.get("type")?);
            Some(headers)
        })
        .subscribe("#", move |number: u32, topic: Topic| {
            noted.note((topic.to_string(), number));
            async {}
        })
        .start()
        .await
        .unwrap();
    for name in ["paid", "refunded", "paid"] {
        let properties = [("message-id", "m"), ("type", name)].into_iter().collect();
        broker.publish_raw("work", Headers::new(), properties, "1").await.unwrap();
    }
    send(&broker, "end", "9").await;
    assert_eq!(seen.take(2).await, [("paid".to_owned(), 1), ("work".to_owned(), 9)]);
    until(async || cap.messages().parked().reason(Reason::IdConflict).count().await.unwrap() > 0).await;
    assert_eq!(cap.messages().parked().reason(Reason::IdConflict).count().await.unwrap(), 1);
    cap.shutdown().await.unwrap();
    seen.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn a_large_body_has_a_digest_like_any_other() {
    let (storage, broker) = (MemoryStorage::new(), MemoryTransport::new());
    let (noted, mut seen) = log();
    let cap = on(&storage, &broker)
        .subscribe("work", move |text: String| {
            noted.note(text.len());
            async {}
        })
        .start()
        .await
        .unwrap();
    let large = |letter: &str| format!("\"{}\"", letter.repeat(3 * 1024 * 1024));
    for body in [large("a"), large("b"), large("a"), large("b"), "\"end\"".to_owned()] {
        let id = if body.len() < 100 { "end" } else { "m" };
        send(&broker, id, &body).await;
    }
    assert_eq!(seen.take(2).await, [3 * 1024 * 1024, 3]);
    assert_eq!(cap.messages().parked().reason(Reason::IdConflict).count().await.unwrap(), 1);
    cap.shutdown().await.unwrap();
    seen.assert_empty();
}
