//! The embedded pair: a store and a broker inside the process, for tests, for trying things out, and for programs
//! whose messages need not outlive them. The broker serves beside a durable store, too: messages that outlive the process
//! need no server then.
//!
//! Both are also the model of what [`Storage`](cap_adapter::storage::Storage) and
//! [`Transport`](cap_adapter::transport::Transport) promise: the conformance suite holds every adapter against the same
//! cases that they pass. Clones share their contents, so that several buses, each with a clone, behave as several
//! nodes on one server.

mod broker;
mod complete;
mod index;
mod monitor;
mod row;
mod storage;
mod table;
#[cfg(test)]
mod table_laws;
#[cfg(test)]
mod tests;
mod transport;
mod workers;

pub use storage::MemoryStorage;
pub use transport::{MemoryConsumer, MemoryTransport};
