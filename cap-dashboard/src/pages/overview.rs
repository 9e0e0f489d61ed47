//! The overview, and the part of it that streams renew.

use std::collections::BTreeMap;
use std::time::SystemTime;

use askama::Template;
use axum::response::Response;
use cap_core::monitor::Count;
use cap_core::storage::{Side, Status};
use cap_core::{CircuitState, Component, Health, Phase};

use super::charts::{Line, line};
use super::shell::{Shell, page};
use crate::data::encoded;
use crate::live::{Reading, Sample};
use crate::request::Problem;
use crate::text::{Amount, Stamp, Text};
use crate::web::Reader;

#[derive(Debug, Template)]
#[template(path = "overview.html")]
struct Overview {
    shell: Shell,
    t: &'static Text,
    live: Live,
}

/// The part that changes.
#[derive(Debug, Template)]
#[template(path = "overview_live.html")]
pub(crate) struct LivePart {
    pub(crate) t: &'static Text,
    pub(crate) live: Live,
}

/// What the changing part shows.
#[derive(Debug)]
pub(crate) struct Live {
    cards: Vec<Card>,
    groups: Vec<GroupLine>,
    components: Vec<ComponentLine>,
    chart: Chart,
    is_capped: bool,
    is_unknown: bool,
    error: Option<String>,
}

/// A number with its line.
#[derive(Debug)]
struct Card {
    /// Names the element, so that only what has changed is replaced.
    key: &'static str,
    label: &'static str,
    amount: Amount,
    href: String,
    /// The class for its color.
    tone: &'static str,
    spark: Line,
}

/// The large chart.
#[derive(Debug)]
struct Chart {
    lines: Vec<(&'static str, &'static str, Line)>,
    top: String,
}

/// The class of a line, its label, and what it shows.
type ChartKind = (&'static str, &'static str, fn(&Sample) -> u64);

/// A consuming group.
#[derive(Debug)]
struct GroupLine {
    name: String,
    scheduled: Amount,
    retrying: Amount,
    parked: Amount,
    href_parked: String,
    href: String,
    running: Option<usize>,
    queued: Option<usize>,
    circuit: Option<(&'static str, &'static str)>,
    component: Option<ComponentLine>,
}

/// A part that is up or down.
#[derive(Debug)]
pub(crate) struct ComponentLine {
    pub(crate) name: String,
    pub(crate) up: bool,
    pub(crate) since: Stamp,
    pub(crate) error: Option<String>,
}

pub(super) async fn show(reader: Reader) -> Result<Response, Problem> {
    let reading = reader.app.live.read().await;
    let t = reader.context.text();
    let live = Live::new(&reading, &reader.context.base, t);
    page(&Overview { shell: Shell::new(&reader, "overview").await, t, live })
}

impl Live {
    pub(crate) fn new(reading: &Reading, base: &str, t: &'static Text) -> Self {
        let now = reading.at;
        Self {
            cards: cards(reading, base, t),
            groups: groups(reading, base, t),
            components: reading.health.as_ref().map(|health| components(health, now, t)).unwrap_or_default(),
            chart: Chart::new(&reading.samples, t),
            is_capped: reading.is_capped,
            is_unknown: reading.counts.is_none(),
            error: reading.error.clone(),
        }
    }
}

fn cards(reading: &Reading, base: &str, t: &'static Text) -> Vec<Card> {
    let amount = |side, status| Amount { count: reading.count(side, status), is_capped: reading.is_capped };
    let spark = |value: fn(&Sample) -> u64| {
        let values: Vec<u64> = reading.samples.iter().map(value).collect();
        line(&values, 120, 32, 4)
    };
    let both = |status| {
        let (out, inbox) = (amount(Side::Outbox, status), amount(Side::Inbox, status));
        Amount { count: out.count + inbox.count, is_capped: reading.is_capped }
    };
    vec![
        Card {
            key: "to-send",
            label: t.waiting_to_send,
            amount: amount(Side::Outbox, Status::Scheduled),
            href: format!("{base}/published?status=scheduled"),
            tone: "scheduled",
            spark: spark(|sample| sample.to_send),
        },
        Card {
            key: "to-handle",
            label: t.waiting_to_handle,
            amount: amount(Side::Inbox, Status::Scheduled),
            href: format!("{base}/received?status=scheduled"),
            tone: "running",
            spark: spark(|sample| sample.to_handle),
        },
        Card {
            key: "retrying",
            label: t.retrying,
            amount: both(Status::Retrying),
            href: format!("{base}/received?status=retrying"),
            tone: "retrying",
            spark: spark(|sample| sample.retrying),
        },
        Card {
            key: "parked",
            label: t.parked,
            amount: both(Status::Failed),
            href: format!("{base}/parked"),
            tone: "failed",
            spark: spark(|sample| sample.parked),
        },
    ]
}

