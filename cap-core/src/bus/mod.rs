//! The top: what a service holds of its bus, and how a bus is put together, started, and shut down.

mod builder;
mod cap;
mod failure;
mod launch;

pub use builder::CapBuilder;
pub use cap::{Cap, ShutdownError};
pub use failure::Failure;
