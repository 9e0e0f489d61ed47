//! A node as the cases use it: a handle on the storage, a name, and short ways to say the usual things.

use std::sync::Arc;
use std::time::Duration;

use cap_adapter::message::headers::names;
use cap_adapter::message::{Headers, Message};
use cap_adapter::monitor::{Among, Change, FailedAttempt, Monitor, Row};
use cap_adapter::storage::{
    ClaimRequest, Claimed, Claims, Entry, Identity, Lease, NewIncoming, NewOutgoing, Owner, Reason,
    Retention, RowCompletion, RowOutcome, Side, Storage, Stored, WriteBatch, WriteReport,
};

use super::StorageFixture;
use crate::patience::eventually;

pub(crate) const SIDES: [Side; 2] = [Side::Outbox, Side::Inbox];

/// The group that rows of the inbox have unless the case is about groups.
pub(crate) const GROUP: &str = "orders.v1";

/// No row ids.
pub(crate) const NOTHING: [i64; 0] = [];

/// A lease, or a pause, that does not end while a case runs.
pub(crate) const LONG: Duration = Duration::from_hours(1);

/// A lease that ends while a case waits for it.
pub(crate) const SHORT: Duration = Duration::from_secs(1);

pub(crate) struct Node<S> {
    pub(crate) store: S,
    pub(crate) owner: Owner,
}

