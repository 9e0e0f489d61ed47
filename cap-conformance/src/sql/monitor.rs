//! What operators see and change.

use std::time::{Duration, SystemTime};

use cap_adapter::monitor::{Among, Change, Count, Monitor as _, Query};
use cap_adapter::storage::{NewIncoming, NewOutgoing, Reason, Retention, RowOutcome, Side, Status};

use super::SqlFixture;
use super::tables::{
    GROUP, Tables, delayed, first_lease, ids, incoming, leased, leased_incoming, message, outgoing,
};

fn failed(reason: Reason) -> RowOutcome {
    let keep = Duration::from_secs(3600);
    RowOutcome::Failed { reason, error: "no".to_owned(), counted: true, keep, notify: false }
}

fn done() -> RowOutcome {
    RowOutcome::Succeeded { retention: Retention::Forget, reason: None }
}

/// Lists are ordered from new to old, and filtered.
pub async fn lists_are_newest_first_and_filtered<F: SqlFixture>(fixture: &F) {
    let tables = Tables::create(fixture).await;
    tables.receive((1..=6).map(leased_incoming).collect()).await;
    let grouped = NewIncoming { group: "other".into(), ..incoming(7) };
    tables.receive(vec![grouped]).await;
    for (id, outcome) in
        [(1, done()), (2, failed(Reason::Exhausted)), (3, failed(Reason::Permanent)), (4, done())]
    {
        assert!(tables.complete(Side::Inbox, first_lease(id), outcome).await);
    }
    let list = async |query: Query| {
        let rows = tables.storage.list(&query).await.unwrap();
        rows.iter().map(|row| row.id).collect::<Vec<_>>()
    };
    let all = || Query::new(Side::Inbox);
    assert_eq!(list(all()).await, [7, 6, 5, 4, 3, 2, 1]);
    assert_eq!(list(all().status(Status::Succeeded)).await, [4, 1]);
    assert_eq!(list(all().status(Status::Failed)).await, [3, 2]);
    assert_eq!(list(all().status(Status::Scheduled)).await, [7, 6, 5]);
    assert_eq!(list(all().reason(Reason::Exhausted)).await, [2]);
    assert_eq!(list(all().status(Status::Succeeded).reason(Reason::Exhausted)).await, [0_i64; 0]);
    assert_eq!(list(all().topic("order.created").group("other")).await, [7]);
    assert_eq!(list(all().topic("order")).await, [0_i64; 0]);
    assert_eq!(list(Query { before: Some(5), limit: 2, ..all() }).await, [4, 3]);
    assert_eq!(list(Query { before: Some(3), ..all().status(Status::Failed) }).await, [2]);
    assert_eq!(list(Query::new(Side::Outbox)).await, [0_i64; 0]);
}

/// A row shows all of its columns.
pub async fn row_shows_everything<F: SqlFixture>(fixture: &F) {
    let tables = Tables::create(fixture).await;
    tables.receive(vec![leased_incoming(1)]).await;
    assert!(tables.complete(Side::Inbox, first_lease(1), failed(Reason::Exhausted)).await);
    let row = tables.row(Side::Inbox, 1).await;
    assert_eq!((row.id, row.side, row.version.as_str()), (1, Side::Inbox, "v1"));
    assert_eq!((row.name.as_str(), &*row.group), ("order.created", GROUP));
    assert_eq!((row.status, row.reason), (Status::Failed, Some(Reason::Exhausted)));
    assert_eq!((row.attempts, row.reruns, row.last_error.as_deref()), (1, 0, Some("no")));
    assert_eq!((row.due, row.owner), (None, None));
    let age = SystemTime::now().duration_since(row.added).unwrap_or_default();
    assert!(age < Duration::from_secs(60), "{age:?}");
    let left = row.expires.unwrap().duration_since(row.added).unwrap();
    assert!(left > Duration::from_secs(3590) && left < Duration::from_secs(3700), "{left:?}");
    assert!(tables.storage.get(Side::Inbox, 2).await.unwrap().is_none());
    assert!(tables.storage.get(Side::Outbox, 1).await.unwrap().is_none());
}

