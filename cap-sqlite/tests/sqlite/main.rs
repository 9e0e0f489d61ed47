//! The store on real files, each test on one of its own.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what went wrong by failing")]

mod claims;
mod conformance;
mod errors;
mod expires_at;
mod expiry;
mod identity;
mod listen;
mod logging;
mod monitor;
mod nodes;
mod processes;
mod schema;
mod sqlite_tx;
mod support;
mod transactions;
mod views;
mod writes;
