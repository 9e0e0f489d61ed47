//! Callers that publish side by side, end to end.

use std::sync::Arc;
use std::time::Instant;

use cap_core::prelude::*;
use sqlx::PgPool;
use tokio::task::JoinSet;

use super::bus::{close, counting, pool};
use crate::BoxResult;
use crate::load::{Load, Payload, join};
use crate::measure::meter::Meter;
use crate::measure::reading::Reading;
use crate::site::Site;

/// How messages are published.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Way {
    /// Outside of a transaction.
    Alone,
    /// In a transaction that `cap_postgres::begin` began, with a row of the application's.
    CapTransaction,
    /// In a transaction of sqlx, with a row of the application's.
    PlainTransaction,
    /// So many at a time, outside of a transaction.
    All(u32),
}

/// A round that publishes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Publishing {
    pub(crate) way: Way,
    pub(crate) callers: u32,
    /// How many messages may be on their way.
    pub(crate) window: usize,
}

impl Publishing {
    /// Publishes for the round's time, and waits until all is handled.
    pub(crate) async fn run(self, site: Site) -> BoxResult<Reading> {
        let pool = pool(&site, self.callers.min(32)).await?;
        self.run_with(site, pool).await
    }

    /// As [`run`](Self::run), with a pool that is open.
    pub(crate) async fn run_with(self, site: Site, pool: PgPool) -> BoxResult<Reading> {
        let load = Load::new(self.window);
        let cap = counting(&site, &pool, &load).start().await?;
        let meter = Meter::start(&site).await?;
        let end = Instant::now() + site.duration;
        let mut callers = JoinSet::new();
        for _ in 0..self.callers {
            let (cap, pool, load) = (cap.clone(), pool.clone(), Arc::clone(&load));
            callers.spawn(async move {
                while Instant::now() < end {
                    self.publish(&cap, &pool, &load).await?;
                }
                Ok(())
            });
        }
        join(callers).await?;
        let messages = load.published();
        load.all_handled(messages).await?;
        let metered = meter.stop().await?;
        close(cap, pool).await?;
        site.finish(messages, &metered, Some(&load)).await
    }

    async fn publish(self, cap: &Cap, pool: &PgPool, load: &Load) -> BoxResult<()> {
        if let Way::All(count) = self.way {
            cap.publish_all("bench", load.enter(count).await?).await?;
            return Ok(());
        }
        publish_one(self.way, cap, pool, &load.enter_one().await?).await
    }
}

/// Publishes one message.
pub(crate) async fn publish_one(way: Way, cap: &Cap, pool: &PgPool, payload: &Payload) -> BoxResult<()> {
    let publish = cap.publish("bench", payload);
    match way {
        Way::CapTransaction => {
            let mut tx = cap_postgres::begin(cap, pool).await?;
            sqlx::query(BUSINESS).bind(payload.number.cast_signed()).execute(&mut *tx).await?;
            publish.within(&mut tx).await?;
            tx.commit().await?;
        }
        Way::PlainTransaction => {
            let mut tx = pool.begin().await?;
            sqlx::query(BUSINESS).bind(payload.number.cast_signed()).execute(&mut *tx).await?;
            publish.within(&mut tx).await?;
            tx.commit().await?;
        }
        Way::Alone | Way::All(_) => {
            publish.await?;
        }
    }
    Ok(())
}

/// What a transaction does besides publishing.
pub(crate) const BUSINESS: &str = "INSERT INTO business VALUES ($1)";
