//! Messages that were committed late, or whose storage has not answered: they leave without waiting for a lease
//! (issue 8, row 12).
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::time::Duration;

use cap_core::error::{StorageError, StorageErrorKind::Unavailable};
use cap_core::prelude::*;
use cap_core::storage::{ClaimRequest, NewOutgoing, Owner, Side, Storage, Stored, WriteBatch};
use cap_core::{AfterCommit, CapBuilder, Within};
use support::store::{ALL, Call, Shaky};
use support::{Seen, log};
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);

/// A transaction whose rows are inserted as they are published. In the memory they can be seen at once, so that
/// another node can claim them before the commit, when this lease is over.
struct Transaction {
    after_commit: AfterCommit,
    lease: Duration,
}

impl Within<Shaky> for Transaction {
    async fn store(
        &mut self,
        storage: &Shaky,
        owner: &Owner,
        messages: &[NewOutgoing],
    ) -> Result<Vec<Stored>, StorageError> {
        let owner = Owner { lease: self.lease, ..owner.clone() };
        let batch = WriteBatch { outgoing: messages.to_vec(), ..WriteBatch::default() };
        Ok(storage.write(&owner, &batch).await?.outgoing)
    }

    fn after_commit(&mut self) -> Option<&mut AfterCommit> {
        Some(&mut self.after_commit)
    }
}

/// A bus with the default lease of 30 seconds, whose polls are too far apart to help.
fn listening(storage: &Shaky, transport: &MemoryTransport) -> (CapBuilder, Seen<u32>) {
    let (noted, seen) = log();
    let builder = support::on(&storage.inner, transport)
        .storage(storage.clone())
        .configure(|options| {
            options.poll_interval = 3600 * SECOND;
            options.publish_timeout = 60 * SECOND;
        })
        .subscribe("work", move |n: u32| {
            noted.note(n);
            async {}
        });
    (builder, seen)
}

async fn started() -> (Cap, Shaky, MemoryTransport, Seen<u32>) {
    let (storage, transport) = (Shaky::default(), MemoryTransport::new());
    let (builder, seen) = listening(&storage, &transport);
    (builder.start().await.unwrap(), storage, transport, seen)
}

