//! Leases: a node that has lost a row has no more say about it, whatever it believes.

use std::time::Duration;

use cap_adapter::monitor::Monitor;
use cap_adapter::storage::{Lease, Reason, Retention, RowOutcome, Side, Status};

use super::StorageFixture;
use super::node::{
    LONG, Node, SHORT, SIDES, at_broker, failed, first_lease, ids, retry, row_completion, row_completions,
    succeeded,
};

/// Every outcome that there is.
fn outcomes() -> Vec<RowOutcome> {
    vec![
        succeeded(Retention::Forget),
        succeeded(Retention::Keep(LONG)),
        succeeded(Retention::Delete),
        RowOutcome::Succeeded { retention: Retention::Keep(LONG), reason: Some(Reason::Unrouted) },
        retry(Duration::ZERO, "late"),
        RowOutcome::Retry { after: Duration::ZERO, hold: true, error: "late".to_owned() },
        at_broker(Duration::ZERO, LONG, "late"),
        failed(false),
        failed(true),
        RowOutcome::Notified,
        RowOutcome::Release { after: Duration::ZERO },
        RowOutcome::Release { after: LONG },
    ]
}

/// A node that slept through its lease wakes up and speaks: each outcome is refused and changes nothing.
pub async fn a_lost_lease_has_no_say<F: StorageFixture>(fixture: &F) {
    let (a, b) = (Node::open(fixture, "a", SHORT).await, Node::open(fixture, "b", LONG).await);
    let outcomes = outcomes();
    let count = i64::try_from(outcomes.len()).unwrap();
    for side in SIDES {
        a.insert(side, 1..=count, true).await;
        let taken = b.claim_in_time(side, outcomes.len()).await;
        let late = (1..).zip(&outcomes).map(|(id, outcome)| row_completion(first_lease(id), outcome.clone()));
        let report = a.write(&row_completions(side, late.collect())).await;
        let answers: Vec<bool> =
            report.completed_outgoing.into_iter().chain(report.completed_incoming).collect();
        assert_eq!(answers, vec![false; outcomes.len()]);
        for (id, ended) in (1..).zip(&outcomes) {
            let row = b.row(side, id).await;
            assert_eq!((row.status, row.reason), (Status::Scheduled, None), "after {ended:?}");
            assert_eq!((row.attempts, row.owner.as_deref()), (0, Some("b")));
            assert_eq!(row.last_error, None);
            assert_eq!(b.attempts(side, id).await, []);
        }
        let leases: Vec<Lease> = taken.iter().map(|row| row.lease).collect();
        assert_eq!(b.renew(side, &leases).await, vec![true; leases.len()], "the new node still has them");
    }
}

/// A lease that is renewed in time does not end: the row stays with its node for longer than one lease.
pub async fn renewing_keeps_a_row<F: StorageFixture>(fixture: &F) {
    let mut a = Node::open(fixture, "a", SHORT).await;
    let b = Node::open(fixture, "b", LONG).await;
    for side in SIDES {
        a.owner.lease = SHORT;
        a.insert(side, [1, 2], true).await;
        // One of the two is renewed, for so long that it cannot end; the other shows that the time has passed.
        a.owner.lease = LONG;
        assert_eq!(a.renew(side, &[first_lease(1)]).await, [true]);
        let rows = b.claim_in_time(side, 1).await;
        assert_eq!(ids(&rows), [2]);
        assert_eq!(a.renew(side, &[first_lease(1)]).await, [true], "a lease may be renewed again and again");
        assert!(a.complete(side, first_lease(1), succeeded(Retention::Forget)).await);
    }
}

/// A node learns by renewing that another has taken over.
pub async fn a_lost_lease_is_not_renewed<F: StorageFixture>(fixture: &F) {
    let (a, b) = (Node::open(fixture, "a", SHORT).await, Node::open(fixture, "b", LONG).await);
    for side in SIDES {
        a.insert(side, [1], true).await;
        let taken = b.claim_in_time(side, 1).await;
        b.insert(side, [2], true).await;
        let leases = [first_lease(2), first_lease(1), first_lease(404), taken[0].lease];
        assert_eq!(b.renew(side, &leases).await, [true, false, false, true], "in the order of the question");
        assert_eq!(b.row(side, 1).await.owner.as_deref(), Some("b"));
    }
}

/// A node has no lease on a row that it has released or completed.
pub async fn released_row_is_not_renewed<F: StorageFixture>(fixture: &F) {
    let node = Node::open(fixture, "a", LONG).await;
    for side in SIDES {
        node.insert(side, 1..=6, true).await;
        let given_back = [
            RowOutcome::Release { after: LONG },
            at_broker(LONG, LONG, "later"),
            retry(LONG, "later"),
            failed(false),
            succeeded(Retention::Forget),
            succeeded(Retention::Keep(LONG)),
        ];
        let completed = (1..).zip(given_back).map(|(id, outcome)| row_completion(first_lease(id), outcome));
        node.write(&row_completions(side, completed.collect())).await;
        let leases: Vec<Lease> = (1..=6).map(first_lease).collect();
        assert_eq!(node.renew(side, &leases).await, [false; 6]);
    }
}

