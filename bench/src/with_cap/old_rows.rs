//! Tables that are full of messages from before.

use super::bus::{SCHEMA, pool, prepare};
use super::publish::Publishing;
use crate::BoxResult;
use crate::measure::reading::Reading;
use crate::site::Site;

/// Publishes with so many messages in each table that have succeeded.
pub(crate) async fn run(site: Site, rows: u32, publishing: Publishing) -> BoxResult<Reading> {
    let pool = pool(&site, publishing.callers.min(32)).await?;
    prepare(&site, &pool).await?;
    let client = site.database.connect().await?;
    // The sizes of those that the round itself stores. Ids from before are smaller than those of new messages.
    let headers = r#"{"cap-msg-id":"1","cap-corr-id":"1","cap-corr-seq":"0","cap-msg-name":"bench","cap-msg-type":"Payload","cap-senttime":"11/27/2026 12:00:00"}"#;
    client
        .batch_execute(&format!(
            "INSERT INTO {SCHEMA}.outbox (id, version, name, headers, body)
                 SELECT g, 'v1', 'bench', '{headers}', decode(repeat('78', 256), 'hex') FROM generate_series(1, {rows}) AS g;
             INSERT INTO {SCHEMA}.inbox (id, version, name, group_name, message_id, headers, body)
                 SELECT g, 'v1', 'bench', '{}', 'old-' || g, '{headers}', decode(repeat('78', 256), 'hex')
                 FROM generate_series(1, {rows}) AS g;
             ANALYZE",
            site.broker.group_queue(),
        ))
        .await?;
    drop(client);
    publishing.run_with(site, pool).await
}
