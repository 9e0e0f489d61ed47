//! `cap messages`.

mod act;
mod edit;
mod list;
mod show;

use clap::Subcommand;

use crate::common::Common;
use crate::failure::Failure;
use crate::output::Output;

/// What to do with messages.
#[derive(Debug, Subcommand)]
pub(crate) enum MessagesCommand {
    /// List messages, newest first
    List(list::ListArgs),
    /// Show a message with headers, payload and failed attempts
    Show(show::ShowArgs),
    /// Run messages again
    Rerun(act::ActArgs),
    /// Replace the payload of a message and run it again
    Edit(edit::EditArgs),
    /// Delete messages
    Delete(act::ActArgs),
    /// Cancel delayed messages
    Cancel(act::ActArgs),
}

pub(super) async fn run(command: &MessagesCommand, common: &Common, output: &Output) -> Result<(), Failure> {
    match command {
        MessagesCommand::List(arguments) => list::run(arguments, common, output).await,
        MessagesCommand::Show(arguments) => show::run(arguments, common, output).await,
        MessagesCommand::Rerun(arguments) => act::run(act::Act::Rerun, arguments, common, output).await,
        MessagesCommand::Edit(arguments) => edit::run(arguments, common, output).await,
        MessagesCommand::Delete(arguments) => act::run(act::Act::Delete, arguments, common, output).await,
        MessagesCommand::Cancel(arguments) => act::run(act::Act::Cancel, arguments, common, output).await,
    }
}
