//! The whole engine in one thread on virtual time, with faults by seed, under the ledger.
//!
//! A seed stands for a run: so many nodes on one store and one broker in memory, so many messages published in
//! every way there is, handlers that succeed, fail, panic, hang; and calls that are lost on their way or on the way
//! back, late or stuck, rows and messages that are refused, deliveries that come twice, nodes that die at a call or
//! between two, stand still for longer than their leases, are cut off, or are shut down. When the workload is over
//! all faults stop, and time runs on until everything has come to rest. Then the ledger is to be clean.
//!
//! The faults sit behind the two traits of the engine, [`Storage`](cap_core::storage::Storage) and
//! [`Transport`](cap_core::transport::Transport); the engine itself is as its users have it.

mod application;
mod fleet;
mod handlers;
mod id_clock;
mod job;
mod life;
mod plan;
mod run;
mod simulation;
mod storage;
mod transaction;
mod transport;
mod world;

pub use simulation::{RowOutcome, elapsed_ms, run};
