//! One message at a time.

use std::time::Instant;

use super::publish::Publisher;
use super::receive::{How, Receiving};
use super::tables::{Session, create};
use crate::BoxResult;
use crate::load::Load;
use crate::measure::meter::Meter;
use crate::measure::reading::Reading;
use crate::site::Site;
use crate::with_cap::idle::PAUSE;

/// Publishes 50 messages a second, each in a transaction with a row of the application's or by itself.
pub(crate) async fn run(site: Site, in_transaction: bool) -> BoxResult<Reading> {
    create(&site).await?;
    let load = Load::new(usize::MAX >> 3);
    let queue = site.broker.declare("quorum").await?;
    let receiving = Receiving::start(&site, &queue, 1, How::MarkAfterwards, &load).await?;
    let (channel, session) = (site.broker.publisher().await?, Session::open(&site).await?);
    let publisher = Publisher { session, channel, queue, in_transaction };
    let meter = Meter::start(&site).await?;
    let end = Instant::now() + site.duration;
    let mut ticks = tokio::time::interval(PAUSE);
    while Instant::now() < end {
        ticks.tick().await;
        publisher.publish(&load.enter_one().await?).await?;
    }
    let messages = load.published();
    load.all_handled(messages).await?;
    let metered = meter.stop().await?;
    drop(publisher);
    receiving.stop().await;
    site.finish(messages, &metered, Some(&load)).await
}
