//! A stored message on its way to its handler.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::message::Message;
use crate::runtime::byte_budget::{Held, Room};
use crate::runtime::suspect_gate::Pass;
use crate::storage::{Claimed, Lease, Suspect};

/// A stored message on its way to its handler.
#[derive(Debug)]
pub(crate) struct Intake {
    pub(crate) lease: Lease,
    pub(crate) message: Arc<Message>,
    /// Attempts that have failed.
    pub(crate) attempts: u32,
    /// Of those, the ones before an operator last re-ran it.
    pub(crate) attempts_before_rerun: u32,
    /// How old it was when this node got it.
    pub(crate) age: Duration,
    /// How often the process has died while it was being handled.
    pub(crate) crashes: u32,
    /// Its last lease expired without a release.
    pub(crate) suspect: Option<Suspect>,
    /// It is a suspect and its turn has come.
    pub(crate) pass: Option<Pass>,
    /// What it takes of the group's memory until its handler has ended.
    pub(crate) held: Held,
    /// Fires when the handler should stop: the bus stops, or the lease is lost.
    pub(crate) cancelled: CancellationToken,
}

impl Intake {
    /// One that was stored a moment ago.
    pub(crate) fn fresh(
        lease: Lease,
        message: Arc<Message>,
        room: &Arc<Room>,
        cancelled: CancellationToken,
    ) -> Self {
        Self {
            held: room.hold(message.size()),
            lease,
            message,
            attempts: 0,
            attempts_before_rerun: 0,
            age: Duration::ZERO,
            crashes: 0,
            suspect: None,
            pass: None,
            cancelled,
        }
    }

    /// One that was claimed.
    pub(crate) fn claimed(claimed: Claimed, room: &Arc<Room>, cancelled: CancellationToken) -> Self {
        Self {
            held: room.hold(claimed.message.size()),
            lease: claimed.lease,
            message: claimed.message,
            attempts: claimed.attempts,
            attempts_before_rerun: claimed.attempts_before_rerun,
            age: claimed.age,
            crashes: claimed.crashes,
            suspect: claimed.suspect,
            pass: None,
            cancelled,
        }
    }
}
