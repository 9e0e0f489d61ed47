//! What thousands of bad messages do to the log and to `on_failed`. Issue 9, row 19.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what went wrong by failing")]

mod support;

use std::fmt::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cap_core::prelude::*;
use cap_core::storage::Reason;
use support::{log, on};
use tokio::sync::Semaphore;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber, span};

/// The lines at WARN and above, each with its fields.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        write!(self.0, "{field}={value:?} ").unwrap();
    }
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// Sends messages that nobody can handle: a third without id, a third of an unknown topic, a third that cannot be read.
async fn flood(transport: &MemoryTransport, count: usize) {
    for number in 0..count {
        let id = format!("bad-{number}");
        let headers = match number % 3 {
            0 => [("x", "y")].into_iter().collect(),
            1 => [("cap-msg-id", &*id), ("cap-msg-name", "work.unknown.topic")].into_iter().collect(),
            _ => [("cap-msg-id", &*id), ("cap-msg-name", "work")].into_iter().collect(),
        };
        transport.publish_raw("work", headers, cap_core::Headers::new(), "no JSON").await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn bad_messages_are_counted_in_the_log() {
    let lines = Lines::default();
    let _logging = tracing::subscriber::set_default(lines.clone());
    let (transport, (noted, mut seen)) = (MemoryTransport::new(), log());
    let cap = on(&MemoryStorage::new(), &transport)
        .subscribe("work", async |_: u64| ())
        .on_failed(move |failure| {
            noted.note(failure.reason);
            async {}
        })
        .start()
        .await
        .unwrap();
    flood(&transport, 6_000).await;
    seen.take(6_000).await;
    // Of each reason one line of the parking and one of the notification, and of the handler's attempt. The counts come
    // once a minute, and notifications beyond the queue's length take some minutes.
    let in_full = |line: &&String| !line.contains("further occurrences were counted");
    let so_far = lines.0.lock().unwrap().iter().filter(in_full).count();
    assert!(so_far <= 12, "{so_far} lines: {:#?}", lines.0.lock().unwrap());
    tokio::time::sleep(Duration::from_secs(61)).await;
    cap.shutdown().await.unwrap();
    let lines = lines.0.lock().unwrap();
    assert!(lines.len() <= 60, "{} lines: {lines:#?}", lines.len());
    // Every one is in a line of its own or in a count: none is missing, and none is notified of twice.
    for (in_full, counted, all) in [
        ("message parked", "message parked on receipt", 4_000),
        ("handler failed", "handler failed", 2_000),
        ("failed for good", "message failed for good", 6_000),
    ] {
        let mut sum = 0;
        for line in &*lines {
            if line.contains("further occurrences were counted") {
                let more = line.split("more=").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
                sum += if line.contains(counted) { more.parse::<u64>().unwrap() } else { 0 };
            } else {
                sum += u64::from(line.contains(in_full));
            }
        }
        assert_eq!(sum, all, "{counted}: {lines:#?}");
    }
}

#[tokio::test(start_paused = true)]
async fn real_failures_are_told_of_before_parked_input() {
    // Where a thread without a log comes first to a line, no thread's log gets that line.
    let _logging = tracing::subscriber::set_default(Lines::default());
    let (transport, (noted, mut seen)) = (MemoryTransport::new(), log());
    let gate = Arc::new(Semaphore::new(0));
    let opened = Arc::clone(&gate);
    let cap = on(&MemoryStorage::new(), &transport)
        .configure(|options| options.retry = RetryPolicy::never())
        .subscribe("work", async |_: u64| ())
        .subscribe("real", async || Err::<(), _>("the disk is full"))
        .on_failed(move |failure| {
            let (noted, gate) = (noted.clone(), Arc::clone(&gate));
            async move {
                gate.acquire().await.unwrap().forget();
                noted.note(failure.reason);
            }
        })
        .start()
        .await
        .unwrap();
    flood(&transport, 300).await;
    cap.publish("real", &()).await.unwrap();
    // Until the real failure is there too; what is notified of first has been taken up by then.
    while cap.messages().parked().reason(Reason::Exhausted).count().await.unwrap() == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    opened.add_permits(2);
    let first = seen.take(2).await;
    assert!(first.contains(&Reason::Exhausted), "behind what was parked: {first:?}");
    opened.add_permits(1000);
    seen.take(299).await;
    cap.shutdown().await.unwrap();
}
