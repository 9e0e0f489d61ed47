//! The in-memory pair: a storage and a transport inside the process, for tests, for first steps, and for programs
//! whose messages need not survive a restart. The transport can also be combined with a durable storage, which keeps
//! messages across restarts without a server.
//!
//! Both are the reference implementations of [`Storage`](cap_adapter::storage::Storage) and
//! [`Transport`](cap_adapter::transport::Transport): the conformance suite requires every adapter to pass the same
//! cases. Clones share their contents, so that several buses, each with a clone, behave like several nodes on one
//! server.

mod audit;
mod broker;
mod complete;
mod consumer;
mod index;
mod monitor;
mod queue;
mod row;
mod storage;
mod table;
#[cfg(test)]
mod table_laws;
#[cfg(test)]
mod tests;
mod transport;
mod transport_errors;
mod workers;

pub use consumer::MemoryConsumer;
pub use storage::MemoryStorage;
pub use transport::MemoryTransport;
