//! What people do with parked messages while others do the same, and which messages are meant.
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

#[path = "support/between.rs"]
mod between;
mod support;

use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use between::Between;
use cap_core::Messages;
use cap_core::error::{StorageError, StorageErrorKind};
use cap_core::message::{Headers, Message};
use cap_core::monitor::Monitor as _;
use cap_core::prelude::*;
use cap_core::storage::{
    Entry, Identity, NewIncoming, Owner, Reason, Retention, RowCompletion, RowOutcome, Side, Status,
    Storage as _, WriteBatch,
};
use support::on;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};

const HOUR: Duration = Duration::from_secs(3600);
const NOTHING: [i64; 0] = [];

fn owner(version: &str) -> Owner {
    Owner { node: "gone".into(), version: version.into(), lease: HOUR }
}

fn incoming(id: i64, entry: Entry) -> NewIncoming {
    let headers: Headers =
        [("cap-msg-id", format!("m{id}").as_str()), ("cap-msg-name", "call")].into_iter().collect();
    NewIncoming {
        id,
        group: "test.v1".into(),
        message: Arc::new(Message::new(headers, "1")),
        entry,
        identity: Identity::default(),
    }
}

/// Parks messages under these row ids.
async fn park(storage: &MemoryStorage, version: &str, ids: impl IntoIterator<Item = i64>) {
    let parked =
        || Entry::Parked { reason: Reason::Permanent, error: "no".to_owned(), keep: HOUR, notify: false };
    let incoming = ids.into_iter().map(|id| incoming(id, parked())).collect();
    storage.write(&owner(version), &WriteBatch { incoming, ..WriteBatch::default() }).await.unwrap();
}

/// A bus that looks at a store and handles nothing.
async fn desk(storage: &MemoryStorage) -> Cap {
    on(storage, &MemoryTransport::new()).start().await.unwrap()
}

async fn status(storage: &MemoryStorage, id: i64) -> Option<Status> {
    storage.get(Side::Inbox, id).await.unwrap().map(|row| row.status)
}

/// Alice has looked at what is parked; before she acts, Bob does. Gives back what she was told.
async fn overtaken<T, A, B>(storage: &MemoryStorage, alice: A, bob: B) -> T
where
    A: AsyncFnOnce(Messages) -> Result<T, StorageError>,
    B: AsyncFnOnce(Messages),
{
    let between = Between::new(storage);
    let hers = on(storage, &MemoryTransport::new()).storage(between.clone());
    let (hers, his) = (hers.start().await.unwrap(), desk(storage).await);
    let meanwhile = async {
        between.has_looked().await;
        bob(his.messages().parked().by("bob")).await;
        between.go_on().await;
    };
    let (told, ()) = tokio::join!(alice(hers.messages().parked().by("alice")), meanwhile);
    hers.shutdown().await.unwrap();
    his.shutdown().await.unwrap();
    told.unwrap()
}

#[tokio::test(start_paused = true)]
async fn two_who_run_all_again_do_it_once() {
    let storage = MemoryStorage::new();
    park(&storage, "v1", 1..=3).await;
    let done = overtaken(
        &storage,
        async |parked: Messages| parked.rerun_all().await,
        async |parked: Messages| {
            assert_eq!(parked.rerun(&[1, 2]).await.unwrap(), [1, 2]);
            // One of them has been handled by the time that Alice acts.
            let claim = cap_core::storage::ClaimRequest::new(Side::Inbox, vec!["test.v1".into()], 1);
            let lease = storage.claim(&owner("v1"), &claim).await.unwrap().rows[0].lease;
            assert_eq!(lease.id, 1);
            let outcome = RowOutcome::Succeeded { retention: Retention::Forget, reason: None };
            let completed_incoming = vec![RowCompletion { lease, outcome, publishes: Vec::new() }];
            let batch = WriteBatch { completed_incoming, ..WriteBatch::default() };
            assert_eq!(storage.write(&owner("v1"), &batch).await.unwrap().completed_incoming, [true]);
        },
    )
    .await;
    assert_eq!(done, 1, "only what Bob had left");
    assert_eq!(status(&storage, 1).await, Some(Status::Succeeded), "it is not run a second time");
    let row = storage.get(Side::Inbox, 2).await.unwrap().unwrap();
    assert_eq!((row.status, row.reruns), (Status::Scheduled, 1));
    assert!(row.message.headers.get("cap-audit").unwrap().ends_with("bob re-ran it"), "Alice is not in it");
}

