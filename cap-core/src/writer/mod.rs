//! The batching tasks in front of the storage: insert writers, whose callers wait, and one outcome writer, for which nobody
//! waits.
//!
//! Each writes what has gathered while its last batch was under way. Those who publish have an insert writer, and each
//! group has one, so that a batch that fails delays no other. A storage that is unavailable holds all of them up: the
//! bounded queues before them fill, and so everything that would make more work slows down.

mod after_write;
mod insert_item;
mod insert_writer;
mod outcome_batch;
mod outcome_queue;
mod outcome_writer;
mod set_apart;
mod write;

pub(crate) use after_write::AfterWrite;
pub(crate) use insert_item::{InsertItem, has_generated_id};
pub(crate) use insert_writer::run_insert_writer;
pub(crate) use outcome_queue::{OutcomeItem, OutcomeQueue};
pub(crate) use outcome_writer::run_outcome_writer;
