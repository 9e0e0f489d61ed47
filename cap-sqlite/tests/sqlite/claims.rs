//! Who gets which row, when, and for how long.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use cap_core::monitor::Monitor as _;
use cap_core::storage::{
    ClaimRequest, Lease, NewIncoming, NodeRequest, Owner, Reason, Retention, RowOutcome, Side, Status,
    Storage as _,
};

use crate::support::{
    Database, GROUP, delayed, first_lease, held, held_incoming, ids, incoming, outgoing, owner,
};

#[tokio::test]
async fn the_longest_due_comes_first_and_the_limit_holds() {
    let database = Database::new().await;
    database.publish((1..=5).map(outgoing).collect()).await;
    database.execute("UPDATE cap_outbox_state SET due = due - 60000000 WHERE id IN (4, 2)").await;
    let claims = database.claims(Side::Outbox, 3).await;
    assert_eq!(ids(&claims.rows), [2, 4, 1]);
    assert_eq!(claims.next_due, Some(Duration::ZERO), "two more are due");
    assert!(claims.rows.iter().all(|row| row.lease.epoch == 1 && row.attempts == 0 && row.notice.is_none()));
    let claims = database.claims(Side::Outbox, 3).await;
    assert_eq!(ids(&claims.rows), [3, 5]);
    let next = claims.next_due.unwrap();
    assert!(
        next > Duration::from_secs(20) && next <= Duration::from_secs(30),
        "{next:?}: a lease may run out"
    );
}

#[tokio::test]
async fn the_next_due_time_is_that_of_what_was_not_claimed() {
    let database = Database::new().await;
    assert_eq!(database.claims(Side::Outbox, 10).await.next_due, None);
    assert_eq!(database.claims(Side::Inbox, 10).await.next_due, None);
    database.publish(vec![outgoing(1)]).await;
    let claims = database.claims(Side::Outbox, 1).await;
    assert_eq!((ids(&claims.rows), claims.next_due), (vec![1], None), "one's own new lease does not count");
    database.publish(vec![delayed(2)]).await;
    database.execute("UPDATE cap_outbox_state SET due = NULL WHERE id = 1").await;
    let next = database.claims(Side::Outbox, 10).await.next_due.unwrap();
    assert!(next > Duration::from_secs(50) && next <= Duration::from_secs(60), "{next:?}");
}

#[tokio::test]
async fn a_row_is_claimed_again_when_its_lease_is_over_and_not_before() {
    let database = Database::new().await;
    database.publish(vec![held(1), delayed(2)]).await;
    assert!(database.claim(Side::Outbox).await.is_empty());
    database.let_time_pass().await;
    let rows = database.claim(Side::Outbox).await;
    let leases: Vec<_> = rows.iter().map(|row| row.lease).collect();
    assert_eq!(
        leases,
        [Lease { id: 1, epoch: 2 }, Lease { id: 2, epoch: 1 }],
        "the lease ended before the delay"
    );
    let row = database.storage.get(Side::Outbox, 2).await.unwrap().unwrap();
    assert_eq!((row.status, row.owner.as_deref()), (Status::Scheduled, Some("b")), "no longer delayed");
}

#[tokio::test]
async fn groups_and_versions_are_kept_apart() {
    let database = Database::new().await;
    let of = |id, group: &str| NewIncoming { group: group.into(), ..incoming(id) };
    database.receive(vec![of(1, "g"), of(2, "h"), of(3, "i"), of(4, "g")]).await;
    let groups = |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect::<Vec<Arc<str>>>();
    let request = |names: &[&str]| ClaimRequest { side: Side::Inbox, groups: groups(names), limit: 10 };
    let other = Owner { version: "v2".into(), ..owner("b") };
    let claims = database.storage.claim(&other, &request(&["g", "h", "i"])).await.unwrap();
    assert!(claims.rows.is_empty() && claims.next_due.is_none());
    let claims = database.storage.claim(&owner("b"), &request(&["i", "g", "g"])).await.unwrap();
    assert_eq!(ids(&claims.rows), [1, 3, 4]);
    assert_eq!(claims.rows[1].group.as_ref(), "i");
    assert_eq!(claims.next_due, None, "row 2 is of a group that was not asked for");
    assert!(database.storage.claim(&owner("b"), &request(&[])).await.unwrap().rows.is_empty());
}

