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
    /// How often the process has died while it was being handled.
    pub(crate) crashes: u32,
    /// Its last lease expired without a release.
    pub(crate) suspect: Option<Suspect>,
    /// It is a suspect whose turn has come. The turn ends as this is dropped.
    pub(crate) pass: Option<Pass>,
    /// What it takes of the group's memory until its handler has ended.
    #[allow(dead_code, reason = "held until it is dropped, not looked at")]
    pub(crate) reserved: Reserved,
    /// Fires when the handler should stop: the bus stops, or the lease is lost.
    pub(crate) cancelled: CancellationToken,
}

impl Received {
    /// One that was stored a moment ago.
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

    /// One that was claimed.
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

/// An attempt: a message, and what its handler sees of it.
pub(crate) struct Job {
    pub(crate) delivery: Delivery,
    pub(crate) received: Received,
    /// Its handler's place in the group.
    pub(crate) member: usize,
    /// The value that it keeps its order by.
    pub(crate) key: Option<String>,
    /// Whether it is tried on behalf of all while its subscription's circuit is open.
    pub(crate) probe: bool,
}

impl Job {
    pub(crate) fn lease(&self) -> Lease {
        self.received.lease()
    }
}
