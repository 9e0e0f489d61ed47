//! The numbers of the overview, and what was done.

use axum::Json;
use cap_core::monitor::Act;
use cap_core::storage::Side;

use super::shapes::{ActItem, ComponentItem, CountItem, ErrorBody, Overview, side_name};
use crate::data::{Filter, status_name, within};
use crate::payload::{Body, MASK};
use crate::request::Problem;
use crate::text::iso;
use crate::web::Reader;

/// How many messages wait, retry and have failed, and what is up. At most two seconds old, at a cost that does not grow.
#[utoipa::path(
    get, path = "/overview", operation_id = "getOverview", tag = "overview",
    responses(
        (status = 200, description = "the numbers", body = Overview),
        (status = 401, description = "no valid credentials", body = ErrorBody),
    ),
)]
pub(super) async fn show(reader: Reader) -> Json<Overview> {
    let reading = reader.app.live.read().await;
    let health = reading.health.iter();
    let components = health
        .flat_map(|health| {
            [&health.storage, &health.transport]
                .into_iter()
                .chain(health.groups.iter().map(|group| &group.consumer))
        })
        .map(|component| ComponentItem {
            name: component.name.clone(),
            is_up: component.up,
            since: iso(component.since),
            error: component.error.clone().filter(|_| !component.up),
        });
    let counts = reading.counts.as_ref().map(|counts| {
        let item = |count: &cap_core::monitor::Count| CountItem {
            side: side_name(count.side),
            group: (count.side == Side::Inbox).then(|| count.group.clone()),
            status: status_name(count.status),
            count: count.count,
        };
        counts.iter().map(item).collect()
    });
    Json(Overview {
        at: iso(reading.at),
        counts,
        is_capped: reading.is_capped,
        components: components.collect(),
    })
}

/// The acts of operators on all nodes, newest first: what was done through this API, the pages, the command line and the
/// application.
#[utoipa::path(
    get, path = "/audit", operation_id = "listActs", tag = "overview",
    params(
        ("per_page" = Option<usize>, Query, minimum = 1, maximum = 200, description = "1 to 200; 50 by default"),
        ("before" = Option<String>, Query, description = "`id` of the last act of the page before"),
    ),
    responses(
        (status = 200, description = "the acts", body = [ActItem]),
        (status = 400, description = "an invalid parameter", body = ErrorBody),
        (status = 401, description = "no valid credentials", body = ErrorBody),
    ),
)]
pub(super) async fn audit(reader: Reader) -> Result<Json<Vec<ActItem>>, Problem> {
    let filter = Filter::parse(&reader.query, None)?;
    let before = reader.query.number("before")?;
    let acts = within(reader.app.data.operator.acts(before, filter.per_page)).await?;
    let item = |act: Act| ActItem {
        id: act.id.to_string(),
        at: iso(act.at),
        former_payload: former(&act, &reader),
        what: act.act.what,
        side: side_name(act.act.side),
        count: act.act.count,
        ids: act.act.ids.iter().map(i64::to_string).collect(),
        who: act.act.who,
    };
    Ok(Json(acts.into_iter().map(item).collect()))
}

/// The payload before an edit, as this user may see it.
fn former(act: &Act, reader: &Reader) -> Option<String> {
    match Body::of(act.act.former_body.as_deref()?, None, &reader.app.masks, reader.unmasks()).0 {
        Body::Json(text) | Body::Text(text) => Some(text),
        Body::Hidden => Some(MASK.to_owned()),
        Body::Empty | Body::Binary(_) => None,
    }
}
