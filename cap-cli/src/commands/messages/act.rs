//! `cap messages rerun`, `delete` and `cancel`.

use cap_core::Messages;
use cap_core::error::StorageError;
use cap_core::storage::Status;
use clap::Args;
use serde_json::json;

use crate::common::Common;
use crate::failure::Failure;
use crate::output::Output;
use crate::selection::Filter;
use crate::site::{Settings, confirm, open_operator};

/// How many messages one call to the storage acts on.
const AT_ONCE: usize = 500;

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    Rerun,
    Delete,
    Cancel,
}

/// On which messages.
#[derive(Debug, Args)]
pub(crate) struct ActArgs {
    /// Row ids
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    ids: Vec<i64>,
    /// All messages that match the filter, which must narrow the selection
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    filter: Filter,
    /// Count the messages and change nothing
    #[arg(long)]
    dry_run: bool,
}

impl Act {
    fn name(self) -> &'static str {
        match self {
            Self::Rerun => "rerun",
            Self::Delete => "delete",
            Self::Cancel => "cancel",
        }
    }

    fn past(self) -> &'static str {
        match self {
            Self::Rerun => "re-run",
            Self::Delete => "deleted",
            Self::Cancel => "cancelled",
        }
    }

    async fn perform(self, messages: &Messages, ids: &[i64]) -> Result<Vec<i64>, StorageError> {
        match self {
            Self::Rerun => messages.rerun(ids).await,
            Self::Delete => messages.delete(ids).await,
            Self::Cancel => messages.cancel(ids).await,
        }
    }
}

pub(super) async fn run(
    act: Act,
    arguments: &ActArgs,
    common: &Common,
    output: &Output,
) -> Result<(), Failure> {
    if arguments.all && !arguments.filter.is_narrowed() && act != Act::Cancel {
        return Err(Failure::Usage(format!(
            "--all without a filter would {} every stored message; narrow it, such as by --status parked",
            act.name()
        )));
    }
    let settings = Settings::of(common)?;
    if !arguments.dry_run {
        confirm(&settings, common, &format!("{} messages", act.name()))?;
    }
    let operator = open_operator(&settings).await?;
    let mut selection = arguments.filter.select(&operator, &common.actor());
    if act == Act::Cancel {
        // Only these can be cancelled.
        selection = selection.published().status(Status::Delayed);
    }
    let (asked, done) = if arguments.all {
        all(act, &selection, arguments.dry_run, output).await?
    } else {
        named(act, &selection, arguments, output).await?
    };
    let object =
        json!({ "action": act.name(), "matched": asked, "done": done, "dry_run": arguments.dry_run });
    output.print(&object, || {
        if arguments.dry_run {
            return format!("would be {}: {asked} of the messages that match now", act.past());
        }
        format!("{} of {asked} messages {}", done, act.past())
    })?;
    if !arguments.all && done < asked && !arguments.dry_run {
        return Err(Failure::NotFound(format!(
            "{} of {asked} messages were not {}: they do not exist on this side, are being processed, or have another status",
            asked - done,
            act.past()
        )));
    }
    Ok(())
}

/// Acts on the messages with these row ids.
async fn named(
    act: Act,
    selection: &Messages,
    arguments: &ActArgs,
    output: &Output,
) -> Result<(usize, usize), Failure> {
    let ids = &arguments.ids;
    if arguments.dry_run {
        let mut found = 0;
        for id in ids {
            found += usize::from(selection.get(*id).await?.is_some());
        }
        return Ok((found, 0));
    }
    let progress = output.progress(ids.len() as u64, act.past());
    let mut done = 0;
    for page in ids.chunks(AT_ONCE) {
        done += act.perform(selection, page).await?.len();
        progress.add(page.len());
    }
    Ok((ids.len(), done))
}

/// Acts on all that match, page by page and newest first. What arrives meanwhile is newer and left alone.
async fn all(
    act: Act,
    selection: &Messages,
    dry_run: bool,
    output: &Output,
) -> Result<(usize, usize), Failure> {
    let total = selection.count().await?;
    if dry_run {
        return Ok((usize::try_from(total).unwrap_or(usize::MAX), 0));
    }
    let progress = output.progress(total, act.past());
    let (mut asked, mut done, mut before) = (0, 0, None);
    loop {
        let mut page = selection.clone().limit(AT_ONCE);
        if let Some(before) = before {
            page = page.before(before);
        }
        let ids = page.ids().await?;
        let Some(last) = ids.last() else { return Ok((asked, done)) };
        before = Some(*last);
        asked += ids.len();
        let acted = act.perform(selection, &ids).await.map_err(|error| {
            let text = crate::failure::redacted(&error.to_string());
            Failure::Failed(format!("{text}; {done} messages were {} before that", act.past()))
        })?;
        done += acted.len();
        progress.add(ids.len());
    }
}
