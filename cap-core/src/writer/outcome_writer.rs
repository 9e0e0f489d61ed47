//! The outcome writer: writes the outcomes of messages, batch by batch. Hardly any caller waits for it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;

use super::outcome_batch::{Tried, refuse, takes_renewals, write_once};
use super::outcome_queue::OutcomeItem;
use super::set_apart::SetApart;
use super::write::write;
use crate::error::StorageError;
use crate::runtime::backoff::Backoff;
use crate::runtime::batch_queue::{BATCH_BYTES, Queue};
use crate::runtime::engine::Engine;

/// How long a few outcomes wait for others before they are written. Nobody waits for them, and while there is little to do
/// their commit would only compete with that of the next step: the confirm of a message comes when its consumer stores it.
const COMPANY: Duration = Duration::from_millis(1);

/// How many outcomes are enough to be written at once.
const ENOUGH: usize = 8;

/// Writes outcomes until the queue is closed and empty, and every outcome that was set apart is written.
pub(crate) async fn run_outcome_writer(engine: Arc<Engine>, queue: mpsc::Receiver<OutcomeItem>) {
    let mut queue = Queue::from(queue);
    let limit = engine.options.batch_size;
    let size = |item: &OutcomeItem| {
        item.row_completion.publishes.iter().map(|row| row.message.size()).sum::<usize>()
    };
    let mut aside = SetApart::new(limit);
    let drain = engine.lifecycle.stop.writers.clone();
    loop {
        tokio::select! {
            // Dropping either arm loses nothing: `gather` takes items only when it completes, and `due` only waits. When
            // there is no room to set items apart no new ones are taken, so that the queue fills and all senders slow down.
            items = queue.gather(&drain, limit, BATCH_BYTES, size), if aside.has_room() => {
                let Some(mut items) = items else { break };
                if may_wait(&items) && drain.run_until_cancelled(sleep(COMPANY)).await.is_some() {
                    queue.add_queued(&mut items, limit, BATCH_BYTES, size);
                }
                write_all(&engine, items, &mut aside).await;
            }
            () = aside.due(), if !aside.is_empty() => aside.retry(&engine).await,
        }
    }
    while !aside.is_empty() {
        if engine.lifecycle.stop.everything.run_until_cancelled(aside.due()).await.is_none() {
            // The bus ends now: the leases expire and other nodes continue with the messages.
            return;
        }
        aside.retry(&engine).await;
    }
}

/// Whether these outcomes may wait for others: they are few, no task waits until one is written, and none has messages to be
/// sent afterwards.
fn may_wait(items: &[OutcomeItem]) -> bool {
    items.len() < ENOUGH && items.iter().all(|item| item.reply.is_none() && item.after_write.is_none())
}

/// Writes a batch, and retries it for as long as the storage is unavailable. If a batch keeps failing while the storage
/// accepts other writes, it is split until the items at fault are found, which are then set apart.
async fn write_all(engine: &Engine, items: Vec<OutcomeItem>, aside: &mut SetApart) {
    let mut backoff = Backoff::default();
    // Batches, each with whether it has failed before. A half counts as failed, since the whole was.
    let mut rest = vec![(items, false)];
    while let Some((items, failed_before)) = rest.pop() {
        let Tried::Failed(error, mut items) = write_once(engine, items, write).await else { continue };
        let refused = error.as_ref().is_some_and(StorageError::is_refused);
        // A batch that is rejected is split at once, without looking for a reason first.
        let is_at_fault = match (refused && items.len() > 1, refused || failed_before && aside.has_room()) {
            (true, _) => true,
            (false, true) => takes_renewals(engine, &items).await,
            (false, false) => false,
        };
        if !is_at_fault {
            if !backoff.wait(&engine.lifecycle.stop.everything).await {
                return;
            }
            rest.push((items, true));
        } else if items.len() > 1 {
            let half = items.split_off(items.len() / 2);
            rest.push((half, true));
            rest.push((items, true));
        } else if let Some(item) = items.pop() {
            match error {
                Some(error) if refused => {
                    rest.extend(refuse(engine, &error, item).map(|item| (vec![item], false)));
                }
                error => aside.push(item, error.as_ref()),
            }
        }
    }
}