#[tokio::test(start_paused = true)]
async fn long_transaction_leaves_at_its_commit() {
    let (cap, _, _, mut seen) = started().await;
    for (n, open) in [(1u32, 14), (2, 16), (3, 29)] {
        let mut transaction = Transaction { after_commit: cap.after_commit(), lease: cap.options().lease };
        cap.publish("work", &n).within(&mut transaction).await.unwrap();
        tokio::time::sleep(open * SECOND).await;
        let committed = Instant::now();
        transaction.after_commit.committed();
        assert_eq!(seen.next().await, n);
        assert!(committed.elapsed() < SECOND, "{n}: {:?}", committed.elapsed());
    }
    cap.shutdown().await.unwrap();
    seen.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn late_commit_respects_another_node() {
    let (cap, storage, _, mut seen) = started().await;
    let mut transaction = Transaction { after_commit: cap.after_commit(), lease: 10 * SECOND };
    cap.publish("work", &1u32).within(&mut transaction).await.unwrap();
    cap.publish("work", &2u32).within(&mut transaction).await.unwrap();
    tokio::time::sleep(11 * SECOND).await;
    let other = Owner { node: "other".into(), version: "v1".into(), lease: 3600 * SECOND };
    let request = ClaimRequest::new(Side::Outbox, Vec::new(), 1);
    let claimed = storage.inner.claim(&other, &request).await.unwrap().rows;
    assert_eq!(claimed.len(), 1);
    // Within the lease as this node knows it: it renews, and hears that one of them is another's.
    tokio::time::sleep(5 * SECOND).await;
    transaction.after_commit.committed();
    assert_eq!(seen.next().await, 2);
    tokio::time::sleep(60 * SECOND).await;
    seen.assert_empty();
    cap.shutdown().await.unwrap();
    let row = storage.inner.claim(&other, &request).await.unwrap().rows;
    assert!(row.is_empty(), "nor has it released it");
}

#[tokio::test(start_paused = true)]
async fn what_an_outage_has_held_up_leaves_when_it_is_over() {
    for outage in [20, 40] {
        let (cap, storage, _, mut seen) = started().await;
        storage.fail(&ALL, Unavailable);
        let publish = tokio::spawn(cap.publish("work", &1u32).into_future());
        tokio::time::sleep(Duration::from_secs(outage)).await;
        storage.mend(&ALL);
        let over = Instant::now();
        publish.await.unwrap().unwrap();
        assert_eq!(seen.next().await, 1);
        // The next try is at most five seconds off.
        assert!(over.elapsed() < 6 * SECOND, "{:?}", over.elapsed());
        cap.shutdown().await.unwrap();
        seen.assert_empty();
    }
}

#[tokio::test(start_paused = true)]
async fn received_row_is_handled_after_a_lost_answer() {
    for outage in [1, 20, 40] {
        let (cap, storage, transport, mut seen) = started().await;
        storage.lose_answers(1);
        let headers: cap_core::Headers =
            [("cap-msg-id", "x"), ("cap-msg-name", "work")].into_iter().collect();
        transport.publish_raw("work", headers, cap_core::Headers::new(), "7").await.unwrap();
        until_lost(&storage).await;
        storage.fail(&[Call::Write], Unavailable);
        tokio::time::sleep(Duration::from_secs(outage)).await;
        storage.mend(&ALL);
        let over = Instant::now();
        assert_eq!(seen.next().await, 7);
        assert!(over.elapsed() < 6 * SECOND, "{:?}", over.elapsed());
        cap.shutdown().await.unwrap();
        seen.assert_empty();
    }
}

/// Waits until the answer was lost.
async fn until_lost(storage: &Shaky) {
    while storage.answers_to_lose() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn stored_message_leaves_though_nobody_waits_for_its_id() {
    let (cap, storage, _, mut seen) = started().await;
    storage.lose_answers(1);
    let publish = tokio::spawn(cap.publish("work", &1u32).into_future());
    until_lost(&storage).await;
    publish.abort();
    let lost = Instant::now();
    assert_eq!(seen.next().await, 1);
    assert!(lost.elapsed() < 6 * SECOND, "{:?}", lost.elapsed());
    cap.shutdown().await.unwrap();
    seen.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn what_a_handler_published_leaves_after_a_lost_answer() {
    let (storage, transport) = (Shaky::default(), MemoryTransport::new());
    let (builder, mut seen) = listening(&storage, &transport);
    let shaky = storage.clone();
    let cap = builder
        .subscribe("first", move |publisher: Publisher| {
            shaky.lose_answers(1);
            async move { publisher.publish("work", &3u32).await.map(drop) }
        })
        .start()
        .await
        .unwrap();
    cap.publish("first", &()).await.unwrap();
    let begun = Instant::now();
    assert_eq!(seen.next().await, 3);
    assert!(begun.elapsed() < 6 * SECOND, "{:?}", begun.elapsed());
    cap.shutdown().await.unwrap();
    seen.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn unanswered_commit_is_looked_for() {
    let (cap, _, _, mut seen) = started().await;
    let mut transaction = Transaction { after_commit: cap.after_commit(), lease: cap.options().lease };
    cap.publish("work", &1u32).within(&mut transaction).await.unwrap();
    transaction.after_commit.committing();
    let dropped = Instant::now();
    drop(transaction);
    assert_eq!(seen.next().await, 1);
    assert!(dropped.elapsed() < SECOND, "{:?}", dropped.elapsed());
    // A rollback is no commit, and a commit that was refused is none either.
    for is_refused in [false, true] {
        let mut transaction = Transaction { after_commit: cap.after_commit(), lease: cap.options().lease };
        cap.publish("work", &2u32).within(&mut transaction).await.unwrap();
        if is_refused {
            transaction.after_commit.committing();
            transaction.after_commit.not_committed();
        }
    }
    tokio::time::sleep(10 * SECOND).await;
    seen.assert_empty();
    cap.shutdown().await.unwrap();
}
