//! The errors of worker ids.

use cap_adapter::message::MAX_WORKER;
use cap_adapter::storage::NodeRequest;

use crate::checks::{Refused, check_node};

/// The error when every worker id has a live node. It is an outage: one becomes free when a node leaves.
pub const ALL_TAKEN: &str = "every worker id belongs to a live node; one becomes free when a node leaves";

/// Checks the name of the node that asks for a worker id.
///
/// # Errors
///
/// A refusal that names the column.
pub fn check_request(request: &NodeRequest) -> Result<(), Refused> {
    check_node(&request.node)
}

/// Returns the error of a requested worker id that no node can have, if it is one.
#[must_use]
pub fn out_of_range(request: &NodeRequest) -> Option<String> {
    let requested = request.worker.filter(|requested| *requested > MAX_WORKER)?;
    Some(format!("worker id {requested} is out of range: use 0 to {MAX_WORKER}"))
}

/// Returns the error of a requested worker id that a live node has.
#[must_use]
pub fn taken(worker: u16, node: &str) -> String {
    format!("worker id {worker} belongs to the node {node}, which is alive: give each node its own")
}
