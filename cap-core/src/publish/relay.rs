//! The relay: sends messages from the outbox to the broker in batches, several of them at the same time, and completes each
//! message according to the broker's answer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::delay_steps::{BrokerDelay, broker_delay};
use super::in_process::InProcess;
use super::outbox::Outbox;
use super::probing::Probing;
use super::sending::{Answer, Taken};
use crate::NextAttempt;
use crate::error::{TransportError, TransportErrorKind};
use crate::faults::point;
use crate::runtime::backoff::Backoff;
use crate::runtime::batch_queue::{BATCH_BYTES, Queue};
use crate::runtime::health::Phase;
use crate::runtime::in_flight::InFlight;
use crate::runtime::notifier::FailedMessage;
use crate::runtime::options::Unrouted;
use crate::storage::{Lease, Reason, RowOutcome, Side};
use crate::transport::{Delayed, Destination, Sent};
use crate::writer::OutcomeItem;

/// How many batches are sent at the same time: while one waits for its confirms, the next is written.
const BATCHES_IN_FLIGHT: usize = 4;

/// How often it is logged that publishing is paused, for as long as it is.
const REMINDER_INTERVAL: Duration = Duration::from_mins(5);

type Sending = BoxFuture<'static, Vec<(InFlight, Answer)>>;

struct Relay {
    outbox: Arc<Outbox>,
    /// Sends the messages instead of the broker if the transport is an in-process one.
    in_process: Option<Arc<InProcess>>,
    sending: FuturesUnordered<Sending>,
    /// Messages to send again: the broker was unavailable, or rejected them and the next attempt is immediate.
    again: VecDeque<InFlight>,
    backoff: Backoff,
    /// No messages are sent before this.
    pause: Option<Instant>,
    probing: Probing,
    queues: Queues,
    /// When to log next that queues are not declared yet.
    next_reminder: Instant,
}

/// Whether the queues of all groups of this bus are declared at the broker. Until then no messages are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Queues {
    Awaited,
    Late,
    Declared,
}

/// Runs until it is drained, or everything stops. While draining it does not wait for an unavailable broker. `connected`
/// receives the broker's first answer that waiting does not change.
pub(crate) async fn run_relay(
    outbox: Arc<Outbox>,
    in_process: Option<InProcess>,
    queue: mpsc::Receiver<InFlight>,
    connected: oneshot::Sender<Result<(), TransportError>>,
) {
    let everything = outbox.engine.lifecycle.stop.everything.clone();
    let relay = Relay {
        probing: Probing::new(Arc::clone(&outbox.engine), connected),
        queues: Queues::Awaited,
        next_reminder: Instant::now() + outbox.engine.options.start_timeout,
        outbox,
        in_process: in_process.map(Arc::new),
        sending: FuturesUnordered::new(),
        again: VecDeque::new(),
        backoff: Backoff::default(),
        pause: None,
    };
    // Messages that are dropped half-way keep their leases, which are released at shutdown.
    everything.run_until_cancelled(relay.run(queue.into())).await;
}

impl Relay {
    async fn run(mut self, mut queue: Queue<InFlight>) {
        let limit = self.outbox.engine.options.batch_size;
        let drain = self.outbox.engine.lifecycle.stop.relay.clone();
        let mut undeclared = self.outbox.engine.broker.undeclared.subscribe();
        let (mut open, mut draining) = (true, false);
        while open || !self.sending.is_empty() || !self.again.is_empty() {
            let declared = self.queues == Queues::Declared;
            let may_send = declared && self.sending.len() < BATCHES_IN_FLIGHT && self.pause.is_none();
            let idle = self.sending.is_empty() && self.again.is_empty();
            if may_send && !self.again.is_empty() {
                let count = self.again.len().min(limit);
                let batch = self.again.drain(..count).collect();
                self.send(batch);
                continue;
            }
            let size = |item: &InFlight| item.message.size();
            // Biased: answers come first, since they free places and decide whether to pause; then the queue, and only then the
            // stop signals and the probe. Dropping an arm loses nothing: `next` and `gather` take something only when they
            // complete, and a probe continues in its own task.
            tokio::select! {
                biased;
                Some(answers) = self.sending.next(), if !self.sending.is_empty() => self.answered(answers).await,
                () = until(self.pause), if self.pause.is_some() => self.pause = None,
                batch = queue.gather(&drain, limit, BATCH_BYTES, size), if open && may_send => match batch {
                    Some(batch) => self.send(batch),
                    None => open = false,
                },
                () = all_declared(&mut undeclared), if !declared => self.declared(),
                () = drain.cancelled(), if !declared || self.pause.is_some() => break,
                () = drain.cancelled(), if !draining => {
                    draining = true;
                    // Otherwise the relay would wait for open transactions, and it is not known when those end.
                    self.outbox.relay.close_open_places();
                }
                () = tokio::time::sleep_until(self.next_reminder), if !declared => self.late(),
                answer = self.probing.answer(), if idle => self.probed(answer),
            }
        }
    }

