//! The storage: its settings, and what the bus and operators do with it.

mod monitor;
pub(crate) mod options;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]
mod plans;
pub(crate) mod shared;
pub(crate) mod sqlite;
mod statements;
#[allow(clippy::module_inception, reason = "it holds the trait of that name")]
mod storage;
