//! Messages that may be to blame for the death of a process: one at a time, with a mark in the storage before each.
//!
//! A crash is counted for a message only if it was the only suspect that ran in the process that died. In a group suspects
//! run one after the other anyway. Those of several groups run side by side, marked as such; one that was marked before
//! runs while no other does. Messages that are no suspects go on all the while, and are never marked.

use std::collections::VecDeque;

use tokio::time::timeout;

use super::in_flight::Intake;
use crate::runtime::backoff::Backoff;
use crate::runtime::context::Context;
use crate::storage::{Lease, Side};

/// The suspects of one group: one has its turn, the others wait.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    pub(super) waiting: VecDeque<Intake>,
    pub(super) has_turn: bool,
}

/// Notes in the storage that a suspect's handler starts; `false` if it must not, as the lease is lost or the bus
/// stops. Waits for a storage that is away. Those that start at the same time are noted by one statement: whoever comes
/// first writes for all, and the others find that it is done.
pub(super) async fn mark_started(context: &Context, lease: Lease) -> bool {
    // Before the mark can be there, as its answer may be lost: should the lease be lost too, this process says that it lives.
    context.leases.started(lease);
    context.suspects.join(lease);
    let _marking = context.suspects.marking.lock().await;
    let mut backoff = Backoff::default();
    while context.leases.holds(Side::Inbox, lease) {
        if context.suspects.is_marked(lease) {
            return true;
        }
        let marks = context.suspects.marks();
        let marked = context.storage.mark_started(&context.owner, &marks);
        match timeout(context.owner.lease / 3, marked).await {
            Ok(Ok(held)) => {
                context.suspects.marked(&marks, &held);
                if !context.suspects.is_marked(lease) {
                    context.leases.lose(Side::Inbox, lease);
                }
                continue;
            }
            Ok(Err(error)) => context.storage_health.down(&error),
            Err(_) => {}
        }
        if !backoff.wait(&context.stop.intake).await {
            return false;
        }
    }
    false
}
