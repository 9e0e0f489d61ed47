//! The groups of this process and what they subscribe to.

use askama::Template;
use axum::response::Response;

use super::overview::{ComponentLine, circuit};
use super::shell::{Shell, page};
use crate::request::Problem;
use crate::text::Text;
use crate::web::Reader;

#[derive(Debug, Template)]
#[template(path = "subscriptions.html")]
struct SubscriptionsPage {
    shell: Shell,
    t: &'static Text,
    groups: Vec<Group>,
    has_bus: bool,
}

#[derive(Debug)]
struct Group {
    name: String,
    topics: Vec<String>,
    running: usize,
    queued: usize,
    circuit: Option<(&'static str, &'static str)>,
    consumer: ComponentLine,
}

pub(super) async fn show(reader: Reader) -> Result<Response, Problem> {
    let reading = reader.app.live.read().await;
    let t = reader.context.text();
    let groups = reading.health.iter().flat_map(|health| &health.groups).map(|group| Group {
        name: group.group.clone(),
        topics: group.topics.clone(),
        running: group.running,
        queued: group.queued,
        circuit: circuit(group.circuits.iter().map(|circuit| circuit.state), t),
        consumer: ComponentLine::new(&group.consumer, reading.at, t),
    });
    page(&SubscriptionsPage {
        groups: groups.collect(),
        shell: Shell::new(&reader, "subscriptions").await,
        has_bus: reader.app.data.bus.is_some(),
        t,
    })
}
