//! Every statement, prepared for the prefix of the tables.
//!
//! No statement joins tables. A row is looked up by its key in one table at a time, or rows by an index that is named:
//! then SQLite's planner has nothing to choose. After an `ANALYZE` of small tables, which an application may run at any
//! moment, it would go through whole tables, and keep to that as they grow.

use crate::claim::claim_due::ClaimDue;
use crate::claim::crash_marks::CrashMarks;
use crate::claim::lease_renewal::LeaseRenewal;
use crate::claim::retry_at_broker::RetryAtBroker;
use crate::database::table_prefix::TablePrefix;
use crate::maintenance::expiry::ExpiredMessages;
use crate::maintenance::shared_key::SharedKeyRow;
use crate::maintenance::worker_id::WorkerIds;
use crate::monitor::audit::Audit;
use crate::monitor::change_messages::ChangeMessages;
use crate::monitor::counts::Counts;
use crate::monitor::find_messages::FindMessages;
use crate::monitor::lags::Lags;
use crate::monitor::search::Searching;
use crate::write::batch::BatchWriter;

/// The statements of a storage, by what they do.
#[derive(Debug)]
pub(crate) struct Statements {
    pub(crate) write: BatchWriter,
    pub(crate) claim_due: ClaimDue,
    pub(crate) retry_at_broker: RetryAtBroker,
    pub(crate) crash_marks: CrashMarks,
    pub(crate) lease_renewal: LeaseRenewal,
    pub(crate) expired_messages: ExpiredMessages,
    pub(crate) worker_ids: WorkerIds,
    pub(crate) shared_key: SharedKeyRow,
    pub(crate) find_messages: FindMessages,
    pub(crate) searching: Searching,
    pub(crate) change_messages: ChangeMessages,
    pub(crate) counts: Counts,
    pub(crate) audit: Audit,
    pub(crate) lags: Lags,
}

impl Statements {
    pub(crate) fn prepare(prefix: &TablePrefix) -> Self {
        let templates = &prefix.templates();
        Self {
            write: BatchWriter::prepare(templates),
            claim_due: ClaimDue::prepare(templates),
            retry_at_broker: RetryAtBroker::prepare(templates),
            crash_marks: CrashMarks::prepare(templates),
            lease_renewal: LeaseRenewal::prepare(templates),
            expired_messages: ExpiredMessages::prepare(templates),
            worker_ids: WorkerIds::prepare(templates),
            shared_key: SharedKeyRow::prepare(templates),
            find_messages: FindMessages::prepare(templates),
            searching: Searching::prepare(templates),
            change_messages: ChangeMessages::prepare(templates),
            counts: Counts::prepare(templates),
            audit: Audit::prepare(templates),
            lags: Lags::prepare(templates),
        }
    }
}
