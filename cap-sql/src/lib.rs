//! What the SQL storages of cap share: everything that follows from the tables and not from the database.
//!
//! | module | what is there |
//! |---|---|
//! | [`templates`] | statements, written out for the names of the tables |
//! | [`columns`] | how statuses, sides, times and messages are stored in columns |
//! | [`checks`] | whether texts fit their columns |
//! | [`state_row`] | how a state row begins, and what an outcome changes in it |
//! | [`repeated_write`] | the rows of a call that was made before, after an answer that was lost |
//! | [`list_filter`] | which messages an operator asks for |
//! | [`search_pace`] | how many rows a search looks at next, and when it stops |
//! | [`worker_id`] | the errors of worker ids |
//! | [`driver_error`] | what an error of the driver means for the bus |
//! | [`handler_transaction`] | a transaction as the argument of a handler |
//!
//! The SQL stays in the adapters. A service needs nothing of this crate.

pub mod audit;
pub mod checks;
pub mod columns;
pub mod driver_error;
pub mod handler_transaction;
pub mod list_filter;
pub mod repeated_write;
pub mod search_pace;
pub mod state_row;
pub mod templates;
pub mod worker_id;

pub use checks::Refused;
