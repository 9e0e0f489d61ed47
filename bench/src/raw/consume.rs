//! Consumes with as few acknowledgements as possible.

use std::sync::Arc;

use futures_util::{FutureExt as _, StreamExt as _};
use lapin::options::BasicAckOptions;
use lapin::types::ShortString;
use tokio::task::JoinHandle;

use crate::BoxResult;
use crate::load::{Load, Payload};
use crate::measure::meter::Meter;
use crate::measure::reading::Reading;
use crate::site::{Site, fill};

/// Messages that one acknowledgement covers at most.
const MOST: usize = 100;

/// Consumes a filled queue.
pub(crate) async fn run(site: Site) -> BoxResult<Reading> {
    let load = Load::new(0);
    let queue = site.broker.declare("quorum").await?;
    fill(&site, &load, false).await?;
    let consuming = consume(&site, &queue, &load).await?;
    load.first_handled().await?;
    let meter = Meter::start(&site).await?;
    let messages = site.messages - load.count();
    load.all_handled(site.messages).await?;
    let metered = meter.stop().await?;
    consuming.abort();
    site.finish(messages, &metered, None).await
}

/// Consumes a queue: whatever has come is acknowledged together.
pub(super) async fn consume(
    site: &Site,
    queue: &ShortString,
    load: &Arc<Load>,
) -> BoxResult<JoinHandle<BoxResult<()>>> {
    let (channel, mut consumer) = site.broker.consumer(queue).await?;
    let load = Arc::clone(load);
    Ok(tokio::spawn(async move {
        while let Some(delivery) = consumer.next().await {
            let mut last = delivery?;
            load.handled(&serde_json::from_slice::<Payload>(&last.data)?);
            for _ in 1..MOST {
                let Some(Some(delivery)) = consumer.next().now_or_never() else { break };
                last = delivery?;
                load.handled(&serde_json::from_slice::<Payload>(&last.data)?);
            }
            channel.basic_ack(last.delivery_tag, BasicAckOptions { multiple: true }).await?;
        }
        Ok(())
    }))
}
