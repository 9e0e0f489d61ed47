//! The node that calls the storage: its name, its request for a worker id, and what it deletes.

use std::sync::Arc;
use std::time::Duration;

/// The node that calls the storage: rows are leased in its name, for this long.
#[derive(Debug, Clone)]
pub struct Owner {
    /// The node's name, unique among those that share the storage.
    pub node: Arc<str>,
    /// The version tag of the bus: rows are claimed only by nodes of their own version.
    pub version: Arc<str>,
    /// How long a lease lasts without a renewal.
    pub lease: Duration,
}

/// A node's request for a worker id.
#[derive(Debug, Clone)]
pub struct NodeRequest {
    /// The node's name.
    pub node: Arc<str>,
    /// The configured worker id; `None` to get a free one.
    pub worker: Option<u16>,
    /// How long the worker id belongs to the node without being renewed.
    pub lease: Duration,
    /// How long this node keeps messages that succeeded, as in its [`Expiry::succeeded`]. A storage that shows when a
    /// message expires shows the shortest of all nodes.
    pub succeeded_expire_after: Duration,
}

/// What the collector deletes.
#[derive(Debug, Clone, Copy)]
pub struct Expiry {
    /// Messages without a state row that are older than this.
    pub succeeded: Duration,
    /// The maximum number of messages of each table in one call.
    pub limit: usize,
}
