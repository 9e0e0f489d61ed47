//! Runs lapin's tasks with the same [`LogFilter`] as its thread.
//!
//! **Works around:** lapin logs some errors in tasks that it spawns on our runtime, and not on its own thread.
//! **Can go** with the filter.

use async_rs::Tokio;
use async_rs::traits::Executor;
use async_rs::util::Task;
use tracing::instrument::WithSubscriber as _;

use crate::driver_fixes::log_filter::LogFilter;

/// tokio, with a subscriber for what is spawned.
#[derive(Clone, Debug)]
pub(crate) struct Filtered {
    pub(crate) tokio: Tokio,
    pub(crate) log_filter: LogFilter,
}

impl Executor for Filtered {
    type Task<T: Send + 'static> = <Tokio as Executor>::Task<T>;

    fn block_on<T, F: Future<Output = T>>(&self, future: F) -> T {
        self.tokio.block_on(future)
    }

    fn spawn<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
        &self,
        future: F,
    ) -> Task<Self::Task<T>> {
        self.tokio.spawn(future.with_subscriber(self.log_filter.clone()))
    }

    fn spawn_blocking<T: Send + 'static, F: FnOnce() -> T + Send + 'static>(
        &self,
        function: F,
    ) -> Task<Self::Task<T>> {
        self.tokio.spawn_blocking(function)
    }
}
