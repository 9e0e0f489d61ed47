//! What follows from a handler's outcome: a pure decision, so that it can be tested by table.

use std::time::Duration;

use crate::handlers::{HandlerError, HandlerErrorKind};
use crate::storage::Reason;
use crate::{NextAttempt, RetryPolicy};

/// What is to become of a message whose handler did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    /// The attempt counts; another is made at once, by this node.
    Again,
    /// The attempt counts; another is made after this pause, by any node.
    Later(Duration),
    /// The attempt counts; the broker brings the message back after this pause.
    AtBroker(Duration),
    /// No more attempts.
    GiveUp(Reason),
    /// Nothing counts; it is due again after this pause.
    GiveBack(Duration),
}

/// How long a message rests whose handler called its work off while the bus was running, so that one that always
/// does so does not spin.
const REST: Duration = Duration::from_secs(1);

/// Decides what follows. `failed` is the number of failed attempts, this one included, that the policy counts.
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
        HandlerErrorKind::Cancelled if stopping => Decision::GiveBack(Duration::ZERO),
        HandlerErrorKind::Cancelled => Decision::GiveBack(error.pause().unwrap_or(REST)),
        // `Failed`, and kinds that this engine does not know.
        _ => match (policy.next(failed, jitter), error.pause()) {
            (NextAttempt::GiveUp, _) => Decision::GiveUp(Reason::Exhausted),
            // Not at the broker: a delay queue for each pause that anyone may ask for would be a queue each.
            (NextAttempt::After(_) | NextAttempt::AtBroker(_), Some(asked)) => Decision::Later(asked),
            (NextAttempt::AtBroker(pause), None) => Decision::AtBroker(pause),
            // A bus that stops leaves the next attempt to another node, or to the next start.
            (NextAttempt::After(Duration::ZERO), None) if !stopping => Decision::Again,
            (NextAttempt::After(pause), None) => Decision::Later(pause),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_has_its_consequence() {
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
        assert_eq!(decide(HandlerError::cancelled(), 1, false), Decision::GiveBack(REST));
        assert_eq!(decide(HandlerError::cancelled(), 1, true), Decision::GiveBack(Duration::ZERO));
    }
}
