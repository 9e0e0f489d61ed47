//! Stores composed messages: by the insert writer, in a transaction of the application, or with a handler's success.

use std::sync::Arc;

use cap_adapter::{Delivery, Within};
use tokio::sync::oneshot;

use super::attempt_data::AttemptData;
use super::composer::{Composer, Draft};
use super::outbox::Outbox;
use super::pending_commit::PendingCommit;
use crate::error::{PublishError, StorageError};
use crate::faults::point;
use crate::message::MessageId;
use crate::runtime::health::Phase;
use crate::storage::{NewOutgoing, Stored};
use crate::writer::InsertItem;

/// Where messages are stored.
#[derive(Clone)]
pub(crate) enum Target {
    /// In the outbox.
    Bus(Arc<Outbox>),
    /// In the outbox, together with the success of a message that is being handled.
    Delivery(Delivery),
}

fn compose_all(composer: &Composer, drafts: Vec<Draft>) -> Result<Vec<NewOutgoing>, PublishError> {
    drafts.into_iter().map(|draft| composer.compose(draft)).collect()
}

fn ids(rows: &[NewOutgoing]) -> Vec<MessageId> {
    rows.iter().map(|row| row.message.message_id().unwrap_or_else(|| MessageId::from(row.id))).collect()
}

/// Stores messages outside of a transaction, all of them or none, and returns their ids.
pub(super) async fn store(target: &Target, drafts: Vec<Draft>) -> Result<Vec<MessageId>, PublishError> {
    let Some(topic) = drafts.first().map(|draft| draft.topic.clone()) else { return Ok(Vec::new()) };
    match target {
        Target::Delivery(delivery) => {
            let Some(part) = AttemptData::of(delivery) else {
                return Err(PublishError::HandlerEnded { topic });
            };
            let rows = compose_all(part.composer(), drafts)?;
            let ids = ids(&rows);
            if part.add_publishes(rows) { Ok(ids) } else { Err(PublishError::HandlerEnded { topic }) }
        }
        Target::Bus(outbox) => {
            let timeout = outbox.engine.options.publish_timeout;
            let stored = tokio::time::timeout(timeout, store_in_outbox(outbox, &topic, drafts));
            stored.await.unwrap_or(Err(PublishError::TimedOut { topic, timeout }))
        }
    }
}

async fn store_in_outbox(
    outbox: &Arc<Outbox>,
    topic: &str,
    drafts: Vec<Draft>,
) -> Result<Vec<MessageId>, PublishError> {
    accepting(outbox, topic).await?;
    let mut rows = compose_all(&outbox.composer, drafts)?;
    let mut after_commit = PendingCommit::new(Arc::clone(outbox));
    for row in &mut rows {
        after_commit.admit(row);
    }
    let ids = ids(&rows);
    let (reply, stored) = oneshot::channel();
    let shut_down = || PublishError::ShutDown { topic: topic.to_owned() };
    // The insert writer owns `after_commit`, not this future: stored messages are dispatched even if the future is dropped.
    outbox
        .inserts
        .send(InsertItem::Outgoing { rows, after_write: Box::new(after_commit), reply })
        .await
        .map_err(|_| shut_down())?;
    let stored = stored.await.map_err(|_| shut_down())?;
    let stored = stored.map_err(|source| PublishError::Storage { topic: topic.to_owned(), source })?;
    refuse_duplicates(&stored, &ids)?;
    Ok(ids)
}

