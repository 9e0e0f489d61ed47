//! What becomes of received messages that the storage refuses: each is tried alone, then parked, as far as it can be.

use super::ended::Ended;
use super::group_inbox::GroupInbox;
use crate::error::{StorageError, error_chain};
use crate::runtime::batch_queue::BATCH_BYTES;
use crate::runtime::erased::DynConsumer;
use crate::storage::{NewIncoming, Stored};
use crate::transport::Tag;

impl GroupInbox {
    /// The store has refused the batch: each message is tried alone, so that a bad one holds up none but itself. One
    /// that is refused alone is parked as far as it can be stored, so that it is in nobody's way at the broker either.
    pub(super) async fn one_by_one(
        &self,
        consumer: &mut dyn DynConsumer,
        rows: Vec<NewIncoming>,
        tags: &[Tag],
        refused: StorageError,
    ) -> Result<usize, Ended> {
        let mut left_behind = 0;
        let mut alone = Some(refused).filter(|_| rows.len() == 1);
        for (row, tag) in rows.into_iter().zip(tags) {
            match self.store_somehow(row, alone.take()).await {
                Ok((row, stored)) => {
                    self.acknowledge(consumer, &[*tag], self.hold(vec![row], &stored)).await?;
                }
                Err(error) if error.is_refused() => left_behind += 1,
                Err(error) => return Err(Ended::ByStore(error)),
            }
        }
        Ok(left_behind)
    }

    /// Stores a row that was refused: under another id, or else parked. What is larger than a batch may be too much for a
    /// limit of the server's: it is not tried again where it was `refused_alone`, and if it cannot be parked either, its
    /// first 64 KiB are.
    pub(super) async fn store_somehow(
        &self,
        row: NewIncoming,
        refused_alone: Option<StorageError>,
    ) -> Result<(NewIncoming, Vec<Stored>), StorageError> {
        let is_large = row.message.size() > BATCH_BYTES;
        let row = self.renumbered(row);
        let refused = match refused_alone.filter(|_| is_large) {
            Some(refused) => refused,
            None => match self.store_one(row.clone()).await {
                Err(error) if error.is_refused() => error,
                stored => return stored,
            },
        };
        let mut tried = self.store_one(self.parked_as_refused(&row, &refused)).await;
        if is_large && tried.as_ref().is_err_and(StorageError::is_refused) {
            tried = self.store_one(self.parked_in_part(&row, &refused)).await;
        }
        tried.inspect_err(|error| {
            tracing::error!(
                group = &*row.group,
                message_id = row.message.id(),
                topic = row.message.name(),
                error = error_chain(error),
                "storage rejected a received message; it stays unacknowledged at the broker"
            );
        })
    }

    /// Stores a row, apart if another message has its id.
    async fn store_one(&self, row: NewIncoming) -> Result<(NewIncoming, Vec<Stored>), StorageError> {
        let stored = self.store(vec![row.clone()]).await?;
        if stored != [Stored::Conflict] {
            return Ok((row, stored));
        }
        let apart = self.apart(&row);
        Ok((apart.clone(), self.store(vec![apart]).await?))
    }
}
