//! Searches: every filter, the bound, and pages while messages come.

use std::sync::Arc;
use std::time::Duration;

use cap_adapter::message::Message;
use cap_adapter::monitor::{Bound, MessageState, Monitor, Query, SearchLimits};
use cap_adapter::storage::{NewIncoming, Retention, Side, Storage, WriteBatch};

use super::StorageFixture;
use super::node::{
    LONG, NOTHING, Node, SIDES, delayed, failed, first_lease, incoming, message, retry, succeeded,
};

/// What a search finds, which is what a list has too.
async fn found<S: Storage + Monitor>(node: &Node<S>, query: &Query) -> Vec<i64> {
    let page = node.store.search(query, &SearchLimits::default()).await.expect("messages are searched");
    let found: Vec<i64> = page.rows.iter().map(|row| row.id).collect();
    assert_eq!((page.bound, page.next), (None, None), "{query:?} is at the end");
    let listed = node.store.list(query).await.expect("messages are listed");
    assert_eq!(listed.iter().map(|row| row.id).collect::<Vec<_>>(), found, "{query:?}");
    assert_eq!(node.store.list_ids(query).await.expect("ids are listed"), found, "{query:?}");
    found
}

fn with(id: i64, headers: &[(&str, &str)], body: &str) -> NewIncoming {
    let mut all = message(&format!("m{id}"), "order.created").headers.clone();
    for (name, value) in headers {
        all.insert((*name).to_owned(), (*value).to_owned());
    }
    NewIncoming { message: Arc::new(Message::new(all, body.as_bytes().to_vec())), ..incoming(id, true) }
}

/// Ids, headers and the body narrow a search, alone and together. They are compared exactly.
pub async fn messages_are_found_by_what_they_say<F: StorageFixture>(fixture: &F) {
    let node = Node::open(fixture, "a", LONG).await;
    let mut rows = vec![
        with(1, &[("cap-corr-id", "c1"), ("tenant", "a\"b\\c")], "{\"name\":\"100%\"}"),
        with(2, &[("cap-corr-id", "c12"), ("tenant", "a")], "{\"name\":\"M\u{fc}ller\"}"),
        with(3, &[("x-cap-corr-id", "c1"), ("note", "\"cap-corr-id\":\"c1\"")], "\u{0}\u{1}binary"),
        NewIncoming { group: "other".into(), ..with(4, &[("cap-corr-id", "c1")], "") },
        NewIncoming { group: "other".into(), ..with(1, &[("cap-corr-id", "c1")], "x") },
    ];
    rows[4].id = 5;
    node.write(&WriteBatch { incoming: rows, ..WriteBatch::default() }).await;
    let all = || Query::new(Side::Inbox);
    for (query, expected) in [
        (all().message_id("m1"), vec![5, 1]),
        (all().message_id("m1").limit(2).before(5), vec![1]),
        (all().message_id("m1").group("other"), vec![5]),
        (all().message_id("m1").topic("another"), vec![]),
        (all().message_id("m"), vec![]),
        (all().correlation_id("c1"), vec![5, 4, 1]),
        (all().correlation_id("c12"), vec![2]),
        (all().correlation_id("c"), vec![]),
        (all().header("tenant", "a\"b\\c"), vec![1]),
        (all().header("tenant", "a"), vec![2]),
        (all().header("TENANT", "a"), vec![]),
        (all().header("tenant", "a").correlation_id("c1"), vec![]),
        (all().text("100%"), vec![1]),
        (all().text("name"), vec![2, 1]),
        (all().text("M\u{fc}ller"), vec![2]),
        (all().text("m\u{fc}ller"), vec![]),
        (all().text(&b"\0\x01b"[..]), vec![3]),
        (all().text(""), vec![5, 4, 3, 2, 1]),
        (all().text("x").correlation_id("c1").message_id("m1"), vec![5]),
    ] {
        assert_eq!(found(&node, &query).await, expected, "{query:?}");
    }
    assert_eq!(found(&node, &Query::new(Side::Outbox).text("name")).await, NOTHING);
}