impl Chart {
    fn new(samples: &[Sample], t: &'static Text) -> Self {
        let kinds: [ChartKind; 4] = [
            ("scheduled", t.waiting_to_send, |sample| sample.to_send),
            ("running", t.waiting_to_handle, |sample| sample.to_handle),
            ("retrying", t.retrying, |sample| sample.retrying),
            ("failed", t.parked, |sample| sample.parked),
        ];
        let all = |value: fn(&Sample) -> u64| samples.iter().map(value).collect::<Vec<_>>();
        let top = kinds.iter().flat_map(|(.., value)| all(*value)).max().unwrap_or_default();
        let lines = kinds
            .iter()
            .map(|(tone, label, value)| (*tone, *label, line(&all(*value), 800, 180, top.max(4))));
        Self { lines: lines.collect(), top: crate::text::short(top.max(4)) }
    }
}

fn groups(reading: &Reading, base: &str, t: &'static Text) -> Vec<GroupLine> {
    let mut by_name: BTreeMap<&str, Vec<&Count>> = BTreeMap::new();
    for count in reading.counts.iter().flatten().filter(|count| count.side == Side::Inbox) {
        by_name.entry(&count.group).or_default().push(count);
    }
    for group in reading.health.iter().flat_map(|health| &health.groups) {
        by_name.entry(&group.group).or_default();
    }
    let of_group = |(name, counts): (&str, Vec<&Count>)| {
        let amount = |status| Amount {
            count: counts.iter().filter(|count| count.status == status).map(|count| count.count).sum(),
            is_capped: reading.is_capped,
        };
        let health =
            reading.health.iter().flat_map(|health| &health.groups).find(|group| group.group == name);
        GroupLine {
            scheduled: amount(Status::Scheduled),
            retrying: amount(Status::Retrying),
            parked: amount(Status::Failed),
            href_parked: format!("{base}/parked?group={}", encoded(name)),
            href: format!("{base}/received?group={}", encoded(name)),
            running: health.map(|group| group.running),
            queued: health.map(|group| group.queued),
            circuit: health.and_then(|group| circuit(group.circuits.iter().map(|circuit| circuit.state), t)),
            component: health.map(|group| ComponentLine::new(&group.consumer, reading.at, t)),
            name: name.to_owned(),
        }
    };
    by_name.into_iter().map(of_group).collect()
}

/// The worst of some circuits, with its class.
pub(crate) fn circuit(
    states: impl Iterator<Item = CircuitState>,
    t: &'static Text,
) -> Option<(&'static str, &'static str)> {
    let label = |state| match state {
        CircuitState::Closed => (0, ("succeeded", t.circuit_closed)),
        CircuitState::Probing => (1, ("retrying", t.circuit_half_open)),
        _ => (2, ("failed", t.circuit_open)),
    };
    states.map(label).max_by_key(|(rank, _)| *rank).map(|(_, label)| label)
}

fn components(health: &Health, now: SystemTime, t: &'static Text) -> Vec<ComponentLine> {
    let mut all =
        vec![ComponentLine::new(&health.storage, now, t), ComponentLine::new(&health.transport, now, t)];
    if health.phase != Phase::Running {
        for component in &mut all {
            component.up = false;
        }
    }
    all
}

impl ComponentLine {
    pub(crate) fn new(component: &Component, now: SystemTime, t: &'static Text) -> Self {
        Self {
            name: component.name.clone(),
            up: component.up,
            since: Stamp::new(component.since, now, t),
            error: component.error.clone().filter(|_| !component.up),
        }
    }
}
