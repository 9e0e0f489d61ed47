//! Retries of which a broker keeps a copy: claimed when it delivers them, and by themselves if it does not.

use std::collections::BTreeSet;
use std::time::Duration;

use cap_adapter::monitor::{Among, Change, Monitor};
use cap_adapter::storage::{Claimed, Lease, Retention, RowOutcome, Side, Status, Storage};
use futures_util::future::join_all;

use super::StorageFixture;
use super::node::{
    GROUP, LONG, NOTHING, Node, SHORT, SIDES, at_broker, failed, first_lease, ids, message, retry,
    row_completion, row_completions, succeeded, waits,
};

/// Rows whose first attempt has failed, and whose retry is at the broker. Their leases are those of that attempt.
async fn wait<S: Storage + Monitor>(
    node: &Node<S>,
    rows: impl IntoIterator<Item = i64> + Clone,
) -> Vec<Lease> {
    node.insert(Side::Inbox, rows.clone(), true).await;
    let leases: Vec<Lease> = rows.into_iter().map(first_lease).collect();
    let completed = leases.iter().map(|lease| row_completion(*lease, at_broker(LONG, LONG, "at first")));
    let report = node.write(&row_completions(Side::Inbox, completed.collect())).await;
    assert!(report.completed_incoming.iter().all(|held| *held), "the leases held");
    leases
}

fn claimed_ids(rows: &[Option<Claimed>]) -> Vec<Option<i64>> {
    rows.iter().map(|row| row.as_ref().map(|row| row.lease.id)).collect()
}

/// The failed attempt is on record with when the next is due; the row itself is due only when the broker has had its
/// time, and nobody's.
pub async fn a_retry_at_the_broker_is_recorded<F: StorageFixture>(fixture: &F) {
    let node = Node::open(fixture, "a", LONG).await;
    for side in SIDES {
        node.insert(side, [1], true).await;
        assert!(node.complete(side, first_lease(1), at_broker(LONG, LONG / 4, "at first")).await);
        let row = node.row(side, 1).await;
        assert_eq!((row.status, row.attempts, row.owner), (Status::Retrying, 1, None));
        assert_eq!((row.reason, row.expires, row.last_error.as_deref()), (None, None, Some("at first")));
        let attempt = node.attempts(side, 1).await.remove(0);
        assert_eq!((attempt.number, attempt.node.as_str(), attempt.error.as_str()), (1, "a", "at first"));
        assert_eq!(waits(&attempt), Some(LONG));
        assert_eq!(row.due, attempt.next.map(|next| next + LONG / 4));
        assert_eq!(ids(&node.claim(side, 10).await.rows), NOTHING);
        assert_eq!(node.renew(side, &[first_lease(1)]).await, [false], "the lease is used up");
    }
}

/// The broker's copy is lost: the row becomes due by itself, for any node. A copy that comes too late finds nothing.
pub async fn a_retry_comes_without_the_broker<F: StorageFixture>(fixture: &F) {
    let (a, b) = (Node::open(fixture, "a", LONG).await, Node::open(fixture, "b", LONG).await);
    let (after, spare) = (Duration::from_millis(300), Duration::from_millis(200));
    for side in SIDES {
        a.insert(side, [1], true).await;
        assert!(a.complete(side, first_lease(1), at_broker(after, spare, "at first")).await);
        let claimed = b.claim_in_time(side, 1).await.remove(0);
        assert_eq!((claimed.attempts, claimed.lease.epoch), (1, 2));
        assert!(claimed.age >= after + spare, "{:?} is early", claimed.age);
    }
    assert_eq!(claimed_ids(&a.claim_waiting(&[first_lease(1)]).await), [None]);
}

/// The broker delivers long before the row is due by itself: whoever gets it has the row, under a lease of its own.
pub async fn a_waiting_row_is_claimed_before_it_is_due<F: StorageFixture>(fixture: &F) {
    if !fixture.claims_waiting() {
        return;
    }
    let (a, b) = (Node::open(fixture, "a", LONG).await, Node::open(fixture, "b", LONG).await);
    let leases = wait(&a, [1]).await;
    let claimed = b.claim_waiting(&leases).await.remove(0).expect("it waits");
    assert_eq!(claimed.lease, Lease { id: 1, epoch: 2 });
    assert_eq!((claimed.attempts, claimed.attempts_before_rerun), (1, 0));
    assert_eq!((&*claimed.group, claimed.notice), (GROUP, None));
    assert_eq!(claimed.message, message("m1", "order.created"));
    let row = a.row(Side::Inbox, 1).await;
    assert_eq!((row.status, row.owner.as_deref()), (Status::Retrying, Some("b")));
    assert_eq!(ids(&a.claim(Side::Inbox, 10).await.rows), NOTHING, "it is in work");
    assert_eq!(a.rerun(Side::Inbox, &[1]).await, NOTHING, "it is in work");
    assert!(!a.complete(Side::Inbox, leases[0], succeeded(Retention::Forget)).await, "the old lease is over");
    assert_eq!(b.renew(Side::Inbox, &[leases[0], claimed.lease]).await, [false, true]);
    assert!(b.complete(Side::Inbox, claimed.lease, at_broker(LONG, LONG, "again")).await);
    let again = a.claim_waiting(&[leases[0], claimed.lease]).await;
    assert_eq!(claimed_ids(&again), [None, Some(1)], "it waits again, under its newer lease");
    let again = again.into_iter().flatten().next().expect("it was claimed");
    assert_eq!((again.attempts, again.lease.epoch), (2, 3));
    assert!(a.complete(Side::Inbox, again.lease, succeeded(Retention::Forget)).await);
    a.expect_nothing_due(Side::Inbox).await;
}

