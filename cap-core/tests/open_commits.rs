//! Messages in plain transactions, of whose commit nobody tells the bus: it looks for them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::time::Duration;

use cap_core::Within;
use cap_core::error::{StorageError, StorageErrorKind::Unavailable};
use cap_core::prelude::*;
use cap_core::storage::{NewOutgoing, Owner, Storage, Stored, TransactionId, WriteBatch};
use support::signs::Signs;
use support::store::{ALL, Shaky};
use support::{Seen, log};
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);

/// A transaction that nobody here sees the end of.
struct Plain {
    id: TransactionId,
    storage: Shaky,
    rows: Vec<NewOutgoing>,
    owner: Option<Owner>,
}

impl Plain {
    fn begin(storage: &Shaky, id: i64) -> Self {
        Self { id: TransactionId(id), storage: storage.clone(), rows: Vec::new(), owner: None }
    }

    async fn commit(self) {
        let ids: Vec<i64> = self.rows.iter().map(|row| row.id).collect();
        let batch = WriteBatch { outgoing: self.rows, ..WriteBatch::default() };
        self.storage.inner.write(&self.owner.unwrap(), &batch).await.unwrap();
        self.storage.end(self.id, ids);
    }

    fn rollback(self) {
        self.storage.end(self.id, []);
    }
}

impl Within<Shaky> for Plain {
    const WATCHED: bool = true;

    async fn store(
        &mut self,
        _: &Shaky,
        owner: &Owner,
        rows: &[NewOutgoing],
    ) -> Result<Vec<Stored>, StorageError> {
        self.owner = Some(owner.clone());
        self.rows.extend_from_slice(rows);
        Ok(vec![Stored::New; rows.len()])
    }

    async fn store_watched(
        &mut self,
        storage: &Shaky,
        owner: &Owner,
        rows: &[NewOutgoing],
    ) -> Result<(Vec<Stored>, Option<TransactionId>), StorageError> {
        Ok((self.store(storage, owner, rows).await?, Some(self.id)))
    }
}

async fn started() -> (Cap, Shaky, Seen<u32>) {
    started_with(|_| ()).await
}

/// A bus whose polls are too far apart to help.
async fn started_with(configure: impl FnOnce(&mut cap_core::CapOptions)) -> (Cap, Shaky, Seen<u32>) {
    let storage = Shaky::default();
    let (noted, seen) = log();
    let cap = support::on(&storage.inner, &MemoryTransport::new())
        .storage(storage.clone())
        .configure(|options| options.poll_interval = 3600 * SECOND)
        .configure(configure)
        .subscribe("work", move |n: u32| {
            noted.note(n);
            async {}
        })
        .start()
        .await
        .unwrap();
    (cap, storage, seen)
}

async fn publish(cap: &Cap, n: u32, plain: &mut Plain) {
    cap.publish("work", &n).within(plain).await.unwrap();
}

