//! A bus with cap's defaults.

use std::sync::Arc;
use std::time::Duration;

use cap_core::CapBuilder;
use cap_core::prelude::*;
use cap_postgres::Postgres;
use cap_rabbitmq::RabbitMq;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;

use crate::BoxResult;
use crate::load::{Load, Payload};
use crate::site::Site;

/// The schema of the bus's tables.
pub(crate) const SCHEMA: &str = "cap";

/// A pool as sqlx makes it, with all connections open.
pub(crate) async fn pool(site: &Site, connections: u32) -> BoxResult<PgPool> {
    let pool = PgPoolOptions::new().max_connections(connections).connect(&site.database.url).await?;
    let all = futures_util::future::join_all((0..connections).map(|_| pool.acquire())).await;
    all.into_iter().collect::<Result<Vec<_>, _>>()?;
    Ok(pool)
}

/// A bus of the round, without handlers.
pub(crate) fn builder(site: &Site, pool: &PgPool) -> CapBuilder {
    Cap::builder()
        .storage(Postgres::new(pool.clone()).schema(SCHEMA))
        .transport(RabbitMq::new(&site.broker.url).exchange(&site.name))
        .handlers(Handlers::none())
        .configure(|options| options.default_group.clone_from(&site.name))
}

/// A bus whose handler does nothing but count.
pub(crate) fn counting(site: &Site, pool: &PgPool, load: &Arc<Load>) -> CapBuilder {
    let load = Arc::clone(load);
    builder(site, pool).subscribe("bench", move |payload: Payload| {
        load.handled(&payload);
        async {}
    })
}

/// Creates the schema, the exchange and the group's queue, by a bus that starts and ends.
pub(crate) async fn prepare(site: &Site, pool: &PgPool) -> BoxResult<()> {
    let cap = builder(site, pool).subscribe("bench", |_: Payload| async {}).start().await?;
    cap.shutdown().await?;
    Ok(())
}

/// Ends the bus and closes its pool.
pub(crate) async fn close(cap: Cap, pool: PgPool) -> BoxResult<()> {
    cap.shutdown().await?;
    // A connection that somebody still has would be waited for.
    drop(tokio::time::timeout(Duration::from_secs(5), pool.close()).await);
    Ok(())
}