#[tokio::test(start_paused = true)]
async fn what_was_just_mended_is_not_deleted() {
    let storage = MemoryStorage::new();
    park(&storage, "v1", 1..=2).await;
    let done = overtaken(
        &storage,
        async |parked: Messages| parked.delete_all().await,
        async |parked: Messages| assert!(parked.edit_and_rerun(1, &7).await.unwrap()),
    )
    .await;
    assert_eq!(done, 1);
    let row = storage.get(Side::Inbox, 1).await.unwrap().unwrap();
    assert_eq!((row.status, &row.message.body[..]), (Status::Scheduled, &b"7"[..]));
    assert_eq!(status(&storage, 2).await, None);
}

#[tokio::test(start_paused = true)]
async fn what_is_named_and_not_parked_is_left_alone() {
    let storage = MemoryStorage::new();
    let incoming = vec![incoming(1, Entry::Scheduled { held: false })];
    storage.write(&owner("v1"), &WriteBatch { incoming, ..WriteBatch::default() }).await.unwrap();
    let cap = desk(&storage).await;
    assert_eq!(cap.messages().parked().rerun(&[1, 404]).await.unwrap(), NOTHING);
    assert!(!cap.messages().parked().edit_and_rerun(1, &7).await.unwrap());
    assert_eq!(cap.messages().parked().delete(&[1, 404]).await.unwrap(), NOTHING);
    let row = storage.get(Side::Inbox, 1).await.unwrap().unwrap();
    assert_eq!((row.reruns, &row.message.body[..]), (0, &b"1"[..]));
    cap.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_was_called_off_stays_so_unless_it_is_asked_for() {
    let cap = desk(&MemoryStorage::new()).await;
    let id = cap.publish("reminder", &1).delay(HOUR).await.unwrap();
    assert!(cap.cancel(&id).await.unwrap());
    let published = cap.messages().parked().published();
    assert_eq!(published.count().await.unwrap(), 0);
    assert_eq!(published.list().await.unwrap().len(), 0);
    assert_eq!(published.rerun_all().await.unwrap(), 0);
    assert_eq!(published.delete_all().await.unwrap(), 0);
    assert_eq!(cap.health().await.waiting.unwrap(), [], "nobody has to do anything about it");
    let cancelled = published.clone().reason(Reason::Cancelled);
    let row = cancelled.list().await.unwrap().remove(0);
    assert_eq!((row.message.id(), cancelled.count().await.unwrap()), (Some(id.as_str()), 1));
    assert_eq!(published.rerun(&[row.id]).await.unwrap(), [row.id], "by its id it can be run after all");
    cap.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_limit_is_one_for_counts_and_actions_too() {
    let storage = MemoryStorage::new();
    // More than is looked at in one call to the store.
    park(&storage, "v1", 1..=1200).await;
    let cap = desk(&storage).await;
    let parked = cap.messages().parked();
    assert_eq!(parked.count().await.unwrap(), 1200);
    assert_eq!(parked.list().await.unwrap().len(), 100, "with their bodies");
    assert_eq!(parked.clone().limit(700).count().await.unwrap(), 700);
    assert_eq!(parked.clone().limit(0).delete_all().await.unwrap(), 0);
    assert_eq!(parked.clone().limit(10).delete_all().await.unwrap(), 10);
    assert_eq!(parked.list().await.unwrap()[0].id, 1190, "the newest are gone");
    assert_eq!(parked.clone().limit(600).rerun_all().await.unwrap(), 600);
    assert_eq!(parked.list().await.unwrap()[0].id, 590);
    assert_eq!(parked.clone().limit(1000).rerun_all().await.unwrap(), 590, "there are no more");
    cap.shutdown().await.unwrap();
}

/// Whoever shares the store has messages of their own.
#[tokio::test(start_paused = true)]
async fn messages_of_another_version_are_changed_only_by_id() {
    let storage = MemoryStorage::new();
    park(&storage, "v1", [1]).await;
    park(&storage, "v2", [2, 3]).await;
    let cap = desk(&storage).await;
    assert_eq!(cap.messages().parked().count().await.unwrap(), 1);
    assert_eq!(cap.messages().parked().list().await.unwrap()[0].id, 1);
    assert_eq!(cap.messages().parked().rerun_all().await.unwrap(), 1);
    assert_eq!(cap.messages().parked().delete_all().await.unwrap(), 0);
    let others = cap.messages().version("v2").list().await.unwrap();
    assert_eq!(others.iter().map(|row| row.id).collect::<Vec<_>>(), [3, 2]);
    assert_eq!(cap.messages().parked().rerun(&[2]).await.unwrap(), [2]);
    assert_eq!(cap.messages().parked().delete(&[3]).await.unwrap(), [3]);
    cap.shutdown().await.unwrap();
}

/// The log's lines of one kind, field by field.
#[derive(Clone, Default)]
struct ByHand(Arc<Mutex<Vec<String>>>);

struct Line(Vec<String>);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.push(format!("{field}={value:?}"));
    }
}

