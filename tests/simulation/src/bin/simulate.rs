//! Runs seeds, one after the other, and says which of them broke a promise.
//!
//! `simulate FROM COUNT` ends with 1 at the first that did, and prints its report; `simulate SEED` runs one, and
//! `simulate SEED 1 all` prints everything that happened in it. With `RUST_LOG=cap_core=debug` the engine speaks, too.
#![allow(clippy::print_stdout, reason = "it is a program for people")]

use std::process::ExitCode;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

/// Shows the time of the run, in milliseconds.
struct VirtualTime;

impl FormatTime for VirtualTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> std::fmt::Result {
        write!(writer, "{:>8}", cap_simulation::elapsed_ms())
    }
}

fn main() -> ExitCode {
    if std::env::var_os("RUST_LOG").is_some() {
        tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::from_default_env())
            .with_timer(VirtualTime)
            .init();
    }
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse::<u64>().ok());
    let from = numbers.next().unwrap_or(0);
    let count = numbers.next().unwrap_or(1);
    for seed in from..from + count {
        let outcome = cap_simulation::run(seed);
        if let (Ok(outcome), true) = (&outcome, std::env::args().any(|argument| argument == "all")) {
            outcome.ledger.entries().iter().for_each(|entry| println!("{:>8} {:?}", entry.at, entry.event));
        }
        match outcome {
            Ok(outcome) if outcome.is_clean() => {}
            Ok(outcome) => {
                let first = outcome.report.breaches().next().map(|finding| finding.class.as_str());
                println!("seed {seed}: {}", first.unwrap_or("a problem"));
                println!("{}", outcome.report);
                outcome.problems.iter().for_each(|problem| println!("{problem}"));
                return ExitCode::FAILURE;
            }
            Err(error) => {
                println!("{error}");
                return ExitCode::from(2);
            }
        }
    }
    println!("{count} seeds from {from} are clean");
    ExitCode::SUCCESS
}
