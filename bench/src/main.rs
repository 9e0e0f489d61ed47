//! Messages a second through the whole path, cap beside a hand-written loop, in one run and by turns: machines differ
//! and are noisy, so only the ratio means something.
//!
//! The whole path is: outbox row, broker's confirm, mark, inbox row, handler, mark, acknowledgement. The hand-written
//! loop does it as a careful team would write it by hand, with some tasks side by side; cap does it through its public
//! face.
//!
//! `cargo run --release -p cap-bench -- --help`

#![allow(clippy::print_stdout, reason = "it prints its figures")]

mod by_hand;
mod with_cap;

use std::time::Duration;

use clap::Parser;

/// Measures cap beside a hand-written outbox.
#[derive(Debug, Clone, Parser)]
struct Arguments {
    /// Rounds of each way, by turns.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Messages of each round.
    #[arg(long, default_value_t = 10_000)]
    messages: usize,
    /// Callers that publish at the same time.
    #[arg(long, default_value_t = 32)]
    callers: usize,
    /// Bytes of a payload.
    #[arg(long, default_value_t = 256)]
    size: usize,
    /// The broker.
    #[arg(long, env = "AMQP_URL", default_value = "amqp://guest:guest@127.0.0.1:5672")]
    amqp_url: String,
    /// The database.
    #[arg(long, env = "DATABASE_URL", default_value = "postgres://postgres@127.0.0.1:5432/postgres")]
    database_url: String,
}

type BoxResult<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[tokio::main]
async fn main() -> BoxResult<()> {
    let arguments = Arguments::parse();
    println!(
        "messages a second, {} messages of {} bytes, {} callers",
        arguments.messages, arguments.size, arguments.callers
    );
    println!(
        "{:>6} {:>10} {:>10} {:>10} {:>8} {:>8}",
        "round", "by hand", "cap in tx", "cap alone", "in tx x", "alone x"
    );
    let mut ratios = Vec::new();
    for round in 1..=arguments.rounds {
        let hand = rate(&arguments, by_hand::run(&arguments).await?);
        let within = rate(&arguments, with_cap::run(&arguments, true).await?);
        let alone = rate(&arguments, with_cap::run(&arguments, false).await?);
        ratios.push((within / hand, alone / hand));
        println!(
            "{round:>6} {hand:>10.0} {within:>10.0} {alone:>10.0} {:>8.2} {:>8.2}",
            within / hand,
            alone / hand
        );
    }
    let median = |pick: fn(&(f64, f64)) -> f64| {
        let mut all: Vec<f64> = ratios.iter().map(pick).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    println!(
        "median ratio to the hand-written loop: {:.2} in a transaction, {:.2} alone",
        median(|r| r.0),
        median(|r| r.1)
    );
    Ok(())
}

#[allow(clippy::cast_precision_loss, reason = "a count of messages")]
fn rate(arguments: &Arguments, took: Duration) -> f64 {
    arguments.messages as f64 / took.as_secs_f64()
}

/// A name that no other run has.
fn unique(prefix: &str) -> String {
    format!("{prefix}_{:012x}", fastrand::u64(..1 << 48))
}