/// Each message is in one state, as an operator sees it.
pub async fn messages_are_found_by_their_state<F: StorageFixture>(fixture: &F) {
    let node = Node::open(fixture, "a", LONG).await;
    for side in SIDES {
        node.insert(side, [1], false).await;
        node.insert(side, 2..=7, true).await;
        assert!(node.complete(side, first_lease(3), retry(LONG, "later")).await);
        assert!(node.complete(side, first_lease(4), succeeded(Retention::Forget)).await);
        assert!(node.complete(side, first_lease(5), succeeded(Retention::Keep(LONG))).await);
        assert!(node.complete(side, first_lease(6), failed(false)).await);
        assert!(node.complete(side, first_lease(7), failed(true)).await);
        for (state, expected) in [
            (MessageState::Scheduled, vec![1]),
            (MessageState::Leased, vec![2]),
            (MessageState::Retrying, vec![3]),
            (MessageState::Succeeded, vec![5, 4]),
            (MessageState::Parked, vec![7, 6]),
        ] {
            assert_eq!(found(&node, &Query::new(side).state(state)).await, expected, "{state:?}");
        }
    }
    node.publish(delayed(8, LONG)).await;
    node.publish(delayed(9, LONG)).await;
    assert_eq!(node.store.cancel(&[9], LONG).await.unwrap(), [9]);
    let state = |state| Query::new(Side::Outbox).state(state);
    assert_eq!(found(&node, &state(MessageState::Delayed)).await, [8]);
    assert_eq!(found(&node, &state(MessageState::Cancelled)).await, [9]);
    assert_eq!(found(&node, &state(MessageState::Parked)).await, [7, 6], "what was cancelled is not parked");
}

/// A node is that of the lease, or of a failed attempt.
pub async fn messages_are_found_by_their_node<F: StorageFixture>(fixture: &F) {
    let (a, b) = (Node::open(fixture, "a", LONG).await, Node::open(fixture, "b", LONG).await);
    for side in SIDES {
        a.insert(side, 1..=2, true).await;
        b.insert(side, 3..=4, true).await;
        assert!(a.complete(side, first_lease(1), retry(LONG, "later")).await);
        assert!(b.complete(side, first_lease(4), succeeded(Retention::Forget)).await);
        assert_eq!(found(&a, &Query::new(side).node("a")).await, [2, 1]);
        assert_eq!(found(&a, &Query::new(side).node("b")).await, [3]);
        assert_eq!(found(&a, &Query::new(side).node("c")).await, NOTHING);
    }
}

/// A search stops at its bound, says so, and goes on from there; nothing is found twice while messages come.
pub async fn search_stops_at_its_bound_and_goes_on<F: StorageFixture>(fixture: &F) {
    let node = Node::open(fixture, "a", LONG).await;
    for side in SIDES {
        node.insert(side, 1..=9, true).await;
        assert!(node.complete(side, first_lease(2), failed(false)).await);
        let (mut query, mut seen, mut pages) = (Query::new(side).text("OrderId").limit(100), Vec::new(), 0);
        let limits = SearchLimits::new(4, Duration::from_secs(3600));
        loop {
            let page = node.store.search(&query, &limits).await.unwrap();
            assert!(page.looked_at <= 4, "{}", page.looked_at);
            seen.extend(page.rows.iter().map(|row| row.id));
            pages += 1;
            let Some(next) = page.next else {
                assert_eq!(page.bound, None, "it is at the end");
                break;
            };
            assert_eq!(page.bound, Some(Bound::Rows));
            query = query.before(next);
            node.insert(side, [100 + pages], true).await;
        }
        assert_eq!((seen, pages), (vec![9, 8, 7, 6, 5, 4, 3, 2, 1], 3));
        let nothing = node.store.search(&Query::new(side).text("absent"), &limits).await.unwrap();
        assert_eq!((nothing.rows.len(), nothing.bound), (0, Some(Bound::Rows)), "older ones may have it");
        let full = node.store.search(&Query::new(side).limit(2).before(10), &limits).await.unwrap();
        assert_eq!((full.rows.len(), full.next, full.bound), (2, Some(8), None), "a full page has no bound");
        let parked = node.store.search(&Query::new(side).state(MessageState::Parked), &limits).await.unwrap();
        assert_eq!(parked.rows.len(), usize::from(parked.bound.is_none()), "state rows are looked through");
    }
}
