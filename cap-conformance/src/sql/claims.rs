//! Which node gets which row, when, and for how long.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use cap_adapter::storage::{
    ClaimRequest, Lease, NewIncoming, Owner, Reason, Retention, RowOutcome, Side, Status, Storage as _,
};

use super::SqlFixture;
use super::tables::{
    GROUP, Tables, delayed, first_lease, ids, incoming, leased, leased_incoming, outgoing, owner,
};

/// A claim takes the rows that are due for the longest time, as many as its limit.
pub async fn longest_due_comes_first_and_the_limit_holds<F: SqlFixture>(fixture: &F) {
    let tables = Tables::create(fixture).await;
    tables.publish((1..=5).map(outgoing).collect()).await;
    tables.execute("UPDATE {t}outbox_state SET due = due - {minute} WHERE id IN (4, 2)").await;
    let claims = tables.claims(Side::Outbox, 3).await;
    assert_eq!(ids(&claims.rows), [2, 4, 1]);
    assert_eq!(claims.next_due, Some(Duration::ZERO), "two more are due");
    assert!(claims.rows.iter().all(|row| row.lease.epoch == 1 && row.attempts == 0 && row.notice.is_none()));
    let claims = tables.claims(Side::Outbox, 3).await;
    assert_eq!(ids(&claims.rows), [3, 5]);
    let next = claims.next_due.unwrap();
    assert!(
        next > Duration::from_secs(20) && next <= Duration::from_secs(30),
        "{next:?}: a lease may expire"
    );
}

/// A claim says when the first row that it did not take is due.
pub async fn next_due_is_that_of_the_first_row_not_claimed<F: SqlFixture>(fixture: &F) {
    let tables = Tables::create(fixture).await;
    assert_eq!(tables.claims(Side::Outbox, 10).await.next_due, None);
    assert_eq!(tables.claims(Side::Inbox, 10).await.next_due, None);
    tables.publish(vec![outgoing(1)]).await;
    let claims = tables.claims(Side::Outbox, 1).await;
    assert_eq!((ids(&claims.rows), claims.next_due), (vec![1], None), "one's own new lease does not count");
    tables.publish(vec![delayed(2)]).await;
    tables.execute("UPDATE {t}outbox_state SET due = NULL WHERE id = 1").await;
    let next = tables.claims(Side::Outbox, 10).await.next_due.unwrap();
    assert!(next > Duration::from_secs(50) && next <= Duration::from_secs(60), "{next:?}");
}

/// A leased or delayed row is claimed when its time is over.
pub async fn row_is_claimed_again_only_after_its_lease<F: SqlFixture>(fixture: &F) {
    let tables = Tables::create(fixture).await;
    tables.publish(vec![leased(1), delayed(2)]).await;
    assert!(tables.claim(Side::Outbox).await.is_empty());
    tables.let_time_pass().await;
    let rows = tables.claim(Side::Outbox).await;
    let leases: Vec<_> = rows.iter().map(|row| row.lease).collect();
    assert_eq!(
        leases,
        [Lease { id: 1, epoch: 2 }, Lease { id: 2, epoch: 1 }],
        "the lease ended before the delay"
    );
    let row = tables.row(Side::Outbox, 2).await;
    assert_eq!((row.status, row.owner.as_deref()), (Status::Scheduled, Some("b")), "no longer delayed");
}

/// A claim takes rows of its own version and of the requested groups.
pub async fn groups_and_versions_are_kept_apart<F: SqlFixture>(fixture: &F) {
    let tables = Tables::create(fixture).await;
    let of = |id, group: &str| NewIncoming { group: group.into(), ..incoming(id) };
    tables.receive(vec![of(1, "g"), of(2, "h"), of(3, "i"), of(4, "g")]).await;
    let groups = |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect::<Vec<Arc<str>>>();
    let request = |names: &[&str]| ClaimRequest::new(Side::Inbox, groups(names), 10);
    let other = Owner { version: "v2".into(), ..owner("b") };
    let claims = tables.storage.claim(&other, &request(&["g", "h", "i"])).await.unwrap();
    assert!(claims.rows.is_empty() && claims.next_due.is_none());
    let claims = tables.storage.claim(&owner("b"), &request(&["i", "g", "g"])).await.unwrap();
    assert_eq!(ids(&claims.rows), [1, 3, 4]);
    assert_eq!(claims.rows[1].group.as_ref(), "i");
    assert_eq!(claims.next_due, None, "row 2 is of a group that was not asked for");
    assert!(tables.storage.claim(&owner("b"), &request(&[])).await.unwrap().rows.is_empty());
}

/// A failure of which no operator was notified is claimed by another node, until it is notified.
pub async fn failure_not_notified_goes_to_another_node<F: SqlFixture>(fixture: &F) {
    let tables = Tables::create(fixture).await;
    tables.receive(vec![leased_incoming(1)]).await;
    let keep = Duration::from_secs(60);
    let outcome = RowOutcome::Failed {
        reason: Reason::Exhausted,
        error: "sold out".to_owned(),
        counted: true,
        keep,
        notify: true,
    };
    assert!(tables.complete(Side::Inbox, first_lease(1), outcome).await);
    assert!(tables.claim(Side::Inbox).await.is_empty());
    tables.let_time_pass().await;
    let row = tables.claim(Side::Inbox).await.remove(0);
    assert_eq!(row.notice, Some((Reason::Exhausted, "sold out".to_owned())));
    assert_eq!(row.attempts, 1);
    assert!(tables.complete(Side::Inbox, row.lease, RowOutcome::Notified).await);
    tables.let_time_pass().await;
    assert!(tables.claim(Side::Inbox).await.is_empty());
}