/// A message is found by its message id on each side.
pub async fn messages_are_found_by_their_id<F: SqlFixture>(fixture: &F) {
    let tables = Tables::create(fixture).await;
    let other = NewOutgoing { message: message("guid"), ..outgoing(2) };
    tables.publish(vec![outgoing(1), other]).await;
    let same = |id, group: &str| NewIncoming { message: message("m"), group: group.into(), ..incoming(id) };
    tables.receive(vec![same(1, "g"), same(2, "h")]).await;
    let find = async |side, id: &str| {
        let rows = tables.storage.find(side, id).await.unwrap();
        rows.iter().map(|row| row.id).collect::<Vec<_>>()
    };
    assert_eq!(find(Side::Outbox, "1").await, [1]);
    assert_eq!(find(Side::Outbox, "guid").await, [2]);
    for id in ["2", "01", "", "a\0b"] {
        assert_eq!(find(Side::Outbox, id).await, [0_i64; 0], "{id:?}");
    }
    assert_eq!(find(Side::Inbox, "m").await, [1, 2]);
}

/// A message that is run again starts anew under a new lease, and keeps its attempts.
pub async fn rerun_starts_anew_and_keeps_attempts<F: SqlFixture>(fixture: &F) {
    let tables = Tables::create(fixture).await;
    tables.receive((1..=4).map(leased_incoming).collect()).await;
    let retry =
        |error: &str| RowOutcome::Retry { after: Duration::ZERO, hold: true, error: error.to_owned() };
    assert!(tables.complete(Side::Inbox, first_lease(1), failed(Reason::Exhausted)).await);
    assert!(tables.complete(Side::Inbox, first_lease(2), done()).await);
    assert!(tables.complete(Side::Inbox, first_lease(3), retry("once")).await);
    assert!(tables.complete(Side::Inbox, first_lease(3), done()).await);
    // 4 is being worked on, 9 is not there.
    let rerun = tables.rerun(Side::Inbox, &[9, 3, 4, 2, 1, 1]).await;
    assert_eq!(rerun, [3, 2, 1]);
    let rows = tables.claim(Side::Inbox).await;
    assert_eq!(ids(&rows), [1, 2, 3]);
    let attempts: Vec<_> = rows.iter().map(|row| (row.attempts, row.attempts_before_rerun)).collect();
    assert_eq!(attempts, [(1, 1), (0, 0), (1, 1)]);
    assert_eq!(rows[0].lease.epoch, 2);
    assert!(rows[1].lease.epoch > 1000, "an outcome from before is never taken for a new one");
    assert!(!tables.complete(Side::Inbox, first_lease(2), done()).await);
    let row = tables.row(Side::Inbox, 1).await;
    assert_eq!((row.status, row.reason, row.expires, row.reruns), (Status::Scheduled, None, None, 1));
    assert_eq!(row.last_error.as_deref(), Some("no"));
    assert!(tables.complete(Side::Inbox, rows[2].lease, retry("twice")).await);
    let recorded = tables.storage.attempts(Side::Inbox, 3).await.unwrap();
    assert_eq!(
        recorded.iter().map(|one| (one.number, one.error.as_str())).collect::<Vec<_>>(),
        [(1, "once"), (2, "twice")]
    );
    assert_eq!(tables.storage.attempts(Side::Outbox, 3).await.unwrap(), []);
    tables.let_time_pass().await;
    assert_eq!(tables.rerun(Side::Inbox, &[4]).await, [4], "its node is dead");
}

