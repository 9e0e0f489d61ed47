//! What a broker keeps for a retry, and what becomes of copies that somebody has made up. Issue 9, rows 10 and 14.
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

mod support;

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use cap_core::BoxFuture;
use cap_core::error::TransportError;
use cap_core::memory::MemoryConsumer;
use cap_core::monitor::Row;
use cap_core::prelude::*;
use cap_core::storage::Status;
use cap_core::transport::{BrokerDelay, Delayed, Destination, GroupSpec, Sent, Transport, TransportContext};
use cap_core::{CapBuilder, Headers, Message};
use support::signs::Signs;
use support::store::Shaky;
use support::{Log, alone, attempts, log};
use tokio::time::{Instant, sleep};
use tracing::Level;

const SECOND: Duration = Duration::from_secs(1);
/// The pause before the second attempt.
const PAUSE: Duration = Duration::from_secs(100);
const REFUSED: &str = "cap_retry_copies_refused_total";

/// A broker that shows what it is given to keep. Clones are one.
#[derive(Clone, Default)]
struct Open(MemoryTransport, Arc<Mutex<Vec<Message>>>);

impl Open {
    fn copies(&self) -> Vec<Message> {
        self.1.lock().unwrap().clone()
    }

    /// Has a message come to a group as one that was delayed for it.
    async fn bring(&self, group: &str, headers: Headers, body: &'static str) {
        let message = Arc::new(Message::new(headers, body));
        let delayed = Delayed::new(message, SECOND, Destination::Group(group.into()));
        self.0.delay(&[delayed]).await.remove(0).unwrap();
    }
}

impl Transport for Open {
    type Consumer = MemoryConsumer;

    fn name(&self) -> &'static str {
        "open"
    }

    fn start(&self, context: &TransportContext) -> Result<(), TransportError> {
        self.0.start(context)
    }

    async fn send(&self, messages: &[Arc<Message>]) -> Vec<Result<Sent, TransportError>> {
        self.0.send(messages).await
    }

    fn broker_delay(&self) -> Option<&dyn BrokerDelay> {
        Some(self)
    }

    async fn consume(&self, spec: &GroupSpec) -> Result<MemoryConsumer, TransportError> {
        self.0.consume(spec).await
    }

    async fn close(&self) {}
}

impl BrokerDelay for Open {
    fn delay<'a>(&'a self, messages: &'a [Delayed]) -> BoxFuture<'a, Vec<Result<(), TransportError>>> {
        Box::pin(async move {
            self.1.lock().unwrap().extend(messages.iter().map(|delayed| (*delayed.message).clone()));
            self.0.delay(messages).await
        })
    }
}

/// A group whose handler fails once, and notes when each attempt was made.
fn failing(builder: CapBuilder, group: &str, noted: Log<(u32, Duration)>) -> CapBuilder {
    let start = Instant::now();
    let subscribe = Subscribe::to("call").group(group).retry(RetryPolicy::broker([PAUSE]));
    builder.subscribe(subscribe, move |Attempt(attempt): Attempt, body: RawBody| {
        assert_eq!(&body.0[..], b"{\"number\":1}", "the body is the row's, at each attempt");
        noted.note((attempt, start.elapsed()));
        async move { if attempt > 1 { Ok(()) } else { Err("nobody answers") } }
    })
}

/// The row of a group, once it waits for the broker.
async fn waiting(cap: &Cap, group: &str) -> Row {
    loop {
        let rows = cap.messages().status(Status::Retrying).list().await.unwrap();
        match rows.into_iter().find(|row| &*row.group == group && row.owner.is_none()) {
            Some(row) => return row,
            None => sleep(Duration::from_millis(1)).await,
        }
    }
}

/// What a copy that is taken would change.
fn state(row: &Row) -> (Status, u32, Option<SystemTime>, bool) {
    (row.status, row.attempts, row.due, row.owner.is_some())
}