impl tracing::Subscriber for ByHand {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == "cap_core::parked"
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = Line(Vec::new());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0.join(" "));
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[tokio::test(start_paused = true)]
async fn every_action_is_in_the_log() {
    let storage = MemoryStorage::new();
    park(&storage, "v1", 1..=3).await;
    let cap = desk(&storage).await;
    let log = ByHand::default();
    let _listening = tracing::subscriber::set_default(log.clone());
    let parked = cap.messages().parked().by("alice");
    parked.delete(&[1, 404]).await.unwrap();
    parked.delete(&[1]).await.unwrap();
    parked.delete_all().await.unwrap();
    let lines = log.0.lock().unwrap().clone();
    assert_eq!(lines.len(), 2, "what was not done is not told: {lines:?}");
    for (line, (count, ids)) in lines.iter().zip([(1, "[1]"), (2, "[2, 3]")]) {
        let expected = [
            "by=\"alice\"",
            "what=\"deleted it\"",
            "side=Inbox",
            &format!("count={count}"),
            &format!("ids={ids}"),
        ];
        assert!(expected.iter().all(|part| line.contains(part)), "{line}");
    }
    cap.shutdown().await.unwrap();
}

async fn schedule(storage: &MemoryStorage, id: i64) {
    let incoming = vec![incoming(id, Entry::Scheduled { held: false })];
    storage.write(&owner("v1"), &WriteBatch { incoming, ..WriteBatch::default() }).await.unwrap();
}

async fn ids(messages: Messages) -> Vec<i64> {
    let listed: Vec<i64> = messages.list().await.unwrap().iter().map(|row| row.id).collect();
    assert_eq!(messages.count().await.unwrap(), listed.len() as u64);
    listed
}

