//! The arguments of all commands.

use clap::Parser;

use crate::commands::Command;
use crate::common::Common;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed
  2  wrong arguments or settings
  3  not found
  4  unhealthy, or a schema or topology that needs attention
  5  an act on production was not confirmed
  6  the deadline has passed; what was begun goes on";

/// The command line of the event bus cap.
#[derive(Debug, Parser)]
#[command(name = "cap", version, about = "The command line of the event bus cap", after_help = EXIT_CODES)]
#[command(propagate_version = true, subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}
