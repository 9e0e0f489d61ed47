//! The caller's own transactions alone: a row of the application's and an outbox row, which nobody sends.

use std::sync::Arc;
use std::time::Instant;

use tokio::task::JoinSet;

use crate::BoxResult;
use crate::load::{Load, join};
use crate::measure::meter::Meter;
use crate::measure::reading::Reading;
use crate::site::Site;

/// Commits transactions for the round's time, side by side.
pub(crate) async fn run(site: Site, callers: usize) -> BoxResult<Reading> {
    site.database
        .connect()
        .await?
        .batch_execute("CREATE TABLE outbox (id bigint PRIMARY KEY, body bytea)")
        .await?;
    let load = Load::new(usize::MAX >> 3);
    let mut clients = Vec::new();
    for _ in 0..callers {
        let client = site.database.connect().await?;
        let business = client.prepare("INSERT INTO business VALUES ($1)").await?;
        let outbox = client.prepare("INSERT INTO outbox VALUES ($1, $2)").await?;
        clients.push(Arc::new((client, business, outbox)));
    }
    let meter = Meter::start(&site).await?;
    let end = Instant::now() + site.duration;
    let mut tasks = JoinSet::new();
    for client in &clients {
        let (client, load) = (Arc::clone(client), Arc::clone(&load));
        tasks.spawn(async move {
            let (client, business, outbox) = &*client;
            while Instant::now() < end {
                let payload = load.enter_one().await?;
                let id = payload.number.cast_signed();
                client.batch_execute("BEGIN").await?;
                client.execute(business, &[&id]).await?;
                client.execute(outbox, &[&id, &serde_json::to_vec(&payload)?]).await?;
                client.batch_execute("COMMIT").await?;
            }
            Ok(())
        });
    }
    join(tasks).await?;
    let messages = load.published();
    let metered = meter.stop().await?;
    // Their sessions were to be measured to the end.
    drop(clients);
    site.finish(messages, &metered, None).await
}
