//! The audit: acts of operators, kept for all nodes.

use cap_adapter::monitor::{Monitor, NewAct};
use cap_adapter::storage::Side;

use super::StorageFixture;
use super::node::{LONG, Node};

/// Acts are listed newest first, in pages, on every node, exactly as they were recorded.
pub async fn acts_are_listed_from_new_to_old<F: StorageFixture>(fixture: &F) {
    if !fixture.keeps_acts() {
        return;
    }
    let (a, b) = (Node::open(fixture, "a", LONG).await, Node::open(fixture, "b", LONG).await);
    let many: Vec<i64> = (1..=150).collect();
    let body = b"\x00\xff{\"OrderId\":8}".to_vec();
    let acts = [
        NewAct::new("alice", "rerun", Side::Inbox, &[7, i64::MAX]),
        NewAct::new("bob \u{2603}'; --", "edit", Side::Outbox, &[8]).former_body(&body.into()),
        NewAct::new("alice", "delete", Side::Inbox, &many),
    ];
    for act in &acts {
        a.store.record(act).await.expect("an act is recorded");
    }
    let all = b.store.acts(None, 10).await.expect("acts are listed");
    let listed: Vec<&NewAct> = all.iter().rev().map(|act| &act.act).collect();
    assert_eq!(listed, acts.iter().collect::<Vec<_>>());
    assert_eq!((all[0].act.count, all[0].act.ids.len()), (150, NewAct::MOST_IDS));
    assert!(all.windows(2).all(|pair| pair[0].id > pair[1].id && pair[0].at >= pair[1].at), "{all:?}");
    let page = b.store.acts(Some(all[0].id), 1).await.expect("acts are listed");
    assert_eq!(page, all[1..2]);
    assert!(b.store.acts(Some(all[2].id), 10).await.expect("acts are listed").is_empty());
}
