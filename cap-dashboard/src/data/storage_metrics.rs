//! What waits in a storage, as metrics in the text format of Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use cap_core::Operator;
use cap_core::error::StorageError;
use cap_core::metric_names::{ALL, Metric};
use cap_core::storage::{Side, Status};
use tokio::time::timeout;

/// How long the storage may take; a scrape usually waits for ten seconds.
const TIMEOUT: Duration = Duration::from_secs(4);

const BACKLOG: &str = "cap_backlog";
const PARKED: &str = "cap_parked_messages";
const LAG: &str = "cap_lag_seconds";
const STORAGE_UP: &str = "cap_storage_up";

/// What waits in a storage, for the outbox and for each group: backlog, parked messages and lag of all nodes. It needs no
/// bus, and costs the same however many messages there are.
///
/// ```
/// use cap_core::Operator;
/// use cap_core::memory::MemoryStorage;
/// use cap_dashboard::StorageMetrics;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), cap_core::error::StorageError> {
/// let operator = Operator::open(MemoryStorage::new()).await?;
/// let text = StorageMetrics::read(&operator).await?.text();
/// assert!(text.contains("cap_backlog{side=\"outbox\",group=\"\"} 0"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StorageMetrics(Vec<Sample>);

/// One value.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Sample {
    /// The metric, one of [`cap_core::metric_names`].
    pub name: &'static str,
    /// Its labels.
    pub labels: Vec<(&'static str, String)>,
    /// Its value.
    pub value: f64,
}

#[derive(Default)]
struct Values {
    backlog: u64,
    parked: u64,
    lag: Duration,
}

impl StorageMetrics {
    /// Reads them. What the storage cannot count in time, or cannot tell, is left out.
    ///
    /// # Errors
    ///
    /// Those of the storage.
    pub async fn read(operator: &Operator) -> Result<Self, StorageError> {
        let read = async { Ok((operator.waiting().await?, operator.lags().await?)) };
        let (counts, lags) = match timeout(TIMEOUT, read).await {
            Ok(read) => read?,
            Err(_) => (None, None),
        };
        let mut values: BTreeMap<(Side, String), Values> = BTreeMap::new();
        values.entry((Side::Outbox, String::new())).or_default();
        for count in counts.iter().flat_map(|counts| &counts.counts) {
            let value = values.entry((count.side, count.group.clone())).or_default();
            match count.status {
                Status::Scheduled | Status::Retrying => value.backlog += count.count,
                Status::Failed => value.parked += count.count,
                _ => {}
            }
        }
        for lag in lags.iter().flatten() {
            values.entry((lag.side, lag.group.clone())).or_default().lag = lag.oldest;
        }
        let mut samples = Vec::new();
        let mut add = |name, of: &dyn Fn(&Values) -> f64| {
            samples.extend(values.iter().map(|((side, group), value)| Sample {
                name,
                labels: vec![("side", side_name(*side).to_owned()), ("group", group.clone())],
                value: of(value),
            }));
        };
        if counts.is_some() {
            add(BACKLOG, &|value| number(value.backlog));
            add(PARKED, &|value| number(value.parked));
        }
        if lags.is_some() {
            add(LAG, &|value| value.lag.as_secs_f64());
        }
        samples.push(Sample { name: STORAGE_UP, labels: Vec::new(), value: 1.0 });
        Ok(Self(samples))
    }

    /// What is known while the storage cannot be read.
    pub(crate) fn unreachable() -> Self {
        Self(vec![Sample { name: STORAGE_UP, labels: Vec::new(), value: 0.0 }])
    }

    /// The values.
    #[must_use]
    pub fn samples(&self) -> &[Sample] {
        &self.0
    }

    /// The values in the text format of Prometheus.
    #[must_use]
    pub fn text(&self) -> String {
        self.text_beside("")
    }

    /// The values in the text format of Prometheus, without the metrics that are in this text already: a metric that stands
    /// in a scrape twice makes Prometheus reject all of it.
    pub(crate) fn text_beside(&self, other: &str) -> String {
        let mut text = String::new();
        let is_there = |name: &str| {
            other
                .lines()
                .filter_map(|line| line.strip_prefix("# TYPE "))
                .any(|line| line.split_whitespace().next() == Some(name))
        };
        for Metric { name, help, .. } in ALL.iter().filter(|metric| !is_there(metric.name)) {
            let mut samples = self.0.iter().filter(|sample| sample.name == *name).peekable();
            if samples.peek().is_some() {
                let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
            }
            samples.for_each(|sample| sample.write(&mut text));
        }
        text
    }
}

impl Sample {
    fn write(&self, text: &mut String) {
        let labels: Vec<String> =
            self.labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(text, "{}{labels} {}", self.name, self.value);
    }
}

fn side_name(side: Side) -> &'static str {
    match side {
        Side::Outbox => "outbox",
        Side::Inbox => "inbox",
    }
}

#[allow(clippy::cast_precision_loss, reason = "counts are bounded")]
fn number(count: u64) -> f64 {
    count as f64
}

/// The value of a label as it stands between quotes.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_values_are_escaped() {
        let labels = vec![("group", "a\"b\\c\nd".to_owned())];
        let metrics = StorageMetrics(vec![Sample { name: BACKLOG, labels, value: 3.0 }]);
        let text = metrics.text();
        assert_eq!(text.lines().last(), Some(r#"cap_backlog{group="a\"b\\c\nd"} 3"#));
        assert!(text.starts_with("# HELP cap_backlog "));
    }

    #[test]
    fn names_are_those_of_the_catalog() {
        for name in [BACKLOG, PARKED, LAG, STORAGE_UP] {
            assert!(ALL.iter().any(|metric| metric.name == name), "{name}");
        }
    }
}
