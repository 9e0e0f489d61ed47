//! What is said aloud where nobody has asked to be told.
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

mod support;

use std::collections::BTreeMap;
use std::fmt;

use cap_core::prelude::*;
use support::signs::Signs;
use support::{Log, alone, log};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber, span};

/// Notes the fields of every error.
struct Errors(Log<Fields>);

#[derive(Debug, Default)]
struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

impl Subscriber for Errors {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::ERROR
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        self.0.note(fields);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_given_up_is_an_error_that_says_where_it_is() {
    let (noted, mut seen) = log();
    let _logging = tracing::subscriber::set_default(Errors(noted));
    let cap = alone()
        .configure(|options| options.retry = RetryPolicy::fixed(std::time::Duration::ZERO, 3))
        .subscribe("work", async || Err::<(), _>("nobody answers"))
        .start()
        .await
        .unwrap();
    let id = cap.publish("work", &()).await.unwrap();
    let Fields(said) = seen.next().await;
    assert!(
        said["message"].contains("parked until an operator acts")
            && said["message"].contains("cap.messages().parked()")
    );
    let row = cap.messages().parked().list().await.unwrap().remove(0);
    for (field, value) in [
        ("message_id", id.as_str()),
        ("topic", "work"),
        ("group", "test.v1"),
        ("row", &row.id.to_string()),
        ("attempts", "3"),
        ("error", "nobody answers"),
    ] {
        assert_eq!(said[field].trim_matches('"'), value, "{said:?}");
    }
    cap.shutdown().await.unwrap();
    seen.assert_empty();
}

/// One line for each step of a message, in the order of the steps.
#[tokio::test]
async fn each_step_is_one_debug_line_with_the_same_fields() {
    let signs = Signs::default();
    let _log = signs.log();
    let cap = alone()
        .configure(|options| options.topic_prefix = Some("shop".to_owned()))
        .subscribe("work", async || ())
        .start()
        .await
        .unwrap();
    let id = cap.publish("work", &1).await.unwrap();
    let steps = || {
        let lines = signs.lines(Level::DEBUG, id.as_str());
        (lines.len() == 4).then_some(lines)
    };
    let all_steps = async {
        loop {
            if let Some(lines) = steps() {
                return lines;
            }
            tokio::task::yield_now().await;
        }
    };
    let lines = tokio::time::timeout(std::time::Duration::from_secs(60), all_steps).await.unwrap();
    // Sending within the process ends when the group has stored the message; the handler runs at the same time.
    let step = |text: &str| lines.iter().position(|line| line.contains(text)).unwrap();
    let stored = step("stored in the outbox");
    let received = step("stored in the inbox");
    assert_eq!((stored, received), (0, 1), "{lines:?}");
    assert!(step("sent to the broker") > received && step("handled") > received, "{lines:?}");
    for line in &lines {
        assert!(line.contains("topic=\"shop.work\""), "{line}");
        assert!(line.contains(&format!("message_id=\"{id}\"")), "{line}");
    }
    cap.shutdown().await.unwrap();
}
