//! What the storage does not show: handlers that are running, and handlers that panicked.

use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cap_core::{BoxFuture, Delivery, Layer, Next, Outcome};
use futures_util::FutureExt;

/// A panic of a handler.
#[derive(Debug, Clone)]
pub(crate) struct Panicked {
    pub(crate) topic: String,
    pub(crate) text: String,
}

/// Watches the handlers of one bus.
#[derive(Debug, Default)]
pub(crate) struct Observer {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    running: Vec<String>,
    panics: Vec<Panicked>,
}

impl Observer {
    /// The topics whose handlers run.
    pub(crate) fn running(&self) -> Vec<String> {
        self.lock().running.clone()
    }

    pub(crate) fn panics(&self) -> Vec<Panicked> {
        self.lock().panics.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The innermost layer of a bus.
pub(crate) struct Observe(pub(crate) Arc<Observer>);

impl Layer for Observe {
    fn handle(&self, delivery: Delivery, next: Next) -> BoxFuture<'static, Outcome> {
        let observer = Arc::clone(&self.0);
        Box::pin(async move {
            let topic = delivery.topic().to_owned();
            let running = Running::new(&observer, &topic);
            let outcome = AssertUnwindSafe(next.run(delivery)).catch_unwind().await;
            drop(running);
            outcome.unwrap_or_else(|panic| {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text =
                    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no text").to_owned();
                observer.lock().panics.push(Panicked { topic, text });
                // The bus counts it as it does without a test.
                resume_unwind(panic)
            })
        })
    }
}

/// A handler that runs, until it is dropped: also when its timeout drops it.
struct Running<'a> {
    observer: &'a Observer,
    topic: &'a str,
}

impl<'a> Running<'a> {
    fn new(observer: &'a Observer, topic: &'a str) -> Self {
        observer.lock().running.push(topic.to_owned());
        Self { observer, topic }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut inner = self.observer.lock();
        if let Some(at) = inner.running.iter().position(|topic| topic == self.topic) {
            inner.running.swap_remove(at);
        }
    }
}
