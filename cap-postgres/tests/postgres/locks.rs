//! Rows that another session has locked: nothing waits for them that need not.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use cap_core::storage::{
    Expiry, NewIncoming, NodeRequest, Owner, Retention, RowOutcome, Side, Storage as _, Stored,
};

use crate::support::{Database, first_lease, held, held_incoming, ids, incoming, message, outgoing, owner};

#[tokio::test]
async fn renewal_waits_for_no_lock() {
    let database = Database::new().await;
    database.receive(vec![held_incoming(1), held_incoming(2), held_incoming(3)]).await;
    database.execute("UPDATE {s}.inbox_state SET epoch = 2 WHERE id = 3").await;
    // Another session is about to complete the first, and takes a long time.
    let mut other = database.pool.begin().await.unwrap();
    let lock = database.sql("SELECT FROM {s}.inbox_state WHERE id = 1 FOR UPDATE");
    sqlx::query(lock).execute(&mut *other).await.unwrap();
    let long = Owner { lease: Duration::from_secs(3600), ..owner("a") };
    let leases = [first_lease(3), first_lease(2), first_lease(1)];
    let renewed = database.storage.renew(&long, Side::Inbox, &leases);
    let renewed = tokio::time::timeout(Duration::from_secs(10), renewed).await.unwrap().unwrap();
    assert_eq!(renewed, [false, true, true], "what is locked counts as leased until it is completed");
    let renewed =
        "SELECT string_agg(id::text, ' ') FROM {s}.inbox_state WHERE due > now() + interval '10 minutes'";
    assert_eq!(database.text(renewed).await, "2");
    other.rollback().await.unwrap();
}

#[tokio::test]
async fn locked_rows_are_polled_ever_more_rarely() {
    let database = Database::new().await;
    database.publish(vec![outgoing(1)]).await;
    let mut other = database.pool.begin().await.unwrap();
    let lock = database.sql("SELECT FROM {s}.outbox_state FOR UPDATE");
    sqlx::query(lock).execute(&mut *other).await.unwrap();
    let next = async || database.claims(Side::Outbox, 10).await.next_due.unwrap();
    assert!(next().await >= Duration::from_millis(100));
    other.rollback().await.unwrap();
    database.let_time_pass().await;
    let mut other = database.pool.begin().await.unwrap();
    let lock = database.sql("SELECT FROM {s}.outbox_state FOR UPDATE");
    sqlx::query(lock).execute(&mut *other).await.unwrap();
    assert_eq!(next().await, Duration::from_secs(1));
    other.rollback().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interrupted_call_leaves_the_storage_usable() {
    let database = Arc::new(Database::new().await);
    database.publish((1..=50).map(outgoing).collect()).await;
    let mut blocker = database.pool.begin().await.unwrap();
    sqlx::query(database.sql("LOCK TABLE {s}.outbox_state IN ACCESS EXCLUSIVE MODE"))
        .execute(&mut *blocker)
        .await
        .unwrap();
    // As many as there are connections: none may be left in a call that was dropped.
    let claims: Vec<_> = (0..3)
        .map(|_| {
            let database = Arc::clone(&database);
            tokio::spawn(async move { database.claims(Side::Outbox, 5).await })
        })
        .collect();
    let waiting = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%{}%'",
        database.schema
    );
    while database.count(&waiting).await < 3 {
        tokio::task::yield_now().await;
    }
    for claim in claims {
        claim.abort();
        assert!(claim.await.unwrap_err().is_cancelled());
    }
    let request = NodeRequest {
        node: "a".into(),
        worker: None,
        lease: Duration::from_secs(30),
        succeeded_expire_after: Duration::from_hours(24),
    };
    database.storage.join(&request).await.unwrap();
    blocker.rollback().await.unwrap();
    let mut seen = HashSet::new();
    while seen.len() < 50 {
        seen.extend(ids(&database.claim(Side::Outbox).await));
        // What the interrupted calls have claimed is claimed again when their leases have expired.
        database.let_time_pass().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_writer_locks_nothing_later_in_order() {
    let database = Arc::new(Database::new().await);
    let of = |id, same: &str| NewIncoming { message: message(same), ..incoming(id) };
    // Another transaction has inserted message b and has not committed yet.
    let mut other = database.pool.begin().await.unwrap();
    let insert = "INSERT INTO {s}.inbox (id, version, name, group_name, message_id, headers, body)
        VALUES (9, 'v1', 'n', 'billing.v1', 'b', '{}', '')";
    sqlx::query(database.sql(insert)).execute(&mut *other).await.unwrap();
    let waiting = {
        let database = Arc::clone(&database);
        let rows = vec![of(1, "c"), of(2, "b"), of(3, "a")];
        tokio::spawn(async move { database.receive(rows).await })
    };
    let is_waiting = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%{}%'",
        database.schema
    );
    while database.count(&is_waiting).await == 0 {
        tokio::task::yield_now().await;
    }
    // It stands before b, and so cannot have c: two writers never wait for each other.
    assert_eq!(database.receive(vec![of(4, "c")]).await.incoming, [Stored::New]);
    other.rollback().await.unwrap();
    assert_eq!(waiting.await.unwrap().incoming, [Stored::Duplicate, Stored::New, Stored::New]);
}

#[tokio::test]
async fn expiry_waits_for_no_lock() {
    let database = Database::new().await;
    database.publish(vec![held(1), held(2)]).await;
    for id in [1, 2] {
        let done = RowOutcome::Succeeded { retention: Retention::Forget, reason: None };
        assert!(database.complete(Side::Outbox, first_lease(id), done).await);
    }
    let mut reader = database.pool.begin().await.unwrap();
    sqlx::query(database.sql("SELECT FROM {s}.outbox WHERE id = 1 FOR UPDATE"))
        .execute(&mut *reader)
        .await
        .unwrap();
    let now = Expiry { succeeded: Duration::ZERO, limit: 10 };
    assert_eq!(database.storage.delete_expired(&now).await.unwrap(), (1, 0));
    reader.rollback().await.unwrap();
    assert_eq!(database.storage.delete_expired(&now).await.unwrap(), (1, 0));
}
