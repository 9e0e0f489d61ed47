//! A limit on guesses of secrets.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The time that failures are counted in.
const WINDOW: Duration = Duration::from_secs(60);
/// The most failures of one address in that time.
const MOST_OF_ONE: u32 = 10;
/// The most failures of all addresses together in that time.
const MOST_OF_ALL: u32 = 300;
/// The most addresses that are remembered.
const MOST_ADDRESSES: usize = 10_000;

/// Counts failed logins by the address they came from.
#[derive(Debug, Default)]
pub(crate) struct LoginLimit(Mutex<Failures>);

#[derive(Debug, Default)]
struct Failures {
    began: Option<Instant>,
    of_all: u32,
    of_one: HashMap<Option<IpAddr>, u32>,
}

impl LoginLimit {
    /// Whether this address may try; otherwise how long it has to wait.
    pub(crate) fn check(&self, address: Option<IpAddr>, now: Instant) -> Result<(), Duration> {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let began = *failures.began.get_or_insert(now);
        let passed = now.saturating_duration_since(began);
        if passed >= WINDOW {
            *failures = Failures { began: Some(now), ..Failures::default() };
            return Ok(());
        }
        let of_one = failures.of_one.get(&address).copied().unwrap_or_default();
        if of_one >= MOST_OF_ONE || failures.of_all >= MOST_OF_ALL {
            return Err(WINDOW.saturating_sub(passed));
        }
        Ok(())
    }

    /// Counts a failure.
    pub(crate) fn failed(&self, address: Option<IpAddr>) {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        failures.of_all = failures.of_all.saturating_add(1);
        if failures.of_one.len() < MOST_ADDRESSES || failures.of_one.contains_key(&address) {
            *failures.of_one.entry(address).or_default() += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_is_stopped_and_others_are_not() {
        let (limit, now) = (LoginLimit::default(), Instant::now());
        let (bad, good) = (Some(IpAddr::from([10, 0, 0, 1])), Some(IpAddr::from([10, 0, 0, 2])));
        for _ in 0..MOST_OF_ONE {
            assert!(limit.check(bad, now).is_ok());
            limit.failed(bad);
        }
        assert!(limit.check(bad, now).is_err());
        assert!(limit.check(good, now).is_ok());
        assert!(limit.check(bad, now + WINDOW).is_ok());
    }
}
