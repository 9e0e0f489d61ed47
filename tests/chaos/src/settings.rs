//! What a node is told by its parent.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The environment variable that holds the settings.
pub(crate) const VARIABLE: &str = "CAP_CHAOS_NODE";

/// What a node is told by its parent.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(clippy::struct_excessive_bools, reason = "they are set one by one, by name")]
pub struct Settings {
    /// The broker.
    pub amqp: String,
    /// The database.
    pub database: String,
    /// The name of the scene: exchange, the bus's schema, and before each group.
    pub scene: String,
    /// The node's name.
    pub node: String,
    /// What its messages are drawn from.
    pub seed: u64,
    /// Where its notes go.
    pub notes: PathBuf,
    /// The lease of its claims.
    pub lease: Duration,
    /// How often a handler may fail.
    pub attempts: u32,
    /// The pause before each attempt after the first.
    pub retry_pause: Duration,
    /// How long a success is kept.
    pub keep: Duration,
    /// Whether it handles messages; if not it only publishes.
    pub handles: bool,
    /// Whether its handlers get into each other's way, in deadlocks too.
    pub contention: bool,
    /// All in one thread, so that a stopped node stands still as a whole.
    pub one_thread: bool,
    /// How many messages on their way to the broker it holds in memory.
    pub relay_buffer: usize,
    /// How long its shutdown waits for handlers.
    pub patience: Duration,
}
