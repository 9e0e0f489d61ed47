//! What an operator does: find, re-run, edit, delete, count; and the callback that tells the application of failures.

pub(crate) mod failure_callback;
pub(crate) mod monitor;
pub(crate) mod parked;
pub(crate) mod waiting_counts;