/// A message whose headers cannot be read is run again unchanged, and parked again.
pub async fn unreadable_message_is_rerun_unchanged<F: SqlFixture>(fixture: &F) {
    let tables = Tables::create(fixture).await;
    tables.receive(vec![incoming(1), incoming(2)]).await;
    tables.execute("UPDATE {t}inbox SET headers = '[]' WHERE id = 1").await;
    assert_eq!(ids(&tables.claim(Side::Inbox).await), [2]);
    tables.let_time_pass().await;
    let change = Change { audit: Some("alice".to_owned()), body: Some("new".into()) };
    assert_eq!(tables.storage.rerun(Side::Inbox, &[1, 2], Among::All, &change).await.unwrap(), [1, 2]);
    assert_eq!(tables.headers("inbox", 1).await, "[]", "an operator may still find out what it was");
    let rows = tables.claim(Side::Inbox).await;
    assert_eq!((ids(&rows), &rows[0].message.body[..]), (vec![2], &b"new"[..]));
    let row = tables.row(Side::Inbox, 1).await;
    assert_eq!((row.status, row.reason), (Status::Failed, Some(Reason::Corrupt)));
}

/// Only messages that are still delayed are cancelled.
pub async fn only_delayed_messages_are_cancelled<F: SqlFixture>(fixture: &F) {
    let tables = Tables::create(fixture).await;
    tables.publish(vec![delayed(1), delayed(2), outgoing(3)]).await;
    assert_eq!(tables.rerun(Side::Outbox, &[2]).await, [2], "published now");
    let keep = Duration::from_secs(60);
    assert_eq!(tables.storage.cancel(&[3, 2, 1], keep).await.unwrap(), [1]);
    let row = tables.row(Side::Outbox, 1).await;
    assert_eq!((row.status, row.reason, row.due), (Status::Failed, Some(Reason::Cancelled), None));
    assert!(row.expires.is_some());
    assert_eq!(ids(&tables.claim(Side::Outbox).await), [3, 2], "in the order in which they became due");
}

/// Messages that no node is handling are deleted with their state and attempts.
pub async fn idle_messages_can_be_deleted<F: SqlFixture>(fixture: &F) {
    let tables = Tables::create(fixture).await;
    tables.publish((1..=4).map(leased).collect()).await;
    assert!(tables.complete(Side::Outbox, first_lease(1), done()).await);
    assert!(tables.complete(Side::Outbox, first_lease(2), failed(Reason::Exhausted)).await);
    assert_eq!(tables.storage.delete(Side::Outbox, &[4, 2, 1, 9], Among::All).await.unwrap(), [2, 1]);
    assert_eq!(tables.ids("outbox").await, [3, 4]);
    assert_eq!(tables.count("{t}attempts").await, 0);
    assert_eq!(tables.count("{t}outbox_state").await, 2);
    tables.let_time_pass().await;
    assert_eq!(tables.storage.delete(Side::Outbox, &[3], Among::All).await.unwrap(), [3]);
}

/// State rows are counted by side, group and status.
pub async fn state_rows_are_counted<F: SqlFixture>(fixture: &F) {
    let tables = Tables::create(fixture).await;
    tables.publish(vec![outgoing(1), leased(2), delayed(3)]).await;
    tables.receive(vec![leased_incoming(1), incoming(2)]).await;
    assert!(tables.complete(Side::Inbox, first_lease(1), failed(Reason::Exhausted)).await);
    assert!(tables.complete(Side::Outbox, first_lease(2), done()).await);
    let mut counts = tables.storage.counts().await.unwrap();
    counts.sort_by_key(|count| (count.side, format!("{:?}", count.status)));
    let count = |side, group: &str, status| Count::new(side, group, status, 1);
    assert_eq!(
        counts,
        [
            count(Side::Outbox, "", Status::Delayed),
            count(Side::Outbox, "", Status::Scheduled),
            count(Side::Inbox, GROUP, Status::Failed),
            count(Side::Inbox, GROUP, Status::Scheduled),
        ]
    );
}
