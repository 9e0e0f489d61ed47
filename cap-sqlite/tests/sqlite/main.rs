//! The storage on real files, each test on one of its own.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what went wrong by failing")]

mod conformance;
mod errors;
mod identity;
mod interrupted_calls;
mod listen;
mod logging;
mod processes;
mod schema;
mod sqlite_tx;
mod support;
mod transactions;
mod views;
