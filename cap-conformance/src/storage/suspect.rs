//! Suspects: rows whose lease expired without a release, and the crashes that are counted of them. Issue 8, row 2.

use std::time::Duration;

use cap_adapter::monitor::Monitor;
use cap_adapter::storage::{
    Claimed, Lease, Retention, RowOutcome, Side, StartMark, Status, Storage, Suspect, crash_text,
};

use super::StorageFixture;
use super::node::{LONG, Node, SIDES, failed, first_lease, retry, succeeded};

/// A lease that has expired as soon as it is given.
const NONE: Duration = Duration::ZERO;

impl<S: Storage + Monitor> Node<S> {
    /// A claim of one row of the inbox, in time.
    async fn claim_one(&self) -> Claimed {
        self.claim_in_time(Side::Inbox, 1).await.pop().expect("it was claimed")
    }

    async fn mark(&self, marks: &[(Lease, bool)]) -> Vec<bool> {
        let marks: Vec<_> =
            marks.iter().map(|(lease, alone)| StartMark { lease: *lease, alone: *alone }).collect();
        self.store.mark_started(&self.owner, &marks).await.expect("starts are noted")
    }
}

fn unmarked() -> Suspect {
    Suspect::default()
}

fn crashed(node: &str) -> Suspect {
    Suspect { started_before: true, crashed: Some(node.into()) }
}

/// An expired lease makes a suspect; a released one, a retry and a row without a lease do not. Only the inbox
/// has suspects.
pub async fn only_an_expired_lease_makes_a_suspect<F: StorageFixture>(fixture: &F) {
    if !fixture.marks_starts() {
        return;
    }
    let (a, b) = (Node::open(fixture, "a", NONE).await, Node::open(fixture, "b", LONG).await);
    for side in SIDES {
        a.insert(side, [1], true).await;
        a.insert(side, [2], false).await;
        b.insert(side, [3, 4], true).await;
        assert!(b.complete(side, first_lease(3), RowOutcome::Release { after: Duration::ZERO }).await);
        assert!(b.complete(side, first_lease(4), retry(Duration::ZERO, "once more")).await);
        let mut rows = b.claim_in_time(side, 4).await;
        rows.sort_by_key(|row| row.lease.id);
        let suspects: Vec<_> = rows.iter().map(|row| row.suspect.clone()).collect();
        let expected = if side == Side::Inbox { Some(unmarked()) } else { None };
        assert_eq!(suspects, [expected, None, None, None], "{side:?}");
        assert!(rows.iter().all(|row| row.crashes == 0));
    }
}

/// What is marked under a lease that then expires has crashed a process, once for each such lease: counted apart from the
/// attempts, and recorded.
pub async fn a_crash_is_counted_and_recorded<F: StorageFixture>(fixture: &F) {
    if !fixture.marks_starts() {
        return;
    }
    let (a, b) = (Node::open(fixture, "a", NONE).await, Node::open(fixture, "b", LONG).await);
    a.insert(Side::Inbox, [1], true).await;
    let first = a.claim_one().await;
    assert_eq!((first.suspect, first.crashes), (Some(unmarked()), 0));
    assert_eq!(a.mark(&[(first.lease, true)]).await, [true]);
    let second = a.claim_one().await;
    assert_eq!((second.suspect, second.crashes, second.attempts), (Some(crashed("a")), 1, 0));
    let row = b.row(Side::Inbox, 1).await;
    assert_eq!((row.status, row.attempts, row.last_error), (Status::Scheduled, 0, Some(crash_text("a"))));
    let third = a.claim_one().await;
    let marked_before = Some(Suspect { started_before: true, crashed: None });
    assert_eq!((third.suspect, third.crashes), (marked_before, 1), "nothing had started under that lease");
    assert_eq!(a.mark(&[(third.lease, true)]).await, [true]);
    let fourth = b.claim_one().await;
    assert_eq!((fourth.suspect, fourth.crashes), (Some(crashed("a")), 2));
    assert!(b.complete(Side::Inbox, fourth.lease, retry(NONE, "an ordinary failure")).await);
    let attempts = b.attempts(Side::Inbox, 1).await;
    let told: Vec<_> = attempts.iter().map(|one| (one.number, &*one.node, &*one.error)).collect();
    let crash = crash_text("a");
    assert_eq!(told, [(1, "a", &*crash), (1, "a", &*crash), (1, "b", "an ordinary failure")]);
    let fifth = b.claim_one().await;
    assert_eq!((fifth.suspect, fifth.crashes, fifth.attempts), (None, 2, 1));
}

