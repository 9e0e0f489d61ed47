//! The arguments of the program.

use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::scenario::Scenario;

/// Measures cap beside a hand-written outbox.
#[derive(Debug, Parser)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs each scenario with each system by turns, and prints rates, latencies and costs.
    Compare(Compare),
}

/// What to compare, and for how long.
#[derive(Debug, Args)]
pub(crate) struct Compare {
    /// Rounds of each system, by turns.
    #[arg(long, default_value_t = 3)]
    pub(crate) rounds: usize,
    /// How long a round publishes, in the scenarios that publish.
    #[arg(long, default_value_t = 4.0)]
    pub(crate) seconds: f64,
    /// How many messages a round has, in the scenarios that begin with a filled queue.
    #[arg(long, default_value_t = 20_000)]
    pub(crate) messages: u64,
    /// Runs only these scenarios; may be given several times. Without it, all but those that are opt-in.
    #[arg(long, value_enum)]
    pub(crate) only: Vec<Scenario>,
    /// Runs only these systems (`cap`, `handwritten`, `raw`); may be given several times.
    #[arg(long)]
    pub(crate) system: Vec<String>,
    /// Prints one JSON object a line, one for each round of each system, instead of the table.
    #[arg(long)]
    pub(crate) json: bool,
    /// The broker. Without TLS, as all systems get it.
    #[arg(long, env = "AMQP_URL", default_value = "amqp://guest:guest@127.0.0.1:5672")]
    pub(crate) amqp_url: String,
    /// The database, in which the user may create others. `sslmode=disable` is added, for all systems.
    #[arg(long, env = "DATABASE_URL", default_value = "postgres://postgres@127.0.0.1:5432/postgres")]
    pub(crate) database_url: String,
}

impl Compare {
    /// How long a round publishes.
    pub(crate) fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
}
