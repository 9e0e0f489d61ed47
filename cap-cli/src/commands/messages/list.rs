//! `cap messages list`.

use cap_core::monitor::Row;
use cap_core::storage::{Reason, Side};
use clap::Args;
use serde_json::json;

use crate::common::Common;
use crate::failure::Failure;
use crate::output::{Output, Table, iso};
use crate::selection::{Filter, side_name, status_name, summary};
use crate::site::{Settings, open_operator};

/// Which messages to list.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    filter: Filter,
    /// At most this many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// Only messages before this row id: the next page
    #[arg(long, value_name = "ID")]
    before: Option<i64>,
}

pub(super) async fn run(arguments: &ListArgs, common: &Common, output: &Output) -> Result<(), Failure> {
    let operator = open_operator(&Settings::of(common)?).await?;
    let limit = usize::from(arguments.limit);
    let mut selection = arguments.filter.select(&operator, &common.actor()).limit(limit);
    if let Some(before) = arguments.before {
        selection = selection.before(before);
    }
    let rows = selection.list().await?;
    let next = rows.last().filter(|_| rows.len() == limit).map(|row| row.id.to_string());
    let side = arguments.filter.side.side();
    let object = json!({
        "side": side_name(side),
        "messages": rows.iter().map(summary).collect::<Vec<_>>(),
        "next_before": next,
    });
    output.print(&object, || table(side, &rows))?;
    if let Some(next) = next {
        output.note(&format!("older messages: --before {next}"));
    }
    Ok(())
}

fn table(side: Side, rows: &[Row]) -> String {
    if rows.is_empty() {
        return "no message matches".to_owned();
    }
    let is_inbox = side == Side::Inbox;
    let all = ["id", "topic", "group", "status", "reason", "attempts", "added", "error"];
    let titles: Vec<&str> = all.into_iter().filter(|title| is_inbox || *title != "group").collect();
    let mut table = Table::new(&titles);
    for row in rows {
        let mut cells = vec![row.id.to_string(), row.name.clone()];
        if is_inbox {
            cells.push(row.group.to_string());
        }
        cells.extend([
            status_name(row.status).to_owned(),
            row.reason.map(Reason::as_str).unwrap_or_default().to_owned(),
            row.attempts.to_string(),
            iso(row.added),
            row.last_error.clone().unwrap_or_default(),
        ]);
        table.row(cells);
    }
    table.text()
}
