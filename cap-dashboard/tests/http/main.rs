//! The dashboard over HTTP: who is let in, what is shown, what is done, and what abuse comes to.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what went wrong by failing"
)]

mod access;
mod acts;
mod bad_input;
mod cap_api;
mod editing;
mod escaping;
mod finding;
mod login;
mod masks;
mod metrics;
mod own_api;
mod store;
mod streams;
mod support;
