//! One message at a time.

use std::time::{Duration, Instant};

use super::bus::{close, counting, pool};
use super::publish::{Way, publish_one};
use crate::BoxResult;
use crate::load::Load;
use crate::measure::meter::Meter;
use crate::measure::reading::Reading;
use crate::site::Site;

/// The time from one message to the next.
pub(crate) const PAUSE: Duration = Duration::from_millis(20);

/// Publishes 50 messages a second.
pub(crate) async fn run(site: Site, way: Way) -> BoxResult<Reading> {
    let pool = pool(&site, 4).await?;
    let load = Load::new(usize::MAX >> 3);
    let cap = counting(&site, &pool, &load).start().await?;
    let meter = Meter::start(&site).await?;
    let end = Instant::now() + site.duration;
    let mut ticks = tokio::time::interval(PAUSE);
    while Instant::now() < end {
        ticks.tick().await;
        publish_one(way, &cap, &pool, &load.enter_one().await?).await?;
    }
    let messages = load.published();
    load.all_handled(messages).await?;
    let metered = meter.stop().await?;
    close(cap, pool).await?;
    site.finish(messages, &metered, Some(&load)).await
}
