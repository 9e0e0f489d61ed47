//! The program of `scripts/rolling-update`: stories of two versions, and a table of what became of the messages.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use cap_chaos::Rolling;
use cap_ledger::Class;
use clap::Parser;

/// Nodes of an earlier version and of this one side by side, each in turn replaced by one of the other.
#[derive(Debug, Parser)]
struct Arguments {
    /// The program `chaos-node` of the earlier version.
    #[arg(long)]
    earlier: PathBuf,
    /// What everything is drawn from.
    #[arg(long, default_value_t = fastrand::u64(..1_000_000))]
    seed: u64,
    /// How many stories, each on a schema and an exchange of its own.
    #[arg(long, default_value_t = 3)]
    stories: u64,
    /// How often a node is replaced in each.
    #[arg(long, default_value_t = 12)]
    turns: usize,
    /// How many messages each node publishes between two turns.
    #[arg(long, default_value_t = 60)]
    messages: usize,
}

#[tokio::main]
#[allow(clippy::print_stdout, reason = "this is a program for people")]
async fn main() -> ExitCode {
    let Arguments { earlier, seed, stories, turns, messages } = Arguments::parse();
    let mut counts: BTreeMap<Class, usize> = BTreeMap::new();
    let (mut broken, mut parked) = (0, 0);
    for seed in seed..seed + stories {
        let outcome = Rolling { seed, earlier: earlier.clone(), turns, messages }.play().await;
        for (class, count) in outcome.counts() {
            *counts.entry(class).or_default() += count;
        }
        parked += outcome.wrongly_parked();
        if outcome.is_clean() {
            println!("seed {seed}: {turns} replacements, nothing broken");
        } else {
            broken += 1;
            println!("seed {seed}: BROKEN\n{outcome}");
        }
    }
    println!("\nmessages and groups");
    for class in Class::ALL {
        let count = counts.get(&class).copied().unwrap_or_default();
        println!("{} {:<38} {count:>7}", if class.is_breach() { '!' } else { ' ' }, class.as_str());
    }
    println!("! {:<38} {parked:>7}", "wrongly parked");
    if broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
