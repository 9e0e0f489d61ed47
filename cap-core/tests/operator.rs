//! The operator's API over a storage alone, and beside a bus.
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use cap_core::Operator;
use cap_core::message::{Headers, Message};
use cap_core::monitor::Monitor as _;
use cap_core::prelude::*;
use cap_core::storage::{
    Entry, Identity, NewIncoming, NewOutgoing, Owner, Reason, Side, Status, Storage as _, WriteBatch,
};
use support::on;

const HOUR: Duration = Duration::from_secs(3600);

fn message(id: &str) -> Arc<Message> {
    let headers: Headers = [("cap-msg-id", id), ("cap-msg-name", "call")].into_iter().collect();
    Arc::new(Message::new(headers, "1"))
}

/// A storage with a parked message in row 1 and a delayed one in row 2.
async fn filled(version: &str) -> MemoryStorage {
    let storage = MemoryStorage::new();
    let entry =
        Entry::Parked { reason: Reason::Permanent, error: "no".to_owned(), keep: HOUR, notify: false };
    let (group, identity) = ("test.v1".into(), Identity::default());
    let batch = WriteBatch {
        incoming: vec![NewIncoming { id: 1, group, message: message("m1"), entry, identity }],
        outgoing: vec![NewOutgoing { id: 2, message: message("m2"), delay: Some(HOUR), held: false }],
        ..WriteBatch::default()
    };
    let owner = Owner { node: "gone".into(), version: version.into(), lease: HOUR };
    storage.write(&owner, &batch).await.unwrap();
    storage
}

#[tokio::test]
async fn alone_it_reads_and_acts_without_handling() {
    let storage = filled("v1").await;
    let operator = Operator::open(storage.clone()).await.unwrap();
    let parked = operator.messages().parked().by("alice");
    assert_eq!(parked.list().await.unwrap().len(), 1);
    assert_eq!(parked.rerun(&[1]).await.unwrap(), [1]);
    let row = storage.get(Side::Inbox, 1).await.unwrap().unwrap();
    assert_eq!((row.status, row.owner), (Status::Scheduled, None), "nobody has claimed it");
    assert!(row.message.headers.get("cap-audit").unwrap().contains("alice re-ran it"));
    assert_eq!(operator.storage_name(), "memory");
    let waiting = operator.waiting().await.unwrap().unwrap();
    assert_eq!(waiting.counts.len(), 2, "{waiting:?}");
    let lags = operator.lags().await.unwrap().expect("the storage can tell");
    assert_eq!(lags.iter().map(|lag| lag.side).collect::<Vec<_>>(), [Side::Inbox], "{lags:?}");
}

#[tokio::test]
async fn what_it_makes_due_a_bus_handles() {
    let storage = filled("v1").await;
    let (log, mut seen) = support::log();
    let handler = move |attempt: Attempt| {
        log.note(attempt);
        async {}
    };
    let bus = on(&storage, &MemoryTransport::new()).subscribe("call", handler);
    let cap = bus.start().await.unwrap();
    assert_eq!(cap.operator().messages().parked().rerun(&[1]).await.unwrap(), [1]);
    seen.next().await;
    cap.shutdown().await.unwrap();
}

#[tokio::test]
async fn cancel_applies_to_delayed_messages_of_the_outbox() {
    let storage = filled("v1").await;
    let operator = Operator::open(storage.clone()).await.unwrap().keep_cancelled(HOUR);
    assert!(operator.messages().received().cancel(&[1, 2]).await.unwrap().is_empty());
    assert_eq!(operator.messages().published().cancel(&[1, 2]).await.unwrap(), [2]);
    let row = storage.get(Side::Outbox, 2).await.unwrap().unwrap();
    assert_eq!((row.status, row.reason), (Status::Failed, Some(Reason::Cancelled)));
}

#[tokio::test]
async fn selections_start_with_its_version() {
    let operator = Operator::open(filled("v2").await).await.unwrap();
    assert_eq!(operator.messages().list().await.unwrap().len(), 0);
    assert_eq!(operator.version("v2").messages().list().await.unwrap().len(), 1);
}

