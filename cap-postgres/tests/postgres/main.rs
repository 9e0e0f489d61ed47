//! The storage on a real PostgreSQL, each test in a schema of its own.
//!
//! The server is taken from `DATABASE_URL`, by default `postgres://postgres@127.0.0.1:5432/test`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what went wrong by failing")]

mod conformance;
mod costs;
mod credentials;
mod encodings;
mod errors;
mod failover;
mod health;
mod identity;
mod limits;
mod locks;
mod logging;
mod notify;
mod pages;
mod pg_tx;
mod pg_tx_settings;
mod poolers;
mod private;
mod schema;
mod search_path;
mod shared_key;
mod support;
mod tls;
mod transactions;
mod trust;
mod views;
