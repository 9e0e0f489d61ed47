//! Outcomes that the storage does not take: which message is at fault, what waits, and what is recorded (issue 8, row 4).
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

mod support;

use std::time::Duration;

use cap_core::error::StorageErrorKind::{Refused, Unavailable};
use cap_core::monitor::Row;
use cap_core::prelude::*;
use cap_core::storage::{Reason, RowOutcome, Status, WriteBatch};
use support::log;
use support::store::{Call, Shaky};

const SECOND: Duration = Duration::from_secs(1);

/// A bus whose handler fails for odd numbers, each with an error of its own.
async fn half_failing(storage: &Shaky) -> (Cap, support::Seen<u32>) {
    let (noted, seen) = log();
    let cap = support::on(&storage.inner, &MemoryTransport::new())
        .storage(storage.clone())
        .configure(|options| options.group_concurrency = 16)
        .subscribe(Subscribe::to("work").retry(RetryPolicy::fixed(600 * SECOND, 50)), move |n: u32| {
            noted.note(n);
            async move { if n % 2 == 1 { Err(format!("own error of {n}: \u{e9}")) } else { Ok(()) } }
        })
        .start()
        .await
        .unwrap();
    (cap, seen)
}

/// Whether the storage is asked to record a failed attempt.
fn records_a_failure(batch: &WriteBatch) -> bool {
    batch
        .completed_incoming
        .iter()
        .any(|one| matches!(one.outcome, RowOutcome::Retry { .. } | RowOutcome::Failed { .. }))
}

async fn row(cap: &Cap, id: &MessageId) -> Row {
    cap.messages().find(id.as_str()).await.unwrap().remove(0)
}

async fn until(cap: &Cap, id: &MessageId, what: impl Fn(&Row) -> bool) -> Row {
    let wait = async {
        loop {
            let row = row(cap, id).await;
            if what(&row) {
                return row;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(600 * SECOND, wait).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn outage_of_some_outcomes_holds_up_no_others() {
    let storage = Shaky::default();
    let (cap, mut seen) = half_failing(&storage).await;
    storage.fail_when(Unavailable, records_a_failure);
    let ids = cap.publish_all("work", 0..20_u32).await.unwrap();
    seen.take(20).await;
    for id in ids.iter().step_by(2) {
        until(&cap, id, |row| row.status == Status::Succeeded).await;
    }
    // Long enough for whoever would lose patience.
    tokio::time::sleep(600 * SECOND).await;
    for id in ids.iter().skip(1).step_by(2) {
        let row = row(&cap, id).await;
        assert_eq!((row.status, row.attempts), (Status::Scheduled, 0), "{:?}", row.last_error);
    }
    let health = cap.health().await;
    assert!(health.storage.up, "others are written: {:?}", health.storage);
    storage.mend(&[Call::Write]);
    for (n, id) in ids.iter().enumerate().skip(1).step_by(2) {
        let row = until(&cap, id, |row| row.status == Status::Retrying).await;
        assert_eq!(row.attempts, 1);
        assert!(row.last_error.unwrap().contains(&format!("own error of {n}:")));
    }
    seen.assert_empty();
    cap.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn rejected_alone_is_no_fault_while_nothing_is_written() {
    let storage = Shaky::default();
    let (cap, mut seen) = half_failing(&storage).await;
    storage.fail_when(Refused, |batch| {
        batch.completed_incoming.iter().any(|one| matches!(one.outcome, RowOutcome::Retry { .. }))
    });
    storage.fail(&[Call::Renew], Unavailable);
    let id = cap.publish("work", &1).await.unwrap();
    assert_eq!(seen.next().await, 1);
    // Not before: what comes in this process is claimed.
    storage.fail(&[Call::Claim], Unavailable);
    // Less than a lease: nobody else takes it.
    tokio::time::sleep(20 * SECOND).await;
    let before = row(&cap, &id).await;
    assert_eq!((before.status, before.attempts), (Status::Scheduled, 0), "{:?}", before.last_error);
    storage.mend(&[Call::Write, Call::Renew, Call::Claim]);
    let row = until(&cap, &id, |row| row.status == Status::Retrying).await;
    assert_eq!(row.attempts, 1);
    cap.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn rejected_error_text_is_stored_escaped() {
    let storage = Shaky::default();
    let (cap, mut seen) = half_failing(&storage).await;
    storage.fail_when(Refused, |batch| {
        let text = |outcome: &RowOutcome| match outcome {
            RowOutcome::Retry { error, .. } | RowOutcome::Failed { error, .. } => Some(error.clone()),
            _ => None,
        };
        batch.completed_incoming.iter().filter_map(|one| text(&one.outcome)).any(|text| !text.is_ascii())
    });
    let id = cap.publish("work", &1).await.unwrap();
    assert_eq!(seen.next().await, 1);
    let row = until(&cap, &id, |row| row.status != Status::Scheduled).await;
    assert_eq!((row.status, row.attempts), (Status::Retrying, 1), "it keeps its other attempts");
    assert_eq!(row.last_error.unwrap(), "own error of 1: \\u{e9}");
    cap.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn rejected_outcome_keeps_the_handlers_own_error() {
    let storage = Shaky::default();
    let (cap, mut seen) = half_failing(&storage).await;
    storage.fail_when(Refused, |batch| {
        batch.completed_incoming.iter().any(|one| matches!(one.outcome, RowOutcome::Retry { .. }))
    });
    let id = cap.publish("work", &1).await.unwrap();
    assert_eq!(seen.next().await, 1);
    let row = until(&cap, &id, |row| row.status == Status::Failed).await;
    assert_eq!(row.reason, Some(Reason::Permanent));
    let error = row.last_error.unwrap();
    assert!(error.starts_with("own error of 1:"), "{error}");
    assert!(error.contains("could not be stored: shaky: it does not take this batch"), "{error}");
    cap.shutdown().await.unwrap();
}

/// Issue 8, row 3.
#[tokio::test(start_paused = true)]
async fn health_is_down_while_only_reads_succeed() {
    let storage = Shaky::default();
    let (cap, _seen) = half_failing(&storage).await;
    assert!(cap.health().await.storage.up);
    storage.fail(&[Call::Write, Call::Renew, Call::Claim], Unavailable);
    let publish = cap.publish("work", &2).await;
    assert!(publish.is_err(), "within publish_timeout");
    for _ in 0..3 {
        let health = cap.health().await;
        assert!(!health.storage.up, "{health:?}");
    }
    storage.mend(&[Call::Write, Call::Renew, Call::Claim]);
    cap.publish("work", &2).await.unwrap();
    assert!(cap.health().await.storage.up);
    cap.shutdown().await.unwrap();
}
