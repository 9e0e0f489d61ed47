//! The numbers of the overview, and what was done.

use axum::Json;
use cap_core::storage::Side;

use super::shapes::{ActItem, ComponentItem, CountItem, ErrorBody, Overview, side_name};
use crate::data::status_name;
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

/// The acts of users, newest first.
#[utoipa::path(
    get, path = "/audit", operation_id = "listActs", tag = "overview",
    responses(
        (status = 200, description = "the acts", body = [ActItem]),
        (status = 401, description = "no valid credentials", body = ErrorBody),
    ),
)]
pub(super) async fn audit(reader: Reader) -> Json<Vec<ActItem>> {
    let item = |act: crate::data::Act| ActItem {
        at: iso(act.at),
        what: act.what.to_owned(),
        side: side_name(act.side),
        count: act.count,
        ids: act.ids.iter().map(i64::to_string).collect(),
        who: act.who,
    };
    Json(reader.app.audit.all().into_iter().map(item).collect())
}
