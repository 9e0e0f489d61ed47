//! Probes the broker while no messages are sent, to keep its health up to date.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::error::TransportError;
use crate::runtime::backoff::Backoff;
use crate::runtime::engine::Engine;

/// The timeout of a probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

type Answer = Result<(), TransportError>;

/// Probes the broker at the start, then as often as leases are renewed, and more often while it is unavailable.
pub(super) struct Probing {
    engine: Arc<Engine>,
    /// At most one probe. It is a task of its own, so that it continues, or releases its resources, while the relay waits
    /// for something else.
    under_way: JoinSet<Answer>,
    next: Instant,
    backoff: Backoff,
    /// Receives the first answer that waiting does not change: a success, or an error that only an operator can fix.
    first: Option<oneshot::Sender<Answer>>,
}

impl Probing {
    pub(super) fn new(engine: Arc<Engine>, first: oneshot::Sender<Answer>) -> Self {
        let under_way = JoinSet::new();
        Self { engine, under_way, next: Instant::now(), backoff: Backoff::default(), first: Some(first) }
    }

    /// Waits until the next probe is due, probes, and returns the answer. Cancel safe: a probe that is under way continues
    /// in its task.
    pub(super) async fn answer(&mut self) -> Answer {
        if self.under_way.is_empty() {
            tokio::time::sleep_until(self.next).await;
            self.under_way.spawn(probe(Arc::clone(&self.engine)));
        }
        let answer = match self.under_way.join_next().await {
            Some(Ok(answer)) => answer,
            _ => Err(no_answer(&self.engine, "the probe was aborted")),
        };
        let pause = if answer.is_ok() {
            self.backoff.reset();
            self.interval()
        } else {
            self.backoff.next()
        };
        self.next = Instant::now() + pause;
        self.report(&answer);
        answer
    }

    /// Postpones the next probe, since sending a message has shown whether the broker is available.
    pub(super) fn put_off(&mut self, answer: &Answer) {
        self.report(answer);
        // Dropping the `JoinSet` aborts the probe.
        if !self.under_way.is_empty() {
            self.under_way = JoinSet::new();
        }
        self.next = Instant::now() + self.interval();
    }

    fn report(&mut self, answer: &Answer) {
        // A broker that is unreachable may come up while the start still waits for it.
        let is_final = answer.as_ref().err().is_none_or(TransportError::requires_operator);
        if let Some(first) = self.first.take_if(|_| is_final) {
            // The receiver is gone if the start has timed out.
            let _ = first.send(answer.clone());
        }
    }

    /// Makes a probe due now, unless one is under way.
    pub(super) fn at_once(&mut self) {
        self.next = Instant::now();
    }

    fn interval(&self) -> Duration {
        self.engine.storage.owner.lease / 3
    }
}

async fn probe(engine: Arc<Engine>) -> Answer {
    let answer = tokio::time::timeout(PROBE_TIMEOUT, engine.broker.probe()).await;
    answer.unwrap_or_else(|_| Err(no_answer(&engine, &format!("no answer within {PROBE_TIMEOUT:?}"))))
}

fn no_answer(engine: &Engine, text: &str) -> TransportError {
    engine.broker.unavailable(text)
}
