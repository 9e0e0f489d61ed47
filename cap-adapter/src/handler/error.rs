//! What a handler says when it did not succeed.

use std::fmt;
use std::time::Duration;

use crate::error::{BoxError, PublishError, StorageError, error_chain, error_text, json_error_text};
use crate::error_text::error_chain_without_payload;
use crate::panics::caught;
use crate::retry_policy::RetryPolicy;

/// What a handler's failure means for its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HandlerErrorKind {
    /// The attempt counts and the retry policy decides what follows. What any other error means, too.
    Failed,
    /// No attempt can succeed: the message waits for an operator at once.
    Permanent,
    /// The body is not what the handler takes: the message is parked as undecodable.
    Undecodable,
    /// The work was cancelled: it is not done and no attempt is counted. The message is due again soon.
    Cancelled,
}

/// A handler's error that says more than "failed". Any other error type may be returned too; it is retried.
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

/// Says more about handlers' errors than they say themselves: which are permanent, which wait longer, which mean that a
/// whole dependency is away. Called for each error before anything is decided; see
/// `CapBuilder::classify_errors`.
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
    /// A failure that is retried by the policy, like any other error type.
    pub fn failed(source: impl Into<BoxError>) -> Self {
        Self::new(HandlerErrorKind::Failed, source)
    }

    /// A failure that no retry can repair: the message goes to an operator at once.
    pub fn permanent(source: impl Into<BoxError>) -> Self {
        Self::new(HandlerErrorKind::Permanent, source)
    }

    /// The payload cannot be read: for extractors. The message is parked with its raw body, to be re-run once the
    /// handler has been repaired.
    pub fn undecodable(source: impl Into<BoxError>) -> Self {
        Self::new(HandlerErrorKind::Undecodable, source)
    }

    /// The work was cancelled, for instance since [`Cancelled`](crate::Cancelled) fired: not done, no attempt
    /// counted, and due again soon. A time-out is not this but a failure.
    #[must_use]
    pub fn cancelled() -> Self {
        Self::new(HandlerErrorKind::Cancelled, "the handler's work was cancelled")
    }

    fn new(kind: HandlerErrorKind, source: impl Into<BoxError>) -> Self {
        Self { kind, source: source.into(), after: None, policy: None, outage: false }
    }

    /// Makes it permanent: the message goes to an operator at once.
    #[must_use]
    pub fn permanently(mut self) -> Self {
        self.kind = HandlerErrorKind::Permanent;
        self
    }

    /// For a failure or a cancellation: the pause before the next attempt, instead of the policy's.
    #[must_use]
    pub fn retry_after(mut self, pause: Duration) -> Self {
        self.after = Some(pause);
        self
    }

    /// For a failure: the policy that decides what follows it, instead of the subscriber's. It counts every attempt
    /// that has failed so far, whatever its error was.
    #[must_use]
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.policy = Some(Box::new(policy));
        self
    }

    /// Says that this was not the message's fault: what the handler depends on is away as a whole. What a
    /// `CircuitBreaker` looks for; a handler's time-out is one, too.
    #[must_use]
    pub fn outage(mut self) -> Self {
        self.outage = true;
        self
    }

    /// Puts what lies behind a cancellation into its text.
    #[must_use]
    pub fn because(mut self, source: impl Into<BoxError>) -> Self {
        self.source = source.into();
        self
    }

    /// What the failure means.
    #[must_use]
    pub fn kind(&self) -> HandlerErrorKind {
        self.kind
    }

    /// The pause that the handler asked for.
    #[must_use]
    pub fn pause(&self) -> Option<Duration> {
        self.after
    }

    /// The policy that was asked for.
    #[must_use]
    pub fn policy(&self) -> Option<&RetryPolicy> {
        self.policy.as_deref()
    }

    /// Whether what the handler depends on is away as a whole.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        self.outage
    }

    /// The first error of this type among what the handler returned and its causes.
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

    /// The error as the bus records it: one line with its causes, [bounded and escaped](error_text), and without what
    /// errors of serde quote of the message (as [`json_error_text`] says).
    #[must_use]
    pub fn text(&self) -> String {
        self.text_by(error_chain_without_payload)
    }

    /// As [`text`](Self::text); with what errors quote of the message if `payload` says so.
    #[doc(hidden)]
    #[must_use]
    pub fn text_with(&self, payload: bool) -> String {
        if payload { self.text_by(error_chain) } else { self.text() }
    }

    fn text_by(&self, chain: fn(&(dyn std::error::Error + 'static)) -> String) -> String {
        caught("the text of the handler's error", || chain(&*self.source)).unwrap_or_else(error_text)
    }

    /// Takes any error: one that is a `HandlerError`, itself or as a cause, keeps its meaning; any other is a
    /// plain failure.
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

/// The error behind another, also where that gives as its source only what its text does not say.
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