/// Stores messages in a transaction of the application, and returns their ids.
pub(super) async fn store_within<S: 'static, T: Within<S> + ?Sized>(
    target: &Target,
    drafts: Vec<Draft>,
    transaction: &mut T,
) -> Result<Vec<MessageId>, PublishError> {
    let Some(topic) = drafts.first().map(|draft| draft.topic.clone()) else { return Ok(Vec::new()) };
    let Target::Bus(outbox) = target else {
        return Err(PublishError::WithinDelivery { topic });
    };
    accepting(outbox, &topic).await?;
    let Some(storage) = outbox.engine.storage.as_any().downcast_ref::<S>() else {
        return Err(PublishError::ForeignTransaction { bus: outbox.engine.storage.name() });
    };
    let mut rows = compose_all(&outbox.composer, drafts)?;
    let ids = ids(&rows);
    if T::WATCHED && transaction.after_commit().is_none() {
        let stored = store_watched(outbox, storage, &mut rows, transaction).await;
        let stored = stored.map_err(|source| PublishError::Storage { topic, source })?;
        refuse_duplicates(&stored, &ids)?;
        log_stored_within(&rows);
        return Ok(ids);
    }
    // Given to the transaction before the rows are stored, as uncertain: the caller may drop this future and then commit.
    let mut before = None;
    if let Some(after_commit) = transaction.after_commit().and_then(PendingCommit::behind) {
        let mut pending = PendingCommit::new(Arc::clone(outbox));
        for row in &mut rows {
            pending.admit_open(row);
        }
        before = Some(after_commit.absorb(pending));
    }
    point("within.before").await;
    let stored = transaction.store(storage, &outbox.engine.storage.owner, &rows).await;
    point("within.after").await;
    let stored = match stored {
        Ok(stored) => refuse_duplicates(&stored, &ids),
        Err(source) => Err(PublishError::Storage { topic, source }),
    };
    if let (Some(after_commit), Some(before)) =
        (transaction.after_commit().and_then(PendingCommit::behind), before)
    {
        match &stored {
            Ok(()) => after_commit.confirm(before),
            Err(_) => after_commit.retract(before),
        }
    }
    stored?;
    log_stored_within(&rows);
    Ok(ids)
}

fn log_stored_within(rows: &[NewOutgoing]) {
    for row in rows {
        let (message_id, topic) = (row.message.id(), row.message.name());
        tracing::debug!(message_id, topic, "stored in the caller's transaction; sent when it commits");
    }
}

/// Stores messages in a transaction whose commit is not reported, and watches for it.
async fn store_watched<S: 'static, T: Within<S> + ?Sized>(
    outbox: &Arc<Outbox>,
    storage: &S,
    rows: &mut [NewOutgoing],
    transaction: &mut T,
) -> Result<Vec<Stored>, StorageError> {
    let mut pending = PendingCommit::of_transaction(Arc::clone(outbox));
    for row in &mut *rows {
        pending.admit_open(row);
    }
    // If this future is dropped from here on, or the answer is lost, the bus checks whether the rows are stored.
    pending.trying();
    point("within.before").await;
    let stored = transaction.store_watched(storage, &outbox.engine.storage.owner, rows).await;
    point("within.after").await;
    match stored {
        Ok((stored, Some(transaction))) => {
            // Watched even if one of them is a duplicate: the caller may commit the others nevertheless.
            outbox.open_commits.watch(transaction, pending.into_uncommitted(), &outbox.metrics);
            Ok(stored)
        }
        Ok((stored, None)) => Ok(stored),
        Err(error) => {
            if error.is_refused() {
                pending.not_committed();
            }
            Err(error)
        }
    }
}

/// Waits until the bus accepts messages.
async fn accepting(outbox: &Outbox, topic: &str) -> Result<(), PublishError> {
    let timeout = outbox.engine.options.publish_timeout;
    match tokio::time::timeout(timeout, outbox.engine.lifecycle.phase.started()).await {
        Ok(Phase::Running) => Ok(()),
        Ok(_) => Err(PublishError::ShutDown { topic: topic.to_owned() }),
        Err(_) => {
            let why = outbox.engine.storage.health.get().error.unwrap_or_default();
            let source = outbox.engine.storage.unavailable(format!("unreachable since the start: {why}"));
            Err(PublishError::Storage { topic: topic.to_owned(), source })
        }
    }
}

fn refuse_duplicates(stored: &[Stored], ids: &[MessageId]) -> Result<(), PublishError> {
    match stored.iter().position(|stored| *stored == Stored::Duplicate) {
        Some(index) => Err(PublishError::DuplicateId { id: ids[index].clone() }),
        None => Ok(()),
    }
}
