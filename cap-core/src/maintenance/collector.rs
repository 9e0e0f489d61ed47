//! Deletes expired messages, in bounded batches.

use std::sync::Arc;
use std::time::Duration;

use crate::faults::point;
use crate::runtime::engine::Engine;
use crate::runtime::metric_names::EXPIRED;
use crate::storage::Expiry;

/// The pause between two batches, so that deleting many messages does not occupy the storage.
const PAUSE_BETWEEN_BATCHES: Duration = Duration::from_millis(100);

/// Deletes expired messages at the start and then at every interval, until intake stops.
pub(crate) async fn run_collector(engine: Arc<Engine>) {
    let stop = engine.lifecycle.stop.intake.clone();
    let rounds = async {
        if !engine.lifecycle.ready().await {
            return;
        }
        let options = &engine.options;
        let expiry = Expiry { succeeded: options.succeeded_expire_after, limit: options.collector_batch };
        let mut ticks = tokio::time::interval(options.collector_interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            collect(&engine, &expiry).await;
        }
    };
    stop.run_until_cancelled(rounds).await;
}

async fn collect(engine: &Engine, expiry: &Expiry) {
    let limit = u64::try_from(expiry.limit).unwrap_or(u64::MAX);
    let mut total = 0;
    loop {
        point("collect.before").await;
        let deleted = engine.storage.delete_expired(expiry).await;
        point("collect.after").await;
        match deleted {
            Ok((outbox, inbox)) => {
                total += outbox + inbox;
                if outbox < limit && inbox < limit {
                    break;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "could not delete expired messages; retrying at the next interval");
                break;
            }
        }
        tokio::time::sleep(PAUSE_BETWEEN_BATCHES).await;
    }
    metrics::counter!(EXPIRED).increment(total);
    if total > 0 {
        tracing::debug!(total, "deleted expired messages");
    }
}
