//! Messages that may be to blame for the death of a process: one at a time, with a mark in the storage before each.
//!
//! A crash is counted for a message only if it was the only suspect that ran in the process that died. In a group suspects
//! run one after the other anyway. Those of several groups run side by side, marked as such; one that was marked before
//! runs while no other does. Messages that are no suspects go on all the while, and are never marked.

use std::collections::VecDeque;

use tokio::time::timeout;

use super::intake::Intake;
use crate::backoff::Backoff;
use crate::context::Context;
use crate::storage::{Lease, Side};

/// The suspects of one group: one has its turn, the others wait.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    pub(super) waiting: VecDeque<Intake>,
    pub(super) has_turn: bool,
}

/// Notes in the storage that a suspect's handler starts; `false` if it must not, as the lease is lost or the bus
/// stops. Waits for a storage that is away.
pub(super) async fn mark_started(context: &Context, lease: Lease) -> bool {
    let _marking = context.suspects.marking.lock().await;
    let marks = context.suspects.join(lease);
    let mut backoff = Backoff::default();
    // Before the mark can be there, as its answer may be lost: should the lease be lost too, this process says that it lives.
    context.leases.started(lease);
    while context.leases.holds(Side::Inbox, lease) {
        let marked = context.storage.mark_started(&context.owner, &marks);
        match timeout(context.owner.lease / 3, marked).await {
            Ok(Ok(held)) if held.first() == Some(&true) => {
                return context.leases.holds(Side::Inbox, lease);
            }
            Ok(Ok(_)) => context.leases.lose(Side::Inbox, lease),
            Ok(Err(error)) => context.storage_health.down(&error),
            Err(_) => {}
        }
        if !backoff.wait(&context.stop.intake).await {
            return false;
        }
    }
    false
}
