//! What a bus tells its operators: log lines and counters, of everything that this thread does.

use std::collections::HashMap;
use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::{Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};

/// Log lines, each with its level and its fields, and counters by name. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Signs {
    lines: Arc<Mutex<Vec<(Level, String)>>>,
    /// By name, then by labels.
    counters: Arc<Mutex<Handles<AtomicU64>>>,
    gauges: Arc<Mutex<Handles<AtomicU64>>>,
    histograms: Arc<Mutex<Handles<Values>>>,
}

impl Signs {
    /// Has this thread's log go here until the guard is dropped.
    pub fn log(&self) -> tracing::subscriber::DefaultGuard {
        tracing::subscriber::set_default(self.clone())
    }

    /// Has this thread count here until the guard is dropped.
    pub fn count(&self) -> metrics::LocalRecorderGuard<'_> {
        metrics::set_default_local_recorder(self)
    }

    /// The log lines of a level that contain a text.
    pub fn lines(&self, level: Level, part: &str) -> Vec<String> {
        let lines = lock(&self.lines);
        lines
            .iter()
            .filter(|(of, line)| *of == level && line.contains(part))
            .map(|(_, line)| line.clone())
            .collect()
    }

    /// How far a counter has come, with all labels.
    pub fn counter(&self, name: &str) -> u64 {
        let counters = lock(&self.counters);
        let of_name = counters.iter().filter(|(key, _)| key.0 == name);
        of_name.map(|(_, counter)| counter.load(Ordering::Relaxed)).sum()
    }

    /// How far a counter has come with these labels: `topic=a,group=b`.
    pub fn labelled(&self, name: &str, labels: &str) -> u64 {
        let key = (name.to_owned(), labels.to_owned());
        lock(&self.counters).get(&key).map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    /// The metrics that were made, with the names of their labels.
    pub fn made(&self) -> Vec<(String, Vec<String>)> {
        let counters = lock(&self.counters).keys().cloned().collect::<Vec<_>>();
        let gauges = lock(&self.gauges).keys().cloned().collect::<Vec<_>>();
        let histograms = lock(&self.histograms).keys().cloned().collect::<Vec<_>>();
        let all = [counters, gauges, histograms].concat().into_iter();
        let names = |labels: &str| {
            let pairs = labels.split(',').filter_map(|pair| pair.split_once('='));
            pairs.map(|(name, _)| name.to_owned()).collect()
        };
        all.map(|(name, labels)| (name, names(&labels))).collect()
    }

    /// What a gauge was set to last.
    pub fn gauge(&self, name: &str, labels: &str) -> Option<f64> {
        let key = (name.to_owned(), labels.to_owned());
        lock(&self.gauges).get(&key).map(|gauge| f64::from_bits(gauge.load(Ordering::Relaxed)))
    }

    /// What a histogram has recorded.
    pub fn histogram(&self, name: &str, labels: &str) -> Vec<f64> {
        let key = (name.to_owned(), labels.to_owned());
        lock(&self.histograms).get(&key).map_or_else(Vec::new, |values| lock(&values.0).clone())
    }
}

type Handles<T> = HashMap<(String, String), Arc<T>>;

/// The values of a histogram.
#[derive(Debug, Default)]
struct Values(Mutex<Vec<f64>>);

impl HistogramFn for Values {
    fn record(&self, value: f64) {
        lock(&self.0).push(value);
    }
}

fn handle<T: Default>(all: &Mutex<Handles<T>>, key: &Key) -> Arc<T> {
    let labels: Vec<String> =
        key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
    Arc::clone(lock(all).entry((key.name().to_owned(), labels.join(","))).or_default())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = write!(self.0, "{}={value:?} ", field.name());
    }
}

impl Subscriber for Signs {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        lock(&self.lines).push((*event.metadata().level(), line.0));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

impl Recorder for Signs {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(handle(&self.counters, key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(handle(&self.gauges, key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(handle(&self.histograms, key))
    }
}
