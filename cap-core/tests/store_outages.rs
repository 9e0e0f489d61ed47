//! A store that fails while the bus runs: what waits, what is told at once, and what must not be done twice.
#![allow(clippy::expect_used, reason = "a test that cannot go on has failed")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use cap_core::error::StorageError;
use cap_core::error::StorageErrorKind::{Unavailable, Unusable};
use cap_core::prelude::*;
use cap_core::storage::{Status, Storage, WriteBatch};
use cap_core::{BoxFuture, CapBuilder, Completion, Delivery, Enlisted, FromDelivery};
use support::log;
use support::signs::Signs;
use support::store::{ALL, Call, Shaky};
use tokio::sync::Notify;
use tracing::Level;

const SECOND: Duration = Duration::from_secs(1);

fn on(storage: &Shaky) -> CapBuilder {
    support::on(&storage.inner, &MemoryTransport::new()).storage(storage.clone())
}

#[tokio::test(start_paused = true)]
async fn a_success_waits_until_a_person_has_mended_the_store() {
    let storage = Shaky::default();
    let (noted, mut seen) = log();
    let (ran, handled) = (noted.clone(), Arc::new(Notify::new()));
    let go_on = Arc::clone(&handled);
    let cap = on(&storage)
        .subscribe("work", move |publisher: Publisher| {
            ran.note("work");
            let go_on = Arc::clone(&go_on);
            async move {
                go_on.notified().await;
                publisher.publish("event", &()).await.map(drop)
            }
        })
        .subscribe("event", move || {
            noted.note("event");
            async {}
        })
        .start()
        .await
        .unwrap();
    let id = cap.publish("work", &()).await.unwrap();
    assert_eq!(seen.next().await, "work");
    storage.fail(&[Call::Write], Unusable);
    handled.notify_one();
    tokio::time::sleep(600 * SECOND).await;
    seen.assert_empty();
    storage.mend(&ALL);
    assert_eq!(seen.next().await, "event");
    cap.shutdown().await.unwrap();
    let row = &cap.messages().find(id.as_str()).await.unwrap()[0];
    assert_eq!((row.status, row.attempts), (Status::Succeeded, 0), "{:?}", row.last_error);
    seen.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn who_publishes_is_told_at_once_and_what_is_received_waits() {
    let signs = Signs::default();
    let _log = signs.log();
    let storage = Shaky::default();
    let transport = MemoryTransport::new();
    let (noted, mut seen) = log();
    let cap = on(&storage)
        .transport(transport.clone())
        .subscribe("work", move |n: u32| {
            noted.note(n);
            async {}
        })
        .start()
        .await
        .unwrap();
    storage.fail(&ALL, Unusable);
    let error = cap.publish("work", &1).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "a message to \"work\" could not be stored: shaky: it was told to fail",
        "the store is named once"
    );
    assert!(matches!(error, PublishError::Storage { source, .. } if source.kind() == Unusable));
    let health = cap.health().await;
    assert!(!health.storage.up, "{health:?}");
    assert_eq!(signs.lines(Level::ERROR, "operator action required").len(), 1);
    let headers: cap_core::Headers = [("cap-msg-id", "x"), ("cap-msg-name", "work")].into_iter().collect();
    transport.publish_raw("work", headers, cap_core::Headers::new(), "2").await.unwrap();
    tokio::time::sleep(600 * SECOND).await;
    seen.assert_empty();
    let error = cap.publish("work", &3).await.unwrap_err();
    assert!(matches!(error, PublishError::Storage { .. }), "also behind what waits: {error}");
    storage.mend(&ALL);
    assert_eq!(seen.next().await, 2);
    assert_eq!(signs.lines(Level::ERROR, "operator action required").len(), 1, "once");
    cap.shutdown().await.unwrap();
    seen.assert_empty();
}

/// A handler's transaction whose commit is refused for a while by a store that an operator must repair.
struct Transaction;

struct Open(Shaky);

impl FromDelivery for Transaction {
    async fn from_delivery(delivery: &Delivery) -> Result<Self, HandlerError> {
        let storage = delivery.storage().downcast_ref::<Shaky>().expect("the bus's own store");
        delivery.enlist(Box::new(Open(storage.clone()))).map_err(|_| HandlerError::permanent("two"))?;
        Ok(Self)
    }
}

impl Enlisted for Open {
    fn complete(self: Box<Self>, completion: Completion) -> BoxFuture<'static, Result<bool, StorageError>> {
        let batch =
            WriteBatch { completed_incoming: vec![completion.row_completion], ..WriteBatch::default() };
        Box::pin(async move {
            let report = self.0.write(&completion.owner, &batch).await?;
            Ok(report.completed_incoming == [true])
        })
    }

    fn abandon(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async {})
    }
}

