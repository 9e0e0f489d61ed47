//! What people see and do.

use std::time::{Duration, SystemTime};

use cap_core::monitor::{Among, Change, Count, Monitor as _, Query};
use cap_core::storage::{NewIncoming, NewOutgoing, Reason, Retention, RowOutcome, Side, Status};

use crate::support::{
    Database, GROUP, delayed, first_lease, held, held_incoming, ids, incoming, message, outgoing,
};

fn failed(reason: Reason) -> RowOutcome {
    let keep = Duration::from_secs(3600);
    RowOutcome::Failed { reason, error: "no".to_owned(), counted: true, keep, notify: false }
}

fn done() -> RowOutcome {
    RowOutcome::Succeeded { retention: Retention::Forget, reason: None }
}

#[tokio::test]
async fn lists_are_newest_first_and_filtered() {
    let database = Database::new().await;
    database.receive((1..=6).map(held_incoming).collect()).await;
    let grouped = NewIncoming { group: "other".into(), ..incoming(7) };
    database.receive(vec![grouped]).await;
    for (id, outcome) in
        [(1, done()), (2, failed(Reason::Exhausted)), (3, failed(Reason::Permanent)), (4, done())]
    {
        assert!(database.complete(Side::Inbox, first_lease(id), outcome).await);
    }
    let list = async |query: Query| {
        let rows = database.storage.list(&query).await.unwrap();
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

#[tokio::test]
async fn a_row_tells_all_there_is() {
    let database = Database::new().await;
    database.receive(vec![held_incoming(1)]).await;
    assert!(database.complete(Side::Inbox, first_lease(1), failed(Reason::Exhausted)).await);
    let row = database.storage.get(Side::Inbox, 1).await.unwrap().unwrap();
    assert_eq!((row.id, row.side, row.version.as_str()), (1, Side::Inbox, "v1"));
    assert_eq!((row.name.as_str(), &*row.group), ("order.created", GROUP));
    assert_eq!((row.status, row.reason), (Status::Failed, Some(Reason::Exhausted)));
    assert_eq!((row.attempts, row.reruns, row.last_error.as_deref()), (1, 0, Some("no")));
    assert_eq!((row.due, row.owner), (None, None));
    let age = SystemTime::now().duration_since(row.added).unwrap_or_default();
    assert!(age < Duration::from_secs(60), "{age:?}");
    let left = row.expires.unwrap().duration_since(row.added).unwrap();
    assert!(left > Duration::from_secs(3590) && left < Duration::from_secs(3700), "{left:?}");
    assert!(database.storage.get(Side::Inbox, 2).await.unwrap().is_none());
    assert!(database.storage.get(Side::Outbox, 1).await.unwrap().is_none());
}

#[tokio::test]
async fn messages_are_found_by_their_id() {
    let database = Database::new().await;
    let other = NewOutgoing { message: message("guid"), ..outgoing(2) };
    database.publish(vec![outgoing(1), other]).await;
    let same = |id, group: &str| NewIncoming { message: message("m"), group: group.into(), ..incoming(id) };
    database.receive(vec![same(1, "g"), same(2, "h")]).await;
    let find = async |side, id: &str| {
        let rows = database.storage.find(side, id).await.unwrap();
        rows.iter().map(|row| row.id).collect::<Vec<_>>()
    };
    assert_eq!(find(Side::Outbox, "1").await, [1]);
    assert_eq!(find(Side::Outbox, "guid").await, [2]);
    for id in ["2", "01", "", "a\0b"] {
        assert_eq!(find(Side::Outbox, id).await, [0_i64; 0], "{id:?}");
    }
    assert_eq!(find(Side::Inbox, "m").await, [1, 2]);
}

#[tokio::test]
async fn what_is_re_run_begins_anew_and_keeps_its_past() {
    let database = Database::new().await;
    database.receive((1..=4).map(held_incoming).collect()).await;
    let retry =
        |error: &str| RowOutcome::Retry { after: Duration::ZERO, hold: true, error: error.to_owned() };
    assert!(database.complete(Side::Inbox, first_lease(1), failed(Reason::Exhausted)).await);
    assert!(database.complete(Side::Inbox, first_lease(2), done()).await);
    assert!(database.complete(Side::Inbox, first_lease(3), retry("once")).await);
    assert!(database.complete(Side::Inbox, first_lease(3), done()).await);
    // 4 is being worked on, 9 is not there.
    let rerun = database
        .storage
        .rerun(Side::Inbox, &[9, 3, 4, 2, 1, 1], Among::All, &Change::default())
        .await
        .unwrap();
    assert_eq!(rerun, [3, 2, 1]);
    let rows = database.claim(Side::Inbox).await;
    assert_eq!(ids(&rows), [1, 2, 3]);
    let attempts: Vec<_> = rows.iter().map(|row| (row.attempts, row.attempts_before_rerun)).collect();
    assert_eq!(attempts, [(1, 1), (0, 0), (1, 1)]);
    assert_eq!(rows[0].lease.epoch, 2);
    assert!(rows[1].lease.epoch > 1000, "a word from the first life is never taken for a new one");
    assert!(!database.complete(Side::Inbox, first_lease(2), done()).await);
    let row = database.storage.get(Side::Inbox, 1).await.unwrap().unwrap();
    assert_eq!((row.status, row.reason, row.expires, row.reruns), (Status::Scheduled, None, None, 1));
    assert_eq!(row.last_error.as_deref(), Some("no"));
    assert!(database.complete(Side::Inbox, rows[2].lease, retry("twice")).await);
    let told = database.storage.attempts(Side::Inbox, 3).await.unwrap();
    assert_eq!(
        told.iter().map(|one| (one.number, one.error.as_str())).collect::<Vec<_>>(),
        [(1, "once"), (2, "twice")]
    );
    assert_eq!(database.storage.attempts(Side::Outbox, 3).await.unwrap(), []);
    database.let_time_pass().await;
    assert_eq!(
        database.storage.rerun(Side::Inbox, &[4], Among::All, &Change::default()).await.unwrap(),
        [4],
        "its node is dead"
    );
}

#[tokio::test]
async fn a_message_whose_headers_cannot_be_read_is_re_run_as_it_is() {
    let database = Database::new().await;
    database.receive(vec![incoming(1), incoming(2)]).await;
    database.execute("UPDATE {s}.inbox SET headers = '[]' WHERE id = 1").await;
    assert_eq!(ids(&database.claim(Side::Inbox).await), [2]);
    database.let_time_pass().await;
    let change = Change { audit: Some("alice".to_owned()), body: Some("new".into()) };
    assert_eq!(database.storage.rerun(Side::Inbox, &[1, 2], Among::All, &change).await.unwrap(), [1, 2]);
    let headers = "SELECT headers FROM {s}.inbox WHERE id = 1";
    assert_eq!(database.text(headers).await, "[]", "an operator may still find out what it was");
    let rows = database.claim(Side::Inbox).await;
    assert_eq!((ids(&rows), &rows[0].message.body[..]), (vec![2], &b"new"[..]));
    let row = database.storage.get(Side::Inbox, 1).await.unwrap().unwrap();
    assert_eq!((row.status, row.reason), (Status::Failed, Some(Reason::Corrupt)));
}

#[tokio::test]
async fn only_what_is_still_delayed_can_be_called_off() {
    let database = Database::new().await;
    database.publish(vec![delayed(1), delayed(2), outgoing(3)]).await;
    assert_eq!(
        database.storage.rerun(Side::Outbox, &[2], Among::All, &Change::default()).await.unwrap(),
        [2],
        "published now"
    );
    let keep = Duration::from_secs(60);
    assert_eq!(database.storage.cancel(&[3, 2, 1], keep).await.unwrap(), [1]);
    let row = database.storage.get(Side::Outbox, 1).await.unwrap().unwrap();
    assert_eq!((row.status, row.reason, row.due), (Status::Failed, Some(Reason::Cancelled), None));
    assert!(row.expires.is_some());
    assert_eq!(ids(&database.claim(Side::Outbox).await), [3, 2], "in the order in which they became due");
}

#[tokio::test]
async fn what_nobody_works_on_can_be_deleted() {
    let database = Database::new().await;
    database.publish((1..=4).map(held).collect()).await;
    assert!(database.complete(Side::Outbox, first_lease(1), done()).await);
    assert!(database.complete(Side::Outbox, first_lease(2), failed(Reason::Exhausted)).await);
    assert_eq!(database.storage.delete(Side::Outbox, &[4, 2, 1, 9], Among::All).await.unwrap(), [2, 1]);
    let left = "SELECT string_agg(id::text, ' ' ORDER BY id) FROM {s}.outbox";
    assert_eq!(database.text(left).await, "3 4");
    assert_eq!(database.count("SELECT count(*) FROM {s}.attempts").await, 0);
    assert_eq!(database.count("SELECT count(*) FROM {s}.outbox_state").await, 2);
    database.let_time_pass().await;
    assert_eq!(database.storage.delete(Side::Outbox, &[3], Among::All).await.unwrap(), [3]);
}

#[tokio::test]
async fn state_rows_are_counted() {
    let database = Database::new().await;
    database.publish(vec![outgoing(1), held(2), delayed(3)]).await;
    database.receive(vec![held_incoming(1), incoming(2)]).await;
    assert!(database.complete(Side::Inbox, first_lease(1), failed(Reason::Exhausted)).await);
    assert!(database.complete(Side::Outbox, first_lease(2), done()).await);
    let mut counts = database.storage.counts().await.unwrap();
    counts.sort_by_key(|count| (count.side, format!("{:?}", count.status)));
    let count = |side, group: &str, status| Count { side, group: group.to_owned(), status, count: 1 };
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
