//! Runs one case: a fresh fixture, the case under a deadline, and the clean-up whatever came of it.

use std::panic::{AssertUnwindSafe, resume_unwind};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::runtime::Builder;

use crate::storage::StorageFixture;
use crate::transport::TransportFixture;

/// How long a case may take. A call that hangs is a failure like any other, and must not keep the others waiting.
const DEADLINE: Duration = Duration::from_mins(2);

/// Runs a case of the storage suite.
pub fn run_storage<F: StorageFixture>(make: impl AsyncFnOnce() -> F, case: impl AsyncFnOnce(&F)) {
    run(make, case, F::cleanup);
}

/// Runs a case of the transport suite.
pub fn run_transport<F: TransportFixture>(make: impl AsyncFnOnce() -> F, case: impl AsyncFnOnce(&F)) {
    run(make, case, F::cleanup);
}

fn run<F>(make: impl AsyncFnOnce() -> F, case: impl AsyncFnOnce(&F), cleanup: impl AsyncFnOnce(F)) {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let outcome = runtime.block_on(async {
        let fixture = make().await;
        let timed = tokio::time::timeout(DEADLINE, case(&fixture));
        let outcome = AssertUnwindSafe(timed).catch_unwind().await;
        cleanup(fixture).await;
        outcome
    });
    match outcome {
        Ok(Ok(())) => {}
        Ok(Err(_)) => panic!("the case was not done after {DEADLINE:?}"),
        Err(panic) => resume_unwind(panic),
    }
}
