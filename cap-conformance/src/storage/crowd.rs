//! Many at once, and calls that end half-way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use cap_adapter::storage::{ClaimRequest, NewIncoming, NewOutgoing, Side, Storage, Stored, Wake, WriteBatch};
use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use super::StorageFixture;
use super::node::{GROUP, LONG, Node, SHORT, SIDES, failed, first_lease, ids, incoming, message, outgoing};
use crate::patience::{eventually, in_time};

/// Eight nodes take five hundred rows between them: every row, and none twice.
pub async fn claimers_never_share_a_row<F: StorageFixture>(fixture: &F) {
    let (a, b) = (Node::open(fixture, "a", LONG).await, Node::open(fixture, "b", LONG).await);
    for side in SIDES {
        a.insert(side, 1..=500, false).await;
        let taken = Mutex::new(Vec::new());
        let claimers = (0..8).map(async |number| {
            let node = if number % 2 == 0 { &a } else { &b };
            eventually("all rows to be claimed", async || {
                let rows = node.claim(side, 7).await.rows;
                let mut taken = taken.lock().unwrap();
                taken.extend(ids(&rows));
                (taken.len() >= 500).then_some(())
            })
            .await;
        });
        join_all(claimers).await;
        let taken = taken.into_inner().unwrap();
        assert_eq!(taken.len(), 500, "nothing is claimed twice");
        assert_eq!(taken.iter().copied().collect::<BTreeSet<i64>>(), (1..=500).collect());
    }
}

/// Eight nodes get the same message at the same time, as after a redelivery: one of them has it.
pub async fn writers_of_one_message_id_agree<F: StorageFixture>(fixture: &F) {
    let (a, b) = (Node::open(fixture, "a", LONG).await, Node::open(fixture, "b", LONG).await);
    for round in 0..10_i64 {
        let name = format!("round-{round}");
        let writers = (1..=8).map(async |number| {
            let node = if number % 2 == 0 { &a } else { &b };
            let id = round * 10 + number;
            let batch = WriteBatch {
                outgoing: vec![NewOutgoing { message: message(&name, "t"), ..outgoing(id, true) }],
                incoming: vec![NewIncoming { message: message(&name, "t"), ..incoming(id, true) }],
                ..WriteBatch::default()
            };
            let report = node.write(&batch).await;
            (report.outgoing[0], report.incoming[0])
        });
        let (out, inn): (Vec<_>, Vec<_>) = join_all(writers).await.into_iter().unzip();
        for answers in [out, inn] {
            let new = answers.iter().filter(|answer| **answer == Stored::New).count();
            assert_eq!((new, answers.len()), (1, 8), "{answers:?}");
        }
    }
}

/// An operator's re-run through one process is work for the others, and they learn of it.
pub async fn a_rerun_wakes_the_other_nodes<F: StorageFixture>(fixture: &F) {
    if !fixture.signals() {
        return;
    }
    let (a, b) = (Node::open(fixture, "a", LONG).await, Node::open(fixture, "b", LONG).await);
    let (wake, cancelled) = (Wake::default(), CancellationToken::new());
    let case = async {
        for side in SIDES {
            a.insert(side, [1], true).await;
            assert!(a.complete(side, first_lease(1), failed(false)).await);
            // Listening begins some time after it was asked for, so that one re-run may be too early.
            eventually("a wake after a re-run", async || {
                a.rerun(side, &[1]).await;
                tokio::time::timeout(Duration::from_millis(500), wake.woken(side)).await.ok()
            })
            .await;
        }
        cancelled.cancel();
    };
    let both = async { tokio::join!(b.store.listen(wake.clone(), cancelled.clone()), case) };
    in_time("listening to end when it is cancelled", both).await;
}

/// A caller gives up on a write: afterwards all of it is there or nothing, and the storage goes on.
pub async fn a_dropped_write_is_whole_or_nothing<F: StorageFixture>(fixture: &F) {
    let node = Node::open(fixture, "a", LONG).await;
    let mut told = BTreeMap::new();
    for id in 1..=60_i64 {
        let batch = WriteBatch {
            outgoing: vec![outgoing(id, false)],
            incoming: vec![incoming(id, false)],
            ..WriteBatch::default()
        };
        let patience = Duration::from_micros(u64::try_from(id).unwrap() * 50 - 50);
        let outcome = tokio::time::timeout(patience, node.store.write(&node.owner, &batch)).await;
        told.insert(id, outcome.is_ok_and(|report| report.is_ok()));
    }
    // What was given up may still be under way for a moment; half of it may not stay.
    eventually("every write to be whole or nothing", async || {
        let mut whole = true;
        for id in told.keys() {
            let there =
                [node.get(Side::Outbox, *id).await.is_some(), node.get(Side::Inbox, *id).await.is_some()];
            whole &= there[0] == there[1];
        }
        whole.then_some(())
    })
    .await;
    for (id, _) in told.iter().filter(|(_, told)| **told) {
        assert!(node.get(Side::Outbox, *id).await.is_some(), "row {id} was reported as stored");
    }
    in_time("the storage to go on", node.insert(Side::Outbox, [1000], true)).await;
}

/// A caller gives up on claims: whatever they took comes back when its lease ends, and nothing is lost.
pub async fn a_dropped_claim_loses_no_row<F: StorageFixture>(fixture: &F) {
    let mut a = Node::open(fixture, "a", SHORT).await;
    let b = Node::open(fixture, "b", LONG).await;
    for side in SIDES {
        a.insert(side, 1..=60, false).await;
        for round in 0..40 {
            let request = ClaimRequest::new(side, vec![GROUP.into()], 1);
            let claim = a.store.claim(&a.owner, &request);
            let _given_up = tokio::time::timeout(Duration::from_micros(round * 50), claim).await;
        }
        let mut rows = ids(&in_time("the rows to come back", b.claim_in_time(side, 60)).await);
        rows.sort_unstable();
        assert_eq!(rows, (1..=60).collect::<Vec<_>>());
    }
    a.owner.lease = LONG;
    in_time("the storage to go on", a.insert(Side::Outbox, [1000], true)).await;
}
