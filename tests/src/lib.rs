//! Support for the end-to-end tests, which live in `tests/tests`: a scene of its own for each test, peers that are not
//! cap, and a network that can be cut.
//!
//! The servers are those that `AMQP_URL` and `DATABASE_URL` name, by default the local ones; `scripts/test` sets them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "what goes wrong here fails the test that it is for"
)]

mod foreign;
mod log;
#[cfg(doctest)]
pub mod pages;
mod pair;
mod patience;
mod policy;
mod python;
mod scene;

pub use cap_test_proxy::{Network, Proxy};
pub use foreign::{Foreign, Listener, long_strings};
pub use log::Log;
pub use pair::{Broker, GROUPS, Pair, Place, Store};
pub use patience::{heard, soon, until};
pub use policy::Policy;
pub use python::python;
pub use scene::{SECRET, Scene, scene};

/// The broker of the tests.
#[must_use]
pub fn amqp_url() -> String {
    std::env::var("AMQP_URL").unwrap_or_else(|_| "amqp://guest:guest@127.0.0.1:5672".to_owned())
}

/// The user that the tests log in to the broker as.
#[must_use]
pub fn amqp_user() -> String {
    let url: lapin::uri::AMQPUri = amqp_url().parse().expect("AMQP_URL is a URL");
    url.authority.userinfo.username
}

/// The database of the tests.
#[must_use]
pub fn database_url() -> String {
    std::env::var("DATABASE_URL").unwrap_or_else(|_| "postgres://postgres@127.0.0.1:5432/test".to_owned())
}
