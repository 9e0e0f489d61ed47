//! Writes: new messages, duplicates, and the outcomes of messages.

pub(crate) mod batch;
pub(crate) mod completion;
mod duplicate_delivery;
mod forget_both;
mod insert_incoming;
mod insert_one;
mod insert_one_incoming;
pub(crate) mod insert_outgoing;
pub(crate) mod outgoing_row;
mod repeated_batch;
