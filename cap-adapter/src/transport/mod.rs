//! The transport trait and its data types.
//!
//! A transport deals with topics, groups and messages; exchanges, streams and partitions are implementation details.
//! `MemoryTransport` is the reference implementation of the behavior described here.

mod receive;
mod send;
mod transport_trait;

pub use receive::{Acknowledge, GroupSpec, Incoming, Tag};
pub use send::{Confirmed, Delayed, Destination, Outbound, Sent};
pub use transport_trait::{BrokerDelay, Consumer, Transport, TransportContext};