/// The lease of a waiting row that the broker has brought ends like any other when its node dies.
pub async fn a_waiting_row_falls_to_another_node<F: StorageFixture>(fixture: &F) {
    if !fixture.claims_waiting() {
        return;
    }
    let (a, b) = (Node::open(fixture, "a", SHORT).await, Node::open(fixture, "b", LONG).await);
    let leases = wait(&a, [1]).await;
    let first = a.claim_waiting(&leases).await.remove(0).expect("it waits");
    let second = b.claim_in_time(Side::Inbox, 1).await.remove(0);
    assert_eq!(second.lease, Lease { id: 1, epoch: 3 });
    assert!(!a.complete(Side::Inbox, first.lease, succeeded(Retention::Forget)).await);
    assert!(b.complete(Side::Inbox, second.lease, succeeded(Retention::Forget)).await);
}

/// A copy that the broker delivers twice is worth one attempt, also within one batch; answers stand in the order of the
/// leases.
pub async fn a_waiting_row_is_claimed_once<F: StorageFixture>(fixture: &F) {
    if !fixture.claims_waiting() {
        return;
    }
    let (a, b) = (Node::open(fixture, "a", LONG).await, Node::open(fixture, "b", LONG).await);
    assert_eq!(claimed_ids(&a.claim_waiting(&[]).await), []);
    let leases = wait(&a, [1, 2, 3, 4]).await;
    let asked = [leases[2], leases[0], first_lease(404), leases[2], leases[1]];
    let rows = b.claim_waiting(&asked).await;
    assert_eq!(claimed_ids(&rows), [Some(3), Some(1), None, None, Some(2)]);
    let rows = a.claim_waiting(&[leases[3], leases[2], leases[1], leases[0]]).await;
    assert_eq!(claimed_ids(&rows), [Some(4), None, None, None]);
}

/// What became of a row while the broker kept its copy counts, and the copy is nobody's business any more.
pub async fn what_does_not_wait_any_more_is_not_claimed<F: StorageFixture>(fixture: &F) {
    if !fixture.claims_waiting() {
        return;
    }
    let node = Node::open(fixture, "a", LONG).await;
    let leases = wait(&node, 1..=8).await;
    let lease_of = |id: usize| leases[id - 1];
    assert_eq!(node.rerun(Side::Inbox, &[1, 2]).await, [1, 2]);
    assert_eq!(node.store.delete(Side::Inbox, &[3], Among::All).await.expect("rows are deleted"), [3]);
    let mut again = ids(&node.claim_in_time(Side::Inbox, 2).await);
    again.sort_unstable();
    assert_eq!(again, [1, 2], "those that were re-run");
    let newer = Lease { id: 2, epoch: 2 };
    assert!(node.complete(Side::Inbox, newer, at_broker(LONG, LONG, "again")).await);
    let rows = node.claim_waiting(&[lease_of(4), lease_of(5), lease_of(6)]).await;
    let claimed: Vec<Lease> = rows.into_iter().flatten().map(|row| row.lease).collect();
    let outcomes = [failed(false), RowOutcome::Release { after: LONG }, succeeded(Retention::Keep(LONG))];
    for (lease, outcome) in claimed.iter().zip(outcomes) {
        assert!(node.complete(Side::Inbox, *lease, outcome).await);
    }
    let gone: Vec<Lease> = (1..=6).map(lease_of).collect();
    assert_eq!(claimed_ids(&node.claim_waiting(&gone).await), [None; 6]);
    let unknown =
        [Lease { id: 7, epoch: 0 }, Lease { id: 7, epoch: 2 }, Lease { id: 7, epoch: -1 }, first_lease(404)];
    assert_eq!(claimed_ids(&node.claim_waiting(&unknown).await), [None; 4]);
    let rows = node.claim_waiting(&[newer, lease_of(7), lease_of(8)]).await;
    assert_eq!(claimed_ids(&rows), [Some(2), Some(7), Some(8)], "these do wait");
}

