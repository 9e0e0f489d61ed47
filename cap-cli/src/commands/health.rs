//! `cap health`: for probes and alarms.

use std::time::Duration;

use cap_core::monitor::{BoundedCounts, Count};
use cap_core::storage::Status;
use cap_core::transport::Transport as _;
use clap::Args;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::common::Common;
use crate::failure::Failure;
use crate::output::{Output, Table};
use crate::selection::{side_name, status_name};
use crate::site::{Settings, open_broker, open_operator};

/// From when on it is unhealthy.
#[derive(Debug, Args)]
pub(crate) struct HealthArgs {
    /// Unhealthy if more messages are parked or cancelled
    #[arg(long, value_name = "COUNT")]
    max_failed: Option<u64>,
    /// Unhealthy if more messages are waiting: scheduled or retrying
    #[arg(long, value_name = "COUNT")]
    max_waiting: Option<u64>,
    /// How long storage and broker may take to answer
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

/// One thing that was looked at.
struct Check {
    name: &'static str,
    problem: Option<String>,
}

pub(super) async fn run(arguments: &HealthArgs, common: &Common, output: &Output) -> Result<(), Failure> {
    let settings = Settings::of(common)?;
    let late = |what: &str| {
        format!("{what} did not answer within {}", humantime::format_duration(arguments.timeout))
    };
    let counted = timeout(arguments.timeout, async {
        open_operator(&settings).await?.waiting().await.map_err(Failure::from)
    });
    let counted = counted.await.unwrap_or_else(|_| Err(Failure::Failed(late("the storage"))));
    // Wrong settings are no state of the storage.
    let counted = match counted {
        Err(Failure::Usage(text)) => return Err(Failure::Usage(text)),
        counted => counted,
    };
    let mut checks =
        vec![Check { name: "storage", problem: counted.as_ref().err().map(ToString::to_string) }];
    let counts = counted.ok().flatten();
    if let Some(counts) = &counts {
        checks.extend(limits(arguments, counts));
    }
    if settings.has_broker() {
        let broker = open_broker(&settings)?;
        let asked = timeout(arguments.timeout, broker.found_topology(&[])).await;
        let problem = match asked {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(crate::failure::redacted(&error.to_string())),
            Err(_) => Some(late("the broker")),
        };
        broker.close().await;
        checks.push(Check { name: "broker", problem });
    }
    report(&checks, counts.as_ref(), output)
}

fn limits(arguments: &HealthArgs, counts: &BoundedCounts) -> Vec<Check> {
    let sum = |statuses: &[Status]| {
        counts
            .counts
            .iter()
            .filter(|count| statuses.contains(&count.status))
            .map(|count| count.count)
            .sum::<u64>()
    };
    let check = |name, limit: Option<u64>, found: u64| {
        let limit = limit?;
        let problem = (found > limit).then(|| format!("{found} messages, more than {limit}"));
        Some(Check { name, problem })
    };
    [
        check("failed", arguments.max_failed, sum(&[Status::Failed])),
        check("waiting", arguments.max_waiting, sum(&[Status::Scheduled, Status::Retrying])),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn report(checks: &[Check], counts: Option<&BoundedCounts>, output: &Output) -> Result<(), Failure> {
    let problems: Vec<String> = checks
        .iter()
        .filter_map(|check| Some(format!("{}: {}", check.name, check.problem.as_ref()?)))
        .collect();
    let count = |count: &Count| {
        json!({
            "side": side_name(count.side),
            "group": count.group,
            "status": status_name(count.status),
            "count": count.count,
        })
    };
    let object = json!({
        "healthy": problems.is_empty(),
        "checks": checks.iter().map(|check| json!({
            "name": check.name, "healthy": check.problem.is_none(), "problem": check.problem,
        })).collect::<Vec<Value>>(),
        "counts": counts.map(|counts| counts.counts.iter().map(count).collect::<Vec<_>>()),
        "counts_are_lower_bounds": counts.map(|counts| counts.is_capped),
    });
    output.print(&object, || {
        let mut table = Table::new(&["check", "state"]);
        for check in checks {
            table.row([check.name, check.problem.as_deref().unwrap_or("ok")]);
        }
        let mut text = table.text();
        if let Some(counts) = counts.filter(|counts| !counts.counts.is_empty()) {
            let mut table = Table::new(&["side", "group", "status", "messages"]);
            for count in &counts.counts {
                let at_least = if counts.is_capped { "at least " } else { "" };
                let number = format!("{at_least}{}", count.count);
                table.row([side_name(count.side), &count.group, status_name(count.status), &number]);
            }
            text = format!("{text}\n\n{}", table.text());
        }
        text
    })?;
    if problems.is_empty() { Ok(()) } else { Err(Failure::Unhealthy(problems.join("; "))) }
}
