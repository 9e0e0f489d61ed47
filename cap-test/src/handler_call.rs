//! One handler, called alone.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use cap_core::{
    Cap, CapBuilder, Delivery, HandlerError, HandlerFn, Handlers, Outcome, RetryPolicy, Subscribe, layer_fn,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::record::Record;
use crate::test_bus::TestBus;

/// The topic of a call that sets none.
const TOPIC: &str = "cap-test.call";

/// Subscribes the handler to a topic, once that is known.
type SubscribeTo = dyn FnOnce(CapBuilder, &str) -> CapBuilder + Send;

/// Calls one handler once, with the payload, headers, attempt and state that the test gives, and shows its outcome, its reply
/// and what it published.
///
/// ```
/// use cap_core::prelude::*;
/// use cap_test::HandlerCall;
///
/// #[cap_subscribe("order.paid")]
/// async fn ship(order: u64, Attempt(attempt): Attempt, publisher: Publisher) -> Result<Reply<String>, PublishError> {
///     publisher.publish("parcel.wanted", &order).await?;
///     Ok(Reply(format!("order {order}, attempt {attempt}")))
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let handled = HandlerCall::of(ship).attempt(2).call(&7).await;
/// assert_eq!(handled.reply::<String>(), "order 7, attempt 2");
/// assert_eq!(handled.published::<u64>("parcel.wanted").await[0].payload, 7);
/// # }
/// ```
#[must_use = "the handler is called by .call()"]
pub struct HandlerCall {
    builder: CapBuilder,
    subscribe: Box<SubscribeTo>,
    topic: String,
    headers: Vec<(String, String)>,
    attempt: u32,
}

impl std::fmt::Debug for HandlerCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HandlerCall")
            .field("topic", &self.topic)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}

impl HandlerCall {
    /// A call of this handler: an annotated function, or any function or closure that
    /// [`subscribe`](cap_core::CapBuilder::subscribe) takes.
    pub fn of<A: 'static, H: HandlerFn<A>>(handler: H) -> Self {
        let subscribe = move |builder: CapBuilder, topic: &str| {
            builder.subscribe(Subscribe::to(topic).retry(RetryPolicy::never()), handler)
        };
        Self {
            builder: Cap::builder().handlers(Handlers::none()),
            subscribe: Box::new(subscribe),
            topic: TOPIC.to_owned(),
            headers: Vec::new(),
            attempt: 1,
        }
    }

    /// Sets the topic of the message.
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.topic = topic.into();
        self
    }

    /// Adds a header to the message.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets which attempt it is. Default: the first.
    pub fn attempt(mut self, attempt: u32) -> Self {
        self.attempt = attempt;
        self
    }

    /// Gives the handler a value that it takes as [`State`](cap_core::State).
    pub fn state<T: Send + Sync + 'static>(mut self, value: T) -> Self {
        self.builder = self.builder.state(value);
        self
    }

    /// Calls the handler with this payload.
    ///
    /// Panics if the handler panics, or takes longer than 10 seconds.
    pub async fn call<T: Serialize + ?Sized>(self, payload: &T) -> Handled {
        let outcome = Arc::new(Mutex::new(None));
        let (seen, attempt) = (Arc::clone(&outcome), self.attempt);
        let builder = (self.subscribe)(self.builder, &self.topic).layer(layer_fn(move |delivery, next| {
            let seen = Arc::clone(&seen);
            async move {
                let outcome = next.run(at_attempt(&delivery, attempt)).await;
                *seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(copy(&outcome));
                outcome
            }
        }));
        let bus = TestBus::start(builder).await;
        bus.expect_parked(self.topic.clone());
        let mut publish = bus.publish(self.topic.clone(), payload);
        for (name, value) in self.headers {
            publish = publish.header(name, value);
        }
        if let Err(error) = publish.await {
            panic!("the message of the call cannot be published: {error}");
        }
        bus.settled().await;
        let outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner).take();
        let outcome = outcome.unwrap_or_else(|| panic!("the handler was not called"));
        Handled { outcome, bus }
    }
}

/// What a handler did.
#[derive(Debug)]
pub struct Handled {
    outcome: Result<Option<Bytes>, String>,
    bus: TestBus,
}

impl Handled {
    /// The reply. Panics if there is none, or if the handler failed.
    #[must_use]
    pub fn reply<T: DeserializeOwned>(&self) -> T {
        match &self.outcome {
            Ok(Some(body)) => serde_json::from_slice(body)
                .unwrap_or_else(|error| panic!("the reply is not a {}: {error}", std::any::type_name::<T>())),
            Ok(None) => panic!("the handler gave no reply"),
            Err(error) => panic!("the handler failed: {error}"),
        }
    }

    /// Whether the handler succeeded.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.outcome.is_ok()
    }

    /// The text of the handler's error. Panics if it succeeded.
    #[must_use]
    pub fn error(&self) -> &str {
        match &self.outcome {
            Err(error) => error,
            Ok(_) => panic!("the handler succeeded"),
        }
    }

    /// What the handler published to a topic: nothing if it failed.
    pub async fn published<T: DeserializeOwned>(&self, topic: &str) -> Vec<Record<T>> {
        self.bus.published(topic).all().await
    }
}

/// The same delivery at another attempt.
fn at_attempt(delivery: &Delivery, attempt: u32) -> Delivery {
    let mut parts = delivery.parts().clone();
    parts.attempt = attempt;
    Delivery::new(parts)
}

fn copy(outcome: &Outcome) -> Result<Option<Bytes>, String> {
    match outcome {
        Ok(reply) => Ok(reply.as_ref().map(|reply| reply.body.clone())),
        Err(error) => Err(text(error)),
    }
}

fn text(error: &HandlerError) -> String {
    error.to_string()
}
