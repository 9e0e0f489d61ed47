//! The storage as the bus uses it.

use std::any::Any;

use cap_adapter::error::StorageError;
use cap_adapter::storage::{
    ClaimRequest, Claimed, Claims, Expiry, Lease, LookedFor, NodeRequest, Owner, SharedKey, Side, StartMark,
    Storage, TransactionId, Wake, WriteBatch, WriteReport,
};
use tokio_util::sync::CancellationToken;

use crate::connections::server::Purpose;
use crate::connections::tls;
use crate::database::encoding::{Encoding, fits};
use crate::database::error::{Fault, NAME};
use crate::maintenance::notify::{Channel, announce, listen};
use crate::schema::creation::initialize;
use crate::storage::postgres::{Postgres, bad_url};

impl Storage for Postgres {
    fn name(&self) -> &'static str {
        NAME
    }

    fn check(&self) -> Result<(), StorageError> {
        let checked = if self.bad_direct { Err(bad_url()) } else { self.schema.check() };
        let checked = checked.and_then(|()| {
            tls::check(&self.source.options(), self.unverified_transport, self.shared().server.target())
        });
        checked.map_err(|fault| fault.into_error("checking the settings", self.shared().server.target()))
    }

    async fn initialize(&self) -> Result<(), StorageError> {
        let checked = self.source.check_sessions().await;
        checked
            .map_err(|fault| fault.into_error("checking the connections", self.shared().server.target()))?;
        let mut session = self.session(Purpose::Bus, "preparing the schema").await?;
        session.run(|connection| initialize(connection, &self.schema, &self.trust)).await?;
        let encoding: String = session
            .run(async |connection| {
                let ask = sqlx::query_scalar("SELECT pg_catalog.getdatabaseencoding()::text");
                Ok(ask.fetch_one(connection).await?)
            })
            .await?;
        let is_first = self.shared().encoding.set(Encoding::named(&encoding)).is_ok();
        if is_first && !matches!(self.shared().encoding(), Encoding::Utf8) {
            tracing::warn!(
                encoding,
                "database encoding is not UTF8: messages with other ids or topics are parked; recreate it with UTF8"
            );
        }
        Ok(())
    }

    async fn check_names(&self, names: &[&str]) -> Result<(), StorageError> {
        if matches!(self.shared().encoding(), Encoding::Utf8) {
            return Ok(());
        }
        let mut session = self.session(Purpose::Bus, "checking names").await?;
        session
            .run(async |connection| {
                for name in names.iter().filter(|name| !name.is_ascii()) {
                    if !fits(connection, name).await? {
                        return Err(Fault::Unusable(format!(
                            "the encoding of the database lacks characters of {name:?}: take another name, or a database \
                             with UTF8"
                        )));
                    }
                }
                Ok(())
            })
            .await
    }

    async fn join(&self, request: &NodeRequest) -> Result<u16, StorageError> {
        let statements = &self.shared().statements;
        let mut session = self.session(Purpose::Bus, "claiming a worker id").await?;
        session.run(|connection| statements.worker_ids.join(connection, &self.schema, request)).await
    }

    async fn keep_alive(&self, request: &NodeRequest, worker: u16) -> Result<bool, StorageError> {
        let statements = &self.shared().statements;
        let mut session = self.session(Purpose::Bus, "renewing the worker id").await?;
        session.run(|connection| statements.worker_ids.keep_alive(connection, request, worker)).await
    }

    async fn leave(&self, node: &str, worker: u16) -> Result<(), StorageError> {
        let statements = &self.shared().statements;
        let mut session = self.session(Purpose::Bus, "releasing the worker id").await?;
        session.run(|connection| statements.worker_ids.leave(connection, node, worker)).await
    }

    async fn shared_key(&self, fresh: &SharedKey) -> Result<Option<SharedKey>, StorageError> {
        let statements = &self.shared().statements;
        let mut session = self.session(Purpose::Bus, "reading the key of this schema").await?;
        let key = session.run(|connection| statements.shared_key.get(connection, fresh)).await?;
        Ok(Some(key))
    }

    async fn write(&self, owner: &Owner, batch: &WriteBatch) -> Result<WriteReport, StorageError> {
        if batch.is_empty() {
            return Ok(WriteReport::default());
        }
        let statements = &self.shared().statements;
        let mut session = self.session(Purpose::Bus, "writing messages").await?;
        session.run(|connection| statements.write.write(connection, self.writing(owner), batch)).await
    }

    async fn claim(&self, owner: &Owner, request: &ClaimRequest) -> Result<Claims, StorageError> {
        let statements = &self.shared().statements;
        let mut session = self.session(Purpose::Bus, "claiming messages").await?;
        session
            .run(|connection| {
                statements.claim_due.claim(
                    connection,
                    self.writing_once(owner),
                    &statements.write.completion,
                    request,
                )
            })
            .await
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
        let mut session = self.session(Purpose::Bus, "claiming messages that the broker has kept").await?;
        session
            .run(|connection| {
                statements.retry_at_broker.claim(
                    connection,
                    self.writing_once(owner),
                    &statements.write.completion,
                    leases,
                )
            })
            .await
    }

    async fn mark_started(&self, _owner: &Owner, marks: &[StartMark]) -> Result<Vec<bool>, StorageError> {
        let statements = &self.shared().statements;
        let mut session = self.session(Purpose::Bus, "noting that a handler starts").await?;
        session.run(|connection| statements.crash_marks.mark_started(connection, marks)).await
    }

    async fn withdraw_crashes(&self, leases: &[Lease]) -> Result<(), StorageError> {
        let statements = &self.shared().statements;
        let mut session = self.session(Purpose::Bus, "taking crashes back").await?;
        session.run(|connection| statements.crash_marks.withdraw_crashes(connection, leases)).await
    }

    async fn renew(&self, owner: &Owner, side: Side, leases: &[Lease]) -> Result<Vec<bool>, StorageError> {
        if leases.is_empty() {
            return Ok(Vec::new());
        }
        let statements = &self.shared().statements;
        let mut session = self.session(Purpose::Bus, "renewing leases").await?;
        session.run(|connection| statements.lease_renewal.renew(connection, owner, side, leases)).await
    }

    async fn look_for(
        &self,
        transactions: &[TransactionId],
        rows: &[i64],
    ) -> Result<LookedFor, StorageError> {
        let statements = &self.shared().statements;
        let mut session = self.session(Purpose::Bus, "looking for committed messages").await?;
        session.run(|connection| statements.commit_lookup.look_for(connection, transactions, rows)).await
    }

    async fn announce(&self, side: Side) -> Result<(), StorageError> {
        let mut session = self.session(Purpose::Bus, "announcing messages to other nodes").await?;
        session.run(|connection| announce(connection, self.notification_channel(), side)).await
    }

    async fn delete_expired(&self, expiry: &Expiry) -> Result<(u64, u64), StorageError> {
        let statements = &self.shared().statements;
        let mut session = self.session(Purpose::Bus, "deleting expired messages").await?;
        session.run(|connection| statements.expired_messages.delete_all_expired(connection, expiry)).await
    }

    async fn listen(&self, wake: Wake, cancelled: CancellationToken) {
        let shared = self.shared();
        let channel = Channel { source: &self.source, server: &shared.server, name: &shared.channel };
        listen(channel, &wake, &cancelled).await;
    }

    fn apart(&self) -> Option<Self> {
        Some(self.on_own_connection())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