    fn declared(&mut self) {
        self.queues = Queues::Declared;
        self.probing.at_once();
    }

    fn late(&mut self) {
        if self.lacks_queues() {
            tracing::warn!("{}", self.missing_queues());
        }
        self.queues = Queues::Late;
        self.next_reminder = Instant::now() + REMINDER_INTERVAL;
        self.probing.at_once();
    }

    /// Whether queues are missing that should be there by now. Until the storage is up none is declared; that is not the
    /// broker's fault, and the storage's own health says so.
    fn lacks_queues(&self) -> bool {
        self.queues == Queues::Late && self.outbox.engine.lifecycle.phase.get() == Phase::Running
    }

    fn missing_queues(&self) -> String {
        let groups = *self.outbox.engine.broker.undeclared.borrow();
        format!("publishing paused: {groups} consumer group queues are not declared yet")
    }

    /// Updates the broker's health with the answer to a probe.
    fn probed(&self, answer: Result<(), TransportError>) {
        match answer {
            Ok(()) if self.lacks_queues() => {
                self.outbox.engine.broker.health.down(&self.missing_queues().as_str());
            }
            Ok(()) => self.outbox.engine.broker.health.up(),
            Err(error) => self.outbox.engine.broker.health.down(&error),
        }
    }

    fn send(&mut self, mut batch: Vec<InFlight>) {
        batch.retain(|item| self.outbox.engine.storage.leases.holds(Side::Outbox, item.lease));
        if batch.is_empty() {
            return;
        }
        let outbox = Arc::clone(&self.outbox);
        let in_process = self.in_process.clone();
        self.sending.push(Box::pin(async move {
            let batch = release_full(&outbox, batch).await;
            if batch.is_empty() {
                return Vec::new();
            }
            point("send.before").await;
            let begun = Instant::now();
            let answers = match in_process {
                Some(in_process) => in_process.send(&outbox.engine, &batch).await,
                None => send(&outbox, &batch).await,
            };
            let mut answers = answers.into_iter();
            outbox.metrics.batch_sent(batch.len(), begun);
            point("send.after").await;
            batch
                .into_iter()
                .map(|item| {
                    let answer = answers.next().unwrap_or_else(|| Err(outbox.engine.broker.no_answer()));
                    (item, answer)
                })
                .collect()
        }));
    }

    async fn answered(&mut self, answers: Vec<(InFlight, Answer)>) {
        if answers.is_empty() {
            // No message was sent, so that this says nothing about the broker.
            return;
        }
        let mut away = None;
        for (item, answer) in answers {
            match answer {
                Ok(Taken::Later(after)) => {
                    complete(&self.outbox, item.lease, RowOutcome::Release { after }).await;
                }
                Ok(Taken::Sent(sent)) => {
                    self.outbox.metrics.of(item.message.name()).sent.increment(1);
                    self.sent(item, sent).await;
                }
                Err(error) if error.is_unavailable() => {
                    away = Some(error);
                    self.again.push_back(item);
                }
                Err(error) if error.kind() == TransportErrorKind::DestinationFull => {
                    self.rejected(&item, &error).await;
                }
                Err(error) => match broker_delay(&item) {
                    Some(delay) if error.kind() != TransportErrorKind::Invalid => {
                        self.keep_in_storage(&item, delay, &error).await;
                    }
                    _ => self.failed(item, &error).await,
                },
            }
        }
        self.probing.put_off(&away.clone().map_or(Ok(()), Err));
        if let Some(error) = away {
            self.outbox.engine.broker.health.down(&error);
            self.again.make_contiguous().sort_by_key(|item| item.lease.id);
            self.pause = Some(Instant::now() + self.backoff.next());
        } else {
            self.outbox.engine.broker.health.up();
            self.backoff.reset();
            self.pause = None;
        }
    }

