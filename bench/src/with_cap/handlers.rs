//! Handlers of a filled queue.

use std::sync::Arc;

use cap_core::CapBuilder;
use cap_postgres::PgTx;
use sqlx::PgPool;

use super::bus::{builder, close, counting, pool, prepare};
use super::publish::BUSINESS;
use crate::BoxResult;
use crate::load::{Load, Payload};
use crate::measure::meter::Meter;
use crate::measure::reading::Reading;
use crate::site::{Site, fill};

/// Handlers that write a row in a `PgTx`, so many at a time.
pub(crate) async fn in_transactions(site: Site, concurrency: u16) -> BoxResult<Reading> {
    // As sqlx makes it: ten connections.
    let pool = pool(&site, 10).await?;
    let load = Load::new(0);
    let counted = Arc::clone(&load);
    let bus = builder(&site, &pool).configure(|options| options.group_concurrency = concurrency).subscribe(
        "bench",
        move |payload: Payload, mut tx: PgTx| {
            let load = Arc::clone(&counted);
            async move {
                sqlx::query(BUSINESS).bind(payload.number.cast_signed()).execute(&mut *tx).await?;
                load.handled(&payload);
                Ok::<_, sqlx::Error>(())
            }
        },
    );
    run(site, pool, bus, load).await
}

/// Handlers that do nothing.
pub(crate) async fn without_effect(site: Site) -> BoxResult<Reading> {
    let pool = pool(&site, 10).await?;
    let load = Load::new(0);
    let bus = counting(&site, &pool, &load);
    run(site, pool, bus, load).await
}

/// Fills the queue, starts the bus, and measures from the first handler's start to the last one's.
async fn run(site: Site, pool: PgPool, bus: CapBuilder, load: Arc<Load>) -> BoxResult<Reading> {
    prepare(&site, &pool).await?;
    fill(&site, &load, true).await?;
    let cap = bus.start().await?;
    load.first_handled().await?;
    let meter = Meter::start(&site).await?;
    let messages = site.messages - load.count();
    load.all_handled(site.messages).await?;
    let metered = meter.stop().await?;
    close(cap, pool).await?;
    site.finish(messages, &metered, None).await
}
