//! The consumer of the in-memory transport.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio::task::coop::consume_budget;
use tokio::time::timeout_at;

use super::broker::{AtMost, Broker, Taken};
use super::transport_errors::{away, unavailable};
use cap_adapter::error::TransportError;
use cap_adapter::transport::{Acknowledge, Consumer, Incoming, Tag};

/// The consumer of a group's queue in a [`MemoryTransport`](crate::MemoryTransport). A prefetch of zero counts as one.
#[derive(Debug)]
pub struct MemoryConsumer {
    pub(super) broker: Arc<Broker>,
    pub(super) group: Arc<str>,
    pub(super) number: u64,
    pub(super) prefetch: usize,
    pub(super) arrived: Arc<Notify>,
}

impl Consumer for MemoryConsumer {
    async fn receive(&mut self, limit: usize) -> Result<Vec<Incoming>, TransportError> {
        self.receive_within(limit, usize::MAX).await
    }

    async fn receive_within(&mut self, limit: usize, bytes: usize) -> Result<Vec<Incoming>, TransportError> {
        consume_budget().await;
        let at_most = AtMost { messages: limit.max(1), bytes, unacknowledged: self.prefetch };
        loop {
            let arrived = self.arrived.notified();
            let (taken, next_due) = self.broker.take(&self.group, self.number, at_most);
            match (taken, next_due) {
                (Taken::Messages(messages), _) => return Ok(messages),
                (Taken::Ended, _) => {
                    return Err(unavailable("the consumer has ended: the broker was unavailable"));
                }
                (Taken::Nothing, None) => arrived.await,
                // Whichever comes first: a due message of another group is moved by the first consumer that wakes for
                // it.
                (Taken::Nothing, Some(due)) => drop(timeout_at(due, arrived).await),
            }
        }
    }

    async fn acknowledge(&mut self, tags: &[Tag], how: Acknowledge) -> Result<(), TransportError> {
        if self.broker.lock().is_away() {
            return Err(away());
        }
        self.broker.acknowledge(&self.group, self.number, tags, how);
        Ok(())
    }
}

impl Drop for MemoryConsumer {
    fn drop(&mut self) {
        self.broker.end(&self.group, self.number);
    }
}
