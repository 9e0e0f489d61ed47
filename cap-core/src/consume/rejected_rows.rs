//! Received messages that the storage rejects: each is stored on its own and, if that fails, parked as far as possible.

use super::ended::Ended;
use super::group_inbox::GroupInbox;
use crate::error::{StorageError, error_chain};
use crate::runtime::batch_queue::BATCH_BYTES;
use crate::runtime::erased::DynConsumer;
use crate::storage::{NewIncoming, Stored};
use crate::transport::Tag;

impl GroupInbox {
    /// Stores the messages of a rejected batch one by one, so that an invalid message delays only itself. A message that
    /// is rejected on its own is parked as far as it can be stored, so that it does not block the queue at the broker
    /// either. Returns how many deliveries had to be left unacknowledged.
    pub(super) async fn one_by_one(
        &self,
        consumer: &mut dyn DynConsumer,
        rows: Vec<NewIncoming>,
        tags: &[Tag],
        rejected: StorageError,
    ) -> Result<usize, Ended> {
        let mut left_behind = 0;
        let mut alone = Some(rejected).filter(|_| rows.len() == 1);
        for (row, tag) in rows.into_iter().zip(tags) {
            match self.store_somehow(row, alone.take()).await {
                Ok((row, stored)) => {
                    self.acknowledge(consumer, &[*tag], self.hold(vec![row], &stored)).await?;
                }
                Err(error) if error.is_refused() => left_behind += 1,
                Err(error) => return Err(Ended::ByStorage(error)),
            }
        }
        Ok(left_behind)
    }

    /// Stores a row that was rejected: first under another row id, then parked. A row larger than a batch may exceed a
    /// limit of the server: it is not retried unchanged if it was `rejected_alone`, and if it cannot be parked as a whole,
    /// it is parked with the first 64 KiB of its body.
    pub(super) async fn store_somehow(
        &self,
        row: NewIncoming,
        rejected_alone: Option<StorageError>,
    ) -> Result<(NewIncoming, Vec<Stored>), StorageError> {
        let is_large = row.message.size() > BATCH_BYTES;
        let row = self.renumbered(row);
        let rejection = match rejected_alone.filter(|_| is_large) {
            Some(rejection) => rejection,
            None => match self.store_one(row.clone()).await {
                Err(error) if error.is_refused() => error,
                stored => return stored,
            },
        };
        let mut tried = self.store_one(self.parked_as_rejected(&row, &rejection)).await;
        if is_large && tried.as_ref().is_err_and(StorageError::is_refused) {
            tried = self.store_one(self.parked_in_part(&row, &rejection)).await;
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

    /// Stores a row; if its message id belongs to another message, stores it apart.
    async fn store_one(&self, row: NewIncoming) -> Result<(NewIncoming, Vec<Stored>), StorageError> {
        let stored = self.store(vec![row.clone()]).await?;
        if stored != [Stored::Conflict] {
            return Ok((row, stored));
        }
        let apart = self.apart(&row);
        Ok((apart.clone(), self.store(vec![apart]).await?))
    }
}
