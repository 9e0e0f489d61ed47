//! Asking the broker whether it is there, while no message tells.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::error::TransportError;
use crate::runtime::backoff::Backoff;
use crate::runtime::engine::Engine;

/// A probe that takes longer is given up, and counts as no answer.
const LIMIT: Duration = Duration::from_secs(10);

type Answer = Result<(), TransportError>;

/// Asks the broker whether it is there: at the start, then as often as leases are renewed; more often while it is away.
pub(super) struct Probing {
    engine: Arc<Engine>,
    /// One at most. A task of its own, so that it goes on, or lets go of what it holds, whatever the relay waits for.
    under_way: JoinSet<Answer>,
    next: Instant,
    backoff: Backoff,
    /// Who waits for the first answer.
    first: Option<oneshot::Sender<Answer>>,
}

impl Probing {
    pub(super) fn new(engine: Arc<Engine>, first: oneshot::Sender<Answer>) -> Self {
        let under_way = JoinSet::new();
        Self { engine, under_way, next: Instant::now(), backoff: Backoff::default(), first: Some(first) }
    }

    /// Waits until it is time, asks, and gives back the answer. Cancel safe.
    pub(super) async fn answer(&mut self) -> Answer {
        if self.under_way.is_empty() {
            tokio::time::sleep_until(self.next).await;
            self.under_way.spawn(probe(Arc::clone(&self.engine)));
        }
        let answer = match self.under_way.join_next().await {
            Some(Ok(answer)) => answer,
            _ => Err(no_answer(&self.engine, "the probe broke off")),
        };
        let pause = if answer.is_ok() {
            self.backoff.reset();
            self.interval()
        } else {
            self.backoff.next()
        };
        self.next = Instant::now() + pause;
        self.tell(&answer);
        answer
    }

    /// A message has told how the broker is: nobody need ask for a while.
    pub(super) fn put_off(&mut self, answer: &Answer) {
        self.tell(answer);
        // Dropping the old one ends its task.
        if !self.under_way.is_empty() {
            self.under_way = JoinSet::new();
        }
        self.next = Instant::now() + self.interval();
    }

    fn tell(&mut self, answer: &Answer) {
        if let Some(first) = self.first.take() {
            // Nobody listens when start has given up waiting.
            let _ = first.send(answer.clone());
        }
    }

    /// Asks now, unless an answer is awaited already.
    pub(super) fn at_once(&mut self) {
        self.next = Instant::now();
    }

    fn interval(&self) -> Duration {
        self.engine.storage.owner.lease / 3
    }
}

async fn probe(engine: Arc<Engine>) -> Answer {
    let answer = tokio::time::timeout(LIMIT, engine.broker.probe()).await;
    answer.unwrap_or_else(|_| Err(no_answer(&engine, &format!("no answer within {LIMIT:?}"))))
}

fn no_answer(engine: &Engine, text: &str) -> TransportError {
    engine.broker.unavailable(text)
}
