//! Background tasks beside the message traffic: claiming due rows, renewing leases, deleting expired messages, and keeping
//! the worker id.

mod claims;
mod collector;
mod heartbeat;
mod lease_renewal;
mod node;

pub(crate) use claims::{InboxTarget, run_inbox_claims, run_outbox_claims};
pub(crate) use collector::run_collector;
pub(crate) use heartbeat::{Activities, release_leases, run_heartbeat};
pub(crate) use lease_renewal::spawn_renewal;
pub(crate) use node::{node_request, run_node};
