//! What a store must do, said a second time and as simply as possible, and random histories that hold every store to it.
//!
//! - [`model`] is a store as plain code: a list of rows that is looked through from end to end, told the time.
//! - [`step`] draws what nodes and people do; [`history`] does it to the model and to a store, and compares every answer
//!   and, in between and at the end, every row.
//! - [`memory`], [`sqlite`] and [`postgres`] put stores on trial. Another store is one more [`Subject`].
//!
//! A failure prints the seed and the shortest history that shows it. `CAP_MODEL_SEED` runs a seed again,
//! `CAP_MODEL_CASES` says how many histories to run.

pub mod history;
pub mod memory;
pub mod model;
mod outcome;
pub mod postgres;
mod rows;
pub mod run;
pub mod sqlite;
pub mod step;
mod subject;

pub use subject::Subject;
