//! The engine's own data of an attempt, which travels with its delivery.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cap_adapter::Delivery;
use cap_adapter::engine::DeliveryParts;

use super::composer::Composer;
use crate::message::Headers;
use crate::storage::NewOutgoing;

/// What a handler has set for its reply.
#[derive(Debug, Clone, Default)]
pub(crate) struct ResponseControl {
    /// Headers of the reply.
    pub(crate) headers: Headers,
    pub(crate) callback: Callback,
}

/// Where the reply is sent.
#[derive(Debug, Clone, Default)]
pub(crate) enum Callback {
    /// To the topic that the sender requested, if any.
    #[default]
    AsRequested,
    /// To this topic.
    To(String),
    /// No reply is sent.
    None,
}

/// The engine's own data of an attempt.
pub(crate) struct AttemptData {
    composer: Arc<Composer>,
    response: Mutex<ResponseControl>,
    publishes: Mutex<Publishes>,
}

/// The messages that a handler has published.
#[derive(Default)]
struct Publishes {
    rows: Vec<NewOutgoing>,
    ended: bool,
}

impl AttemptData {
    pub(crate) fn new(composer: Arc<Composer>) -> Arc<Self> {
        Arc::new(Self { composer, response: Mutex::default(), publishes: Mutex::default() })
    }

    /// The data of a delivery; `None` if the delivery was created by another engine.
    pub(crate) fn of(delivery: &Delivery) -> Option<&Self> {
        delivery.parts().engine.downcast_ref()
    }

    pub(crate) fn composer(&self) -> &Arc<Composer> {
        &self.composer
    }

    /// Adds messages that are published if and only if this attempt succeeds. Returns `false` and adds nothing if its
    /// handler has finished, since the messages may already have been taken.
    #[must_use]
    pub(crate) fn add_publishes(&self, rows: Vec<NewOutgoing>) -> bool {
        let mut publishes = lock(&self.publishes);
        if !publishes.ended {
            publishes.rows.extend(rows);
        }
        !publishes.ended
    }

    /// Records that the handler has finished or was cancelled, so that no more messages are added.
    pub(crate) fn end(&self) {
        lock(&self.publishes).ended = true;
    }

    pub(crate) fn take_publishes(&self) -> Vec<NewOutgoing> {
        std::mem::take(&mut lock(&self.publishes).rows)
    }

    pub(crate) fn response_control<R>(&self, change: impl FnOnce(&mut ResponseControl) -> R) -> R {
        change(&mut lock(&self.response))
    }
}

/// Creates the delivery for the next attempt, without any data of this one.
pub(crate) fn next_attempt(delivery: &Delivery) -> Delivery {
    let mut parts: DeliveryParts = delivery.parts().clone();
    parts.attempt += 1;
    if let Some(part) = AttemptData::of(delivery) {
        parts.engine = AttemptData::new(Arc::clone(&part.composer));
    }
    Delivery::new(parts)
}

/// Locks, ignoring poisoning: no panic can leave these plain values half-changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
