//! What an operator does: find, re-run, edit, delete, count; and the callback that tells the application of failures.

pub(crate) mod failure_callback;
pub(crate) mod messages;
pub(crate) mod monitor;
mod pages;
mod rerun_and_delete;
pub(crate) mod waiting_counts;
