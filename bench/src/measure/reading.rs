//! The figures of one round of one system.

use serde::Serialize;

use crate::measure::meter::Metered;

/// The figures of one round.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Reading {
    pub(crate) scenario: String,
    /// `cap`, `handwritten` or `raw`.
    pub(crate) system: &'static str,
    pub(crate) round: usize,
    pub(crate) messages: u64,
    /// Messages a second.
    pub(crate) rate: f64,
    /// From the call that publishes to the start of the handler, in milliseconds. Absent where nothing is published.
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
    /// CPU time of each message, in microseconds.
    pub(crate) client_us: f64,
    pub(crate) postgres_us: f64,
    pub(crate) broker_us: f64,
    /// Transactions of the round's database, set-up included, for each message.
    pub(crate) commits: f64,
    /// Bytes of write-ahead log for each message, of the whole server.
    pub(crate) wal: f64,
    /// CPUs that this process, the round's database sessions and the broker kept busy.
    pub(crate) busy_cpus: f64,
}

#[allow(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
impl Reading {
    pub(crate) fn new(messages: u64, metered: &Metered, commits: i64, latencies: &mut [u32]) -> Self {
        let each = messages.max(1) as f64;
        let cpu = metered.cpu;
        latencies.sort_unstable();
        let percentile = |part: f64| {
            let last = latencies.len().checked_sub(1)?;
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
            let index = (last as f64 * part) as usize;
            Some(f64::from(latencies[index]) / 1000.0)
        };
        Self {
            scenario: String::new(),
            system: "",
            round: 0,
            messages,
            rate: each / metered.took.as_secs_f64(),
            p50_ms: percentile(0.5),
            p99_ms: percentile(0.99),
            client_us: cpu.client / each,
            postgres_us: cpu.postgres / each,
            broker_us: cpu.broker / each,
            commits: commits as f64 / each,
            wal: metered.wal as f64 / each,
            busy_cpus: (cpu.client + cpu.postgres + cpu.broker) / 1e6 / metered.took.as_secs_f64(),
        }
    }
}
