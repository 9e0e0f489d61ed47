//! What keeps a bus going beside its traffic: claims of what is due, heartbeats, expiry, the worker id.

mod claims;
mod collector;
mod heartbeat;
mod node;
mod renewal;

pub(crate) use claims::{InboxTarget, run_inbox_claims, run_outbox_claims};
pub(crate) use collector::run_collector;
pub(crate) use heartbeat::{give_back, run_heartbeat};
pub(crate) use node::{node_request, run_node};
pub(crate) use renewal::spawn_renewal;
