//! Errors as they are stored, logged and given to `on_failed`: bounded, escaped, without the body. Issue 9, rows 5 and 12.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what went wrong by failing")]

mod support;

use std::fmt::{self, Write};
use std::sync::{Arc, Mutex};

use cap_core::CapBuilder;
use cap_core::prelude::*;
use cap_core::storage::Reason;
use serde::Deserialize;
use support::{alone, log};
use tracing::field::{Field, Visit};
use tracing::{Event, Metadata, Subscriber, span};

const SECRET: &str = "4111 1111 1111 1111";
const ESCAPES: &str = "\u{1b}[2J\u{1b}]0;owned\u{7}\r\n2026 ERROR forged";

/// Every field of every event and span.
#[derive(Clone, Default)]
struct Everything(Arc<Mutex<String>>);

impl Visit for Everything {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        writeln!(self.0.lock().unwrap(), "{field}={value:?}").unwrap();
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        writeln!(self.0.lock().unwrap(), "{field}={value}").unwrap();
    }
}

impl Subscriber for Everything {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &span::Attributes<'_>) -> span::Id {
        span.record(&mut self.clone());
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, values: &span::Record<'_>) {
        values.record(&mut self.clone());
    }

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut self.clone());
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[derive(Debug, Deserialize)]
struct Card {
    number: u64,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot look at the card: {0}")]
struct Unreadable(#[from] serde_json::Error);

fn builder(payload_in_errors: bool) -> (CapBuilder, support::Seen<cap_core::Failure>) {
    let (noted, seen) = log();
    let builder = alone()
        .configure(|options| {
            options.payload_in_errors = payload_in_errors;
            options.retry = RetryPolicy::never();
        })
        .on_failed(move |failure| {
            noted.note(failure);
            async {}
        })
        .subscribe("typed", async |card: Card| assert_eq!(card.number, 0))
        .subscribe("returned", async |body: RawBody| {
            serde_json::from_slice::<Card>(&body.0).map(|card| assert_eq!(card.number, 0))
        })
        .subscribe("wrapped", async |body: RawBody| {
            let card = serde_json::from_slice::<Card>(&body.0)?;
            assert_eq!(card.number, 0);
            Ok::<_, Unreadable>(())
        })
        .subscribe("own.kind", async |body: RawBody| {
            let card = serde_json::from_slice::<Card>(&body.0).map_err(HandlerError::permanent)?;
            Err::<(), _>(HandlerError::failed(card.number.to_string()))
        })
        .subscribe("unwrapped", async |body: RawBody| {
            assert_eq!(serde_json::from_slice::<Card>(&body.0).unwrap().number, 0);
        })
        .subscribe("own.words", async || Err::<(), _>(format!("{ESCAPES}{}", "x".repeat(3_000_000))))
        .subscribe("panic", async || assert!(1 + 1 == 3, "{ESCAPES}{}", "y".repeat(3_000_000)));
    (builder, seen)
}

const TOPICS: [&str; 7] = ["typed", "returned", "wrapped", "own.kind", "unwrapped", "own.words", "panic"];

#[tokio::test(start_paused = true)]
async fn are_bounded_and_escaped_and_quote_no_body() {
    let logged = Everything::default();
    let _logging = tracing::subscriber::set_default(logged.clone());
    let (builder, mut failures) = builder(false);
    let cap = builder.start().await.unwrap();
    for topic in TOPICS {
        let number = format!("{SECRET}{}", "7".repeat(2_000_000));
        cap.publish(topic, &serde_json::json!({ "number": number })).await.unwrap();
        let failure = failures.next().await;
        let row = cap.messages().get(failure.id).await.unwrap().unwrap();
        let attempts = cap.messages().attempts(failure.id).await.unwrap();
        assert_eq!(attempts.len(), 1);
        for text in [&failure.error, &row.last_error.unwrap(), &attempts[0].error] {
            assert!(!text.is_empty() && text.len() <= 4096, "{topic}: {} bytes", text.len());
            assert!(!text.contains("4111"), "{topic}: {text}");
            assert!(!text.contains(char::is_control), "{topic}: {text:?}");
        }
        if topic == "typed" {
            assert_eq!(failure.reason, Reason::Undecodable);
            assert!(failure.error.contains("Card: invalid type: string, expected u64 at line 1"));
        }
    }
    cap.shutdown().await.unwrap();
    let logged = logged.0.lock().unwrap();
    assert!(logged.contains("invalid type: string, expected u64"));
    assert!(!logged.contains("4111") && !logged.contains('\u{1b}'));
    assert!(logged.lines().all(|line| line.len() < 5000), "a field of the log is too long");
}

#[tokio::test(start_paused = true)]
async fn an_option_lets_them_quote_the_body() {
    let (builder, mut failures) = builder(true);
    let cap = builder.start().await.unwrap();
    for topic in ["typed", "returned", "wrapped"] {
        cap.publish(topic, &serde_json::json!({ "number": SECRET })).await.unwrap();
        let failure = failures.next().await;
        assert!(failure.error.contains("4111"), "{topic}: {}", failure.error);
    }
    cap.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn of_parked_input_are_escaped_too() {
    let (builder, mut failures) = builder(false);
    let builder = builder.map_incoming(|delivery| match &*delivery.routing_key {
        "hooked" => panic!("{ESCAPES}{}", "z".repeat(3_000_000)),
        _ => None,
    });
    let cap = builder.subscribe("hooked", async || ()).start().await.unwrap();
    cap.publish("hooked", &()).await.unwrap();
    let failure = failures.next().await;
    assert_eq!(failure.reason, Reason::MissingHeaders);
    assert!(failure.error.len() <= 4096 && !failure.error.contains(char::is_control));
    cap.shutdown().await.unwrap();
}
