//! The filter of a selection, as arguments.

use std::time::SystemTime;

use cap_core::storage::{Reason, Side};
use cap_core::{Messages, Operator};
use clap::Args;

use super::status::{Selected, reasons};
use crate::output::parse_time;

/// Which of the two tables.
#[derive(Debug, Clone, Args)]
pub(crate) struct SideArgs {
    /// Published messages: the outbox, instead of the inbox
    #[arg(long)]
    pub(crate) published: bool,
}

impl SideArgs {
    pub(crate) fn side(&self) -> Side {
        if self.published { Side::Outbox } else { Side::Inbox }
    }
}

/// Narrows a selection.
#[derive(Debug, Clone, Args)]
pub(crate) struct Filter {
    #[command(flatten)]
    pub(crate) side: SideArgs,
    /// Only messages of this status
    #[arg(long, value_enum)]
    status: Option<Selected>,
    /// Only messages with this reason
    #[arg(long, value_parser = reasons())]
    reason: Option<String>,
    /// Only messages of this topic, in full
    #[arg(long)]
    topic: Option<String>,
    /// Only messages of this group, in full, with its version
    #[arg(long)]
    group: Option<String>,
    /// Only messages whose last error contains this text
    #[arg(long, value_name = "TEXT")]
    error: Option<String>,
    /// Only messages stored since: 2026-01-31T10:00:00Z, or 2h for two hours ago
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<SystemTime>,
    /// Only messages stored before
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<SystemTime>,
    /// Messages of every version of the bus
    #[arg(long)]
    all_versions: bool,
}

impl Filter {
    /// The selection.
    pub(crate) fn select(&self, operator: &Operator, actor: &str) -> Messages {
        let mut messages = operator.messages().side(self.side.side()).by(actor);
        if let Some(status) = self.status {
            messages = status.apply(messages);
        }
        if let Some(reason) = self.reason.as_deref().and_then(Reason::from_name) {
            messages = messages.reason(reason);
        }
        if let Some(topic) = &self.topic {
            messages = messages.topic(topic);
        }
        if let Some(group) = &self.group {
            messages = messages.group(group);
        }
        if let Some(error) = &self.error {
            messages = messages.error(error);
        }
        if let Some(since) = self.since {
            messages = messages.since(since);
        }
        if let Some(until) = self.until {
            messages = messages.until(until);
        }
        if self.all_versions { messages.all_versions() } else { messages }
    }

    /// Whether it selects less than everything on one side.
    pub(crate) fn is_narrowed(&self) -> bool {
        self.status.is_some()
            || self.reason.is_some()
            || self.topic.is_some()
            || self.group.is_some()
            || self.error.is_some()
            || self.since.is_some()
            || self.until.is_some()
    }
}
