//! The dashboard as an application builds and mounts it.

mod builder;
mod health;
mod metrics;
mod router;
mod serve;

pub use builder::Dashboard;
pub use serve::ServeError;
