//! The error of a handler.

use std::fmt;
use std::time::Duration;

use crate::error::{
    BoxError, PublishError, StorageError, error_chain, error_chain_without_payload, error_text,
    json_error_text,
};
use crate::panics::caught;
use crate::retry_policy::RetryPolicy;

/// What a handler's error means for its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HandlerErrorKind {
    /// The attempt counts and the retry policy decides what follows. Any other error type means the same.
    Failed,
    /// No attempt can succeed: the message is parked at once.
    Permanent,
    /// The body cannot be decoded: the message is parked as undecodable.
    Undecodable,
    /// The work was cancelled and is not done: no attempt is counted, and the message is due again soon.
    Cancelled,
}

/// A classified handler error. Handlers may return any other error type too, which is retried.
///
/// ```
/// use cap_core::prelude::*;
///
/// #[derive(Deserialize)]
/// struct Payment { amount: i64 }
///
/// #[cap_subscribe("payment.requested")]
/// async fn pay(payment: Payment) -> Result<(), HandlerError> {
///     if payment.amount < 0 {
///         return Err(HandlerError::permanent("a payment cannot be negative"));
///     }
///     Ok(())
/// }
/// ```
#[derive(Debug)]
pub struct HandlerError {
    kind: HandlerErrorKind,
    source: BoxError,
    after: Option<Duration>,
    policy: Option<Box<RetryPolicy>>,
    outage: bool,
}

/// Classifies handler errors: permanent, retry later, or outage of a dependency. Called for each error before the
/// retry decision; see `CapBuilder::classify_errors`.
///
/// ```
/// use std::io;
/// use cap_core::prelude::*;
///
/// fn classify(error: HandlerError) -> HandlerError {
///     match error.find::<io::Error>().map(io::Error::kind) {
///         Some(io::ErrorKind::ConnectionRefused) => error.outage(),
///         Some(io::ErrorKind::InvalidInput) => error.permanently(),
///         _ => error,
///     }
/// }
/// ```
pub type Classify = fn(HandlerError) -> HandlerError;

impl HandlerError {
    /// Creates a failure that is retried by the policy, like any other error type.
    pub fn failed(source: impl Into<BoxError>) -> Self {
        Self::new(HandlerErrorKind::Failed, source)
    }

    /// Creates a failure that no retry can fix: the message is parked at once.
    pub fn permanent(source: impl Into<BoxError>) -> Self {
        Self::new(HandlerErrorKind::Permanent, source)
    }

    /// Creates the error of a payload that cannot be decoded, for extractors. The message is parked with its raw
    /// body, to be re-run once the handler is fixed.
    pub fn undecodable(source: impl Into<BoxError>) -> Self {
        Self::new(HandlerErrorKind::Undecodable, source)
    }

    /// Creates the error of cancelled work, for instance because [`Cancelled`](crate::Cancelled) was cancelled: no
    /// attempt is counted, and the message is due again soon. A timeout is a failure instead.
    #[must_use]
    pub fn cancelled() -> Self {
        Self::new(HandlerErrorKind::Cancelled, "the handler's work was cancelled")
    }

    fn new(kind: HandlerErrorKind, source: impl Into<BoxError>) -> Self {
        Self { kind, source: source.into(), after: None, policy: None, outage: false }
    }

    /// Makes the error permanent: the message is parked at once.
    #[must_use]
    pub fn permanently(mut self) -> Self {
        self.kind = HandlerErrorKind::Permanent;
        self
    }

    /// Sets the pause before the next attempt, instead of the policy's, for a failure or a cancellation.
    #[must_use]
    pub fn retry_after(mut self, pause: Duration) -> Self {
        self.after = Some(pause);
        self
    }

