//! Publishes and handles: outbox row, confirm, mark, inbox row, handler, mark, acknowledgement.

use std::sync::Arc;
use std::time::Instant;

use lapin::Channel;
use lapin::types::ShortString;
use tokio::task::JoinSet;

use super::Setting;
use super::receive::{How, Receiving};
use super::tables::{Session, create};
use crate::BoxResult;
use crate::load::{Load, Payload, join};
use crate::measure::meter::Meter;
use crate::measure::reading::Reading;
use crate::site::{Site, mandatory, properties};

/// Publishes for the round's time, each message in a transaction with a row of the application's or by itself.
pub(crate) async fn run(
    site: Site,
    setting: Setting,
    in_transaction: bool,
    window: usize,
) -> BoxResult<Reading> {
    create(&site).await?;
    let load = Load::new(window);
    let queue = site.broker.declare(setting.queue).await?;
    let receiving = Receiving::start(&site, &queue, setting.tasks, How::MarkAfterwards, &load).await?;
    let channel = site.broker.publisher().await?;
    let mut publishers = Vec::new();
    for _ in 0..setting.tasks {
        let session = Session::open(&site).await?;
        let (channel, queue) = (channel.clone(), queue.clone());
        publishers.push(Arc::new(Publisher { session, channel, queue, in_transaction }));
    }
    let meter = Meter::start(&site).await?;
    let end = Instant::now() + site.duration;
    let mut tasks = JoinSet::new();
    for publisher in &publishers {
        let (publisher, load) = (Arc::clone(publisher), Arc::clone(&load));
        tasks.spawn(async move {
            while Instant::now() < end {
                publisher.publish(&load.enter_one().await?).await?;
            }
            Ok(())
        });
    }
    join(tasks).await?;
    let messages = load.published();
    load.all_handled(messages).await?;
    let metered = meter.stop().await?;
    // Its sessions were to be measured to the end.
    drop(publishers);
    receiving.stop().await;
    site.finish(messages, &metered, Some(&load)).await
}

/// A task that publishes.
pub(super) struct Publisher {
    pub(super) session: Session,
    pub(super) channel: Channel,
    pub(super) queue: ShortString,
    pub(super) in_transaction: bool,
}

impl Publisher {
    pub(super) async fn publish(&self, payload: &Payload) -> BoxResult<()> {
        let Session { client, business, outbox, sent, .. } = &self.session;
        let id = payload.number.cast_signed();
        let body = serde_json::to_vec(payload)?;
        if self.in_transaction {
            client.batch_execute("BEGIN").await?;
            client.execute(business, &[&id]).await?;
        }
        client.execute(outbox, &[&id, &body]).await?;
        if self.in_transaction {
            client.batch_execute("COMMIT").await?;
        }
        let properties = properties(payload.number);
        let key = self.queue.clone();
        self.channel.basic_publish("".into(), key, mandatory(), &body, properties).await?.await?;
        client.execute(sent, &[&id]).await?;
        Ok(())
    }
}
