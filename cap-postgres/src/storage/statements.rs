//! Every statement, prepared for the name of the schema.

use crate::claim::claim_due::ClaimDue;
use crate::claim::crash_marks::CrashMarks;
use crate::claim::lease_renewal::LeaseRenewal;
use crate::claim::retry_at_broker::RetryAtBroker;
use crate::database::schema_name::SchemaName;
use crate::maintenance::commit_lookup::CommitLookup;
use crate::maintenance::expiry::ExpiredMessages;
use crate::maintenance::shared_key::SharedKeyRow;
use crate::maintenance::worker_id::WorkerIds;
use crate::monitor::audit::Audit;
use crate::monitor::bounded_counts::BoundedCounting;
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
    pub(crate) commit_lookup: CommitLookup,
    pub(crate) expired_messages: ExpiredMessages,
    pub(crate) worker_ids: WorkerIds,
    pub(crate) shared_key: SharedKeyRow,
    pub(crate) find_messages: FindMessages,
    pub(crate) searching: Searching,
    pub(crate) change_messages: ChangeMessages,
    pub(crate) counts: Counts,
    pub(crate) audit: Audit,
    pub(crate) lags: Lags,
    pub(crate) bounded_counting: BoundedCounting,
    /// The schema's function that completes a message, as SQL names it.
    pub(crate) forget: String,
}

impl Statements {
    pub(crate) fn prepare(schema: &SchemaName) -> Self {
        let templates = &schema.templates();
        Self {
            write: BatchWriter::prepare(templates),
            claim_due: ClaimDue::prepare(templates),
            retry_at_broker: RetryAtBroker::prepare(templates),
            crash_marks: CrashMarks::prepare(templates),
            lease_renewal: LeaseRenewal::prepare(templates),
            commit_lookup: CommitLookup::prepare(templates),
            expired_messages: ExpiredMessages::prepare(templates),
            worker_ids: WorkerIds::prepare(templates),
            shared_key: SharedKeyRow::prepare(templates),
            find_messages: FindMessages::prepare(templates),
            searching: Searching::prepare(templates),
            change_messages: ChangeMessages::prepare(templates),
            counts: Counts::prepare(templates),
            audit: Audit::prepare(templates),
            lags: Lags::prepare(templates),
            bounded_counting: BoundedCounting::prepare(templates),
            forget: format!("{}.forget", schema.quoted()),
        }
    }
}
