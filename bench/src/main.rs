//! What cap costs and how fast it is, beside the same work written by hand and beside the servers alone, in one process and
//! by turns: machines differ and are noisy, so only ratios of one run mean something.
//!
//! `cargo run --release -p cap-bench -- compare --help`; `docs/benchmarks.md` says what is measured and how.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it prints its figures")]

mod arguments;
mod by_hand;
mod compare;
mod load;
mod measure;
mod raw;
mod report;
mod scenario;
mod site;
mod with_cap;

use clap::Parser as _;

use crate::arguments::{Arguments, Command};

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type BoxResult<T> = Result<T, BoxError>;

#[tokio::main]
async fn main() -> BoxResult<()> {
    match Arguments::parse().command {
        Command::Compare(arguments) => compare::compare(&arguments).await,
    }
}
