//! Finding messages: by text, by what their errors are about, and by the story that they belong to.

use std::sync::Arc;

use cap_core::message::{IdGenerator, Message};
use cap_core::storage::{Entry, NewIncoming, NewOutgoing, WriteBatch};
use cap_dashboard::Masks;

use crate::store::Store;
use crate::support::{READER, UNMASKER, auth, location, message, parked, site, site_on, site_with};

fn failed(id: i64, topic: &str, text: &str) -> NewIncoming {
    let mut new = parked(id, topic, "1");
    if let Entry::Parked { error, .. } = &mut new.entry {
        text.clone_into(error);
    }
    new
}

async fn failures_are_grouped(store: Store) {
    let site = site_on(store, auth(), |all| all).await;
    site.park(
        (1..=3).map(|id| {
            failed(id, "order.placed", &format!("connection refused: db:{id} (request {})", id * 7))
        }),
    )
    .await;
    site.park([failed(4, "order.placed", "no address"), failed(5, "order.paid", "no address")]).await;
    let page = site.page(READER, "/failures").await;
    assert_eq!(page.matches("class=\"panel kind\"").count(), 3, "{page}");
    assert!(page.contains("connection refused: db:# (request #)"), "{page}");
    let link = page
        .split("class=\"card-number\" href=\"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap()
        .replace("&#38;", "&");
    let list = site.page(READER, link.strip_prefix("/cap").unwrap()).await;
    assert_eq!(list.matches("name=\"id\"").count(), 0, "a reader selects nothing");
    assert_eq!(list.matches("<tr data-href").count(), 3, "the link selects the kind: {link}");
    assert_eq!(site.page(READER, "/failures?side=published").await.matches("panel kind").count(), 0);
}

async fn text_is_found_in_payloads_headers_and_errors(store: Store) {
    let site = site_on(store, auth(), |all| all).await;
    site.park([
        parked(1, "a", r#"{"sku":"B7-114"}"#),
        parked(2, "a", r#"{"sku":"B7-115"}"#),
        parked(3, "a", "1"),
    ])
    .await;
    let found = async |text: &str| {
        site.page(READER, &format!("/search?q={text}")).await.matches("<tr data-href").count()
    };
    assert_eq!(found("B7-114").await, 1);
    assert_eq!(found("B7-").await, 2);
    assert_eq!(found("row%203%20failed").await, 1);
    assert_eq!(found("nothing-like-it").await, 0);
    let by_id = site.as_user(READER, "/search?q=m2").await;
    assert_eq!(location(&by_id), "/cap/message/received/2");
}

async fn a_story_is_told_in_order(store: Store) {
    let site = site_on(store, auth(), |all| all).await;
    // Ids of now: a story is looked for by the times that ids are made at.
    let first = IdGenerator::new(1).next_id();
    let correlation = format!("m{first}");
    let of_story = |plain: &Message, correlation: &str| {
        let mut headers = plain.headers.clone();
        headers.insert("cap-corr-id", correlation);
        Arc::new(Message::new(headers, plain.body.clone()))
    };
    let new = |id: i64, topic: &str, correlation: &str| NewOutgoing {
        id,
        message: of_story(&message(id, topic, "1"), correlation),
        delay: None,
        held: false,
    };
    site.put(WriteBatch {
        outgoing: vec![new(first, "order.placed", &correlation), new(first + 9, "other", "another")],
        ..WriteBatch::default()
    })
    .await;
    let mut received = parked(first, "order.placed", "1");
    received.message = of_story(&received.message, &correlation);
    site.park([received]).await;
    site.put(WriteBatch {
        outgoing: vec![new(first + 2, "order.reserved", &correlation)],
        ..WriteBatch::default()
    })
    .await;
    let page = site.page(READER, &format!("/story?id={correlation}")).await;
    let places: Vec<_> = [("published", first), ("received", first), ("published", first + 2)]
        .iter()
        .map(|(side, id)| {
            page.find(&format!("/message/{side}/{id}"))
                .unwrap_or_else(|| panic!("{side} {id} is not on {page}"))
        })
        .collect();
    assert!(places.is_sorted(), "{places:?}");
    assert!(!page.contains(&format!("/message/published/{}", first + 9)), "another story");
}

macro_rules! on_both {
    ($($test:ident),+ $(,)?) => {
        mod in_memory {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::Store::memory()).await;
            })+
        }
        mod on_postgres {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::Store::postgres()).await;
            })+
        }
    };
}

on_both!(failures_are_grouped, text_is_found_in_payloads_headers_and_errors, a_story_is_told_in_order);

#[tokio::test]
async fn a_search_tells_nobody_what_is_masked() {
    let site = site_with(auth(), |all| all.masks(Masks::none().field("card").errors())).await;
    site.park([parked(1, "a", r#"{"card":"4111"}"#), parked(2, "a", "2")]).await;
    for (secret, expected) in [(READER, 0), (UNMASKER, 1)] {
        for text in ["4111", "row%201%20failed"] {
            let page = site.page(secret, &format!("/search?q={text}")).await;
            assert_eq!(page.matches("<tr data-href").count(), expected, "{text}");
        }
    }
    assert!(!site.page(READER, "/failures").await.contains("row #"));
    assert!(site.page(UNMASKER, "/failures").await.contains("row # failed"));
}

#[tokio::test]
async fn a_search_says_where_it_stopped() {
    let site = site().await;
    site.park((1..=2_100).map(|id| parked(id, "a", "1"))).await;
    assert!(site.page(READER, "/search?q=nothing-like-it").await.contains("Only the newest 2,000"));
    assert!(site.page(READER, "/failures").await.contains("Only the newest 2,000"));
    let response = site.as_user(READER, "/api/received/failed?content=nothing-like-it").await;
    assert_eq!(response.headers()["cap-search-stopped"], "rows");
}
