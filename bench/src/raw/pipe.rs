//! Publishes with confirms and consumes, without a database.

use std::time::Instant;

use tokio::sync::mpsc;

use super::consume::consume;
use crate::BoxResult;
use crate::load::Load;
use crate::measure::meter::Meter;
use crate::measure::reading::Reading;
use crate::site::{Site, mandatory, properties};

/// Publishes for the round's time, with so many messages on their way.
pub(crate) async fn run(site: Site, window: usize) -> BoxResult<Reading> {
    let load = Load::new(window);
    let queue = site.broker.declare("quorum").await?;
    let consuming = consume(&site, &queue, &load).await?;
    let channel = site.broker.publisher().await?;
    let (sender, mut unconfirmed) = mpsc::channel(window);
    let confirming = tokio::spawn(async move {
        while let Some(confirm) = unconfirmed.recv().await {
            lapin::Result::from(confirm.await)?;
        }
        BoxResult::Ok(())
    });
    let meter = Meter::start(&site).await?;
    let end = Instant::now() + site.duration;
    while Instant::now() < end {
        let payload = load.enter_one().await?;
        let body = serde_json::to_vec(&payload)?;
        let properties = properties(payload.number);
        sender
            .send(channel.basic_publish("".into(), queue.clone(), mandatory(), &body, properties).await?)
            .await?;
    }
    drop(sender);
    confirming.await??;
    let messages = load.published();
    load.all_handled(messages).await?;
    let metered = meter.stop().await?;
    consuming.abort();
    site.finish(messages, &metered, Some(&load)).await
}
