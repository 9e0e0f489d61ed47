//! The same work as a careful team would write it by hand and tune it: prepared statements, a connection of its own for each
//! task and no pool, one channel that publishes with confirms and one that consumes with a prefetch of 300.

pub(crate) mod handlers;
pub(crate) mod idle;
pub(crate) mod publish;
mod receive;
mod tables;

/// What of the loop can be tuned.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    /// Tasks that publish, and as many that handle.
    pub(crate) tasks: usize,
    /// The type of the queue.
    pub(crate) queue: &'static str,
}

impl Default for Setting {
    fn default() -> Self {
        Self { tasks: 1, queue: "quorum" }
    }
}
