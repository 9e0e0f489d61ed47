//! Fault tests on real servers.
//!
//! A test ([`Scenario`]) starts nodes, each a process of its own (`chaos-node`), has them publish and handle messages,
//! and meanwhile does them harm ([`Fault`]). Every node writes what it does as lines into a file that survives its
//! death; what is done in transactions is counted by rows of the same transactions. When everything has come to rest,
//! the ledger judges: nothing may be lost, doubled, stuck or there without having been committed.
//!
//! Servers that are harmed are private ones ([`Keeper`]), and networks that are harmed are the tests' own
//! ([`cap_test_proxy::Proxy`]).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "what goes wrong here fails the test that it is for"
)]

#[cfg(not(any(cap_fault_points, doc)))]
compile_error!(
    "build with --cfg cap_fault_points: .cargo/config.toml gives it unless RUSTFLAGS is set in the environment"
);

mod arena;
mod clock;
mod fault;
mod job;
mod keeper;

mod node;
mod notes;
mod outcome;
mod process;
mod publishing;
mod rolling;
mod rows;
mod scenario;
mod service;
mod settings;

pub use arena::Arena;
pub use fault::{Fault, POINTS};
pub use keeper::Keeper;
pub use node::live;
pub use outcome::RowOutcome;
pub use process::Node;
pub use rolling::Rolling;
pub use scenario::{Outcome, Scenario, Servers};
pub use settings::Settings;

/// The broker that the tests share with all others: they only take a place of their own on it.
#[must_use]
pub fn amqp_url() -> String {
    std::env::var("AMQP_URL").unwrap_or_else(|_| "amqp://guest:guest@127.0.0.1:5672".to_owned())
}

/// The database that the tests share with all others.
#[must_use]
pub fn database_url() -> String {
    std::env::var("DATABASE_URL").unwrap_or_else(|_| "postgres://postgres@127.0.0.1:5432/test".to_owned())
}
