//! The storage as the bus uses it.

use std::any::Any;
use std::time::Duration;

use cap_adapter::error::StorageError;
use cap_adapter::storage::{
    ClaimRequest, Claimed, Claims, Expiry, Lease, NodeRequest, Owner, SharedKey, Side, StartMark, Storage,
    Wake, WriteBatch, WriteReport,
};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::claim::claim_due::Wanted;
use crate::connections::file_mode;
use crate::database::error::NAME;
use crate::maintenance::polling::listen;
use crate::schema::creation::initialize;
use crate::storage::sqlite::Sqlite;

/// How long processes that initialize a new file at the same time give way to each other.
const INITIALIZE_TIMEOUT: Duration = Duration::from_secs(5);

impl Storage for Sqlite {
    fn name(&self) -> &'static str {
        NAME
    }

    fn check(&self) -> Result<(), StorageError> {
        self.prefix
            .check()
            .map_err(|fault| fault.into_error("checking the settings", &self.shared().connections.target))
    }

    async fn initialize(&self) -> Result<(), StorageError> {
        let new = file_mode::if_missing(self.application.connect_options().get_filename());
        let deadline = Instant::now() + INITIALIZE_TIMEOUT;
        loop {
            let prepared = async {
                let mut session = self.shared().connections.writer("preparing the tables").await?;
                session.run(|connection| initialize(connection, &self.prefix)).await
            };
            match prepared.await {
                // SQLite does not wait for the lock that it needs to put a new file into WAL mode.
                Err(error) if error.is_unavailable() && Instant::now() < deadline => {
                    sleep(Duration::from_millis(20)).await;
                }
                result => {
                    if let Some(new) = &new {
                        file_mode::restrict(new);
                    }
                    return result;
                }
            }
        }
    }

    async fn join(&self, request: &NodeRequest) -> Result<u16, StorageError> {
        let statements = &self.shared().statements;
        let mut session = self.shared().connections.writer("claiming a worker id").await?;
        session.run(|connection| statements.worker_ids.join(connection, request)).await
    }

    async fn keep_alive(&self, request: &NodeRequest, worker: u16) -> Result<bool, StorageError> {
        let statements = &self.shared().statements;
        let mut session = self.shared().connections.writer("renewing the worker id").await?;
        session.run(|connection| statements.worker_ids.keep_alive(connection, request, worker)).await
    }

    async fn leave(&self, node: &str, worker: u16) -> Result<(), StorageError> {
        let statements = &self.shared().statements;
        let mut session = self.shared().connections.writer("releasing the worker id").await?;
        session.run(|connection| statements.worker_ids.leave(connection, node, worker)).await
    }

    async fn shared_key(&self, fresh: &SharedKey) -> Result<Option<SharedKey>, StorageError> {
        let statements = &self.shared().statements;
        let mut session = self.shared().connections.writer("reading the key of these tables").await?;
        let key = session.run(|connection| statements.shared_key.get(connection, fresh)).await?;
        Ok(Some(key))
    }

    async fn write(&self, owner: &Owner, batch: &WriteBatch) -> Result<WriteReport, StorageError> {
        if batch.is_empty() {
            return Ok(WriteReport::default());
        }
        let statements = &self.shared().statements;
        let mut session = self.shared().connections.writer("writing messages").await?;
        let (report, work) =
            session.run(|connection| statements.write.write(connection, owner, batch)).await?;
        work.wake(&self.shared().connections.file);
        Ok(report)
    }

    async fn claim(&self, owner: &Owner, request: &ClaimRequest) -> Result<Claims, StorageError> {
        const OPERATION: &str = "claiming messages";
        let shared = self.shared();
        let wanted = Wanted::new(&shared.statements.claim_due, owner, request);
        let wanted = wanted.map_err(|fault| fault.into_error(OPERATION, &shared.connections.target))?;
        let mut session = shared.connections.reader(OPERATION).await?;
        if let Some(claims) = session.run(|connection| wanted.nothing_due(connection)).await? {
            return Ok(claims);
        }
        drop(session);
        let completion = &shared.statements.write.completion;
        let mut session = shared.connections.writer(OPERATION).await?;
        session.run(|connection| wanted.claim(connection, completion)).await
    }

    async fn claim_waiting(
        &self,
        owner: &Owner,
        leases: &[Lease],
    ) -> Result<Vec<Option<Claimed>>, StorageError> {
        if leases.is_empty() {
            return Ok(Vec::new());
        }
        let statements = &self.shared().statements;
        let mut session =
            self.shared().connections.writer("claiming messages that the broker has kept").await?;
        session
            .run(|connection| {
                statements.retry_at_broker.claim(connection, owner, &statements.write.completion, leases)
            })
            .await
    }

    async fn mark_started(&self, _owner: &Owner, marks: &[StartMark]) -> Result<Vec<bool>, StorageError> {
        let statements = &self.shared().statements;
        let mut session = self.shared().connections.writer("noting that a handler starts").await?;
        session.run(|connection| statements.crash_marks.mark_started(connection, marks)).await
    }

    async fn withdraw_crashes(&self, leases: &[Lease]) -> Result<(), StorageError> {
        let statements = &self.shared().statements;
        let mut session = self.shared().connections.writer("taking crashes back").await?;
        session.run(|connection| statements.crash_marks.withdraw_crashes(connection, leases)).await
    }

    async fn renew(&self, owner: &Owner, side: Side, leases: &[Lease]) -> Result<Vec<bool>, StorageError> {
        if leases.is_empty() {
            return Ok(Vec::new());
        }
        let statements = &self.shared().statements;
        let mut session = self.shared().connections.writer("renewing leases").await?;
        session.run(|connection| statements.lease_renewal.renew(connection, owner, side, leases)).await
    }

    async fn delete_expired(&self, expiry: &Expiry) -> Result<(u64, u64), StorageError> {
        let statements = &self.shared().statements;
        let mut session = self.shared().connections.writer("deleting expired messages").await?;
        session
            .run(|connection| {
                statements.expired_messages.delete_all_expired(
                    connection,
                    &statements.write.completion.deletion,
                    expiry,
                )
            })
            .await
    }

    async fn listen(&self, wake: Wake, cancelled: CancellationToken) {
        let shared = self.shared();
        let signals = &shared.statements.write.signals;
        listen(&shared.connections, signals, &wake, &cancelled).await;
    }

    fn apart(&self) -> Option<Self> {
        Some(self.on_own_connections())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