/// On a clock that only moves when everybody waits.
#[tokio::test(start_paused = true)]
async fn leave_within_a_quarter_of_their_age() {
    let (cap, storage, mut seen) = started().await;
    for (n, open) in [(1, 0), (2, 3), (3, 100), (4, 2_000), (5, 14_000), (6, 29_000)] {
        let mut plain = Plain::begin(&storage, i64::from(n));
        publish(&cap, n, &mut plain).await;
        let age = Duration::from_millis(open);
        sleep(age).await;
        let committed = Instant::now();
        plain.commit().await;
        assert_eq!(seen.next().await, n);
        let most = (age / 4).min(SECOND) + Duration::from_millis(5);
        assert!(committed.elapsed() <= most, "{age:?}: {:?}", committed.elapsed());
    }
    cap.shutdown().await.unwrap();
    seen.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn an_open_transaction_costs_few_looks() {
    let (cap, storage, mut seen) = started().await;
    let mut open: Vec<Plain> = (1..=100).map(|id| Plain::begin(&storage, id)).collect();
    for plain in &mut open {
        publish(&cap, 1, plain).await;
    }
    sleep(60 * SECOND).await;
    assert!(storage.looks() < 150, "one call for all, at growing intervals: {}", storage.looks());
    open.into_iter().for_each(Plain::rollback);
    sleep(2 * SECOND).await;
    let looks = storage.looks();
    sleep(60 * SECOND).await;
    assert_eq!(storage.looks(), looks, "of what was rolled back nothing is asked again");
    cap.shutdown().await.unwrap();
    seen.assert_empty();
}

/// The places in the relay that rolled back transactions had.
#[tokio::test(start_paused = true)]
async fn what_is_rolled_back_gives_its_places_back() {
    let (cap, storage, mut seen) = started_with(|options| options.relay_buffer = 8).await;
    for n in 1..=100_u32 {
        let mut plain = Plain::begin(&storage, i64::from(n));
        publish(&cap, n, &mut plain).await;
        assert!(plain.rows[0].held, "{n} has a place");
        plain.rollback();
        sleep(Duration::from_millis(5)).await;
    }
    cap.shutdown().await.unwrap();
    seen.assert_empty();
}

/// It was not looked for, and the transaction has ended at the next look.
#[tokio::test(start_paused = true)]
async fn what_is_stored_during_a_look_is_looked_for_again() {
    let (cap, storage, mut seen) = started().await;
    let mut plain = Plain::begin(&storage, 1);
    publish(&cap, 1, &mut plain).await;
    let mut other = Plain::begin(&storage, 2);
    // The look asks for the first row alone, and its answer comes when all is over.
    storage.end(TransactionId(1), [plain.rows[0].id]);
    let gate = storage.gate();
    gate.reached.notified().await;
    publish(&cap, 2, &mut plain).await;
    plain.commit().await;
    gate.open.notify_one();
    let committed = Instant::now();
    publish(&cap, 3, &mut other).await;
    other.rollback();
    let mut both = seen.take(2).await;
    both.sort_unstable();
    assert_eq!(both, [1, 2]);
    assert!(committed.elapsed() < SECOND, "not as the lease is over: {:?}", committed.elapsed());
    cap.shutdown().await.unwrap();
    seen.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn what_is_undone_with_a_savepoint_does_not_leave() {
    let (cap, storage, mut seen) = started().await;
    let mut plain = Plain::begin(&storage, 1);
    publish(&cap, 1, &mut plain).await;
    publish(&cap, 2, &mut plain).await;
    plain.rows.truncate(1);
    plain.commit().await;
    assert_eq!(seen.next().await, 1);
    cap.shutdown().await.unwrap();
    seen.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn an_outage_delays_them() {
    let (cap, storage, mut seen) = started().await;
    let mut plain = Plain::begin(&storage, 1);
    publish(&cap, 1, &mut plain).await;
    storage.fail(&ALL, Unavailable);
    plain.commit().await;
    sleep(10 * SECOND).await;
    storage.mend(&ALL);
    assert_eq!(seen.next().await, 1);
    cap.shutdown().await.unwrap();
    seen.assert_empty();
}

/// What this node does not hold any node may have: they are told once it is committed, once for many.
#[tokio::test(start_paused = true)]
async fn others_are_told_of_what_is_not_held() {
    let (cap, storage, mut seen) = started().await;
    for id in 1..=50 {
        let mut plain = Plain::begin(&storage, id);
        cap.publish("work", &1_u32).delay(60 * SECOND).within(&mut plain).await.unwrap();
        if id == 1 {
            sleep(10 * SECOND).await;
            assert_eq!(storage.announced(), 0, "not before the commit");
        }
        plain.commit().await;
    }
    sleep(SECOND).await;
    assert!((1..=2).contains(&storage.announced()), "{}", storage.announced());
    assert_eq!(seen.take(50).await.len(), 50);
    cap.shutdown().await.unwrap();
}

/// Neither what was rolled back is counted, nor anything before the commit; with and without a lease of this node.
#[tokio::test(start_paused = true)]
async fn what_is_published_counts_after_the_commit() {
    let signs = Signs::default();
    let _counted = signs.count();
    let (cap, storage, _seen) = started().await;
    let (mut kept, mut undone) = (Plain::begin(&storage, 1), Plain::begin(&storage, 2));
    for plain in [&mut kept, &mut undone] {
        publish(&cap, 1, plain).await;
        cap.publish("work", &2_u32).delay(60 * SECOND).within(plain).await.unwrap();
        cap.publish("late", &2_u32).delay(60 * SECOND).within(plain).await.unwrap();
    }
    sleep(2 * SECOND).await;
    assert_eq!(signs.counter("cap_published_total"), 0, "before the commit");
    kept.commit().await;
    undone.rollback();
    sleep(5 * SECOND).await;
    assert_eq!(signs.labelled("cap_published_total", "topic=work"), 2);
    assert_eq!(signs.labelled("cap_published_total", "topic=late"), 1);
    cap.shutdown().await.unwrap();
}
