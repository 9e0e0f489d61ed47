//! The soak of `scripts/chaos`: random scenarios until the time is up, and a table of what was done and what came of it.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use cap_chaos::{Fault, Outcome, Scenario, Servers};
use cap_ledger::Class;
use clap::Parser;
use futures_util::FutureExt;

/// Random harm to nodes, networks and private servers, under the ledger.
#[derive(Debug, Parser)]
struct Arguments {
    /// How long. The last scenario is played to its end.
    #[arg(long, default_value_t = 20)]
    minutes: u64,
    /// What everything is drawn from.
    #[arg(long, default_value_t = fastrand::u64(..1_000_000))]
    seed: u64,
    /// Plays the one scenario of this seed.
    #[arg(long)]
    once: bool,
}

/// What was done, and what came of it.
#[derive(Debug, Default)]
struct Sum {
    scenarios: usize,
    injected: BTreeMap<Fault, usize>,
    counts: BTreeMap<Class, usize>,
    /// Scenarios that broke a promise.
    broken: Vec<u64>,
}

impl Sum {
    fn add(&mut self, seed: u64, outcome: &Outcome) {
        self.scenarios += 1;
        for (fault, times) in &outcome.injected {
            *self.injected.entry(*fault).or_default() += times;
        }
        for (class, count) in outcome.outcome.counts() {
            *self.counts.entry(class).or_default() += count;
        }
        if !outcome.outcome.is_clean() {
            self.broken.push(seed);
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut servers = Servers::default();
    if !servers.start_broker().await || !servers.start_database().await {
        return ExitCode::from(2);
    }
    let faults = servers.faults();
    let end = Instant::now() + Duration::from_secs(arguments.minutes * 60);
    let mut sum = Sum::default();
    for seed in arguments.seed.. {
        let scenario = Scenario::random(seed, &faults);
        let began = Instant::now();
        let Ok(outcome) = AssertUnwindSafe(scenario.play(&mut servers)).catch_unwind().await else {
            // It has said why. The servers may be in any state now.
            sum.broken.push(seed);
            break;
        };
        sum.add(seed, &outcome);
        tell(&scenario, &outcome, began.elapsed());
        if arguments.once || Instant::now() >= end {
            break;
        }
    }
    servers.stop().await;
    table(&arguments, &sum);
    if sum.broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[allow(clippy::print_stdout, reason = "this is a program for people")]
fn tell(scenario: &Scenario, outcome: &Outcome, took: Duration) {
    let (seed, nodes) = (scenario.seed, scenario.nodes);
    let faults: Vec<&str> = scenario.faults.iter().map(|fault| fault.name()).collect();
    let delivered = outcome.count(Class::Delivered);
    println!("seed {seed}: {nodes} nodes, {delivered} delivered in {took:.0?}: {}", faults.join(", "));
    if !outcome.outcome.is_clean() {
        println!("BROKEN; to see it again: scripts/chaos --once --seed {seed}\n{}", outcome.outcome);
    }
}

#[allow(clippy::print_stdout, reason = "this is a program for people")]
fn table(arguments: &Arguments, sum: &Sum) {
    println!("\n{} scenarios from seed {}", sum.scenarios, arguments.seed);
    println!("\nfaults injected");
    for (fault, times) in &sum.injected {
        println!("  {:<38} {times:>7}", fault.name());
    }
    println!("\nmessages and groups");
    for class in Class::ALL {
        let count = sum.counts.get(&class).copied().unwrap_or_default();
        println!("{} {:<38} {count:>7}", if class.is_breach() { '!' } else { ' ' }, class.as_str());
    }
    for seed in &sum.broken {
        println!("BROKEN: scripts/chaos --once --seed {seed}");
    }
}