/// A message with an id and a topic.
pub(crate) fn message(id: &str, topic: &str) -> Arc<Message> {
    let headers: Headers = [(names::MESSAGE_ID, id), (names::MESSAGE_NAME, topic)].into_iter().collect();
    Arc::new(Message::new(headers, &br#"{"OrderId":7}"#[..]))
}

/// A message for the outbox, under the message id `m<id>`.
pub(crate) fn outgoing(id: i64, held: bool) -> NewOutgoing {
    NewOutgoing { id, message: message(&format!("m{id}"), "order.created"), delay: None, held }
}

/// A message for the outbox that is due later.
pub(crate) fn delayed(id: i64, delay: Duration) -> NewOutgoing {
    NewOutgoing { delay: Some(delay), ..outgoing(id, false) }
}

/// A message for the inbox, under the message id `m<id>`.
pub(crate) fn incoming(id: i64, held: bool) -> NewIncoming {
    NewIncoming {
        id,
        group: GROUP.into(),
        message: message(&format!("m{id}"), "order.created"),
        entry: Entry::Scheduled { held },
        identity: Identity::default(),
    }
}

/// The lease of a row that was inserted as held.
pub(crate) fn first_lease(id: i64) -> Lease {
    Lease { id, epoch: 1 }
}

pub(crate) fn row_completion(lease: Lease, outcome: RowOutcome) -> RowCompletion {
    RowCompletion { lease, outcome, publishes: Vec::new() }
}

pub(crate) fn succeeded(retention: Retention) -> RowOutcome {
    RowOutcome::Succeeded { retention, reason: None }
}

pub(crate) fn retry(after: Duration, error: &str) -> RowOutcome {
    RowOutcome::Retry { after, hold: false, error: error.to_owned() }
}

/// A retry of which the broker keeps a copy.
pub(crate) fn at_broker(after: Duration, spare: Duration, error: &str) -> RowOutcome {
    RowOutcome::RetryAtBroker { after, spare, error: error.to_owned() }
}

pub(crate) fn failed(notify: bool) -> RowOutcome {
    RowOutcome::Failed {
        reason: Reason::Exhausted,
        error: "the last straw".to_owned(),
        counted: true,
        keep: LONG,
        notify,
    }
}

/// A batch of outcomes of one side.
pub(crate) fn row_completions(side: Side, completed: Vec<RowCompletion>) -> WriteBatch {
    match side {
        Side::Outbox => WriteBatch { completed_outgoing: completed, ..WriteBatch::default() },
        Side::Inbox => WriteBatch { completed_incoming: completed, ..WriteBatch::default() },
    }
}

/// A batch of new rows of one side.
pub(crate) fn inserts(side: Side, ids: impl IntoIterator<Item = i64>, held: bool) -> WriteBatch {
    let ids = ids.into_iter();
    match side {
        Side::Outbox => {
            WriteBatch { outgoing: ids.map(|id| outgoing(id, held)).collect(), ..WriteBatch::default() }
        }
        Side::Inbox => {
            WriteBatch { incoming: ids.map(|id| incoming(id, held)).collect(), ..WriteBatch::default() }
        }
    }
}

/// How long after an attempt had failed the next one was due.
pub(crate) fn waits(attempt: &FailedAttempt) -> Option<Duration> {
    attempt.next.map(|next| next.duration_since(attempt.at).expect("the next is not before it"))
}

/// The row ids of claimed rows.
pub(crate) fn ids(rows: &[Claimed]) -> Vec<i64> {
    rows.iter().map(|row| row.lease.id).collect()
}

impl<S: Storage + Monitor> Node<S> {
    /// Opens a handle on the storage of the fixture, for a node of this name whose leases last this long.
    pub(crate) async fn open<F>(fixture: &F, name: &str, lease: Duration) -> Self
    where
        F: StorageFixture<Storage = S>,
    {
        let store = fixture.open().await;
        store.check().expect("the settings of the fixture's store are in order");
        store.initialize().await.expect("the schema is made");
        Self { store, owner: Owner { node: name.into(), version: "v1".into(), lease } }
    }

    pub(crate) async fn write(&self, batch: &WriteBatch) -> WriteReport {
        self.store.write(&self.owner, batch).await.expect("the batch is written")
    }

    /// Inserts new rows and expects that all of them are new.
    pub(crate) async fn insert(&self, side: Side, ids: impl IntoIterator<Item = i64>, held: bool) {
        let report = self.write(&inserts(side, ids, held)).await;
        let all_new = report.outgoing.iter().chain(&report.incoming).all(|stored| *stored == Stored::New);
        assert!(all_new, "rows with ids of their own are new: {report:?}");
    }

    /// Inserts a row whose body has this many bytes.
    pub(crate) async fn insert_sized(&self, side: Side, id: i64, bytes: usize) {
        let headers = message(&format!("m{id}"), "order.created").headers.clone();
        let message = Arc::new(Message::new(headers, vec![b'x'; bytes]));
        let stored = match side {
            Side::Outbox => self.publish(NewOutgoing { message, ..outgoing(id, false) }).await,
            Side::Inbox => self.receive(NewIncoming { message, ..incoming(id, false) }).await,
        };
        assert_eq!(stored, Stored::New);
    }

    pub(crate) async fn publish(&self, new: NewOutgoing) -> Stored {
        let batch = WriteBatch { outgoing: vec![new], ..WriteBatch::default() };
        self.write(&batch).await.outgoing[0]
    }

    pub(crate) async fn receive(&self, new: NewIncoming) -> Stored {
        let batch = WriteBatch { incoming: vec![new], ..WriteBatch::default() };
        self.write(&batch).await.incoming[0]
    }

    /// Completes one row, and says whether the lease held.
    pub(crate) async fn complete(&self, side: Side, lease: Lease, outcome: RowOutcome) -> bool {
        let report = self.write(&row_completions(side, vec![row_completion(lease, outcome)])).await;
        report.completed_outgoing.into_iter().chain(report.completed_incoming).next().expect("one answer")
    }

    /// Claims what is due, of the usual group.
    pub(crate) async fn claim(&self, side: Side, limit: usize) -> Claims {
        self.claim_groups(side, &[GROUP], limit).await
    }

    pub(crate) async fn claim_groups(&self, side: Side, groups: &[&str], limit: usize) -> Claims {
        let groups = groups.iter().map(|group| Arc::from(*group)).collect();
        let request = ClaimRequest::new(side, groups, limit);
        self.store.claim(&self.owner, &request).await.expect("rows are claimed")
    }

    /// Claims rows of the usual group whose bodies have at most this many bytes together.
    pub(crate) async fn claim_within(&self, side: Side, limit: usize, bytes: usize) -> Claims {
        let request = ClaimRequest::new(side, vec![Arc::from(GROUP)], limit).within(bytes);
        self.store.claim(&self.owner, &request).await.expect("rows are claimed")
    }

    /// Claims rows of which the broker has delivered its copies.
    pub(crate) async fn claim_waiting(&self, leases: &[Lease]) -> Vec<Option<Claimed>> {
        let rows = self.store.claim_waiting(&self.owner, leases).await.expect("waiting rows are claimed");
        assert_eq!(rows.len(), leases.len(), "one answer for each lease");
        rows
    }

    /// Claims until it has this many rows, as when leases or delays have yet to end.
    pub(crate) async fn claim_in_time(&self, side: Side, count: usize) -> Vec<Claimed> {
        let mut rows = Vec::new();
        eventually("rows to become due", async || {
            rows.extend(self.claim(side, count).await.rows);
            (rows.len() >= count).then_some(())
        })
        .await;
        rows
    }

    /// Expects that nothing is due, now or ever.
    pub(crate) async fn expect_nothing_due(&self, side: Side) {
        let claims = self.claim(side, 100).await;
        assert!(claims.rows.is_empty(), "nothing is due: {:?}", claims.rows);
        assert_eq!(claims.next_due, None, "and nothing will be");
    }

    pub(crate) async fn renew(&self, side: Side, leases: &[Lease]) -> Vec<bool> {
        self.store.renew(&self.owner, side, leases).await.expect("leases are renewed")
    }

    pub(crate) async fn get(&self, side: Side, id: i64) -> Option<Row> {
        self.store.get(side, id).await.expect("a row is looked up")
    }

    /// A row that must be there.
    pub(crate) async fn row(&self, side: Side, id: i64) -> Row {
        self.get(side, id).await.expect("the row is there")
    }

    pub(crate) async fn attempts(&self, side: Side, id: i64) -> Vec<FailedAttempt> {
        self.store.attempts(side, id).await.expect("attempts are looked up")
    }

    pub(crate) async fn rerun(&self, side: Side, ids: &[i64]) -> Vec<i64> {
        self.rerun_changed(side, ids, &Change::default()).await
    }

    pub(crate) async fn rerun_changed(&self, side: Side, ids: &[i64], change: &Change) -> Vec<i64> {
        self.store.rerun(side, ids, Among::All, change).await.expect("rows are run again")
    }
}