#[tokio::test(start_paused = true)]
async fn commit_that_needs_an_operator_is_no_failed_attempt() {
    let storage = Shaky::default();
    let (noted, mut seen) = log();
    let (shaky, ran) = (storage.clone(), noted.clone());
    let cap = on(&storage)
        .subscribe("work", move |_: Transaction, Attempt(attempt): Attempt| {
            shaky.fail(&[Call::Write], Unusable);
            ran.note(attempt);
            async {}
        })
        .start()
        .await
        .unwrap();
    let id = cap.publish("work", &()).await.unwrap();
    assert_eq!(seen.next().await, 1);
    tokio::time::sleep(600 * SECOND).await;
    storage.mend(&ALL);
    assert_eq!(seen.next().await, 1, "none was counted");
    storage.mend(&ALL);
    cap.shutdown().await.unwrap();
    let row = &cap.messages().find(id.as_str()).await.unwrap()[0];
    assert_eq!(row.attempts, 0, "{:?}", row.last_error);
}

#[tokio::test(start_paused = true)]
async fn an_outage_longer_than_the_lease_starts_nothing_twice() {
    let storage = Shaky::default();
    let (noted, mut seen) = log();
    let (ended, stays_away) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (first, second) = (Arc::clone(&ended), Arc::clone(&stays_away));
    let cap = on(&storage)
        .configure(|options| options.group_concurrency = 2)
        .subscribe("work", move |n: u32, Cancelled(cancelled): Cancelled| {
            noted.note(("begun", n));
            let (noted, go_on) =
                (noted.clone(), if n == 1 { Arc::clone(&first) } else { Arc::clone(&second) });
            async move {
                go_on.notified().await;
                noted.note((if cancelled.is_cancelled() { "cancelled" } else { "done" }, n));
            }
        })
        .start()
        .await
        .unwrap();
    let ids = cap.publish_all("work", [1u32, 2]).await.unwrap();
    assert_eq!(seen.take(2).await, [("begun", 1), ("begun", 2)]);
    storage.fail(&ALL, Unavailable);
    // One ends in the middle of the outage and cannot be marked, the other after it.
    ended.notify_one();
    assert_eq!(seen.next().await, ("done", 1));
    // The next heartbeat is further off than the next try to claim.
    tokio::time::sleep(301 * SECOND).await;
    storage.mend(&[Call::Claim, Call::Renew, Call::Other]);
    tokio::time::sleep(60 * SECOND).await;
    storage.mend(&ALL);
    tokio::time::sleep(60 * SECOND).await;
    seen.assert_empty();
    stays_away.notify_one();
    assert_eq!(seen.next().await, ("done", 2));
    cap.shutdown().await.unwrap();
    for id in ids {
        for row in cap.messages().find(id.as_str()).await.unwrap() {
            assert_eq!((row.status, row.attempts), (Status::Succeeded, 0));
        }
    }
    seen.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_hides_no_taken_id() {
    let storage = Shaky::default();
    let (noted, mut seen) = log();
    let cap = on(&storage)
        .subscribe("work", move |n: u32| {
            noted.note(n);
            async {}
        })
        .start()
        .await
        .unwrap();
    cap.publish("work", &1).message_id("one").await.unwrap();
    assert_eq!(seen.next().await, 1);
    storage.lose_answers(1);
    let error = cap.publish("work", &2).message_id("one").await.unwrap_err();
    assert!(matches!(error, PublishError::DuplicateId { .. }), "{error}");
    storage.lose_answers(1);
    cap.publish("work", &3).message_id("two").await.unwrap();
    storage.lose_answers(1);
    cap.publish("work", &4).await.unwrap();
    assert_eq!(seen.take(2).await, [3, 4], "a duplicate of itself is none");
    tokio::time::sleep(600 * SECOND).await;
    cap.shutdown().await.unwrap();
    seen.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn a_full_group_has_the_store_asked_for_no_other() {
    let storage = Shaky::default();
    let (noted, mut seen) = log();
    let cap = on(&storage)
        .configure(|options| options.prefetch = 1)
        .subscribe(Subscribe::to("slow").group("slow"), move || {
            noted.note(());
            std::future::pending::<()>()
        })
        .subscribe(Subscribe::to("quick").group("quick"), async || ())
        .start()
        .await
        .unwrap();
    cap.publish_all("slow", [(); 10]).await.unwrap();
    seen.next().await;
    tokio::time::sleep(60 * SECOND).await;
    let before = storage.claims("quick.v1");
    tokio::time::sleep(600 * SECOND).await;
    let asked = storage.claims("quick.v1") - before;
    assert!(asked <= 61, "every ten seconds would do; it was asked {asked} times");
}
