//! What `cap doctor` checks at the broker.

use cap_core::transport::Transport as _;
use cap_rabbitmq::{FoundItem, FoundState};

use super::finding::Finding;
use crate::commands::topology::{described, groups};
use crate::failure::Failure;
use crate::site::{Settings, open_broker};

pub(super) async fn check(
    settings: &Settings,
    named: &[String],
    has_schema: bool,
) -> Result<Vec<Finding>, Failure> {
    let broker = open_broker(settings)?;
    // Groups are known from the inbox.
    let groups = if has_schema { groups(settings, named).await? } else { named.to_vec() };
    let found = broker.found_topology(&groups).await;
    broker.close().await;
    let found = match found {
        Ok(found) => found,
        Err(error) => {
            let text = crate::failure::redacted(&error.to_string());
            return Ok(vec![Finding::problem(
                "broker",
                text,
                "check host, port, user, password, vhost and TLS",
            )]);
        }
    };
    let mut findings = vec![Finding::ok("broker", "connected and logged in"), exchange(&found.exchange)];
    findings.extend(found.queues.iter().map(queue));
    if found.queues.is_empty() {
        findings.push(Finding::skipped("queue", "no group is known; name one with --group"));
    }
    Ok(findings)
}

fn exchange(item: &FoundItem) -> Finding {
    let found = format!("{}: {}", item.name, described(&item.state));
    match &item.state {
        FoundState::AsExpected => Finding::ok("exchange", found),
        FoundState::Missing => {
            Finding::warning("exchange", found, "a bus declares it at its first start; check the vhost")
        }
        FoundState::Differs(property)
            if ["type", "durable", "auto_delete", "internal"].contains(&property.as_str()) =>
        {
            Finding::problem(
                "exchange",
                found,
                "use another exchange, or delete this one and let the bus declare it",
            )
        }
        _ => Finding::warning("exchange", found, "check that it is a durable topic exchange"),
    }
}

fn queue(item: &FoundItem) -> Finding {
    let found = format!("{}: {}", item.name, described(&item.state));
    let is_unattended = item.consumers == Some(0) && item.messages.is_some_and(|messages| messages > 0);
    match &item.state {
        FoundState::AsExpected if is_unattended => {
            let messages = item.messages.unwrap_or_default();
            Finding::warning(
                "queue",
                format!("{}: {messages} messages, no consumer", item.name),
                "start a node that has this group",
            )
        }
        FoundState::AsExpected => Finding::ok("queue", found),
        FoundState::Missing => {
            Finding::warning("queue", found, "a node that has this group declares it at its start")
        }
        FoundState::Differs(property) if property == "x-delivery-limit" => Finding::warning(
            "queue",
            found,
            "the broker drops messages after 20 deliveries: set a policy with delivery-limit -1",
        ),
        FoundState::Differs(_) => Finding::warning(
            "queue",
            found,
            "it is used as it is; the broker keeps no retries for groups on such a queue",
        ),
        _ => Finding::warning("queue", found, "grant this user the right to configure the queue"),
    }
}
