//! The operator's API: find, re-run, edit, delete and count messages; and the callback that notifies the application of
//! failures.

pub(crate) mod failure_callback;
pub(crate) mod messages;
pub(crate) mod monitor;
pub(crate) mod operated_storage;
pub(crate) mod operator;
pub(crate) mod operator_publish;
mod pages;
mod rerun_and_delete;
pub(crate) mod waiting_counts;
