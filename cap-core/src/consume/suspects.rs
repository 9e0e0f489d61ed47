//! Messages that may be to blame for the death of a process: one at a time, with a mark in the storage before each.
//!
//! A crash is counted for a message only if it was the only suspect that ran in the process that died. In a group suspects
//! run one after the other anyway. Those of several groups run side by side, marked as such; one that was marked before
//! runs while no other does. Messages that are no suspects go on all the while, and are never marked.

use std::collections::VecDeque;

use tokio::time::timeout;

use super::inbox::Inbox;
use super::received::Received;
use crate::runtime::backoff::Backoff;
use crate::storage::{Lease, Side};

/// The suspects of one group: one has its turn, the others wait.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    pub(super) waiting: VecDeque<Received>,
    pub(super) has_turn: bool,
}

/// Notes in the storage that a suspect's handler starts; `false` if it must not, as the lease is lost or the bus
/// stops. Waits for a storage that is away. Those that start at the same time are noted by one statement: whoever comes
/// first writes for all, and the others find that it is done.
pub(super) async fn mark_started(inbox: &Inbox, lease: Lease) -> bool {
    // Before the mark can be there, as its answer may be lost: should the lease be lost too, this process says that it lives.
    inbox.engine.storage.leases.started(lease);
    inbox.suspects.join(lease);
    let _marking = inbox.suspects.marking.lock().await;
    let mut backoff = Backoff::default();
    while inbox.engine.storage.leases.holds(Side::Inbox, lease) {
        if inbox.suspects.is_marked(lease) {
            return true;
        }
        let marks = inbox.suspects.marks();
        let marked = inbox.engine.storage.mark_started(&inbox.engine.storage.owner, &marks);
        match timeout(inbox.engine.storage.owner.lease / 3, marked).await {
            Ok(Ok(held)) => {
                inbox.suspects.marked(&marks, &held);
                if !inbox.suspects.is_marked(lease) {
                    inbox.engine.storage.leases.lose(Side::Inbox, lease);
                }
                continue;
            }
            Ok(Err(error)) => inbox.engine.storage.health.down(&error),
            Err(_) => {}
        }
        if !backoff.wait(&inbox.engine.lifecycle.stop.intake).await {
            return false;
        }
    }
    false
}
