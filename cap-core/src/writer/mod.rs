//! The batching tasks in front of the storage: insert writers, whose callers wait for a reply, and one outcome writer,
//! which hardly any caller waits for.
//!
//! Each writes what has queued up while its previous batch was being written. There is one insert writer for publishers
//! and one for each group, so that a failing batch of one does not delay the others. While the storage is unavailable all
//! writers wait; their bounded queues fill up, which slows down whatever produces more work.

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
