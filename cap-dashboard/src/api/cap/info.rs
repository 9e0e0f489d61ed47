//! `/meta`, `/stats`, `/subscriber`, `/metrics-history`, `/nodes` and `/ping`.

use axum::Json;
use axum::http::HeaderMap;
use cap_core::storage::{Side, Status};
use serde_json::{Value, json};

use super::totals::capped;
use crate::request::Problem;
use crate::web::Reader;

pub(super) async fn meta(reader: Reader) -> Json<Value> {
    let data = &reader.app.data;
    Json(json!({
        "cap": { "name": "CAP", "version": env!("CARGO_PKG_VERSION") },
        "broker": { "name": data.broker.as_deref().unwrap_or("unknown") },
        "storage": { "name": storage_name(data.operator.storage_name()) },
    }))
}

/// CAP's own name for the storage.
fn storage_name(name: &str) -> &str {
    match name {
        "PostgreSQL" => "PostgreSql",
        "memory" => "InMemory",
        other => other,
    }
}

/// The numbers of messages, counted to 10,000; the header says if there are more.
pub(super) async fn stats(reader: Reader) -> Result<(HeaderMap, Json<Value>), Problem> {
    let reading = reader.app.live.read().await;
    let [published, _, received, _] = reader.app.history.totals(&reader.app.data).await?;
    let failed = |side| reading.count(side, Status::Failed) + reading.count(side, Status::Retrying);
    let subscribers: usize =
        reading.health.iter().flat_map(|health| &health.groups).map(|group| group.topics.len()).sum();
    let stats = json!({
        "servers": 0,
        "subscribers": subscribers,
        "publishedSucceeded": published.count,
        "publishedDelayed": reading.count(Side::Outbox, Status::Delayed),
        "receivedSucceeded": received.count,
        "publishedFailed": failed(Side::Outbox),
        "receivedFailed": failed(Side::Inbox),
    });
    Ok((capped(published.is_capped || received.is_capped || reading.is_capped), Json(stats)))
}

/// There is no service discovery here, as in a CAP without it.
pub(super) async fn nodes(_reader: Reader) -> Json<Value> {
    Json(json!([]))
}

/// CAP calls whatever address it is given. We know no addresses of nodes, so that every one is unknown.
pub(super) async fn ping(_reader: Reader) -> Problem {
    Problem::NotFound
}

/// The subscriptions of this process, by group. CAP's page inserts `methodEscaped` as HTML, so that it is escaped here.
pub(super) async fn subscriber(reader: Reader) -> Json<Value> {
    let reading = reader.app.live.read().await;
    let groups = reading.health.iter().flat_map(|health| &health.groups).map(|group| {
        let values: Vec<Value> = group
            .topics
            .iter()
            .map(|topic| json!({ "topic": topic, "implName": "", "methodEscaped": escaped(topic) }))
            .collect();
        json!({ "childCount": values.len(), "group": group.group, "values": values })
    });
    Json(groups.collect())
}

fn escaped(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
        out
    })
}

/// How many messages were stored in each of the last 24 hours and have succeeded or failed, of the newest 10,000 of each kind.
pub(super) async fn history(reader: Reader) -> Result<(HeaderMap, Json<Value>), Problem> {
    let hours = reader.app.history.hours(&reader.app.data).await?;
    let of_kind = |kind: usize| hours.iter().map(|hour| hour.counts[kind].count).collect::<Vec<_>>();
    let body = json!({
        "dayHour": hours.iter().map(|hour| hour.ends).collect::<Vec<_>>(),
        "publishSuccessed": of_kind(0),
        "publishFailed": of_kind(1),
        "subscribeSuccessed": of_kind(2),
        "subscribeFailed": of_kind(3),
    });
    let is_capped = hours.iter().flat_map(|hour| &hour.counts).any(|count| count.is_capped);
    Ok((capped(is_capped), Json(body)))
}
