//! A cold backlog: messages in the outbox that nobody has leased, as after an outage of the broker.

use std::time::Duration;

use cap_rabbitmq::RabbitMq;

use super::bus::{builder, close, counting, pool, prepare};
use crate::BoxResult;
use crate::load::Load;
use crate::measure::meter::Meter;
use crate::measure::reading::Reading;
use crate::site::Site;

/// Publishes while the broker is away, and measures from the start of a bus that reaches it until all is handled.
pub(crate) async fn run(site: Site, messages: u32) -> BoxResult<Reading> {
    let pool = pool(&site, 4).await?;
    prepare(&site, &pool).await?;
    let load = Load::new(usize::MAX >> 3);
    // Nothing listens there.
    let away = builder(&site, &pool)
        .transport(RabbitMq::new("amqp://guest:guest@127.0.0.1:9").exchange(&site.name))
        .configure(|options| options.start_timeout = Duration::from_millis(200))
        .start()
        .await?;
    for _ in 0..messages / 500 {
        away.publish_all("bench", load.enter(500).await?).await?;
    }
    away.shutdown().await?;
    let meter = Meter::start(&site).await?;
    let cap = counting(&site, &pool, &load).start().await?;
    load.all_handled(u64::from(messages)).await?;
    let metered = meter.stop().await?;
    close(cap, pool).await?;
    site.finish(u64::from(messages), &metered, None).await
}