    async fn sent(&mut self, item: InFlight, sent: Sent) {
        let (id, topic, id_of_row) = (item.message.id(), item.message.name(), item.lease.id);
        tracing::debug!(message_id = id, topic, attempt = item.attempts + 1, ?sent, "sent to the broker");
        let reason = match sent {
            Sent::Routed => None,
            Sent::Unrouted => {
                self.outbox.metrics.of(topic).unrouted.increment(1);
                if self.outbox.engine.options.unrouted == Unrouted::Fail {
                    let text = "no queue is bound for the topic of the message (unrouted)";
                    let error = TransportError::new(
                        TransportErrorKind::Refused,
                        self.outbox.engine.broker.name(),
                        text,
                    );
                    return self.failed(item, &error).await;
                }
                tracing::warn!(
                    message_id = id,
                    topic,
                    row = item.lease.id,
                    "message unroutable: no queue is bound for its topic"
                );
                Some(Reason::Unrouted)
            }
        };
        self.outbox.full_destinations.taken(topic.unwrap_or_default(), id_of_row);
        let outbox = Arc::clone(&self.outbox);
        let retention = outbox.engine.storage.retention(item.attempts, item.age);
        complete(&outbox, item.lease, RowOutcome::Succeeded { retention, reason }).await;
    }

    /// Releases a message to the storage that the broker has rejected for lack of room. The message is not at fault: no
    /// attempt is counted. Meanwhile it occupies no place in the relay. One that was to be delayed at the broker is sent
    /// on time without its help.
    async fn rejected(&mut self, item: &InFlight, error: &TransportError) {
        self.outbox.metrics.of(item.message.name()).rejected.increment(1);
        let (message_id, topic) = (item.message.id(), item.message.name().unwrap_or_default());
        tracing::debug!(message_id, topic, row = item.lease.id, %error, "rejected by the broker, retrying later");
        let after = match broker_delay(item) {
            Some(delay) => delay.left(),
            None => self.outbox.full_destinations.rejected(topic, item.lease.id, error),
        };
        complete(&self.outbox, item.lease, RowOutcome::Release { after }).await;
    }

    /// Releases a message to the storage that the broker cannot delay. The message is not at fault: no attempt is counted,
    /// and it is sent on time without the broker's help.
    async fn keep_in_storage(&mut self, item: &InFlight, delay: BrokerDelay, error: &TransportError) {
        let (message_id, row) = (item.message.id(), item.lease.id);
        tracing::warn!(message_id, row, %error, "broker cannot keep a delayed message; the storage keeps it");
        complete(&self.outbox, item.lease, RowOutcome::Release { after: delay.left() }).await;
    }