#[tokio::test]
async fn acts_are_in_the_audit_an_edit_with_the_former_body() {
    let operator = Operator::open(filled("v1").await).await.unwrap();
    let messages = operator.messages().by("alice");
    assert!(messages.clone().parked().edit_raw_and_rerun(1, "2").await.unwrap());
    assert!(
        !messages.clone().parked().edit_raw_and_rerun(1, "3").await.unwrap(),
        "it is not parked any more"
    );
    messages.clone().published().cancel(&[2]).await.unwrap();
    messages.published().delete(&[2]).await.unwrap();
    let acts = operator.acts(None, 10).await.unwrap();
    let told: Vec<_> = acts.iter().rev().map(|act| (&*act.act.what, act.act.side, &*act.act.ids)).collect();
    assert_eq!(
        told,
        [("edit", Side::Inbox, &[1][..]), ("cancel", Side::Outbox, &[2]), ("delete", Side::Outbox, &[2])]
    );
    assert_eq!(acts[2].act.former_body.as_deref(), Some(&b"1"[..]));
    assert!(acts.iter().all(|act| act.act.who == "alice"));
}

/// The names of a bus with prefixes, as an operator may write them.
mod names {
    use super::*;

    async fn prefixed() -> Cap {
        let builder = on(&MemoryStorage::new(), &MemoryTransport::new()).configure(|options| {
            options.topic_prefix = Some("shop".to_owned());
            options.group_prefix = Some("eu".to_owned());
        });
        builder.start().await.unwrap()
    }

    #[tokio::test]
    async fn topic_is_found_with_and_without_prefix() {
        let cap = prefixed().await;
        let of_ours = cap.publish("mail", &1).await.unwrap();
        // Another service of the same storage has a topic of the shorter name.
        let other = message("other");
        let batch = WriteBatch {
            outgoing: vec![NewOutgoing { id: 7, message: other, delay: Some(HOUR), held: false }],
            ..WriteBatch::default()
        };
        cap.storage().downcast_ref::<MemoryStorage>().unwrap().write(&owner_of(&cap), &batch).await.unwrap();
        let found = async |topic: &str| {
            let rows = cap.messages().published().topic(topic).list().await.unwrap();
            rows.iter().map(|row| row.message.id().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(found("mail").await, [of_ours.as_str()]);
        assert_eq!(found("shop.mail").await, [of_ours.as_str()]);
        assert_eq!(found("call").await, ["other"]);
        let of_call = cap.publish("call", &1).await.unwrap();
        assert_eq!(found("call").await, [of_call.as_str(), "other"], "both, the newest first");
        assert!(found("ail").await.is_empty());
        cap.shutdown().await.unwrap();
    }

    fn owner_of(cap: &Cap) -> Owner {
        Owner { node: "another".into(), version: cap.options().version.as_str().into(), lease: HOUR }
    }

    #[tokio::test]
    async fn group_is_found_with_and_without_prefix() {
        let (storage, transport) = (MemoryStorage::new(), MemoryTransport::new());
        let builder =
            on(&storage, &transport).configure(|options| options.group_prefix = Some("eu".to_owned()));
        let (finished, mut done) = tokio::sync::mpsc::channel(1);
        let handler = move || {
            let finished = finished.clone();
            async move { finished.send(()).await.unwrap() }
        };
        let cap = builder.subscribe(Subscribe::to("mail").group("mailers"), handler).start().await.unwrap();
        cap.publish("mail", &1).await.unwrap();
        done.recv().await.unwrap();
        for group in ["mailers", "eu.mailers.v1"] {
            assert_eq!(cap.messages().received().group(group).list().await.unwrap().len(), 1, "{group}");
        }
        assert!(cap.messages().received().group("eu.mailers").list().await.unwrap().is_empty());
        cap.shutdown().await.unwrap();
    }
}
