//! The commands, each in a file of its own.

mod completions;
mod context;
mod dashboard;
mod doctor;
mod failures;
mod health;
mod man;
mod messages;
mod metrics;
mod publish;
mod schema;
mod story;
mod tail;
mod topology;

use clap::Subcommand;

use crate::common::Common;
use crate::failure::Failure;
use crate::output::Output;

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The installations that this program works on
    #[command(subcommand)]
    Context(context::ContextCommand),
    /// Stored messages: find, show, re-run, edit, delete, cancel
    #[command(subcommand)]
    Messages(messages::MessagesCommand),
    /// Parked messages by what their errors are about
    Failures(failures::FailuresArgs),
    /// Everything that belongs to one correlation id, in order
    Story(story::StoryArgs),
    /// Store a message in the outbox and wait until a node has sent it
    Publish(publish::PublishArgs),
    /// Follow topics at the broker without disturbing any group
    Tail(tail::TailArgs),
    /// Whether storage and broker answer and no limit is exceeded
    Health(health::HealthArgs),
    /// What waits in the storage, as metrics for Prometheus
    Metrics,
    /// The tables: print, apply or check them
    #[command(subcommand)]
    Schema(schema::SchemaCommand),
    /// What is declared on the broker, beside what is expected
    Topology(topology::TopologyArgs),
    /// Check an installation and say what to do
    Doctor(doctor::DoctorArgs),
    /// Serve the dashboard
    Dashboard(dashboard::DashboardArgs),
    /// Print completions for a shell
    Completions(completions::CompletionsArgs),
    /// Print the man page
    Man,
}

/// Runs a command; `program` describes all of them.
pub(crate) async fn run(
    command: &Command,
    common: &Common,
    output: &Output,
    program: clap::Command,
) -> Result<(), Failure> {
    match command {
        Command::Context(command) => context::run(command, common, output),
        Command::Messages(command) => messages::run(command, common, output).await,
        Command::Failures(arguments) => failures::run(arguments, common, output).await,
        Command::Story(arguments) => story::run(arguments, common, output).await,
        Command::Publish(arguments) => publish::run(arguments, common, output).await,
        Command::Tail(arguments) => tail::run(arguments, common, output).await,
        Command::Health(arguments) => health::run(arguments, common, output).await,
        Command::Metrics => metrics::run(common, output).await,
        Command::Schema(command) => schema::run(command, common, output).await,
        Command::Topology(arguments) => topology::run(arguments, common, output).await,
        Command::Doctor(arguments) => doctor::run(arguments, common, output).await,
        Command::Dashboard(arguments) => dashboard::run(arguments, common, output).await,
        Command::Completions(arguments) => completions::run(arguments, program),
        Command::Man => man::run(program),
    }
}
