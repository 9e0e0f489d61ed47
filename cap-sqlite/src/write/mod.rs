//! Writes: new messages, duplicates, and the outcomes of messages.

pub(crate) mod batch;
pub(crate) mod completion;
pub(crate) mod deletion;
mod duplicate_delivery;
mod insert_incoming;
pub(crate) mod insert_outgoing;
mod repeated_batch;
pub(crate) mod work_left;
