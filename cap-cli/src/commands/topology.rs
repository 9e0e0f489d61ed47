//! `cap topology`: the broker beside what is expected.

use std::collections::BTreeSet;

use cap_core::transport::Transport as _;
use cap_rabbitmq::{FoundItem, FoundState};
use clap::Args;
use serde_json::{Value, json};

use crate::common::Common;
use crate::failure::Failure;
use crate::output::{Output, Table};
use crate::site::{Settings, open_broker, open_operator};

const UNSEEN: &str = "not visible over AMQP, which needs RabbitMQ's management API: bindings, policies, and queues that no \
                      group uses any more";

/// Which groups are expected.
#[derive(Debug, Args)]
pub(crate) struct TopologyArgs {
    /// A group whose queue is expected, in full, with its version; may be repeated. Groups with messages in the inbox are
    /// added if a storage is named
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
}

pub(super) async fn run(arguments: &TopologyArgs, common: &Common, output: &Output) -> Result<(), Failure> {
    let settings = Settings::of(common)?;
    let broker = open_broker(&settings)?;
    let groups = groups(&settings, &arguments.groups).await?;
    let found = broker.found_topology(&groups).await;
    broker.close().await;
    let found = found?;
    let object = json!({
        "exchange": shape(&found.exchange),
        "queues": found.queues.iter().map(shape).collect::<Vec<_>>(),
        "not_visible": UNSEEN,
    });
    output.print(&object, || {
        let mut table = Table::new(&["", "name", "state", "messages", "consumers"]);
        let number = |number: Option<u32>| number.map(|number| number.to_string()).unwrap_or_default();
        let items = [("exchange", &found.exchange)]
            .into_iter()
            .chain(found.queues.iter().map(|queue| ("queue", queue)));
        for (kind, item) in items {
            let cells = [
                kind.to_owned(),
                item.name.clone(),
                described(&item.state),
                number(item.messages),
                number(item.consumers),
            ];
            table.row(cells);
        }
        format!("{}\n\n{UNSEEN}", table.text())
    })?;
    let problems: Vec<String> = found
        .queues
        .iter()
        .chain([&found.exchange])
        .filter(|item| !matches!(item.state, FoundState::AsExpected | FoundState::Exists))
        .map(|item| format!("{} {}", item.name, described(&item.state)))
        .collect();
    if problems.is_empty() { Ok(()) } else { Err(Failure::Unhealthy(problems.join("; "))) }
}

/// The groups that are named, and those that have messages in the inbox.
pub(super) async fn groups(settings: &Settings, named: &[String]) -> Result<Vec<String>, Failure> {
    let mut groups: BTreeSet<String> = named.iter().cloned().collect();
    if settings.storage().is_ok() {
        let counts = open_operator(settings).await?.waiting().await?;
        let counts = counts.map(|counts| counts.counts).unwrap_or_default();
        groups.extend(counts.into_iter().map(|count| count.group).filter(|group| !group.is_empty()));
    }
    Ok(groups.into_iter().collect())
}

pub(super) fn described(state: &FoundState) -> String {
    match state {
        FoundState::AsExpected => "as expected".to_owned(),
        FoundState::Differs(property) => format!("exists with another {property}"),
        FoundState::Missing => "does not exist".to_owned(),
        FoundState::Exists => "exists; its properties cannot be compared".to_owned(),
        FoundState::NoRight => "cannot be looked up: this user lacks the right".to_owned(),
        _ => "unknown".to_owned(),
    }
}

fn shape(item: &FoundItem) -> Value {
    let (state, differs) = match &item.state {
        FoundState::AsExpected => ("as-expected", None),
        FoundState::Differs(property) => ("differs", Some(property)),
        FoundState::Missing => ("missing", None),
        FoundState::Exists => ("exists", None),
        FoundState::NoRight => ("no-right", None),
        _ => ("unknown", None),
    };
    json!({
        "name": item.name, "state": state, "differs_in": differs, "messages": item.messages, "consumers": item.consumers,
    })
}
