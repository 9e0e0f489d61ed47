//! Names of statuses and reasons as arguments.

use cap_core::storage::{Reason, Status};
use clap::ValueEnum;
use clap::builder::PossibleValuesParser;

/// What `--status` selects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Selected {
    /// To be processed now
    Scheduled,
    /// To be published later
    Delayed,
    /// Failed, with attempts left
    Retrying,
    /// Failed for good, cancelled ones included
    Failed,
    /// Finished
    Succeeded,
    /// Failed for good, waiting for an operator
    Parked,
    /// Cancelled while delayed
    Cancelled,
}

impl Selected {
    pub(crate) fn apply(self, messages: cap_core::Messages) -> cap_core::Messages {
        match self {
            Self::Scheduled => messages.status(Status::Scheduled),
            Self::Delayed => messages.status(Status::Delayed),
            Self::Retrying => messages.status(Status::Retrying),
            Self::Failed => messages.status(Status::Failed),
            Self::Succeeded => messages.status(Status::Succeeded),
            Self::Parked => messages.parked(),
            Self::Cancelled => messages.status(Status::Failed).reason(Reason::Cancelled),
        }
    }
}

/// The reasons that exist.
pub(crate) fn reasons() -> PossibleValuesParser {
    PossibleValuesParser::new(Reason::ALL.map(Reason::as_str))
}