fn changed(copy: &Message, name: &'static str, value: impl Into<String>) -> Headers {
    let mut headers = copy.headers.clone();
    headers.insert(name, value);
    headers
}

async fn publish(cap: &Cap) {
    let number = serde_json::json!({ "number": 1 });
    let publish = cap.publish("call", &number).header("CC", "[]").header("tenant", "acme");
    publish.callback("reply").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_copy_has_five_headers_and_no_body() {
    let ((noted, mut seen), broker) = (log(), Open::default());
    let cap = failing(alone().transport(broker.clone()), "test", noted).start().await.unwrap();
    publish(&cap).await;
    assert_eq!(attempts(&mut seen, 2).await, [(1, 0), (2, PAUSE.as_secs())]);
    let [copy] = &broker.copies()[..] else { panic!("one retry is one copy") };
    let names: Vec<_> = copy.headers.iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["cap-msg-id", "cap-msg-name", "cap-msg-group", "cap-retry", "cap-retry-mac"]);
    assert_eq!(copy.headers.get("cap-msg-group"), Some("test.v1"));
    assert_eq!(copy.body.len(), 0);
    cap.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn forged_copies_change_nothing_and_leave_a_trace() {
    let ((noted, mut seen), broker, signs) = (log(), Open::default(), Signs::default());
    let (_logging, _counting) = (signs.log(), signs.count());
    let cap = failing(alone().transport(broker.clone()), "test", noted).start().await.unwrap();
    publish(&cap).await;
    let before = waiting(&cap, "test.v1").await;
    let copy = broker.copies().remove(0);
    let id = before.id;
    let forged = [
        changed(&copy, "cap-retry-mac", "0".repeat(32)),
        changed(&copy, "cap-retry-mac", &copy.headers.get("cap-retry-mac").unwrap()[..16]),
        changed(&copy, "cap-retry-mac", ""),
        changed(&copy, "cap-retry", format!("{id}:2")),
        changed(&copy, "cap-retry", format!("{}:1", id + 1)),
        changed(&copy, "cap-retry", "garbage"),
    ];
    for headers in &forged {
        broker.bring("test.v1", headers.clone(), "").await;
    }
    sleep(10 * SECOND).await;
    assert_eq!(signs.counter(REFUSED), forged.len() as u64);
    let lines = signs.lines(Level::WARN, "retry copy dropped");
    assert_eq!(lines.len(), 1, "the others are counted: {lines:?}");
    let rows = cap.messages().list().await.unwrap();
    assert_eq!(rows.iter().map(state).collect::<Vec<_>>(), [state(&before)]);
    assert_eq!(attempts(&mut seen, 2).await, [(1, 0), (2, PAUSE.as_secs())], "the pause is kept");
    cap.shutdown().await.unwrap();
    seen.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_comes_once_more_is_dropped_without_a_word() {
    let ((noted, mut seen), broker, signs) = (log(), Open::default(), Signs::default());
    let (_logging, _counting) = (signs.log(), signs.count());
    let cap = failing(alone().transport(broker.clone()), "test", noted).start().await.unwrap();
    publish(&cap).await;
    assert_eq!(attempts(&mut seen, 2).await, [(1, 0), (2, PAUSE.as_secs())]);
    broker.bring("test.v1", broker.copies()[0].headers.clone(), "").await;
    sleep(10 * SECOND).await;
    assert_eq!((signs.counter(REFUSED), signs.lines(Level::WARN, "retry copy").len()), (0, 0));
    let rows = cap.messages().list().await.unwrap();
    assert_eq!(rows.iter().map(|row| row.status).collect::<Vec<_>>(), [Status::Succeeded]);
    cap.shutdown().await.unwrap();
    seen.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn a_copy_of_one_group_is_no_proof_in_another() {
    let ((noted, mut seen), broker, signs) = (log(), Open::default(), Signs::default());
    let (_logging, _counting) = (signs.log(), signs.count());
    let builder = failing(alone().transport(broker.clone()), "a", noted.clone());
    let cap = failing(builder, "b", noted).start().await.unwrap();
    publish(&cap).await;
    let before = [waiting(&cap, "a.v1").await, waiting(&cap, "b.v1").await];
    let copies = broker.copies();
    let of_a = copies.iter().find(|copy| copy.headers.get("cap-msg-group") == Some("a.v1")).unwrap();
    broker.bring("b.v1", of_a.headers.clone(), "").await;
    broker.bring("b.v1", changed(of_a, "cap-msg-group", "b.v1"), "").await;
    sleep(10 * SECOND).await;
    assert_eq!(signs.counter(REFUSED), 2);
    let after = [waiting(&cap, "a.v1").await, waiting(&cap, "b.v1").await];
    assert_eq!(after.each_ref().map(state), before.each_ref().map(state));
    assert_eq!(attempts(&mut seen, 4).await, [(1, 0), (1, 0), (2, 100), (2, 100)]);
    cap.shutdown().await.unwrap();
    seen.assert_empty();
}

/// A node of an earlier version has sent it: the whole message, known by the way it came.
#[tokio::test(start_paused = true)]
async fn a_copy_from_before_there_were_proofs_is_dropped() {
    let ((noted, mut seen), broker, signs) = (log(), Open::default(), Signs::default());
    let (_logging, _counting) = (signs.log(), signs.count());
    let cap = failing(alone().transport(broker.clone()), "test", noted).start().await.unwrap();
    publish(&cap).await;
    let before = waiting(&cap, "test.v1").await;
    let mut old = before.message.headers.clone();
    old.insert("cap-retry", format!("{}:1", before.id));
    for _ in 0..100 {
        broker.bring("test.v1", old.clone(), "{\"number\":1}").await;
    }
    sleep(10 * SECOND).await;
    assert_eq!(signs.counter(REFUSED), 100);
    assert_eq!(signs.lines(Level::WARN, "retry copy dropped").len(), 1, "an upgrade fills no log");
    assert_eq!(state(&waiting(&cap, "test.v1").await), state(&before));
    assert_eq!(attempts(&mut seen, 2).await, [(1, 0), (2, PAUSE.as_secs())]);
    cap.shutdown().await.unwrap();
    seen.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn a_message_with_one_of_the_headers_is_a_message() {
    let ((noted, mut seen), transport, signs) = (log(), MemoryTransport::new(), Signs::default());
    let (_logging, _counting) = (signs.log(), signs.count());
    let cap = alone()
        .transport(transport.clone())
        .subscribe("call", move |headers: CapHeaders| {
            noted.note(["cap-retry", "cap-retry-mac"].map(|name| headers.get(name).is_some()));
            async {}
        })
        .start()
        .await
        .unwrap();
    for (id, name, value) in [("1", "cap-retry", "7:1"), ("2", "cap-retry-mac", "00"), ("3", "cap-retry", "")]
    {
        let headers = [("cap-msg-id", id), ("cap-msg-name", "call"), (name, value)].into_iter().collect();
        transport.publish_raw("call", headers, Headers::new(), "1").await.unwrap();
    }
    assert_eq!(seen.take(3).await, [[false, false]; 3]);
    assert_eq!(signs.counter(REFUSED), 0);
    cap.shutdown().await.unwrap();
    seen.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn a_store_without_a_key_keeps_its_retries() {
    let ((noted, mut seen), broker) = (log(), Open::default());
    let builder = alone().storage(Shaky::without_key()).transport(broker.clone());
    let cap = failing(builder, "test", noted).start().await.unwrap();
    publish(&cap).await;
    assert_eq!(attempts(&mut seen, 2).await, [(1, 0), (2, PAUSE.as_secs())]);
    assert_eq!(broker.copies().len(), 0);
    cap.shutdown().await.unwrap();
    seen.assert_empty();
}
