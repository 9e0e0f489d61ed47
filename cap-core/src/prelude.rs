//! Everything that a service with handlers usually needs: `use cap_core::prelude::*;`.

pub use serde::{Deserialize, Serialize};

pub use crate::memory::{MemoryStorage, MemoryTransport};
pub use crate::{
    Attempt, CallbackNotAllowed, Cancelled, Cap, CapHeaders, CapOptions, CircuitBreaker, Delivery, Failure,
    HandlerError, Handlers, MessageId, Payload, PublishError, Publisher, RawBody, Reply, RetryPolicy, State,
    Subscribe, Topic, cap_subscribe, cap_subscriber,
};
