//! Runs a number of random histories, and says how to see a failure again.

use std::fmt::Debug;

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};

/// Judges so many random cases; `CAP_MODEL_CASES` overrides the number, `CAP_MODEL_SEED` the seed.
///
/// # Errors
///
/// The seed, what went wrong, and the simplest case in which it does.
pub fn cases<T: Debug>(
    cases: u32,
    strategy: &impl Strategy<Value = T>,
    judge: impl Fn(T) -> Result<(), TestCaseError>,
) -> Result<(), String> {
    let seed = from_environment("CAP_MODEL_SEED").unwrap_or_else(|| fastrand::u64(..));
    let cases = from_environment("CAP_MODEL_CASES").unwrap_or(cases);
    let config = Config {
        cases,
        rng_seed: RngSeed::Fixed(seed),
        // The seed is printed instead: a test writes nothing into the source tree.
        failure_persistence: None,
        max_shrink_iters: 2000,
        ..Config::default()
    };
    TestRunner::new(config)
        .run(strategy, judge)
        .map_err(|failure| format!("CAP_MODEL_SEED={seed} CAP_MODEL_CASES={cases}\n{failure}"))
}

fn from_environment<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}