/// A row in work is not taken from its node, whether it has failed before or not, nor is one that has failed for good
/// and whose notice is due.
pub async fn leased_row_is_not_claimed_as_waiting<F: StorageFixture>(fixture: &F) {
    if !fixture.claims_waiting() {
        return;
    }
    let (a, b) = (Node::open(fixture, "a", LONG).await, Node::open(fixture, "b", LONG).await);
    a.insert(Side::Inbox, 1..=4, true).await;
    let hold = RowOutcome::Retry { after: Duration::ZERO, hold: true, error: "at first".to_owned() };
    assert!(a.complete(Side::Inbox, first_lease(2), hold).await);
    assert!(a.complete(Side::Inbox, first_lease(3), failed(true)).await);
    assert!(a.complete(Side::Inbox, first_lease(4), RowOutcome::Release { after: LONG }).await);
    a.insert(Side::Inbox, [5], false).await;
    let leases: Vec<Lease> = (1..=4).map(first_lease).chain([Lease { id: 5, epoch: 0 }]).collect();
    assert_eq!(claimed_ids(&b.claim_waiting(&leases).await), [None; 5]);
    assert_eq!(a.renew(Side::Inbox, &leases[..3]).await, [true; 3], "a is not disturbed");
}

/// Fleets of two versions share a storage and see nothing of each other's work. The outbox has no such rows.
pub async fn waiting_rows_of_others_are_left_alone<F: StorageFixture>(fixture: &F) {
    if !fixture.claims_waiting() {
        return;
    }
    let mut node = Node::open(fixture, "a", LONG).await;
    let leases = wait(&node, [1]).await;
    node.insert(Side::Outbox, [2], true).await;
    assert!(node.complete(Side::Outbox, first_lease(2), retry(LONG, "later")).await);
    assert_eq!(claimed_ids(&node.claim_waiting(&[first_lease(2)]).await), [None]);
    node.owner.version = "v2".into();
    assert_eq!(claimed_ids(&node.claim_waiting(&leases).await), [None]);
    node.owner.version = "v1".into();
    assert_eq!(claimed_ids(&node.claim_waiting(&leases).await), [Some(1)]);
}

/// Eight nodes are brought the same two hundred rows at the same time, in one order and in the other: each row goes to
/// one of them, and none waits for another in vain.
pub async fn nodes_never_share_a_waiting_row<F: StorageFixture>(fixture: &F) {
    if !fixture.claims_waiting() {
        return;
    }
    let (a, b) = (Node::open(fixture, "a", LONG).await, Node::open(fixture, "b", LONG).await);
    for round in 0..5 {
        let rows = round * 200 + 1..=round * 200 + 200;
        let leases = wait(&a, rows.clone()).await;
        let claimers = (0..8_usize).map(async |number| {
            let node = if number % 2 == 0 { &a } else { &b };
            let mut mine = leases.clone();
            if number / 2 % 2 == 0 {
                mine.reverse();
            }
            node.claim_waiting(&mine).await.into_iter().flatten().map(|row| row.lease).collect::<Vec<_>>()
        });
        let taken: Vec<Lease> = join_all(claimers).await.into_iter().flatten().collect();
        assert_eq!(taken.len(), 200, "nothing is claimed twice, nothing is left");
        assert_eq!(taken.iter().map(|lease| lease.id).collect::<BTreeSet<i64>>(), rows.collect());
        assert!(taken.iter().all(|lease| lease.epoch == 2));
        assert_eq!(b.renew(Side::Inbox, &taken).await, vec![true; 200], "every lease is good");
    }
}

/// The broker brings a row at the moment at which an operator runs it again, repaired: either the node has it and the person
/// came too late, or the person was first and the broker's copy is worth nothing.
pub async fn broker_and_operator_do_not_share_a_row<F: StorageFixture>(fixture: &F) {
    if !fixture.claims_waiting() {
        return;
    }
    let (a, b) = (Node::open(fixture, "a", LONG).await, Node::open(fixture, "b", LONG).await);
    let change = Change { audit: None, body: Some("repaired".into()) };
    for id in 1..=40 {
        let leases = wait(&a, [id]).await;
        let claim = b.claim_waiting(&leases);
        let ids = [id];
        let rerun = a.rerun_changed(Side::Inbox, &ids, &change);
        let (mut claimed, rerun) = if id % 2 == 0 {
            tokio::join!(claim, rerun)
        } else {
            let (rerun, claim) = tokio::join!(rerun, claim);
            (claim, rerun)
        };
        let message = if let Some(claimed) = claimed.remove(0) {
            assert_eq!(rerun, NOTHING);
            assert_eq!(claimed.message, message(&format!("m{id}"), "order.created"));
            claimed.message
        } else {
            assert_eq!(rerun, [id]);
            let claimed = b.claim_in_time(Side::Inbox, 1).await.remove(0);
            assert_eq!((claimed.lease.id, claimed.lease.epoch), (id, 2));
            assert_eq!(&claimed.message.body[..], b"repaired");
            claimed.message
        };
        assert_eq!(a.row(Side::Inbox, id).await.message, message);
    }
}
