//! Ends a bus: the drain in order, the abort, and what happens if the last handle is dropped without either.

use std::time::Duration;

use tokio::time::Instant;

use super::cap::{Cap, Inner};
use crate::maintenance::release_leases;
use crate::runtime::health::Phase;
use crate::storage::Side;

/// The error of a shutdown that took too long. The bus is shut down nevertheless.
#[derive(Debug, thiserror::Error)]
#[error("shutdown took longer than shutdown_timeout ({timeout:?}); will be processed again: {what}")]
pub struct ShutdownError {
    timeout: Duration,
    what: String,
}

impl Cap {
    /// Shuts the bus down: it takes no new work, lets running handlers finish, sends and stores what is in flight, and
    /// releases the remaining leases. Publishing fails as soon as it is called. It can be called more than once.
    ///
    /// # Errors
    ///
    /// If some work is not finished by `shutdown_timeout`. That work is dropped; its messages are in the storage and are
    /// processed again, after a restart or on another node.
    pub async fn shutdown(&self) -> Result<(), ShutdownError> {
        let _turn = self.0.shutting_down.lock().await;
        let (engine, tasks) = (self.engine(), self.tasks());
        if engine.lifecycle.phase.get() == Phase::Stopped {
            return Ok(());
        }
        let timeout = engine.options.shutdown_timeout;
        let deadline = Instant::now() + timeout;
        engine.lifecycle.phase.set(Phase::Stopping);
        tracing::info!("shutting down");
        engine.lifecycle.stop.intake.cancel();
        engine.lifecycle.stop.handlers.cancel();
        let mut late = Vec::new();
        for (what, tracker, drain) in [
            ("messages being received", &tasks.intake, None),
            ("messages being handled", &tasks.work, Some(&engine.lifecycle.stop.relay)),
            (
                "messages being sent to the broker, or a call of on_failed",
                &tasks.relay,
                Some(&engine.lifecycle.stop.writers),
            ),
            ("messages whose outcomes were being stored", &tasks.writers, None),
        ] {
            if tokio::time::timeout_at(deadline, tracker.wait()).await.is_err() {
                late.push(what);
                break;
            }
            if let Some(drain) = drain {
                drain.cancel();
            }
        }
        self.abort().await;
        if late.is_empty() {
            tracing::info!("shut down");
            Ok(())
        } else {
            let error = ShutdownError { timeout, what: late.join(", ") };
            tracing::warn!(%error, "shut down");
            Err(error)
        }
    }

    /// Stops all tasks at once and releases all leases.
    pub(crate) async fn abort(&self) {
        /// The timeout of each step: ending the tasks, releasing leases and worker id, closing the broker connection.
        const STEP_TIMEOUT: Duration = Duration::from_secs(5);
        let (engine, tasks) = (self.engine(), self.tasks());
        let joined = engine.lifecycle.phase.get() != Phase::Starting;
        engine.lifecycle.phase.set(Phase::Stopping);
        engine.lifecycle.stop.cancel_all();
        let all = async {
            for tracker in [&tasks.intake, &tasks.work, &tasks.relay, &tasks.writers, &tasks.upkeep] {
                tracker.wait().await;
            }
        };
        if tokio::time::timeout(STEP_TIMEOUT, all).await.is_err() {
            tracing::warn!("some tasks did not stop in time; shutting down without them");
        }
        if joined {
            release_leases(&self.0.outbox, STEP_TIMEOUT).await;
            let worker = engine.ids.worker();
            let leave = engine.storage.leave(&engine.storage.owner.node, worker);
            if !matches!(tokio::time::timeout(STEP_TIMEOUT, leave).await, Ok(Ok(()))) {
                tracing::debug!("could not release the worker id; it expires on its own");
            }
        }
        if tokio::time::timeout(STEP_TIMEOUT, engine.broker.close()).await.is_err() {
            tracing::debug!("broker connection did not close in time");
        }
        engine.lifecycle.phase.set(Phase::Stopped);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let engine = &self.outbox.engine;
        if matches!(engine.lifecycle.phase.get(), Phase::Starting | Phase::Running) {
            let leased = |side| engine.storage.leases.all(side).len();
            let (to_send, to_handle) = (leased(Side::Outbox), leased(Side::Inbox));
            let lease = engine.options.lease;
            tracing::warn!(
                to_send,
                to_handle,
                ?lease,
                "the last handle of the bus was dropped; call shutdown() to drain"
            );
        }
        engine.lifecycle.stop.cancel_all();
    }
}
