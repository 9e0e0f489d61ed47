//! Suspects: messages that may have crashed a process. Within a group they run one at a time, and each start is marked in
//! the storage before the handler begins.
//!
//! A crash is counted for a message only if it was the only suspect that ran in the process that died. Suspects of
//! different groups may run at the same time and are marked as not alone; a suspect whose start was marked before runs
//! while no other suspect does. Messages that are not suspects are handled as usual and are never marked.

use std::collections::VecDeque;

use tokio::time::timeout;

use super::inbox::Inbox;
use super::received::Received;
use crate::runtime::backoff::Backoff;
use crate::storage::{Lease, Side};

/// The suspects of one group: at most one has its turn, the others wait.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    pub(super) waiting: VecDeque<Received>,
    pub(super) has_turn: bool,
}

/// Marks in the storage that a suspect's handler starts. Returns `false` if it must not start, because the lease is lost
/// or the bus stops. While the storage is unavailable it retries. Suspects that start at the same time are marked by one
/// statement: the first one writes the marks of all, and the others find that theirs is written.
pub(super) async fn mark_started(inbox: &Inbox, lease: Lease) -> bool {
    // Recorded before the mark can be in the storage, since the answer to that write may be lost. If the lease is lost as
    // well, this process then withdraws the crash that another node counts for it.
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
