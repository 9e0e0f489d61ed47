//! Selecting messages of the test.

use std::time::Instant;

use assert_json_diff::{CompareMode, Config, assert_json_matches_no_panic};
use cap_core::monitor::Row;
use cap_core::storage::{Side, Status};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::clock::tick;
use crate::record::Record;
use crate::world::{Service, World};

/// Which messages are selected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Those in the outbox.
    Published,
    /// Those whose handler has succeeded.
    Handled,
    /// Those that failed for good, on either side.
    Parked,
}

/// A selection of the messages of a [`TestBus`](crate::TestBus): of one topic, and of those that [match](Self::matching).
#[must_use = "a selection does nothing by itself; call .one() or the like"]
#[derive(Debug)]
pub struct Records<'a> {
    world: &'a World,
    service: &'a Service,
    kind: Kind,
    topic: String,
    group: Option<String>,
    like: Vec<Value>,
}

impl<'a> Records<'a> {
    pub(crate) fn new(world: &'a World, service: &'a Service, kind: Kind, topic: String) -> Self {
        Self { world, service, kind, topic, group: None, like: Vec::new() }
    }

    /// Only those that this group received: its full name, or the name in the subscription.
    pub fn in_group(mut self, group: impl Into<String>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// Only those whose payload contains these values; other fields may be anything.
    ///
    /// ```
    /// # use cap_core::prelude::*;
    /// # use cap_test::TestBus;
    /// # use serde_json::json;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let bus = TestBus::start(Cap::builder().handlers(Handlers::none())).await;
    /// bus.publish("order.placed", &json!({ "order": 7, "product": "tea" })).await.expect("stored");
    /// bus.publish("order.placed", &json!({ "order": 8, "product": "tea" })).await.expect("stored");
    /// let placed = bus.published("order.placed").matching(json!({ "order": 8 })).one::<serde_json::Value>().await;
    /// assert_eq!(placed.payload["product"], "tea");
    /// # }
    /// ```
    pub fn matching(mut self, part: Value) -> Self {
        self.like.push(part);
        self
    }

    /// The only one, after the bus has [settled](crate::TestBus::settled). Panics if there is none, or more than one, with the story
    /// of all messages.
    pub async fn one<T: DeserializeOwned>(self) -> Record<T> {
        let found = self.settled_rows().await;
        match &*found {
            [row] => Record::of(row),
            _ => panic!(
                "{} messages were {}, expected 1\n{}",
                found.len(),
                self.what(),
                self.world.story().await
            ),
        }
    }

    /// All of them, oldest first, after the bus has [settled](crate::TestBus::settled).
    pub async fn all<T: DeserializeOwned>(self) -> Vec<Record<T>> {
        self.settled_rows().await.iter().map(Record::of).collect()
    }

    /// How many there are after the bus has [settled](crate::TestBus::settled).
    pub async fn count(self) -> usize {
        self.settled_rows().await.len()
    }

    /// The first one, as soon as there is one, whatever else the bus is doing. Panics if there is none within the
    /// [patience](crate::TestBus::patience) of the test.
    pub async fn first<T: DeserializeOwned>(self) -> Record<T> {
        let deadline = Instant::now() + self.world.patience();
        loop {
            if let Some(row) = self.rows().await.first() {
                return Record::of(row);
            }
            assert!(
                Instant::now() < deadline,
                "no message was {} in {:?}\n{}",
                self.what(),
                self.world.patience(),
                self.world.story().await
            );
            tick().await;
        }
    }

    async fn settled_rows(&self) -> Vec<Row> {
        self.world.settled().await;
        self.rows().await
    }

    async fn rows(&self) -> Vec<Row> {
        let mut rows = self.service.snapshot().await.rows;
        rows.retain(|row| self.is_selected(row));
        rows
    }

    fn is_selected(&self, row: &Row) -> bool {
        let of_kind = match self.kind {
            Kind::Published => row.side == Side::Outbox,
            Kind::Handled => row.side == Side::Inbox && row.status == Status::Succeeded,
            Kind::Parked => row.status == Status::Failed,
        };
        of_kind
            && self.service.is_topic(&row.name, &self.topic)
            && self.group.as_deref().is_none_or(|group| self.service.is_group(&row.group, group))
            && self.like.iter().all(|part| contains(row, part))
    }

    fn what(&self) -> String {
        let kind = match self.kind {
            Kind::Published => "published to",
            Kind::Handled => "handled of",
            Kind::Parked => "parked of",
        };
        let mut what = format!("{kind} {}", self.topic);
        for part in &self.like {
            what.push_str(" with ");
            what.push_str(&part.to_string());
        }
        what
    }
}

/// Whether the payload contains these values.
fn contains(row: &Row, part: &Value) -> bool {
    let Ok(payload) = row.message.payload::<Value>() else { return false };
    assert_json_matches_no_panic(&payload, part, Config::new(CompareMode::Inclusive)).is_ok()
}
