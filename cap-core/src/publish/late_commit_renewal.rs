//! Renews the leases of messages that were committed late before passing them to the relay.

use std::time::Duration;

use super::late_commits::Late;
use super::outbox::Outbox;
use super::relay_queue::Place;
use crate::error::StorageError;
use crate::runtime::in_flight::InFlight;
use crate::storage::{Lease, RowOutcome, Side};

/// Renews the leases of messages that were committed late, and passes those that this node still leases to the relay. It
/// must be called before rows are claimed, since a claim could take the rows of this very node.
///
/// Cancel safe: a row stays among the late commits until its lease is renewed.
pub(crate) async fn resume_late_commits(outbox: &Outbox) -> Result<(), StorageError> {
    let storage = &outbox.engine.storage;
    loop {
        let leases = outbox.late_commits.to_renew(storage.owner.lease);
        if leases.is_empty() {
            break;
        }
        let renewed = storage.renew(&storage.owner, Side::Outbox, &leases);
        let renewed = tokio::time::timeout(storage.owner.lease / 3, renewed).await.unwrap_or_else(|_| {
            Err(storage.unavailable("renewing the leases of committed messages took too long"))
        });
        let renewed = renewed.inspect_err(|error| storage.health.down(error))?;
        for (lease, is_held) in leases.into_iter().zip(renewed) {
            if let Some(late) = outbox.late_commits.renewed(lease.id, is_held) {
                relay(outbox, lease, late).await;
            }
        }
    }
    if let Some(next) = outbox.late_commits.next() {
        storage.due.note(Side::Outbox, next);
    }
    Ok(())
}

async fn relay(outbox: &Outbox, lease: Lease, late: Late) {
    let Late { message, place, since, is_counted, .. } = late;
    if !is_counted {
        outbox.published(&message);
    }
    if !outbox.engine.storage.leases.add(Side::Outbox, lease, None) {
        return;
    }
    let place = place.and_then(Place::permit).or_else(|| outbox.relay.permit());
    if let Some(place) = place {
        place.send(InFlight::stored(lease, message, since));
    } else {
        // No room here: release it, so that any node with room claims it.
        let outcome = RowOutcome::Release { after: Duration::ZERO };
        outbox.outcomes.write(Side::Outbox, lease, outcome).await;
    }
}
