//! A stored message on its way to its handler.

use std::sync::Arc;

use cap_adapter::Delivery;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::message::Message;
use crate::runtime::byte_budget::{ByteBudget, Reserved};
use crate::runtime::in_flight::InFlight;
use crate::runtime::suspect_gate::Pass;
use crate::storage::{Claimed, Lease, Suspect};

/// A stored message on its way to its handler.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) in_flight: InFlight,
    /// How many crashes are counted for this message: times that a process died while handling it.
    pub(crate) crashes: u32,
    /// Set if its last lease expired without a release, so that it may have crashed a process.
    pub(crate) suspect: Option<Suspect>,
    /// Set if it is a suspect that has its turn. Dropping it ends the turn.
    pub(crate) pass: Option<Pass>,
    /// The bytes that it occupies in the group's memory until its handler has finished.
    #[allow(dead_code, reason = "held until it is dropped, not read")]
    pub(crate) reserved: Reserved,
    /// Cancelled when the handler should stop because the bus stops or the lease is lost.
    pub(crate) cancelled: CancellationToken,
}

impl Received {
    /// A message that this node has just stored.
    pub(crate) fn stored(
        lease: Lease,
        message: Arc<Message>,
        budget: &Arc<ByteBudget>,
        cancelled: CancellationToken,
    ) -> Self {
        Self {
            reserved: budget.reserve(message.size()),
            in_flight: InFlight::stored(lease, message, Instant::now()),
            crashes: 0,
            suspect: None,
            pass: None,
            cancelled,
        }
    }

    /// A message that this node has claimed.
    pub(crate) fn claimed(
        mut claimed: Claimed,
        budget: &Arc<ByteBudget>,
        cancelled: CancellationToken,
    ) -> Self {
        Self {
            reserved: budget.reserve(claimed.message.size()),
            crashes: claimed.crashes,
            suspect: claimed.suspect.take(),
            in_flight: InFlight::claimed(claimed),
            pass: None,
            cancelled,
        }
    }

    pub(crate) fn lease(&self) -> Lease {
        self.in_flight.lease
    }

    pub(crate) fn message(&self) -> &Arc<Message> {
        &self.in_flight.message
    }
}

/// An attempt: a message, and the delivery that its handler receives.
pub(crate) struct Job {
    pub(crate) delivery: Delivery,
    pub(crate) received: Received,
    /// The index of its handler in the group.
    pub(crate) member: usize,
    /// Its ordering key, with `order_by`.
    pub(crate) key: Option<String>,
    /// Whether it is the probe of its subscription's circuit.
    pub(crate) probe: bool,
}

impl Job {
    pub(crate) fn lease(&self) -> Lease {
        self.received.lease()
    }
}