/// Leases of rows that are not there, and epochs that never were.
pub async fn unknown_leases_are_lost<F: StorageFixture>(fixture: &F) {
    let node = Node::open(fixture, "a", LONG).await;
    for side in SIDES {
        node.insert(side, [1], true).await;
        for lease in [first_lease(404), Lease { id: 1, epoch: 0 }, Lease { id: 1, epoch: 2 }] {
            assert!(!node.complete(side, lease, succeeded(Retention::Forget)).await, "{lease:?}");
            assert_eq!(node.renew(side, &[lease]).await, [false], "{lease:?}");
        }
        assert!(node.complete(side, first_lease(1), succeeded(Retention::Forget)).await);
    }
}

/// After a lost connection the same word is said again. It counts once.
pub async fn repeated_outcome_counts_once<F: StorageFixture>(fixture: &F) {
    let node = Node::open(fixture, "a", LONG).await;
    let words = [
        (retry(LONG, "once"), Status::Retrying, 1),
        (at_broker(LONG, LONG, "once"), Status::Retrying, 1),
        (failed(false), Status::Failed, 1),
        (succeeded(Retention::Keep(LONG)), Status::Succeeded, 0),
        (RowOutcome::Release { after: LONG }, Status::Scheduled, 0),
    ];
    for side in SIDES {
        node.insert(side, 1..=5, true).await;
        for (id, (word, status, attempts)) in (1..).zip(&words) {
            assert!(node.complete(side, first_lease(id), word.clone()).await);
            let _either = node.complete(side, first_lease(id), word.clone()).await;
            let row = node.row(side, id).await;
            assert_eq!((row.status, row.attempts), (*status, *attempts), "{word:?}");
            assert_eq!(node.attempts(side, id).await.len(), *attempts as usize, "{word:?}");
        }
    }
}

/// A message that was done and forgotten is run again; a node that held it before must not be taken for the one
/// that holds it now.
pub async fn a_rerun_revives_no_old_lease<F: StorageFixture>(fixture: &F) {
    let (a, b) = (Node::open(fixture, "a", SHORT).await, Node::open(fixture, "b", LONG).await);
    for side in SIDES {
        a.insert(side, [1], true).await;
        let second = b.claim_in_time(side, 1).await.remove(0).lease;
        assert!(b.complete(side, second, succeeded(Retention::Forget)).await);
        assert_eq!(b.rerun(side, &[1]).await, [1]);
        let third = b.claim_in_time(side, 1).await.remove(0).lease;
        for old in [first_lease(1), second] {
            assert!(
                !a.complete(side, old, succeeded(Retention::Delete)).await,
                "{old:?} is older than {third:?}"
            );
        }
        assert!(b.complete(side, third, succeeded(Retention::Forget)).await);
    }
    b.expect_nothing_due(Side::Outbox).await;
}

/// However fast a message is done and run again, no two claims of it are given the same lease, so that what was said
/// under one is never taken for what is said under another.
pub async fn no_lease_is_given_twice<F: StorageFixture>(fixture: &F) {
    let node = Node::open(fixture, "a", LONG).await;
    for side in SIDES {
        node.insert(side, [1], true).await;
        assert!(node.complete(side, first_lease(1), succeeded(Retention::Forget)).await);
        let mut given = vec![first_lease(1)];
        for round in 0..6 {
            assert_eq!(node.rerun(side, &[1]).await, [1]);
            // In some rounds a node gives the row back before it is done.
            for _ in 0..round % 3 {
                let lease = node.claim_in_time(side, 1).await.remove(0).lease;
                assert!(node.complete(side, lease, RowOutcome::Release { after: Duration::ZERO }).await);
                given.push(lease);
            }
            let lease = node.claim_in_time(side, 1).await.remove(0).lease;
            assert!(node.complete(side, lease, succeeded(Retention::Forget)).await);
            given.push(lease);
            let row = node.row(side, 1).await;
            assert_eq!((row.status, row.reruns, row.last_error), (Status::Succeeded, 0, None), "forgotten");
        }
        let epochs: Vec<i32> = given.iter().map(|lease| lease.epoch).collect();
        assert!(epochs.is_sorted_by(|earlier, later| earlier < later), "{epochs:?}");
    }
    assert_eq!(node.store.counts().await.expect("rows are counted"), [], "what is forgotten is not counted");
}