#[tokio::test(start_paused = true)]
async fn messages_are_received_ones_of_the_own_version() {
    let storage = MemoryStorage::new();
    park(&storage, "v1", [1]).await;
    park(&storage, "v2", [2]).await;
    schedule(&storage, 3).await;
    let cap = desk(&storage).await;
    cap.publish("call", &1).delay(HOUR).await.unwrap();
    assert_eq!(ids(cap.messages()).await, [3, 1]);
    assert_eq!(ids(cap.messages().all_versions()).await, [3, 2, 1]);
    assert_eq!(ids(cap.messages().version("v2")).await, [2]);
    assert_eq!(ids(cap.messages().status(Status::Scheduled)).await, [3]);
    assert_eq!(ids(cap.messages().before(3)).await, [1]);
    assert_eq!(ids(cap.messages().parked()).await, [1]);
    assert_eq!(ids(cap.messages().parked().status(Status::Scheduled)).await, [3], "the last one counts");
    assert_eq!(ids(cap.messages().published()).await.len(), 1);
    assert_eq!(ids(cap.messages().published().received().limit(1)).await, [3]);
    // What is named is found whatever the filters.
    let narrow = cap.messages().parked().topic("other").group("other.v1");
    assert_eq!(narrow.get(2).await.unwrap().unwrap().version, "v2");
    assert_eq!(narrow.find("m3").await.unwrap()[0].status, Status::Scheduled);
    assert!(narrow.published().get(2).await.unwrap().is_none(), "it is of the other side");
    cap.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn actions_on_unparked_messages_are_recorded_too() {
    let storage = MemoryStorage::new();
    schedule(&storage, 1).await;
    let cap = desk(&storage).await;
    let log = ByHand::default();
    let _listening = tracing::subscriber::set_default(log.clone());
    assert_eq!(cap.messages().rerun(&[1, 404]).await.unwrap(), [1]);
    assert!(cap.messages().by("carol").edit_raw_and_rerun(1, "2").await.unwrap());
    let message = storage.get(Side::Inbox, 1).await.unwrap().unwrap().message;
    let audit: Vec<&str> = message.headers.get("cap-audit").unwrap().lines().collect();
    assert!(audit[0].ends_with(" somebody re-ran it"), "{audit:?}");
    assert!(audit[1].ends_with(" carol edited and re-ran it"), "{audit:?}");
    assert_eq!((audit.len(), &message.body[..]), (2, &b"2"[..]));
    assert_eq!(cap.messages().by("carol").delete(&[1]).await.unwrap(), [1]);
    let lines = log.0.lock().unwrap().clone();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[2].contains("by=\"carol\"") && lines[2].contains("what=\"deleted it\""), "{lines:?}");
    cap.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn acting_on_all_needs_a_filter() {
    let storage = MemoryStorage::new();
    schedule(&storage, 1).await;
    park(&storage, "v1", 2..=6).await;
    park(&storage, "v2", [7]).await;
    let cap = desk(&storage).await;
    let all = cap.messages();
    for wide in [all.clone(), all.clone().version("v1"), all.clone().all_versions().before(7).by("carol")] {
        for refused in [wide.rerun_all().await, wide.delete_all().await] {
            let error = refused.unwrap_err();
            assert_eq!(error.kind(), StorageErrorKind::Refused);
            assert!(error.to_string().contains("narrow the selection"), "{error}");
        }
    }
    assert_eq!(ids(cap.messages().parked()).await.len(), 5, "nothing was done");
    assert_eq!(all.clone().limit(1).delete_all().await.unwrap(), 1, "the newest");
    assert_eq!(all.clone().status(Status::Failed).limit(1).rerun_all().await.unwrap(), 1);
    assert_eq!(all.clone().topic("other").delete_all().await.unwrap(), 0);
    assert_eq!(all.clone().version("v2").delete_all().await.unwrap(), 1);
    assert_eq!(all.clone().parked().delete_all().await.unwrap(), 3);
    assert_eq!(all.clone().until(SystemTime::now() + HOUR).delete_all().await.unwrap(), 2);
    assert_eq!(ids(all.all_versions()).await, NOTHING);
    cap.shutdown().await.unwrap();
}

/// As it was, until 0.2.
#[tokio::test(start_paused = true)]
#[allow(deprecated)]
async fn the_former_monitor_acts_on_any_version_without_a_record() {
    let storage = MemoryStorage::new();
    schedule(&storage, 1).await;
    park(&storage, "v2", [2]).await;
    let cap = desk(&storage).await;
    let monitor: cap_core::BusMonitor = cap.monitor();
    assert_eq!(monitor.list(&cap_core::monitor::Query::new(Side::Inbox)).await.unwrap().len(), 2);
    assert_eq!(monitor.rerun(Side::Inbox, &[1, 2]).await.unwrap(), [1, 2]);
    let row = monitor.get(Side::Inbox, 2).await.unwrap().unwrap();
    assert_eq!((row.reruns, row.message.headers.get("cap-audit")), (1, None));
    assert_eq!(monitor.find(Side::Inbox, "m1").await.unwrap().len(), 1);
    assert_eq!(monitor.attempts(Side::Inbox, 1).await.unwrap().len(), 0);
    assert_eq!(monitor.delete(Side::Inbox, &[1]).await.unwrap(), [1]);
    assert_eq!(monitor.counts().await.unwrap().len(), 1);
    cap.shutdown().await.unwrap();
}

/// As it was, until 0.2.
#[tokio::test(start_paused = true)]
#[allow(deprecated)]
async fn the_former_parked_selects_parked_messages() {
    let storage = MemoryStorage::new();
    park(&storage, "v1", 1..=2).await;
    schedule(&storage, 3).await;
    let cap = desk(&storage).await;
    let parked: cap_core::Parked = cap.parked();
    assert_eq!(parked.history(1).await.unwrap().len(), 0);
    assert_eq!(parked.rerun(&[3]).await.unwrap(), NOTHING);
    assert_eq!(parked.rerun_all().await.unwrap(), 2);
    cap.shutdown().await.unwrap();
}
