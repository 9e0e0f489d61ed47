//! What the engine keeps with each attempt of a delivery, beside what its handler sees.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cap_adapter::Delivery;
use cap_adapter::engine::DeliveryParts;

use super::composer::Composer;
use crate::message::Headers;
use crate::storage::NewOutgoing;

/// What a handler has said about its answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct ResponseControl {
    /// Headers to put on the answer.
    pub(crate) headers: Headers,
    pub(crate) callback: Callback,
}

/// Where the answer goes.
#[derive(Debug, Clone, Default)]
pub(crate) enum Callback {
    /// Where the sender asked for it, if it did.
    #[default]
    AsAsked,
    /// Here.
    To(String),
    /// Nowhere.
    None,
}

/// What the engine keeps with one attempt.
pub(crate) struct AttemptData {
    composer: Arc<Composer>,
    response: Mutex<ResponseControl>,
    publishes: Mutex<Publishes>,
}

/// What a handler publishes, until it ends.
#[derive(Default)]
struct Publishes {
    rows: Vec<NewOutgoing>,
    ended: bool,
}

impl AttemptData {
    pub(crate) fn new(composer: Arc<Composer>) -> Arc<Self> {
        Arc::new(Self { composer, response: Mutex::default(), publishes: Mutex::default() })
    }

    /// The part of a delivery; `None` if another engine than this one has made it.
    pub(crate) fn of(delivery: &Delivery) -> Option<&Self> {
        delivery.parts().engine.downcast_ref()
    }

    pub(crate) fn composer(&self) -> &Arc<Composer> {
        &self.composer
    }

    /// Adds messages that leave if and only if this delivery succeeds. `false` if its handler has ended: what it
    /// published may have been taken by then.
    #[must_use]
    pub(crate) fn add_publishes(&self, rows: Vec<NewOutgoing>) -> bool {
        let mut publishes = lock(&self.publishes);
        if !publishes.ended {
            publishes.rows.extend(rows);
        }
        !publishes.ended
    }

    /// Says that the handler has ended, or was given up.
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

/// The same message for its next attempt: nothing of this one is left on it.
pub(crate) fn next_attempt(delivery: &Delivery) -> Delivery {
    let mut parts: DeliveryParts = delivery.parts().clone();
    parts.attempt += 1;
    if let Some(part) = AttemptData::of(delivery) {
        parts.engine = AttemptData::new(Arc::clone(&part.composer));
    }
    Delivery::new(parts)
}

/// These locks guard plain data that no panic leaves half-changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
