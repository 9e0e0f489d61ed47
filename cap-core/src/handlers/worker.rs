//! The loop around one handler: takes a delivery, runs the handler, hands on the outcome.

use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{Mutex, mpsc};
use tokio::time::timeout;
use tracing::Instrument;

use super::activity::Activity;
use super::attempt_data::EnginePart;
use super::reply::Outcome;
use crate::message::headers::names;
use crate::message::is_trace_parent;
use crate::runtime::byte_budget::Held;
use crate::runtime::suspect_gate::Pass;
use crate::storage::Lease;
use cap_adapter::Delivery;
use cap_adapter::HandlerError;
use cap_adapter::engine::panic_text;

/// What a driven handler takes its deliveries from; see
/// [`HandlerPointers::drive`](super::HandlerPointers::drive).
pub struct Worker {
    jobs: Jobs,
    done: mpsc::Sender<Done>,
    timeout: Option<Duration>,
    activity: Arc<Activity>,
    current: Option<Job>,
}

/// A delivery to be run.
pub(crate) struct Job {
    pub(crate) delivery: Delivery,
    pub(crate) ticket: Ticket,
}

/// What is known of a message besides what its handler sees.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(crate) lease: Lease,
    /// Its handler's place in the group.
    pub(crate) member: usize,
    /// Attempts that failed before this one.
    pub(crate) attempts: u32,
    /// Of those, the ones before an operator last re-ran the message.
    pub(crate) attempts_before_rerun: u32,
    /// How old the message was when this node got it.
    pub(crate) age: Duration,
    /// The value that it keeps its order by.
    pub(crate) key: Option<String>,
    /// Whether it is tried on behalf of all while its subscriber's circuit is open.
    pub(crate) probe: bool,
    /// How often the process has died while it was being handled.
    pub(crate) crashes: u32,
    /// It is a suspect whose turn this is: the turn ends as this is dropped.
    pub(crate) pass: Option<Pass>,
    /// What the message takes of the group's memory.
    pub(crate) held: Held,
}

/// A delivery that was run.
pub(crate) struct Done {
    pub(crate) job: Job,
    pub(crate) outcome: Outcome,
}

/// The jobs of one handler, shared by its workers.
pub(crate) type Jobs = Arc<Mutex<mpsc::Receiver<Job>>>;

impl Worker {
    pub(crate) fn new(
        jobs: Jobs,
        done: mpsc::Sender<Done>,
        timeout: Option<Duration>,
        activity: Arc<Activity>,
    ) -> Self {
        Self { jobs, done, timeout, activity, current: None }
    }

    /// The next delivery; `None` when there will be none.
    pub async fn next(&mut self) -> Option<Delivery> {
        // One worker waits for the next job, the others for their turn to wait.
        let job = self.jobs.lock().await.recv().await?;
        let delivery = job.delivery.clone();
        self.current = Some(job);
        Some(delivery)
    }

    /// Runs the handler's future: a panic and a time-out become errors.
    ///
    /// # Errors
    ///
    /// The handler's own, and those two.
    pub async fn run(&self, delivery: &Delivery, handler: impl Future<Output = Outcome>) -> Outcome {
        let span = tracing::info_span!(
            "cap.handle",
            message_id = delivery.message_id().as_str(),
            topic = delivery.topic(),
            group = delivery.group(),
            attempt = delivery.attempt(),
            // A sender writes it, and it stands on every line of the log.
            traceparent =
                delivery.message().headers.get(names::TRACE_PARENT).filter(|text| is_trace_parent(text)),
        );
        let timed = async {
            match self.timeout {
                None => handler.await,
                Some(limit) => timeout(limit, handler).await.unwrap_or_else(|_| Err(too_long(limit))),
            }
        };
        let caught = AssertUnwindSafe(timed.instrument(span)).catch_unwind();
        self.activity
            .follow(caught)
            .await
            .unwrap_or_else(|panic| Err(HandlerError::failed(panic_text("the handler", &*panic))))
    }

    /// Hands on the outcome of the delivery that [`next`](Self::next) gave last.
    pub async fn finish(&mut self, outcome: Outcome) {
        if let Some(job) = self.current.take() {
            if let Some(part) = EnginePart::of(&job.delivery) {
                part.end();
            }
            // The receiver outlives every worker; were it gone, the lease would run out and the message run again.
            let _ = self.done.send(Done { job, outcome }).await;
        }
    }
}

fn too_long(limit: Duration) -> HandlerError {
    HandlerError::failed(format!("the handler took longer than {}", humantime::format_duration(limit)))
        .outage()
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}
