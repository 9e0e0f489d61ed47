//! `cap story`: everything that belongs to one correlation id.

use std::time::{Duration, SystemTime};

use cap_core::Operator;
use cap_core::message::headers::names;
use cap_core::monitor::Row;
use cap_core::storage::Side;
use clap::Args;
use serde_json::json;

use crate::common::Common;
use crate::failure::Failure;
use crate::output::{Output, Table, iso};
use crate::selection::{side_name, status_name};
use crate::site::{Settings, open_operator};

/// How many messages are read at a time.
const AT_ONCE: usize = 200;
/// How much earlier than the first message a clock may have stored another one.
const CLOCKS_DIFFER_BY: Duration = Duration::from_mins(1);

/// Whose story.
#[derive(Debug, Args)]
pub(crate) struct StoryArgs {
    /// The correlation id: the message id of the first message
    correlation_id: String,
    /// How long after its beginning it is followed
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = humantime::parse_duration)]
    within: Duration,
    /// When it began, if its first message is not stored here
    #[arg(long, value_name = "TIME", value_parser = crate::output::parse_time)]
    since: Option<SystemTime>,
    /// Look at this many messages of each side at most
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    scan: u32,
}

/// One thing that happened.
#[derive(Debug)]
struct Event {
    at: SystemTime,
    what: &'static str,
    topic: String,
    group: String,
    id: i64,
    detail: String,
}

pub(super) async fn run(arguments: &StoryArgs, common: &Common, output: &Output) -> Result<(), Failure> {
    let operator = open_operator(&Settings::of(common)?).await?;
    let (rows, is_complete) = rows(arguments, &operator).await?;
    let mut events = Vec::new();
    for row in &rows {
        events.push(Event {
            at: row.added,
            what: side_name(row.side),
            topic: row.name.clone(),
            group: row.group.to_string(),
            id: row.id,
            detail: status_name(row.status).to_owned(),
        });
        if row.attempts > 0 {
            for attempt in operator.messages().side(row.side).attempts(row.id).await? {
                events.push(Event {
                    at: attempt.at,
                    what: "attempt failed",
                    topic: row.name.clone(),
                    group: row.group.to_string(),
                    id: row.id,
                    detail: attempt.error,
                });
            }
        }
    }
    if events.is_empty() {
        return Err(Failure::NotFound(format!(
            "no message of the correlation id {:?} was found; if its first message is not stored here, say since when with \
             --since",
            arguments.correlation_id
        )));
    }
    events.sort_by_key(|event| event.at);
    print(&arguments.correlation_id, &events, is_complete, output)
}

/// The messages of the story, as far as they were stored in its time, and whether all of that time was looked at.
async fn rows(arguments: &StoryArgs, operator: &Operator) -> Result<(Vec<Row>, bool), Failure> {
    let mut rows = Vec::new();
    for side in [Side::Outbox, Side::Inbox] {
        rows.extend(operator.messages().side(side).find(&arguments.correlation_id).await?);
    }
    let began = rows.iter().map(|row| row.added).chain(arguments.since).min();
    let Some(began) = began else { return Ok((rows, true)) };
    let mut is_complete = true;
    for side in [Side::Outbox, Side::Inbox] {
        let mut near = operator.messages().side(side).all_versions().since(began - CLOCKS_DIFFER_BY);
        if let Some(until) = began.checked_add(arguments.within) {
            near = near.until(until);
        }
        let (mut left, mut before) = (arguments.scan as usize, None);
        loop {
            let mut page = near.clone().limit(AT_ONCE.min(left));
            if let Some(before) = before {
                page = page.before(before);
            }
            let found = page.list().await?;
            let is_last = found.len() < AT_ONCE.min(left);
            left -= found.len();
            before = found.last().map(|row| row.id).or(before);
            for row in found {
                let belongs =
                    row.message.headers.get(names::CORRELATION_ID) == Some(arguments.correlation_id.as_str());
                let is_known = rows.iter().any(|known| (known.side, known.id) == (row.side, row.id));
                if belongs && !is_known {
                    rows.push(row);
                }
            }
            if is_last {
                break;
            }
            if left == 0 {
                is_complete = false;
                break;
            }
        }
    }
    Ok((rows, is_complete))
}

fn print(correlation_id: &str, events: &[Event], is_complete: bool, output: &Output) -> Result<(), Failure> {
    let object = json!({
        "correlation_id": correlation_id,
        "complete": is_complete,
        "events": events.iter().map(|event| json!({
            "at": iso(event.at), "what": event.what, "topic": event.topic, "group": event.group,
            "id": event.id.to_string(), "detail": event.detail,
        })).collect::<Vec<_>>(),
    });
    output.print(&object, || {
        let mut table = Table::new(&["at", "what", "topic", "group", "id", "detail"]);
        for event in events {
            let (at, id) = (iso(event.at), event.id.to_string());
            table.row([at.as_str(), event.what, &event.topic, &event.group, &id, &event.detail]);
        }
        table.text()
    })?;
    if !is_complete {
        output.note("not all messages of that time were read; more with --scan");
    }
    Ok(())
}
