//! Options and policies, from JSON that an operator wrote.

use std::fmt::Debug;
use std::time::Duration;

use cap_core::{CapOptions, NextAttempt, RetryPolicy};
use cap_rabbitmq::RabbitMqOptions;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::text;

/// Reads options, and expects that they are the same after having been written and read again.
fn read<T: Serialize + DeserializeOwned + PartialEq + Debug>(data: &[u8]) -> Option<T> {
    let read: T = serde_json::from_str(&text(data)).ok()?;
    let written = serde_json::to_string(&read).unwrap_or_default();
    let again: Option<T> = serde_json::from_str(&written).ok();
    assert_eq!(again.as_ref(), Some(&read), "{written} can be read again");
    Some(read)
}

/// The options of a bus.
pub fn cap_options(data: &[u8]) {
    let Some(options) = read::<CapOptions>(data) else { return };
    let _ = options.validate();
    judge(&options.retry);
}

/// The options of the RabbitMQ transport. No view of them shows a password.
pub fn rabbitmq_options(data: &[u8]) {
    let Some(options) = read::<RabbitMqOptions>(data) else { return };
    let _ = format!("{options:?}");
}

/// A retry policy: after any number of failures it says something.
pub fn retry_policy(data: &[u8]) {
    if let Some(policy) = read::<RetryPolicy>(data) {
        judge(&policy);
    }
}

fn judge(policy: &RetryPolicy) {
    for failed in [0, 1, 2, 3, 4, 49, 50, 51, 1000, u32::MAX] {
        for jitter in [0.0, 0.3, 1.0, -1.0, f64::INFINITY, f64::NAN] {
            let next = policy.next(failed, jitter);
            if let (RetryPolicy::Exponential { limit, .. }, NextAttempt::After(pause)) = (policy, next) {
                assert!(pause <= *limit, "{policy:?} pauses for {pause:?}");
            }
        }
    }
    assert!(
        !matches!(policy, RetryPolicy::Delays(_)) || policy.next(u32::MAX, 0.0) == NextAttempt::GiveUp,
        "a list of pauses ends"
    );
    let _ = policy.next(1, 0.5) == NextAttempt::After(Duration::ZERO);
}
