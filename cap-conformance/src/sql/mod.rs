//! The cases that every storage in SQL must pass: what is in its tables, and what happens when somebody changes them.
//! [`sql_storage_suite!`](crate::sql_storage_suite) makes tests of them all.
//!
//! They are about tables of the shape that `cap-postgres` and `cap-sqlite` have: `outbox` and `inbox` with the messages,
//! `outbox_state` and `inbox_state` with what is under way, `attempts`, `nodes`, and the views `published` and `received`.

pub mod claims;
pub mod expires_at;
pub mod expiry;
pub mod monitor;
mod tables;
pub mod worker_ids;
pub mod writes;

use std::time::Duration;

use crate::storage::StorageFixture;

/// A storage in SQL whose tables a case can read and change.
///
/// Each text is SQL of the suite, with the names of the tables filled in; see [`table_prefix`](Self::table_prefix).
pub trait SqlFixture: StorageFixture {
    /// What stands before the name of a table, such as `"cap".` or `cap_`.
    fn table_prefix(&self) -> String;

    /// Runs statements that return nothing.
    fn execute(&self, sql: &str) -> impl Future<Output = ()> + Send;

    /// Runs a query, and returns its only column, of 64 bits.
    fn numbers(&self, sql: &str) -> impl Future<Output = Vec<i64>> + Send;

    /// Runs a query, and returns its only column.
    fn texts(&self, sql: &str) -> impl Future<Output = Vec<String>> + Send;

    /// An expression for a span of time, to be added to a time column of the tables.
    fn span(&self, span: Duration) -> String;

    /// An expression for the current time, as the time columns of the tables have it.
    fn now(&self) -> String;

    /// An expression of 64 bits for the whole seconds of a difference between two times of the tables.
    fn seconds(&self, difference: &str) -> String;

    /// An expression of 64 bits for the whole seconds between two times of the views.
    fn seconds_in_views(&self, from: &str, to: &str) -> String;

    /// An expression for a body of this many bytes.
    fn body(&self, bytes: usize) -> String;
}