/// Of two that ran side by side nobody knows which it was: neither is counted, and both are known to have been marked.
pub async fn what_did_not_run_alone_is_not_counted<F: StorageFixture>(fixture: &F) {
    if !fixture.marks_starts() {
        return;
    }
    let (a, b) = (Node::open(fixture, "a", NONE).await, Node::open(fixture, "b", LONG).await);
    a.insert(Side::Inbox, [1, 2], true).await;
    let rows = a.claim_in_time(Side::Inbox, 2).await;
    let (one, two) = (rows[0].lease, rows[1].lease);
    assert_eq!(a.mark(&[(one, true)]).await, [true]);
    assert_eq!(a.mark(&[(two, false), (one, false)]).await, [true, true]);
    for row in b.claim_in_time(Side::Inbox, 2).await {
        let marked_before = Some(Suspect { started_before: true, crashed: None });
        assert_eq!((row.suspect, row.crashes), (marked_before, 0));
    }
    assert_eq!(b.attempts(Side::Inbox, one.id).await, []);
}

/// A mark means nothing once its lease was completed, released or lost.
pub async fn a_mark_ends_with_its_lease<F: StorageFixture>(fixture: &F) {
    if !fixture.marks_starts() {
        return;
    }
    let (a, b) = (Node::open(fixture, "a", NONE).await, Node::open(fixture, "b", LONG).await);
    a.insert(Side::Inbox, 1..=4, true).await;
    let mut rows = b.claim_in_time(Side::Inbox, 4).await;
    rows.sort_by_key(|row| row.lease.id);
    let leases: Vec<Lease> = rows.iter().map(|row| row.lease).collect();
    let marks: Vec<_> = leases.iter().map(|lease| (*lease, true)).collect();
    assert_eq!(b.mark(&marks).await, [true; 4]);
    assert_eq!(b.mark(&[(first_lease(1), true)]).await, [false], "another has it by now");
    assert!(b.complete(Side::Inbox, leases[0], RowOutcome::Release { after: NONE }).await);
    assert!(b.complete(Side::Inbox, leases[1], retry(NONE, "no")).await);
    assert!(b.complete(Side::Inbox, leases[2], succeeded(Retention::Forget)).await);
    assert!(a.complete(Side::Inbox, leases[3], failed(true)).await);
    assert_eq!(b.mark(&marks[..3]).await, [false; 3], "nobody has them");
    for row in b.claim_in_time(Side::Inbox, 3).await {
        assert_eq!((row.suspect, row.crashes), (None, 0), "row {}", row.lease.id);
        assert_eq!(row.notice.is_some(), row.lease.id == 4);
    }
}

/// A process that lives takes back what was counted for the lease that it lost, and nothing else.
pub async fn a_crash_can_be_withdrawn<F: StorageFixture>(fixture: &F) {
    if !fixture.marks_starts() {
        return;
    }
    let (a, b) = (Node::open(fixture, "a", NONE).await, Node::open(fixture, "b", LONG).await);
    a.insert(Side::Inbox, [1], true).await;
    let mut leases = Vec::new();
    for _ in 0..2 {
        let claimed = a.claim_one().await;
        assert_eq!(a.mark(&[(claimed.lease, true)]).await, [true]);
        leases.push(claimed.lease);
    }
    let claimed = b.claim_one().await;
    assert_eq!(claimed.crashes, 2);
    a.store.withdraw_crashes(&leases[1..]).await.expect("a crash is taken back");
    a.store.withdraw_crashes(&[leases[1], first_lease(1), claimed.lease]).await.expect("nothing happens");
    assert_eq!(b.attempts(Side::Inbox, 1).await.len(), 1);
    assert!(b.complete(Side::Inbox, claimed.lease, RowOutcome::Release { after: NONE }).await);
    assert_eq!(b.claim_one().await.crashes, 1);
}

/// An operator's re-run begins anew.
pub async fn a_rerun_forgets_crashes<F: StorageFixture>(fixture: &F) {
    if !fixture.marks_starts() {
        return;
    }
    let (a, b) = (Node::open(fixture, "a", NONE).await, Node::open(fixture, "b", LONG).await);
    a.insert(Side::Inbox, [1], true).await;
    let claimed = a.claim_one().await;
    assert_eq!(a.mark(&[(claimed.lease, true)]).await, [true]);
    let claimed = b.claim_one().await;
    assert_eq!(claimed.crashes, 1);
    assert!(b.complete(Side::Inbox, claimed.lease, failed(false)).await);
    assert_eq!(b.rerun(Side::Inbox, &[1]).await, [1]);
    let claimed = b.claim_one().await;
    assert_eq!((claimed.suspect, claimed.crashes, claimed.attempts), (None, 0, 1));
    assert_eq!(b.attempts(Side::Inbox, 1).await.len(), 2, "what happened stays on record");
    assert!(b.complete(Side::Inbox, claimed.lease, succeeded(Retention::Forget)).await);
    assert_eq!(b.row(Side::Inbox, 1).await.attempts, 1, "a crash is no attempt");
}
