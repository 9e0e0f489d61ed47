//! The storage trait and its data types.
//!
//! A storage keeps two tables of messages, the [outbox](Side::Outbox) and the [inbox](Side::Inbox). Each has a narrow
//! *state row* for every message that is unfinished or has something to record; a message without a state row has
//! succeeded. The engine makes all decisions (retry or give up, when, how long to keep), and a storage only applies
//! them. `MemoryStorage` is the reference implementation of the behavior described here.
//!
//! # Claims and fencing
//!
//! A state row has one time, `due`, from which any node may claim it; a row without it is never claimed. A claim sets
//! the owner, moves `due` to the end of the lease and raises the row's `epoch` by one. Every later call about the row
//! carries the [`Lease`] (row id and epoch) under which it was claimed or inserted, and is rejected if the row has a
//! newer epoch. So a node that was paused past its lease cannot undo the work of the node that took over.
//!
//! # Suspects
//!
//! An inbox lease that expires without a release does not identify the message that killed the process, since a node
//! leases many rows and runs few. A row that is claimed after such an expiry is a [`Suspect`]. Before the handler of
//! a suspect starts, the engine records the start ([`Storage::mark_started`]) under the lease. If that lease expires
//! too, the claim that finds it counts one crash and records it among the attempts, provided that no other suspect
//! ran on that node. A recorded start is valid only for its own lease, so a release, a retry, or a claim by a node
//! that does not support this makes it void. A live process that has lost such a lease takes the crash back
//! ([`Storage::withdraw_crashes`]).
//!
//! All times are by the storage's clock: parameters and results are durations, and no node's clock decides anything.

mod app_transaction;
mod claim;
mod identity;
mod insert;
mod node;
mod outcome;
mod row;
mod storage_trait;
mod wake;
mod write_batch;

pub use app_transaction::{LookedFor, TransactionId};
pub use claim::{ClaimRequest, Claimed, Claims, StartMark, Suspect, crash_text};
#[doc(hidden)]
pub use identity::OWN_ID_PREFIX;
pub use identity::{Digest, Holder, Identity, Meeting};
pub use insert::{Entry, NewIncoming, NewOutgoing, Stored};
pub use node::{Expiry, NodeRequest, Owner};
pub use outcome::{Retention, RowCompletion, RowOutcome};
#[allow(deprecated)]
pub use outcome::{Settlement, Verdict};
pub use row::{Lease, Reason, Side, Status};
pub use storage_trait::Storage;
pub use wake::Wake;
pub use write_batch::{WriteBatch, WriteReport};

pub use crate::shared_key::SharedKey;