    async fn failed(&mut self, mut item: InFlight, error: &TransportError) {
        let outbox = Arc::clone(&self.outbox);
        let options = &outbox.engine.options;
        let (error, kind) = (error.to_string(), error.kind());
        let attempts = item.attempts + 1;
        let (message_id, topic) = (item.message.id(), item.message.name());
        outbox.metrics.of(topic).failed.increment(1);
        let row = item.lease.id;
        tracing::warn!(message_id, topic, row, attempt = attempts, error, "publishing failed");
        // No further attempt can succeed, whatever the retry policy says.
        let (next, reason) = if kind == TransportErrorKind::Invalid {
            (NextAttempt::GiveUp, Reason::Permanent)
        } else {
            let counted = attempts - item.attempts_before_rerun;
            (options.publish_retry.next(counted, fastrand::f64()), Reason::Exhausted)
        };
        match next {
            NextAttempt::After(Duration::ZERO) => {
                let outcome = RowOutcome::Retry { after: Duration::ZERO, hold: true, error };
                if complete_and_wait(&outbox, item.lease, outcome, item.attempts).await {
                    item.attempts = attempts;
                    self.again.push_back(item);
                }
            }
            NextAttempt::After(after) | NextAttempt::AtBroker(after) => {
                complete(&outbox, item.lease, RowOutcome::Retry { after, hold: false, error }).await;
            }
            NextAttempt::GiveUp => {
                let notify = outbox.engine.notifier.has_callback();
                let outcome = RowOutcome::Failed {
                    reason,
                    error: error.clone(),
                    counted: true,
                    keep: options.failed_expire_after,
                    notify,
                };
                let applied = complete_and_wait(&outbox, item.lease, outcome, item.attempts).await;
                outbox.metrics.of(item.message.name()).parked.increment(1);
                if applied {
                    outbox.engine.failed_for_good(FailedMessage {
                        side: Side::Outbox,
                        lease: item.lease,
                        message: item.message,
                        group: "".into(),
                        reason,
                        error,
                        attempts,
                    });
                }
            }
        }
    }
}

/// Releases the messages to the storage whose topic is full at the moment, and returns the others.
async fn release_full(outbox: &Outbox, batch: Vec<InFlight>) -> Vec<InFlight> {
    let mut rest = Vec::with_capacity(batch.len());
    for item in batch {
        let pause = if broker_delay(&item).is_some() {
            // It is sent to a delay queue, which is another one.
            None
        } else {
            outbox.full_destinations.pause(item.message.name().unwrap_or_default(), item.lease.id)
        };
        match pause {
            Some(after) => complete(outbox, item.lease, RowOutcome::Release { after }).await,
            None => rest.push(item),
        }
    }
    rest
}

/// Sends a batch, with the messages to be delayed at the broker in a call of their own. Returns one answer for each
/// message, in order.
async fn send(outbox: &Outbox, batch: &[InFlight]) -> Vec<Answer> {
    let (mut plain, mut delayed) = (Vec::new(), Vec::new());
    let at_once: Vec<bool> = batch
        .iter()
        .map(|item| {
            let message = Arc::clone(&item.message);
            let delay = broker_delay(item);
            match delay {
                None => plain.push(message),
                Some(delay) => {
                    delayed.push(Delayed::new(message, delay.in_steps(), Destination::Topic));
                }
            }
            delay.is_none()
        })
        .collect();
    if delayed.is_empty() {
        return outbox
            .engine
            .broker
            .send(&plain)
            .await
            .into_iter()
            .map(|sent| sent.map(Taken::Sent))
            .collect();
    }
    let (sent, kept) = tokio::join!(outbox.engine.broker.send(&plain), outbox.engine.broker.delay(&delayed));
    let (mut sent, mut kept) = (sent.into_iter(), kept.into_iter());
    let answer = |at_once| {
        let sent = if at_once { sent.next() } else { kept.next().map(|kept| kept.map(|()| Sent::Routed)) };
        sent.map(|sent| sent.map(Taken::Sent))
    };
    at_once
        .into_iter()
        .map(answer)
        .map(|answer| answer.unwrap_or_else(|| Err(outbox.engine.broker.no_answer())))
        .collect()
}

async fn complete(outbox: &Outbox, lease: Lease, outcome: RowOutcome) {
    outbox.outcomes.write(Side::Outbox, lease, outcome).await;
}

async fn complete_and_wait(outbox: &Outbox, lease: Lease, outcome: RowOutcome, failed_before: u32) -> bool {
    let item = OutcomeItem::of(Side::Outbox, lease, outcome).counting(failed_before);
    outbox.outcomes.send_and_wait(item).await
}

async fn all_declared(undeclared: &mut watch::Receiver<usize>) {
    // This cannot fail: the sender is in the engine, which outlives the relay.
    let _ = undeclared.wait_for(|groups| *groups == 0).await;
}

async fn until(pause: Option<Instant>) {
    if let Some(instant) = pause {
        tokio::time::sleep_until(instant).await;
    }
}
