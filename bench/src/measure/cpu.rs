//! CPU time by process, from `/proc`: of this one, of the database's that serve this round, and of the broker's.

use std::collections::HashMap;
use std::fs;

/// CPU time since the start of the processes, in microseconds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cpu {
    client: f64,
    /// By process: sessions that end in between are not counted further.
    postgres: HashMap<u32, f64>,
    broker: f64,
}

/// CPU time between two moments, in microseconds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Used {
    pub(crate) client: f64,
    pub(crate) postgres: f64,
    pub(crate) broker: f64,
}

/// The kernel counts in hundredths of a second.
const MICROS_PER_TICK: f64 = 10_000.0;

impl Cpu {
    /// What has been used so far. `database` is the name of the round's own database.
    pub(crate) fn now(database: &str) -> Self {
        let mut cpu = Self { client: of_process("self"), ..Self::default() };
        let Ok(processes) = fs::read_dir("/proc") else { return cpu };
        for process in processes.flatten() {
            let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            let Ok(command) = fs::read(format!("/proc/{pid}/cmdline")) else { continue };
            let command = String::from_utf8_lossy(&command);
            if command.starts_with("postgres:") && command.contains(database) {
                cpu.postgres.insert(pid, of_session(pid));
            } else if command.contains("beam.smp") && !command.starts_with("/bin/sh") {
                cpu.broker += of_process(&pid.to_string());
            }
        }
        cpu
    }

    /// What was used since an earlier moment.
    pub(crate) fn since(&self, earlier: &Self) -> Used {
        let session = |(pid, now): (&u32, &f64)| now - earlier.postgres.get(pid).copied().unwrap_or(0.0);
        Used {
            client: self.client - earlier.client,
            postgres: self.postgres.iter().map(session).sum(),
            broker: self.broker - earlier.broker,
        }
    }
}

/// User and system time of a process with all of its threads.
fn of_process(pid: &str) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, in parentheses, may have spaces.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() * MICROS_PER_TICK
}

/// The time of a database session, which has one thread, to the nanosecond.
fn of_session(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
    let nanoseconds = stat.split_whitespace().next().and_then(|time| time.parse::<f64>().ok());
    nanoseconds.map_or_else(|| of_process(&pid.to_string()), |time| time / 1000.0)
}
