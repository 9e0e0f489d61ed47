//! Sets the gauges of a bus at intervals: what this node is doing, and what waits in the storage.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use metrics::{Gauge, SharedString, gauge};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::cap::GroupRuntime;
use crate::monitor::{BoundedCounts, Lag};
use crate::runtime::circuit::CircuitState;
use crate::runtime::engine::Engine;
use crate::runtime::health::Phase;
use crate::runtime::metric_names as names;
use crate::runtime::topic_labels::topic_label;
use crate::storage::{Side, Status};

/// The most rows of a kind that are counted.
const ROWS_COUNTED: u32 = 10_000;
/// How long the storage may take.
const TIMEOUT: Duration = Duration::from_secs(3);

/// The gauges of a group on this node.
struct NodeGauges {
    group: GroupRuntime,
    running: Gauge,
    queued: Gauge,
    consumer: Gauge,
}

/// The gauges of the outbox or of a group in the storage.
struct StorageGauges {
    backlog: Gauge,
    parked: Gauge,
    lag: Gauge,
}

/// Sets the gauges at each poll interval until everything stops. Without a recorder nobody would see them, and neither is
/// the storage asked.
pub(super) async fn run_gauges(engine: Arc<Engine>, groups: Vec<GroupRuntime>) {
    let everything = engine.lifecycle.stop.everything.clone();
    let rounds = async {
        let mut ticks = interval(engine.options.poll_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut node, mut storage) = (Vec::new(), BTreeMap::new());
        loop {
            ticks.tick().await;
            if !has_recorder() {
                continue;
            }
            if node.is_empty() {
                node = groups.iter().map(NodeGauges::of).collect();
            }
            node.iter().for_each(NodeGauges::set);
            let up = |is_up: bool| f64::from(u8::from(is_up));
            gauge!(names::BROKER_UP).set(up(engine.broker.health.get().up));
            gauge!(names::STORAGE_UP).set(up(engine.storage.health.get().up));
            // Not waited for: the gauges that say that the storage is down must go on meanwhile.
            if engine.lifecycle.phase.get() == Phase::Running {
                ask_storage(&engine, &mut storage).await;
            }
        }
    };
    everything.run_until_cancelled(rounds).await;
}

/// Whether the application has installed a recorder. The one that stands for none has no state, hence no size.
fn has_recorder() -> bool {
    metrics::with_recorder(|recorder| size_of_val(recorder) > 0)
}

impl NodeGauges {
    fn of(group: &GroupRuntime) -> Self {
        let name = SharedString::from(group.group.name.to_string());
        Self {
            running: gauge!(names::RUNNING, "group" => name.clone()),
            queued: gauge!(names::QUEUED, "group" => name.clone()),
            consumer: gauge!(names::CONSUMER_UP, "group" => name),
            group: group.clone(),
        }
    }

    #[allow(clippy::cast_precision_loss, reason = "no node has 2^52 handlers")]
    fn set(&self) {
        let GroupRuntime { group, health, gauge } = &self.group;
        self.running.set(gauge.running.load(Ordering::Relaxed) as f64);
        self.queued.set(gauge.queued.load(Ordering::Relaxed) as f64);
        self.consumer.set(f64::from(u8::from(health.get().up)));
        for circuit in gauge.circuits.get() {
            let topic = topic_label(&circuit.topic).to_owned();
            let state = match circuit.state {
                CircuitState::Closed => 0.0,
                CircuitState::Probing => 1.0,
                CircuitState::Open => 2.0,
            };
            gauge!(names::CIRCUIT_STATE, "topic" => topic, "group" => group.name.to_string()).set(state);
        }
    }
}

async fn ask_storage(engine: &Engine, gauges: &mut BTreeMap<(Side, String), StorageGauges>) {
    let asked = async {
        let counts = engine.storage.bounded_counts(ROWS_COUNTED).await.ok()??;
        Some((counts, engine.storage.lags().await.ok()?))
    };
    // While the storage does not answer, the gauges stay as they are: `cap_storage_up` says so.
    let Ok(Some((counts, lags))) = timeout(TIMEOUT, asked).await else { return };
    let mut values = values(&counts, lags.as_deref().unwrap_or_default());
    values.entry((Side::Outbox, String::new())).or_default();
    for key in gauges.keys() {
        values.entry(key.clone()).or_default();
    }
    for (key, value) in values {
        let gauges = gauges.entry(key).or_insert_with_key(|(side, group)| StorageGauges::of(*side, group));
        gauges.backlog.set(value.backlog);
        gauges.parked.set(value.parked);
        if lags.is_some() {
            gauges.lag.set(value.lag);
        }
    }
}

impl StorageGauges {
    fn of(side: Side, group: &str) -> Self {
        let side = match side {
            Side::Outbox => "outbox",
            Side::Inbox => "inbox",
        };
        let of = |name| gauge!(name, "side" => side, "group" => group.to_owned());
        Self { backlog: of(names::BACKLOG), parked: of(names::PARKED_NOW), lag: of(names::LAG) }
    }
}

#[derive(Debug, Default, Clone, Copy, PartialEq)]
struct Values {
    backlog: f64,
    parked: f64,
    lag: f64,
}

#[allow(clippy::cast_precision_loss, reason = "counts are bounded")]
fn values(counts: &BoundedCounts, lags: &[Lag]) -> BTreeMap<(Side, String), Values> {
    let mut values: BTreeMap<_, Values> = BTreeMap::new();
    for count in &counts.counts {
        let value = values.entry((count.side, count.group.clone())).or_default();
        match count.status {
            Status::Scheduled | Status::Retrying => value.backlog += count.count as f64,
            Status::Failed => value.parked += count.count as f64,
            _ => {}
        }
    }
    for lag in lags {
        values.entry((lag.side, lag.group.clone())).or_default().lag = lag.oldest.as_secs_f64();
    }
    values
}