#[tokio::test]
async fn a_notice_that_was_not_given_is_given_by_another_node() {
    let database = Database::new().await;
    database.receive(vec![held_incoming(1)]).await;
    let keep = Duration::from_secs(60);
    let outcome = RowOutcome::Failed {
        reason: Reason::Exhausted,
        error: "sold out".to_owned(),
        counted: true,
        keep,
        notify: true,
    };
    assert!(database.complete(Side::Inbox, first_lease(1), outcome).await);
    assert!(database.claim(Side::Inbox).await.is_empty());
    database.let_time_pass().await;
    let row = database.claim(Side::Inbox).await.remove(0);
    assert_eq!(row.notice, Some((Reason::Exhausted, "sold out".to_owned())));
    assert_eq!(row.attempts, 1);
    assert!(database.complete(Side::Inbox, row.lease, RowOutcome::Notified).await);
    database.let_time_pass().await;
    assert!(database.claim(Side::Inbox).await.is_empty());
}

#[tokio::test]
async fn large_messages_are_claimed_a_few_at_a_time() {
    let database = Database::new().await;
    database.publish((1..=5).map(outgoing).collect()).await;
    database.receive((1..=5).map(incoming).collect()).await;
    for (side, messages) in [(Side::Outbox, "outbox"), (Side::Inbox, "inbox")] {
        for (id, megabytes) in [(1, 64), (2, 22), (3, 22), (4, 22)] {
            let bytes = megabytes << 20;
            let enlarge = format!("UPDATE cap_{messages} SET body = zeroblob({bytes}) WHERE id = {id}");
            database.execute(&enlarge).await;
        }
        for (claimed, more) in [(&[1][..], true), (&[2, 3, 4], true), (&[5], false)] {
            let claims = database.claims(side, 100).await;
            assert_eq!(ids(&claims.rows), claimed);
            assert_eq!(claims.next_due == Some(Duration::ZERO), more, "{:?}", claims.next_due);
        }
    }
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_set_aside() {
    let database = Database::new().await;
    database.receive(vec![incoming(1), incoming(2), incoming(3)]).await;
    database
        .execute("UPDATE cap_inbox SET headers = '[]' WHERE id = 1; DELETE FROM cap_inbox WHERE id = 3")
        .await;
    assert_eq!(ids(&database.claim(Side::Inbox).await), [2]);
    let row = database.storage.get(Side::Inbox, 1).await.unwrap().unwrap();
    assert_eq!((row.status, row.reason, row.due), (Status::Failed, Some(Reason::Corrupt), None));
    assert!(row.last_error.unwrap().contains("headers cannot be read"));
    assert_eq!(
        database.count("SELECT count(*) FROM cap_inbox_state").await,
        2,
        "a state without a message goes"
    );
}

#[tokio::test]
async fn a_waiting_row_that_cannot_be_read_is_set_aside() {
    let database = Database::new().await;
    database.receive((1..=3).map(held_incoming).collect()).await;
    let minute = Duration::from_secs(60);
    for id in 1..=3 {
        let outcome = RowOutcome::RetryAtBroker { after: minute, spare: minute, error: "no".to_owned() };
        assert!(database.complete(Side::Inbox, first_lease(id), outcome).await);
    }
    database
        .execute("UPDATE cap_inbox SET headers = '[]' WHERE id = 1; DELETE FROM cap_inbox WHERE id = 3")
        .await;
    let leases = [1, 2, 3].map(first_lease);
    let rows = database.storage.claim_waiting(&owner("b"), &leases).await.unwrap();
    let claimed: Vec<_> = rows.iter().map(|row| row.as_ref().map(|row| row.lease.id)).collect();
    assert_eq!(claimed, [None, Some(2), None]);
    let row = database.storage.get(Side::Inbox, 1).await.unwrap().unwrap();
    assert_eq!((row.status, row.reason, row.due), (Status::Failed, Some(Reason::Corrupt), None));
    assert_eq!(
        database.count("SELECT count(*) FROM cap_inbox_state").await,
        2,
        "a state without a message goes"
    );
}

#[tokio::test]
async fn leases_are_renewed_only_while_they_hold() {
    let database = Database::new().await;
    database.publish(vec![held(1), held(2), held(3), outgoing(4)]).await;
    let done = RowOutcome::Succeeded { retention: Retention::Forget, reason: None };
    assert!(database.complete(Side::Outbox, first_lease(3), done).await);
    assert!(
        database.complete(Side::Outbox, first_lease(2), RowOutcome::Release { after: Duration::ZERO }).await
    );
    database.let_time_pass().await;
    let leases = [
        first_lease(3),
        first_lease(2),
        first_lease(1),
        Lease { id: 4, epoch: 0 },
        Lease { id: 1, epoch: 0 },
    ];
    let renewed = database.storage.renew(&owner("a"), Side::Outbox, &leases).await.unwrap();
    assert_eq!(renewed, [false, false, true, false, false]);
    assert_eq!(ids(&database.claim(Side::Outbox).await), [2, 4], "row 1 is held again");
    let renewed = database.storage.renew(&owner("a"), Side::Outbox, &[first_lease(2)]).await.unwrap();
    assert_eq!(renewed, [false], "another node has it now");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_claimers_never_get_the_same_row() {
    let database = Arc::new(Database::new().await);
    database.receive((1..=600).map(incoming).collect()).await;
    let tasks: Vec<_> = (0..8)
        .map(|node: usize| {
            let database = Arc::clone(&database);
            tokio::spawn(async move {
                let request = ClaimRequest { side: Side::Inbox, groups: vec![GROUP.into()], limit: 7 };
                let owner = owner(&node.to_string());
                let mut mine = Vec::new();
                loop {
                    let claims = database.storage.claim(&owner, &request).await.unwrap();
                    mine.extend(ids(&claims.rows));
                    // What is locked by another is due in a moment; leases last far longer.
                    if claims.rows.is_empty()
                        && claims.next_due.is_none_or(|next| next > Duration::from_secs(1))
                    {
                        return mine;
                    }
                }
            })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.unwrap());
    }
    assert_eq!(all.len(), 600, "no row twice");
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), 600, "no row left out");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_broken_off_leaves_the_store_usable() {
    let database = Arc::new(Database::new().await);
    database.publish((1..=50).map(outgoing).collect()).await;
    let blocker = database.pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
    // One waits for the lock, the others for their turn: none may be left hanging in a call that nobody waits for.
    let claims: Vec<_> = (0..3)
        .map(|_| {
            let database = Arc::clone(&database);
            tokio::spawn(async move { database.claims(Side::Outbox, 5).await })
        })
        .collect();
    for claim in claims {
        tokio::task::yield_now().await;
        claim.abort();
        assert!(claim.await.unwrap_err().is_cancelled());
    }
    blocker.rollback().await.unwrap();
    let request = NodeRequest {
        node: "a".into(),
        worker: None,
        lease: Duration::from_secs(30),
        succeeded_expire_after: Duration::from_hours(24),
    };
    database.storage.join(&request).await.unwrap();
    let mut seen = HashSet::new();
    while seen.len() < 50 {
        seen.extend(ids(&database.claim(Side::Outbox).await));
        // What the broken calls have claimed comes again when their leases are over.
        database.let_time_pass().await;
    }
}