    /// Sets the policy that decides what follows a failure, instead of the subscription's. It counts all failed
    /// attempts so far, whatever their errors were.
    #[must_use]
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.policy = Some(Box::new(policy));
        self
    }

    /// Marks the error as an outage: a dependency of the handler is down, and the message is not the cause. It counts
    /// for a `CircuitBreaker`, as does a timeout of the handler.
    #[must_use]
    pub fn outage(mut self) -> Self {
        self.outage = true;
        self
    }

    /// Adds the cause of a cancellation to its text.
    #[must_use]
    pub fn because(mut self, source: impl Into<BoxError>) -> Self {
        self.source = source.into();
        self
    }

    /// The kind of the error.
    #[must_use]
    pub fn kind(&self) -> HandlerErrorKind {
        self.kind
    }

    /// The pause requested by the handler.
    #[must_use]
    pub fn pause(&self) -> Option<Duration> {
        self.after
    }

    /// The policy requested by the handler.
    #[must_use]
    pub fn policy(&self) -> Option<&RetryPolicy> {
        self.policy.as_deref()
    }

    /// Whether the error is an outage of a dependency.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        self.outage
    }

    /// Finds the first error of this type among the returned error and its causes.
    #[must_use]
    pub fn find<E: std::error::Error + 'static>(&self) -> Option<&E> {
        let mut error: Option<&(dyn std::error::Error + 'static)> = Some(&*self.source);
        while let Some(current) = error {
            if let Some(found) = current.downcast_ref::<E>() {
                return Some(found);
            }
            error = behind(current);
        }
        None
    }

    /// The error as the bus records it: one line with its causes, [bounded and escaped](error_text), and without the
    /// message contents that errors of serde quote (see [`json_error_text`]).
    #[must_use]
    pub fn text(&self) -> String {
        self.text_by(error_chain_without_payload)
    }

    /// Like [`text`](Self::text), but keeps quoted message contents if `payload` is set.
    #[doc(hidden)]
    #[must_use]
    pub fn text_with(&self, payload: bool) -> String {
        if payload { self.text_by(error_chain) } else { self.text() }
    }

    fn text_by(&self, chain: fn(&(dyn std::error::Error + 'static)) -> String) -> String {
        caught("the text of the handler's error", || chain(&*self.source)).unwrap_or_else(error_text)
    }

    /// Converts any error: a `HandlerError`, itself or as a cause, keeps its class; any other error is an ordinary
    /// failure.
    #[doc(hidden)]
    #[must_use]
    pub fn from_any(error: BoxError) -> Self {
        let error = match error.downcast::<Self>() {
            Ok(own) => return *own,
            Err(other) => other,
        };
        let mut cause = error.source();
        while let Some(inner) = cause {
            if let Some(own) = inner.downcast_ref::<Self>() {
                let (kind, after, policy, outage) = (own.kind, own.after, own.policy.clone(), own.outage);
                return Self { kind, after, policy, outage, source: error };
            }
            cause = inner.source();
        }
        Self::failed(error)
    }
}

/// The cause of an error, also if its `source` skips a cause that is part of its text.
fn behind<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a (dyn std::error::Error + 'static)> {
    if let Some(handler) = error.downcast_ref::<HandlerError>() {
        Some(&*handler.source)
    } else if let Some(storage) = error.downcast_ref::<StorageError>() {
        storage.cause()
    } else if let Some(PublishError::Storage { source, .. }) = error.downcast_ref::<PublishError>() {
        Some(source)
    } else {
        error.source()
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.source.downcast_ref::<serde_json::Error>() {
            Some(json) => f.write_str(&json_error_text(json)),
            None => fmt::Display::fmt(&self.source, f),
        }
    }
}

impl std::error::Error for HandlerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.source()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("stock: {0}")]
    struct Wrapped(#[source] HandlerError);

    #[test]
    fn the_meaning_survives_boxing_and_wrapping() {
        let kind = |error: BoxError| HandlerError::from_any(error).kind();
        assert_eq!(kind("plain".into()), HandlerErrorKind::Failed);
        assert_eq!(kind(HandlerError::permanent("no").into()), HandlerErrorKind::Permanent);
        assert_eq!(kind(Wrapped(HandlerError::cancelled()).into()), HandlerErrorKind::Cancelled);
        let nested = HandlerError::from_any(Wrapped(HandlerError::permanent("sold out")).into());
        assert_eq!(nested.text(), "stock: sold out");
        let outage = HandlerError::from_any(
            Wrapped(HandlerError::failed("away").outage().retry(RetryPolicy::never())).into(),
        );
        assert!(outage.is_outage());
        assert_eq!(outage.policy(), Some(&RetryPolicy::never()));
    }

    #[test]
    fn an_error_is_found_wherever_it_is() {
        let lost = || std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        assert!(HandlerError::failed(lost()).find::<std::io::Error>().is_some());
        let wrapped = HandlerError::failed(Wrapped(HandlerError::permanent(lost())));
        assert!(wrapped.find::<std::io::Error>().is_some());
        assert!(wrapped.find::<Wrapped>().is_some());
        assert!(HandlerError::failed("text").find::<std::io::Error>().is_none());
    }
}
