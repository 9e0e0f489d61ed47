//! The failure that is passed to the failure callback.

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::cap::{Cap, OwnBus};
use crate::message::Message;
use crate::runtime::notifier::FailedMessage;
use crate::storage::{Reason, Side};

/// A message that failed for good and needs an operator; passed to the callback of
/// [`CapBuilder::on_failed`](crate::CapBuilder::on_failed).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Failure {
    /// Whether it failed while being published or while being handled.
    pub side: Side,
    /// The row's id, by which [`Messages::rerun`](crate::Messages::rerun) runs it again.
    pub id: i64,
    /// The message.
    pub message: Arc<Message>,
    /// The receiving group; empty for a message that could not be published.
    pub group: Arc<str>,
    /// Why no further attempt is made.
    pub reason: Reason,
    /// The error of the last attempt.
    pub error: String,
    /// How many attempts have failed.
    pub attempts: u32,
    bus: OwnBus,
}

impl Failure {
    /// Creates the failure from a failed message and the bus that it failed on.
    pub(super) fn new(failed: FailedMessage, bus: OwnBus) -> Self {
        let FailedMessage { side, lease, message, group, reason, error, attempts } = failed;
        Self { side, id: lease.id, message, group, reason, error, attempts, bus }
    }

    /// The bus that the message failed on, to re-run it or to publish something; `None` if the last handle to it has just
    /// been dropped. Only the next call of the callback and a shutdown wait for the callback.
    ///
    /// ```
    /// use cap_core::prelude::*;
    ///
    /// async fn once_more(failure: Failure) {
    ///     // A dependency that was down may be up by now: re-run a received message, but only once.
    ///     let Some(cap) = failure.bus() else { return };
    ///     match cap.messages().get(failure.id).await {
    ///         Ok(Some(row)) if row.reruns == 0 => {
    ///             let again = cap.messages().parked().by("the night watch").rerun(&[row.id]).await;
    ///             println!("{}: {again:?}", row.id);
    ///         }
    ///         _ => println!("{:?}: {}", failure.message.id(), failure.error),
    ///     }
    /// }
    ///
    /// let builder = Cap::builder().on_failed(once_more);
    /// ```
    #[must_use]
    pub fn bus(&self) -> Option<Cap> {
        self.bus.get()
    }
}

type Callback = dyn Fn(Failure) -> BoxFuture<'static, ()> + Send + Sync;

/// The failure callback.
#[derive(Clone)]
pub(super) struct OnFailed(pub(super) Arc<Callback>);

impl OnFailed {
    pub(super) fn call(&self, failure: Failure) -> BoxFuture<'static, ()> {
        (self.0)(failure)
    }
}

impl fmt::Debug for OnFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnFailed")
    }
}
