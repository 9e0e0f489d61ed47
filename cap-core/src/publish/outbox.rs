//! The state that publishing and relaying share.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::composer::Composer;
use super::full_destinations::FullDestinations;
use super::late_commits::LateCommits;
use super::open_commits::OpenCommits;
use super::outgoing_metrics::OutgoingMetrics;
use super::relay_queue::RelayQueue;
use crate::message::Message;
use crate::runtime::engine::Engine;
use crate::writer::{InsertItem, OutcomeQueue};

/// The state that publishing and relaying share.
pub(crate) struct Outbox {
    pub(crate) engine: Arc<Engine>,
    pub(crate) composer: Arc<Composer>,
    /// The queue of the publishers' insert writer.
    pub(crate) inserts: mpsc::Sender<InsertItem>,
    pub(crate) outcomes: OutcomeQueue,
    pub(crate) relay: RelayQueue,
    /// The topics whose messages the broker rejects for lack of room.
    pub(crate) full_destinations: FullDestinations,
    /// Messages that were committed late, or whose commit is uncertain.
    pub(crate) late_commits: LateCommits,
    /// Messages that are stored in plain transactions.
    pub(crate) open_commits: OpenCommits,
    pub(crate) metrics: OutgoingMetrics,
}

impl Outbox {
    /// Counts and logs that a message is published: stored and committed. Called before it is given to the relay, so that
    /// the log has the steps of a message in their order.
    pub(super) fn published(&self, message: &Message) {
        self.metrics.of(message.name()).published.increment(1);
        tracing::debug!(message_id = message.id(), topic = message.name(), "stored in the outbox");
    }
}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbox").field("engine", &self.engine).finish_non_exhaustive()
    }
}
