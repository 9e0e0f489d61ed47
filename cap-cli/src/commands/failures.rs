//! `cap failures`: parked messages by what their errors are about.

use std::collections::BTreeMap;
use std::time::SystemTime;

use cap_core::monitor::Row;
use cap_core::storage::Reason;
use clap::Args;
use serde_json::json;

use crate::common::Common;
use crate::failure::Failure;
use crate::output::{Output, Table, iso};
use crate::selection::{Filter, side_name};
use crate::site::{Settings, open_operator};

/// How many messages are read at a time.
const AT_ONCE: usize = 200;

/// Which failures.
#[derive(Debug, Args)]
pub(crate) struct FailuresArgs {
    #[command(flatten)]
    filter: Filter,
    /// Look at this many of the newest parked messages
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    scan: u32,
}

/// Messages that failed alike: of one group, topic, reason and error without its numbers and ids.
#[derive(Debug)]
struct Kind {
    count: u64,
    first: SystemTime,
    last: SystemTime,
    sample: i64,
}

type Key = (String, String, Option<&'static str>, String);

pub(super) async fn run(arguments: &FailuresArgs, common: &Common, output: &Output) -> Result<(), Failure> {
    let operator = open_operator(&Settings::of(common)?).await?;
    let selection = arguments.filter.select(&operator, &common.actor()).parked();
    let scan = arguments.scan as usize;
    let progress = output.progress(u64::from(arguments.scan), "reading");
    let (mut kinds, mut looked_at, mut before) = (BTreeMap::new(), 0, None);
    let is_complete = loop {
        let mut page = selection.clone().limit(AT_ONCE.min(scan - looked_at));
        if let Some(before) = before {
            page = page.before(before);
        }
        let rows = page.list().await?;
        looked_at += rows.len();
        progress.add(rows.len());
        let is_last = rows.len() < AT_ONCE && looked_at < scan;
        before = rows.last().map(|row| row.id).or(before);
        for row in &rows {
            add(&mut kinds, row);
        }
        if is_last || looked_at >= scan {
            break is_last;
        }
    };
    drop(progress);
    let mut kinds: Vec<(Key, Kind)> = kinds.into_iter().collect();
    kinds.sort_by_key(|(_, kind)| std::cmp::Reverse(kind.count));
    print(arguments, &kinds, looked_at, is_complete, output)
}

fn add(kinds: &mut BTreeMap<Key, Kind>, row: &Row) {
    let error = cap_dashboard::fingerprint(row.last_error.as_deref().unwrap_or_default());
    let key = (row.group.to_string(), row.name.clone(), row.reason.map(Reason::as_str), error);
    let kind =
        kinds.entry(key).or_insert(Kind { count: 0, first: row.added, last: row.added, sample: row.id });
    kind.count += 1;
    kind.first = kind.first.min(row.added);
    kind.last = kind.last.max(row.added);
}

fn print(
    arguments: &FailuresArgs,
    kinds: &[(Key, Kind)],
    looked_at: usize,
    is_complete: bool,
    output: &Output,
) -> Result<(), Failure> {
    let object = json!({
        "side": side_name(arguments.filter.side.side()),
        "scanned": looked_at,
        "complete": is_complete,
        "failures": kinds.iter().map(|((group, topic, reason, error), kind)| json!({
            "group": group, "topic": topic, "reason": reason, "error": error, "count": kind.count,
            "first": iso(kind.first), "last": iso(kind.last), "sample": kind.sample.to_string(),
        })).collect::<Vec<_>>(),
    });
    output.print(&object, || {
        if kinds.is_empty() {
            return "no message is parked".to_owned();
        }
        let mut table = Table::new(&["count", "group", "topic", "reason", "last", "sample", "error"]);
        for ((group, topic, reason, error), kind) in kinds {
            let reason = reason.unwrap_or_default().to_owned();
            let cells = [
                kind.count.to_string(),
                group.clone(),
                topic.clone(),
                reason,
                iso(kind.last),
                kind.sample.to_string(),
                error.clone(),
            ];
            table.row(cells);
        }
        table.text()
    })?;
    if !is_complete {
        output.note(&format!("only the newest {looked_at} parked messages were read; more with --scan"));
    }
    Ok(())
}
