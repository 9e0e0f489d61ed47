//! The top room: the handle to a bus that a service uses, and how a bus is built, started, and shut down.

mod builder;
mod cap;
mod failure;
mod former_names;
mod gauges;
mod launch;
mod shutdown;

pub use builder::CapBuilder;
pub use cap::Cap;
pub use failure::Failure;
pub use shutdown::ShutdownError;
