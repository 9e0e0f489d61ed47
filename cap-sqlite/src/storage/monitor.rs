//! The storage as operators use it.

use std::time::Duration;

use cap_adapter::error::StorageError;
use cap_adapter::monitor::{
    Act, Among, BoundedCounts, Change, Count, FailedAttempt, Lag, Monitor, NewAct, Query, Row, SearchLimits,
    SearchPage,
};
use cap_adapter::storage::Side;

use crate::storage::sqlite::Sqlite;

impl Monitor for Sqlite {
    async fn list(&self, query: &Query) -> Result<Vec<Row>, StorageError> {
        let shared = self.shared();
        let mut session = shared.connections.reader("listing messages").await?;
        session.run(|connection| shared.statements.find_messages.list(connection, query)).await
    }

    async fn list_ids(&self, query: &Query) -> Result<Vec<i64>, StorageError> {
        let shared = self.shared();
        let mut session = shared.connections.reader("listing the ids of messages").await?;
        session.run(|connection| shared.statements.find_messages.list_ids(connection, query)).await
    }

    async fn search(&self, query: &Query, limits: &SearchLimits) -> Result<SearchPage, StorageError> {
        let shared = self.shared();
        let mut session = shared.connections.reader("searching for messages").await?;
        let statements = &shared.statements;
        let find = &statements.find_messages;
        session.run(|connection| statements.searching.search(connection, find, query, limits)).await
    }

    async fn get(&self, side: Side, id: i64) -> Result<Option<Row>, StorageError> {
        let shared = self.shared();
        let mut session = shared.connections.reader("reading a message").await?;
        session.run(|connection| shared.statements.find_messages.get(connection, side, id)).await
    }

    async fn find(&self, side: Side, message_id: &str) -> Result<Vec<Row>, StorageError> {
        if message_id.is_empty() {
            return Ok(Vec::new());
        }
        let shared = self.shared();
        let mut session = shared.connections.reader("looking for a message").await?;
        session.run(|connection| shared.statements.find_messages.find(connection, side, message_id)).await
    }

    async fn attempts(&self, side: Side, id: i64) -> Result<Vec<FailedAttempt>, StorageError> {
        let shared = self.shared();
        let mut session = shared.connections.reader("reading the attempts of a message").await?;
        session.run(|connection| shared.statements.find_messages.attempts(connection, side, id)).await
    }

    async fn rerun(
        &self,
        side: Side,
        ids: &[i64],
        among: Among,
        change: &Change,
    ) -> Result<Vec<i64>, StorageError> {
        let shared = self.shared();
        let mut session = shared.connections.writer("re-running messages").await?;
        let (messages, signals) = (&shared.statements.change_messages, &shared.statements.write.signals);
        let done =
            session.run(|connection| messages.rerun(connection, signals, side, ids, among, change)).await?;
        if !done.is_empty() {
            shared.connections.file.wake(side);
        }
        Ok(done)
    }

    async fn cancel(&self, ids: &[i64], keep: Duration) -> Result<Vec<i64>, StorageError> {
        let shared = self.shared();
        let mut session = shared.connections.writer("cancelling messages").await?;
        session.run(|connection| shared.statements.change_messages.cancel(connection, ids, keep)).await
    }

    async fn delete(&self, side: Side, ids: &[i64], among: Among) -> Result<Vec<i64>, StorageError> {
        let shared = self.shared();
        let mut session = shared.connections.writer("deleting messages").await?;
        let messages = &shared.statements.change_messages;
        let deletion = &shared.statements.write.completion.deletion;
        session.run(|connection| messages.delete(connection, deletion, side, ids, among)).await
    }

    async fn bounded_counts(&self, limit: u32) -> Result<Option<BoundedCounts>, StorageError> {
        let shared = self.shared();
        let mut session = shared.connections.reader("counting messages for health").await?;
        session.run(|connection| shared.statements.counts.count_bounded(connection, limit)).await.map(Some)
    }

    async fn record(&self, act: &NewAct) -> Result<(), StorageError> {
        let shared = self.shared();
        let mut session = shared.connections.writer("recording an act").await?;
        session.run(|connection| shared.statements.audit.record(connection, act)).await
    }

    async fn acts(&self, before: Option<i64>, limit: usize) -> Result<Vec<Act>, StorageError> {
        let shared = self.shared();
        let mut session = shared.connections.reader("listing acts").await?;
        session.run(|connection| shared.statements.audit.list(connection, before, limit)).await
    }

    async fn lags(&self) -> Result<Option<Vec<Lag>>, StorageError> {
        let shared = self.shared();
        let mut session = shared.connections.reader("reading the lags").await?;
        session.run(|connection| shared.statements.lags.read(connection)).await.map(Some)
    }

    async fn counts(&self) -> Result<Vec<Count>, StorageError> {
        let shared = self.shared();
        let mut session = shared.connections.reader("counting messages").await?;
        session.run(|connection| shared.statements.counts.count(connection)).await
    }
}
