//! Decides what follows from a handler's failure. A pure function, so that it can be tested by table.

use std::time::Duration;

use crate::handlers::{HandlerError, HandlerErrorKind};
use crate::storage::Reason;
use crate::{NextAttempt, RetryPolicy};

/// What to do with a message whose handler did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Count the attempt; this node makes another one at once.
    Again,
    /// Count the attempt; any node makes another one after this pause.
    Later(Duration),
    /// Count the attempt; the broker delivers the message again after this pause.
    AtBroker(Duration),
    /// Make no more attempts.
    GiveUp(Reason),
    /// Do not count the attempt; the message is due again after this pause.
    Release(Duration),
}

/// The pause after a handler has cancelled its work while the bus was running, so that a handler that always does so is
/// not called in a busy loop.
const PAUSE_AFTER_CANCELLATION: Duration = Duration::from_secs(1);

/// Decides what follows from a failure. `failed` is the number of failed attempts that the policy counts, including this
/// one.
pub(crate) fn decide(
    error: &HandlerError,
    failed: u32,
    policy: &RetryPolicy,
    stopping: bool,
    jitter: f64,
) -> Decision {
    let policy = error.policy().unwrap_or(policy);
    match error.kind() {
        HandlerErrorKind::Permanent => Decision::GiveUp(Reason::Permanent),
        HandlerErrorKind::Undecodable => Decision::GiveUp(Reason::Undecodable),
        HandlerErrorKind::Cancelled if stopping => Decision::Release(Duration::ZERO),
        HandlerErrorKind::Cancelled => Decision::Release(error.pause().unwrap_or(PAUSE_AFTER_CANCELLATION)),
        // `Failed`, and kinds that this engine does not know.
        _ => match (policy.next(failed, jitter), error.pause()) {
            (NextAttempt::GiveUp, _) => Decision::GiveUp(Reason::Exhausted),
            // Not at the broker, where each pause that a handler asks for would need a delay queue of its own.
            (NextAttempt::After(_) | NextAttempt::AtBroker(_), Some(asked)) => Decision::Later(asked),
            (NextAttempt::AtBroker(pause), None) => Decision::AtBroker(pause),
            // A stopping bus leaves the next attempt to another node, or to its next start.
            (NextAttempt::After(Duration::ZERO), None) if !stopping => Decision::Again,
            (NextAttempt::After(pause), None) => Decision::Later(pause),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decide_maps_each_error_to_what_follows() {
        let policy = RetryPolicy::default();
        let ten = Duration::from_secs(10);
        let decide = |error: HandlerError, failed, stopping| decide(&error, failed, &policy, stopping, 0.0);
        let failed = || HandlerError::failed("x");
        assert_eq!(decide(failed(), 1, false), Decision::Again);
        assert_eq!(decide(failed(), 1, true), Decision::Later(Duration::ZERO));
        assert_eq!(decide(failed(), 3, false), Decision::Later(Duration::from_mins(4)));
        assert_eq!(decide(failed(), 50, false), Decision::GiveUp(Reason::Exhausted));
        assert_eq!(decide(failed().retry_after(ten), 1, false), Decision::Later(ten));
        assert_eq!(decide(failed().retry_after(ten), 50, false), Decision::GiveUp(Reason::Exhausted));
        let own = failed().retry(RetryPolicy::broker([ten]));
        assert_eq!(decide(own, 1, false), Decision::AtBroker(ten));
        let asked = failed().retry(RetryPolicy::broker([ten])).retry_after(2 * ten);
        assert_eq!(decide(asked, 1, true), Decision::Later(2 * ten));
        assert_eq!(decide(failed().permanently(), 1, false), Decision::GiveUp(Reason::Permanent));
        assert_eq!(decide(HandlerError::permanent("x"), 1, false), Decision::GiveUp(Reason::Permanent));
        assert_eq!(decide(HandlerError::undecodable("x"), 1, false), Decision::GiveUp(Reason::Undecodable));
        assert_eq!(decide(HandlerError::cancelled(), 1, false), Decision::Release(PAUSE_AFTER_CANCELLATION));
        assert_eq!(decide(HandlerError::cancelled(), 1, true), Decision::Release(Duration::ZERO));
    }
}
