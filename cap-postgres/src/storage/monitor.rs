//! The storage as operators use it.

use std::time::Duration;

use cap_adapter::error::StorageError;
use cap_adapter::monitor::{
    Act, Among, BoundedCounts, Change, Count, FailedAttempt, Lag, Monitor, NewAct, Query, Row, SearchLimits,
    SearchPage,
};
use cap_adapter::storage::Side;

use crate::connections::server::Purpose;
use crate::storage::postgres::Postgres;

impl Monitor for Postgres {
    async fn list(&self, query: &Query) -> Result<Vec<Row>, StorageError> {
        let shared = self.shared();
        let mut session = self.session(Purpose::Operators, "listing messages").await?;
        let messages = &shared.statements.find_messages;
        session.run(|connection| messages.list(connection, shared.encoding(), query)).await
    }

    async fn list_ids(&self, query: &Query) -> Result<Vec<i64>, StorageError> {
        let shared = self.shared();
        let mut session = self.session(Purpose::Operators, "listing the ids of messages").await?;
        let messages = &shared.statements.find_messages;
        session.run(|connection| messages.list_ids(connection, shared.encoding(), query)).await
    }

    async fn search(&self, query: &Query, limits: &SearchLimits) -> Result<SearchPage, StorageError> {
        let shared = self.shared();
        let mut session = self.session(Purpose::Operators, "searching for messages").await?;
        let statements = &shared.statements;
        let place = (&statements.find_messages, shared.encoding());
        session.run(|connection| statements.searching.search(connection, place, query, limits)).await
    }

    async fn get(&self, side: Side, id: i64) -> Result<Option<Row>, StorageError> {
        let messages = &self.shared().statements.find_messages;
        let mut session = self.session(Purpose::Operators, "reading a message").await?;
        session.run(|connection| messages.get(connection, side, id)).await
    }

    async fn find(&self, side: Side, message_id: &str) -> Result<Vec<Row>, StorageError> {
        let shared = self.shared();
        let mut session = self.session(Purpose::Operators, "looking for a message").await?;
        let messages = &shared.statements.find_messages;
        session.run(|connection| messages.find(connection, shared.encoding(), side, message_id)).await
    }

    async fn attempts(&self, side: Side, id: i64) -> Result<Vec<FailedAttempt>, StorageError> {
        let messages = &self.shared().statements.find_messages;
        let mut session = self.session(Purpose::Operators, "reading the attempts of a message").await?;
        session.run(|connection| messages.attempts(connection, side, id)).await
    }

    async fn rerun(
        &self,
        side: Side,
        ids: &[i64],
        among: Among,
        change: &Change,
    ) -> Result<Vec<i64>, StorageError> {
        let shared = self.shared();
        let mut session = self.session(Purpose::Operators, "re-running messages").await?;
        let messages = &shared.statements.change_messages;
        let place = (&*shared.channel, shared.encoding());
        session.run(|connection| messages.rerun(connection, place, side, ids, among, change)).await
    }

    async fn cancel(&self, ids: &[i64], keep: Duration) -> Result<Vec<i64>, StorageError> {
        let messages = &self.shared().statements.change_messages;
        let mut session = self.session(Purpose::Operators, "cancelling messages").await?;
        session.run(|connection| messages.cancel(connection, ids, keep)).await
    }

    async fn delete(&self, side: Side, ids: &[i64], among: Among) -> Result<Vec<i64>, StorageError> {
        let messages = &self.shared().statements.change_messages;
        let mut session = self.session(Purpose::Operators, "deleting messages").await?;
        session.run(|connection| messages.delete(connection, side, ids, among)).await
    }

    async fn bounded_counts(&self, limit: u32) -> Result<Option<BoundedCounts>, StorageError> {
        let shared = self.shared();
        shared.statements.bounded_counting.count(&shared.server, limit).await
    }

    async fn record(&self, act: &NewAct) -> Result<(), StorageError> {
        let audit = &self.shared().statements.audit;
        let mut session = self.session(Purpose::Operators, "recording an act").await?;
        session.run(|connection| audit.record(connection, act)).await
    }

    async fn acts(&self, before: Option<i64>, limit: usize) -> Result<Vec<Act>, StorageError> {
        let audit = &self.shared().statements.audit;
        let mut session = self.session(Purpose::Operators, "listing acts").await?;
        session.run(|connection| audit.list(connection, before, limit)).await
    }

    async fn lags(&self) -> Result<Option<Vec<Lag>>, StorageError> {
        let lags = &self.shared().statements.lags;
        let mut session = self.session(Purpose::Operators, "reading the lags").await?;
        session.run(|connection| lags.read(connection)).await.map(Some)
    }

    async fn counts(&self) -> Result<Vec<Count>, StorageError> {
        let counts = &self.shared().statements.counts;
        let mut session = self.session(Purpose::Operators, "counting messages").await?;
        session.run(|connection| counts.count(connection)).await
    }
}
