//! The metrics of a bus: names, kinds, units, labels and what they mean. They are a contract: metrics are added, never
//! changed.
//!
//! Counters, histograms and gauges are published through the [`metrics`](https://docs.rs/metrics) crate. Install a recorder
//! before the bus starts: handles are made once and kept.
//!
//! The label `topic` is the topic of a published message, or the topic pattern of a subscription. A process uses at most
//! 1,000 values of it; the rest is `other`.
//!
//! ```
//! use cap_core::metric_names::{ALL, Kind};
//!
//! let sent = ALL.iter().find(|metric| metric.name == "cap_sent_total").unwrap();
//! assert_eq!((sent.kind, sent.labels), (Kind::Counter, &["topic"][..]));
//! ```

use metrics::{describe_counter, describe_gauge, describe_histogram};

/// A metric of a bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Whether it counts, measures now, or measures each time.
    pub kind: Kind,
    /// What it is measured in.
    pub unit: Unit,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it means.
    pub help: &'static str,
}

/// The kind of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only rises.
    Counter,
    /// How it is now.
    Gauge,
    /// A value for each time that something is done.
    Histogram,
}

/// What a metric is measured in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A number of things.
    Count,
    /// Seconds, with fractions.
    Seconds,
}

const GROUP: &[&str] = &["group"];
const SIDE_GROUP: &[&str] = &["side", "group"];
const TOPIC: &[&str] = &["topic"];
const TOPIC_GROUP: &[&str] = &["topic", "group"];

macro_rules! metrics {
    ($($constant:ident $kind:ident $unit:ident $labels:expr, $name:literal, $help:literal;)+) => {
        $(pub(crate) const $constant: &str = $name;)+

        /// Every metric.
        pub const ALL: &[Metric] = &[$(Metric {
            name: $constant,
            kind: Kind::$kind,
            unit: Unit::$unit,
            labels: $labels,
            help: $help,
        }),+];
    };
}

metrics! {
    PUBLISHED Counter Count TOPIC, "cap_published_total", "messages stored in the outbox and committed";
    SENT Counter Count TOPIC, "cap_sent_total", "messages that the broker has confirmed";
    UNROUTED Counter Count TOPIC, "cap_unrouted_total", "sent messages that the broker could not route to any queue";
    PUBLISH_FAILED Counter Count TOPIC, "cap_publish_failed_total", "attempts to send that the broker rejected";
    REJECTED Counter Count TOPIC_GROUP, "cap_rejected_total", "negative confirms: a queue was full or failing, and the message waits";
    RECEIVED Counter Count GROUP, "cap_received_total", "deliveries from the broker, including duplicates";
    DUPLICATES Counter Count GROUP, "cap_duplicates_total", "deliveries that were recognized as duplicates and dropped";
    HANDLED Counter Count TOPIC_GROUP, "cap_handled_total", "messages handled successfully";
    HANDLER_FAILED Counter Count TOPIC_GROUP, "cap_handler_failed_total", "failed attempts that counted";
    PARKED Counter Count TOPIC_GROUP, "cap_parked_total", "messages that failed for good";
    ID_CONFLICTS Counter Count GROUP, "cap_id_conflicts_total", "messages parked because another message with their id was received before";
    CALLBACKS_REFUSED Counter Count TOPIC_GROUP, "cap_callbacks_refused_total", "replies that were not sent, because callbacks_to does not allow their topic";
    RETRY_COPIES_REFUSED Counter Count GROUP, "cap_retry_copies_refused_total", "retries from the broker that were dropped, because they have no valid proof";
    PROCESS_CRASHES Counter Count GROUP, "cap_process_crashes_total", "process crashes attributed to the message being handled";
    CIRCUIT_OPENED Counter Count TOPIC_GROUP, "cap_circuit_opened_total", "circuits that opened";
    EXPIRED Counter Count &[], "cap_expired_total", "messages deleted because their retention was over";

    HANDLE_DURATION Histogram Seconds TOPIC_GROUP, "cap_handle_duration_seconds", "time that a handler took for an attempt, also a failed one";
    PUBLISH_TO_HANDLED Histogram Seconds TOPIC_GROUP, "cap_publish_to_handled_seconds", "time from the publish to the handler's success; only messages that a bus like this one published without a delay";
    SEND_DURATION Histogram Seconds &[], "cap_send_duration_seconds", "time from handing a batch to the broker until all of its confirms are there";
    BATCH_SIZE Histogram Count &["operation"], "cap_batch_size", "messages in a batch: sent to the broker (send), or received from it (receive)";

    BACKLOG Gauge Count SIDE_GROUP, "cap_backlog", "messages of all nodes that wait in the storage to be sent or handled, counted to 10,000";
    PARKED_NOW Gauge Count SIDE_GROUP, "cap_parked_messages", "messages of all nodes that wait for an operator, counted to 10,000";
    LAG Gauge Seconds SIDE_GROUP, "cap_lag_seconds", "age of the oldest message that is due and that no node works on";
    RUNNING Gauge Count GROUP, "cap_running_handlers", "handlers that are running on this node";
    QUEUED Gauge Count GROUP, "cap_queued_messages", "messages in the memory of this node that wait for a handler";
    CIRCUIT_STATE Gauge Count TOPIC_GROUP, "cap_circuit_state", "state of a subscription's circuit on this node: 0 closed, 1 half-open, 2 open";
    CONSUMER_UP Gauge Count GROUP, "cap_consumer_up", "1 while this node consumes for the group, else 0";
    BROKER_UP Gauge Count &[], "cap_broker_up", "1 while this node can send to the broker, else 0";
    STORAGE_UP Gauge Count &[], "cap_storage_up", "1 while this node can use the storage, else 0";
}

/// Registers the units and the descriptions with the recorder of the process.
pub(crate) fn describe() {
    for metric in ALL {
        let unit = match metric.unit {
            Unit::Count => metrics::Unit::Count,
            Unit::Seconds => metrics::Unit::Seconds,
        };
        match metric.kind {
            Kind::Counter => describe_counter!(metric.name, unit, metric.help),
            Kind::Gauge => describe_gauge!(metric.name, unit, metric.help),
            Kind::Histogram => describe_histogram!(metric.name, unit, metric.help),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_say_kind_and_unit() {
        let names: BTreeSet<_> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), ALL.len());
        for metric in ALL {
            assert_eq!(metric.kind == Kind::Counter, metric.name.ends_with("_total"), "{}", metric.name);
            assert_eq!(metric.unit == Unit::Seconds, metric.name.ends_with("_seconds"), "{}", metric.name);
        }
    }
}
