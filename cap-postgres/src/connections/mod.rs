//! Connections to the server: their credentials and settings, who may use them, and what happens when the server changes.

pub(crate) mod credentials;
mod nodelay;
mod pool;
pub(crate) mod server;
pub(crate) mod session;
pub(crate) mod source;
pub(crate) mod target;
pub(crate) mod tls;
