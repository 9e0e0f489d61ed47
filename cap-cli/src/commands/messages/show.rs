//! `cap messages show`.

use std::fmt::Write as _;

use cap_core::Operator;
use cap_core::monitor::{FailedAttempt, Row};
use cap_core::storage::Reason;
use clap::Args;
use serde_json::json;

use crate::common::Common;
use crate::failure::Failure;
use crate::output::{Output, iso, one_line};
use crate::selection::{SideArgs, body, message, side_name, status_name};
use crate::site::{Settings, open_operator};

/// Which message to show.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The row id, as in a list; with --message-id the id that the sender gave
    id: String,
    #[command(flatten)]
    side: SideArgs,
    /// The id is the message id: shows the rows of every group
    #[arg(long)]
    message_id: bool,
}

pub(super) async fn run(arguments: &ShowArgs, common: &Common, output: &Output) -> Result<(), Failure> {
    let operator = open_operator(&Settings::of(common)?).await?;
    let rows = find(arguments, &operator).await?;
    let messages = operator.messages().side(arguments.side.side());
    let (mut objects, mut texts) = (Vec::new(), Vec::new());
    for row in &rows {
        let attempts = messages.attempts(row.id).await?;
        objects.push(message(row, &attempts));
        texts.push(described(row, &attempts));
    }
    output.print(&json!({ "messages": objects }), || texts.join("\n\n"))
}

async fn find(arguments: &ShowArgs, operator: &Operator) -> Result<Vec<Row>, Failure> {
    let messages = operator.messages().side(arguments.side.side());
    let rows = if arguments.message_id {
        messages.find(&arguments.id).await?
    } else {
        let id = arguments.id.parse().map_err(|_| {
            Failure::Usage(format!("{:?} is not a row id; for a message id add --message-id", arguments.id))
        })?;
        messages.get(id).await?.into_iter().collect()
    };
    if rows.is_empty() {
        let (what, side) =
            (if arguments.message_id { "message id" } else { "row id" }, side_name(arguments.side.side()));
        return Err(Failure::NotFound(format!(
            "there is no {side} message with the {what} {}",
            arguments.id
        )));
    }
    Ok(rows)
}

fn described(row: &Row, attempts: &[FailedAttempt]) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(text, "{name:<12} {}", one_line(value));
        }
    };
    line("id", &row.id.to_string());
    line("message id", row.message.id().unwrap_or_default());
    line("side", side_name(row.side));
    line("topic", &row.name);
    line("group", &row.group);
    line("version", &row.version);
    line("status", status_name(row.status));
    line("reason", row.reason.map(Reason::as_str).unwrap_or_default());
    line("attempts", &row.attempts.to_string());
    line("re-runs", &row.reruns.to_string());
    line("added", &iso(row.added));
    line("due", &row.due.map(iso).unwrap_or_default());
    line("expires", &row.expires.map(iso).unwrap_or_default());
    line("node", row.owner.as_deref().unwrap_or_default());
    line("error", row.last_error.as_deref().unwrap_or_default());
    text.push_str("\nheaders\n");
    for (name, value) in row.message.headers.iter() {
        let _ = writeln!(text, "  {}: {}", one_line(name), one_line(value.unwrap_or("(null)")));
    }
    let (payload, encoding) = body(&row.message);
    let _ =
        writeln!(text, "\npayload ({encoding}, {} bytes)\n{}", row.message.body.len(), printable(&payload));
    if !attempts.is_empty() {
        text.push_str("\nfailed attempts\n");
    }
    for attempt in attempts {
        let (number, at, node) = (attempt.number, iso(attempt.at), &attempt.node);
        let _ = writeln!(text, "  {number}. {at} on {}: {}", one_line(node), one_line(&attempt.error));
    }
    text.trim_end().to_owned()
}

/// A payload on a terminal keeps its lines, and cannot control it otherwise.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { ' ' } else { c }).collect()
}