/// A claim reads no more than 64 MiB of bodies, unless a single body is larger.
pub async fn large_messages_are_claimed_a_few_at_a_time<F: SqlFixture>(fixture: &F) {
    let tables = Tables::create(fixture).await;
    tables.publish((1..=5).map(outgoing).collect()).await;
    tables.receive((1..=5).map(incoming).collect()).await;
    for (side, messages) in [(Side::Outbox, "outbox"), (Side::Inbox, "inbox")] {
        for (id, megabytes) in [(1, 64), (2, 22), (3, 22), (4, 22)] {
            tables.set_body(messages, id, megabytes << 20).await;
        }
        for (claimed, more) in [(&[1][..], true), (&[2, 3], true), (&[4, 5], false)] {
            let claims = tables.claims(side, 100).await;
            assert_eq!(ids(&claims.rows), claimed);
            assert_eq!(claims.next_due == Some(Duration::ZERO), more, "{:?}", claims.next_due);
        }
    }
}

/// A row whose headers cannot be read is parked with the reason, and the others are claimed.
pub async fn unreadable_row_is_parked<F: SqlFixture>(fixture: &F) {
    let tables = Tables::create(fixture).await;
    tables.receive(vec![incoming(1), incoming(2), incoming(3)]).await;
    tables
        .execute("UPDATE {t}inbox SET headers = '[]' WHERE id = 1; DELETE FROM {t}inbox WHERE id = 3")
        .await;
    assert_eq!(ids(&tables.claim(Side::Inbox).await), [2]);
    let row = tables.row(Side::Inbox, 1).await;
    assert_eq!((row.status, row.reason, row.due), (Status::Failed, Some(Reason::Corrupt), None));
    assert!(row.last_error.unwrap().contains("headers cannot be read"));
    assert_eq!(tables.count("{t}inbox_state").await, 2, "a state without a message goes");
}

/// The same for rows whose retry the broker has delivered.
pub async fn unreadable_waiting_row_is_parked<F: SqlFixture>(fixture: &F) {
    let tables = Tables::create(fixture).await;
    tables.receive((1..=3).map(leased_incoming).collect()).await;
    let minute = Duration::from_secs(60);
    for id in 1..=3 {
        let outcome = RowOutcome::RetryAtBroker { after: minute, spare: minute, error: "no".to_owned() };
        assert!(tables.complete(Side::Inbox, first_lease(id), outcome).await);
    }
    tables
        .execute("UPDATE {t}inbox SET headers = '[]' WHERE id = 1; DELETE FROM {t}inbox WHERE id = 3")
        .await;
    let leases = [1, 2, 3].map(first_lease);
    let rows = tables.storage.claim_waiting(&owner("b"), &leases).await.unwrap();
    let claimed: Vec<_> = rows.iter().map(|row| row.as_ref().map(|row| row.lease.id)).collect();
    assert_eq!(claimed, [None, Some(2), None]);
    let row = tables.row(Side::Inbox, 1).await;
    assert_eq!((row.status, row.reason, row.due), (Status::Failed, Some(Reason::Corrupt), None));
    assert_eq!(tables.count("{t}inbox_state").await, 2, "a state without a message goes");
}

/// A renewal extends the leases that hold, and says which do not.
pub async fn leases_are_renewed_only_while_they_hold<F: SqlFixture>(fixture: &F) {
    let tables = Tables::create(fixture).await;
    tables.publish(vec![leased(1), leased(2), leased(3), outgoing(4)]).await;
    let done = RowOutcome::Succeeded { retention: Retention::Forget, reason: None };
    assert!(tables.complete(Side::Outbox, first_lease(3), done).await);
    assert!(
        tables.complete(Side::Outbox, first_lease(2), RowOutcome::Release { after: Duration::ZERO }).await
    );
    tables.let_time_pass().await;
    let leases = [
        first_lease(3),
        first_lease(2),
        first_lease(1),
        Lease { id: 4, epoch: 0 },
        Lease { id: 1, epoch: 0 },
    ];
    let renewed = tables.storage.renew(&owner("a"), Side::Outbox, &leases).await.unwrap();
    assert_eq!(renewed, [false, false, true, false, false]);
    assert_eq!(ids(&tables.claim(Side::Outbox).await), [2, 4], "row 1 is leased again");
    let renewed = tables.storage.renew(&owner("a"), Side::Outbox, &[first_lease(2)]).await.unwrap();
    assert_eq!(renewed, [false], "another node has it now");
}

/// Nodes that claim at the same time share the rows among them.
pub async fn eight_claimers_never_get_the_same_row<F: SqlFixture>(fixture: &F) {
    let tables = Tables::create(fixture).await;
    tables.receive((1..=600).map(incoming).collect()).await;
    let tasks: Vec<_> = (0..8)
        .map(|node: usize| {
            let storage = Arc::clone(&tables.storage);
            tokio::spawn(async move {
                let request = ClaimRequest::new(Side::Inbox, vec![GROUP.into()], 7);
                let owner = owner(&node.to_string());
                let mut mine = Vec::new();
                loop {
                    let claims = storage.claim(&owner, &request).await.unwrap();
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
