//! Completes a handler's message in the handler's transaction, and commits.

use cap_adapter::Completion;
use cap_adapter::error::StorageError;
use cap_adapter::faults::point;
use cap_adapter::storage::{NewOutgoing, Side};
use cap_sql::handler_transaction::{HandlerTransaction, ROLLBACK_TIMEOUT, within_time};

use crate::connections::session::{ANSWER_TIMEOUT, now};
use crate::database::error::Fault;
use crate::database::writing::Writing;
use crate::storage::sqlite::Sqlite;
use crate::transactions::open_transaction::Open;
use crate::write::work_left::Work;

impl HandlerTransaction for Open {
    type Storage = Sqlite;

    async fn complete(self, storage: &Sqlite, completion: &Completion) -> Result<bool, StorageError> {
        let completed = within_time(ANSWER_TIMEOUT, self.complete_and_commit(storage, completion)).await;
        completed.map_err(|fault| committing(storage, fault))
    }

    async fn roll_back(self, storage: &Sqlite) -> Result<(), StorageError> {
        let rolled_back = within_time(ROLLBACK_TIMEOUT, self.rollback()).await;
        let target = &storage.shared().connections.target;
        rolled_back.map_err(|fault| fault.into_error("rolling the handler's transaction back", target))
    }

    fn still_in_use(storage: &Sqlite) -> StorageError {
        let reason = "the handler has returned but still uses its SqliteTx, in a task perhaps; it is rolled back, and \
                      nothing can be written before it is dropped";
        committing(storage, Fault::Refused(reason.to_owned()))
    }
}

fn committing(storage: &Sqlite, fault: Fault) -> StorageError {
    fault.into_error("committing the handler's transaction", &storage.shared().connections.target)
}

impl Open {
    async fn complete_and_commit(mut self, storage: &Sqlite, completion: &Completion) -> Result<bool, Fault> {
        match self.write_completion(storage, completion).await {
            Ok(Some(work)) => {
                point("handler-commit.before").await;
                self.commit().await?;
                point("handler-commit.after").await;
                work.wake(&storage.shared().connections.file);
                Ok(true)
            }
            Ok(None) => {
                self.rollback().await?;
                Ok(false)
            }
            Err(fault) => {
                // The first error is more useful than one of the rollback.
                let _ = self.rollback().await;
                Err(fault)
            }
        }
    }

    /// Writes the outcome, and returns what work it leaves. `None` when the lease is lost.
    async fn write_completion(
        &mut self,
        storage: &Sqlite,
        completion: &Completion,
    ) -> Result<Option<Work>, Fault> {
        let Completion { owner, row_completion } = completion;
        let statements = &storage.shared().statements.write;
        self.check().await?;
        let connection = self.connection_mut();
        let writing = Writing { owner, now: now() };
        let mut work = Work::default();
        let row_completions = std::slice::from_ref(row_completion);
        let complete = &statements.completion;
        if complete.complete(connection, writing, Side::Inbox, row_completions, &mut work).await? != [true] {
            return Ok(None);
        }
        let publishes: Vec<&NewOutgoing> = row_completion.publishes.iter().collect();
        let stored = statements.outgoing.insert(connection, writing, &publishes, &mut work).await?;
        row_completion.warn_of_duplicates(stored);
        work.announce(connection, &statements.signals).await?;
        Ok(Some(work))
    }
}
