//! The store in memory, on a clock that stands still.

use std::time::Duration;

use cap_core::error::StorageError;
use cap_core::memory::MemoryStorage;
use cap_core::storage::{NewOutgoing, Owner, Storage as _, Stored, WriteBatch};

use crate::Subject;

/// A store in memory. It must be made on a runtime whose time is paused.
#[derive(Debug, Default)]
pub struct Memory(MemoryStorage);

impl Subject for Memory {
    type Store = MemoryStorage;

    const EXACT: bool = true;
    const COARSE: bool = true;

    fn store(&self) -> &MemoryStorage {
        &self.0
    }

    async fn pass(&self, time: Duration) -> Result<(), StorageError> {
        tokio::time::advance(time).await;
        Ok(())
    }

    async fn publish_within(
        &self,
        owner: &Owner,
        messages: &[NewOutgoing],
        commit: bool,
    ) -> Result<Vec<Stored>, StorageError> {
        if !commit {
            return Ok(Vec::new());
        }
        let batch = WriteBatch { outgoing: messages.to_vec(), ..WriteBatch::default() };
        Ok(self.0.write(owner, &batch).await?.outgoing)
    }
}
