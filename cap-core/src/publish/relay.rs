//! From the outbox to the broker: sends what it is handed in batches, several under way at once, and marks each
//! message by what the broker said of it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::delay_steps::BrokerDelay;
use super::in_process::InProcess;
use super::probing::Probing;
use crate::NextAttempt;
use crate::error::{TransportError, TransportErrorKind};
use crate::faults::point;
use crate::message::Message;
use crate::message::headers::names;
use crate::operate::failure_callback::Failure;
use crate::runtime::backoff::Backoff;
use crate::runtime::batch_queue::{BATCH_BYTES, Queue};
use crate::runtime::context::Context;
use crate::runtime::options::Unrouted;
use crate::storage::{Claimed, Lease, Reason, RowCompletion, RowOutcome, Side};
use crate::transport::{Delayed, Destination, Sent};
use crate::writer::OutcomeItem;

/// So many batches are on their way to the broker at once: while one waits for its confirms the next is written.
const WINDOW: usize = 4;

/// How often somebody is told that nothing is sent, as long as that is so.
const REMINDER: Duration = Duration::from_mins(5);

/// A message in the relay's hands.
pub(crate) struct RelayItem {
    lease: Lease,
    message: Arc<Message>,
    attempts: u32,
    attempts_before_rerun: u32,
    /// How old it was when this node got it.
    age: Duration,
    got: Instant,
}

impl RelayItem {
    /// One that this node stored at this time.
    pub(crate) fn stored(lease: Lease, message: Arc<Message>, since: Instant) -> Self {
        Self { lease, message, attempts: 0, attempts_before_rerun: 0, age: Duration::ZERO, got: since }
    }

    /// One that was claimed.
    pub(crate) fn claimed(claimed: Claimed) -> Self {
        Self {
            lease: claimed.lease,
            message: claimed.message,
            attempts: claimed.attempts,
            attempts_before_rerun: claimed.attempts_before_rerun,
            age: claimed.age,
            got: Instant::now(),
        }
    }

    /// The row in the outbox.
    pub(super) fn id(&self) -> i64 {
        self.lease.id
    }

    pub(super) fn message(&self) -> &Arc<Message> {
        &self.message
    }

    /// How long ago it was stored.
    pub(super) fn age(&self) -> Duration {
        self.age.saturating_add(self.got.elapsed())
    }

    /// For how long the broker is to keep it from now on; `None` if it goes out at once.
    pub(super) fn broker_delay(&self) -> Option<BrokerDelay> {
        let milliseconds = self.message.headers.get(names::BROKER_DELAY)?.parse().ok()?;
        BrokerDelay::new(Duration::from_millis(milliseconds), self.age())
    }
}

/// What has become of a message that was to be sent.
#[derive(Debug, Clone, Copy)]
pub(super) enum Taken {
    Sent(Sent),
    /// It goes back to the store for so long, and nothing is counted.
    Later(Duration),
}

pub(super) type Answer = Result<Taken, TransportError>;
type Sending = BoxFuture<'static, Vec<(RelayItem, Answer)>>;

struct Relay {
    context: Arc<Context>,
    /// How messages are sent on a transport that keeps nothing.
    in_process: Option<Arc<InProcess>>,
    sending: FuturesUnordered<Sending>,
    /// Waiting for another try: the broker was away, or refused with an attempt due at once.
    again: VecDeque<RelayItem>,
    backoff: Backoff,
    /// Nothing is sent before this.
    pause: Option<Instant>,
    probing: Probing,
    queues: Queues,
    /// When an operator is told that queues are late.
    patience: Instant,
}

/// Whether the broker has heard of every group of this bus; before that nothing is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Queues {
    Awaited,
    Late,
    Declared,
}

/// Runs until it is drained, or everything stops. A broker that is away while it drains is not waited for. `connected`
/// hears whether the broker is there at the start.
pub(crate) async fn run_relay(
    context: Arc<Context>,
    in_process: Option<InProcess>,
    queue: mpsc::Receiver<RelayItem>,
    connected: oneshot::Sender<Result<(), TransportError>>,
) {
    let everything = context.stop.everything.clone();
    let relay = Relay {
        probing: Probing::new(Arc::clone(&context), connected),
        queues: Queues::Awaited,
        patience: Instant::now() + context.options().start_timeout,
        context,
        in_process: in_process.map(Arc::new),
        sending: FuturesUnordered::new(),
        again: VecDeque::new(),
        backoff: Backoff::default(),
        pause: None,
    };
    // What is dropped half-way keeps its lease, which shutdown gives back.
    everything.run_until_cancelled(relay.run(queue.into())).await;
}

impl Relay {
    async fn run(mut self, mut queue: Queue<RelayItem>) {
        let limit = self.context.options().batch_size;
        let drain = self.context.stop.relay.clone();
        let mut undeclared = self.context.undeclared.subscribe();
        let (mut open, mut draining) = (true, false);
        while open || !self.sending.is_empty() || !self.again.is_empty() {
            let declared = self.queues == Queues::Declared;
            let may_send = declared && self.sending.len() < WINDOW && self.pause.is_none();
            let idle = self.sending.is_empty() && self.again.is_empty();
            if may_send && !self.again.is_empty() {
                let count = self.again.len().min(limit);
                let batch = self.again.drain(..count).collect();
                self.send(batch);
                continue;
            }
            let size = |item: &RelayItem| item.message.size();
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
                    // Nobody knows when the transactions end that have taken them.
                    self.context.open_places.close();
                }
                () = tokio::time::sleep_until(self.patience), if !declared => self.late(),
                answer = self.probing.answer(), if idle => self.probed(answer),
            }
        }
    }

    fn declared(&mut self) {
        self.queues = Queues::Declared;
        self.probing.at_once();
    }

    fn late(&mut self) {
        if self.queues == Queues::Late {
            tracing::warn!("{}", self.without_queues());
        }
        self.queues = Queues::Late;
        self.patience = Instant::now() + REMINDER;
        self.probing.at_once();
    }

    fn without_queues(&self) -> String {
        let groups = *self.context.undeclared.borrow();
        format!("nothing is sent, as groups of this bus have no queue at the broker yet: {groups}")
    }

    /// What the broker said while there was nothing to send.
    fn probed(&self, answer: Result<(), TransportError>) {
        match answer {
            Ok(()) if self.queues == Queues::Late => {
                self.context.transport_health.down(&self.without_queues().as_str());
            }
            Ok(()) => self.context.transport_health.up(),
            Err(error) => self.context.transport_health.down(&error),
        }
    }

    fn send(&mut self, mut batch: Vec<RelayItem>) {
        batch.retain(|item| self.context.leases.holds(Side::Outbox, item.lease));
        if batch.is_empty() {
            return;
        }
        let context = Arc::clone(&self.context);
        let in_process = self.in_process.clone();
        self.sending.push(Box::pin(async move {
            let batch = leave_out_full(&context, batch).await;
            if batch.is_empty() {
                return Vec::new();
            }
            point("send.before").await;
            let answers = match in_process {
                Some(in_process) => in_process.send(&context, &batch).await,
                None => send(&context, &batch).await,
            };
            let mut answers = answers.into_iter();
            point("send.after").await;
            batch
                .into_iter()
                .map(|item| {
                    let answer = answers.next().unwrap_or_else(|| Err(context.no_answer()));
                    (item, answer)
                })
                .collect()
        }));
    }

    async fn answered(&mut self, answers: Vec<(RelayItem, Answer)>) {
        if answers.is_empty() {
            // Nothing was sent, and so nothing is known of the broker.
            return;
        }
        let mut away = None;
        let mut taken = 0u64;
        for (item, answer) in answers {
            match answer {
                Ok(Taken::Later(after)) => {
                    complete(&self.context, item.lease, RowOutcome::Release { after }).await;
                }
                Ok(Taken::Sent(sent)) => {
                    taken += 1;
                    self.sent(item, sent).await;
                }
                Err(error) if error.is_unavailable() => {
                    away = Some(error);
                    self.again.push_back(item);
                }
                Err(error) if error.kind() == TransportErrorKind::DestinationFull => {
                    self.rejected(&item, &error).await;
                }
                Err(error) => match item.broker_delay() {
                    Some(delay) if error.kind() != TransportErrorKind::Invalid => {
                        self.keep_in_store(&item, delay, &error).await;
                    }
                    _ => self.failed(item, &error).await,
                },
            }
        }
        metrics::counter!("cap_sent_total").increment(taken);
        self.probing.put_off(&away.clone().map_or(Ok(()), Err));
        if let Some(error) = away {
            self.context.transport_health.down(&error);
            self.again.make_contiguous().sort_by_key(|item| item.lease.id);
            self.pause = Some(Instant::now() + self.backoff.next());
        } else {
            self.context.transport_health.up();
            self.backoff.reset();
            self.pause = None;
        }
    }

    async fn sent(&mut self, item: RelayItem, sent: Sent) {
        let (id, topic, id_of_row) = (item.message.id(), item.message.name(), item.lease.id);
        tracing::debug!(message_id = id, topic, attempt = item.attempts + 1, ?sent, "sent to the broker");
        let reason = match sent {
            Sent::Routed => None,
            Sent::Unrouted => {
                metrics::counter!("cap_unrouted_total").increment(1);
                if self.context.options().unrouted == Unrouted::Fail {
                    let text = "no queue wanted the message (unrouted)";
                    let error =
                        TransportError::new(TransportErrorKind::Refused, self.context.transport.name(), text);
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
        self.context.full_destinations.taken(topic.unwrap_or_default(), id_of_row);
        let context = Arc::clone(&self.context);
        let retention = context.retention(item.attempts, item.age);
        complete(&context, item.lease, RowOutcome::Succeeded { retention, reason }).await;
    }

    /// Has the storage keep a message that the broker could not place, for a while. Nothing is known against it: nothing
    /// is counted, and it takes up no place here. One that the broker was to delay goes out in time without that.
    async fn rejected(&mut self, item: &RelayItem, error: &TransportError) {
        metrics::counter!("cap_rejected_total").increment(1);
        let (message_id, topic) = (item.message.id(), item.message.name().unwrap_or_default());
        tracing::debug!(message_id, topic, row = item.lease.id, %error, "rejected by the broker, retrying later");
        let after = match item.broker_delay() {
            Some(delay) => delay.left(),
            None => self.context.full_destinations.rejected(topic, item.lease.id, error),
        };
        complete(&self.context, item.lease, RowOutcome::Release { after }).await;
    }

    /// Has the store keep a message that the broker will not delay, which says nothing of the message: it goes out in
    /// time without the broker's help, and nothing is counted.
    async fn keep_in_store(&mut self, item: &RelayItem, delay: BrokerDelay, error: &TransportError) {
        let (message_id, row) = (item.message.id(), item.lease.id);
        tracing::warn!(message_id, row, %error, "broker cannot keep a delayed message; the storage keeps it");
        complete(&self.context, item.lease, RowOutcome::Release { after: delay.left() }).await;
    }

    async fn failed(&mut self, mut item: RelayItem, error: &TransportError) {
        let context = Arc::clone(&self.context);
        let options = context.options();
        let (error, kind) = (error.to_string(), error.kind());
        let attempts = item.attempts + 1;
        let (message_id, topic) = (item.message.id(), item.message.name());
        metrics::counter!("cap_publish_failed_total").increment(1);
        let row = item.lease.id;
        tracing::warn!(message_id, topic, row, attempt = attempts, error, "publishing failed");
        // No further attempt could succeed: the policy is for what may.
        let (next, reason) = if kind == TransportErrorKind::Invalid {
            (NextAttempt::GiveUp, Reason::Permanent)
        } else {
            let counted = attempts - item.attempts_before_rerun;
            (options.publish_retry.next(counted, fastrand::f64()), Reason::Exhausted)
        };
        match next {
            NextAttempt::After(Duration::ZERO) => {
                let outcome = RowOutcome::Retry { after: Duration::ZERO, hold: true, error };
                if complete_and_wait(&context, item.lease, outcome, item.attempts).await {
                    item.attempts = attempts;
                    self.again.push_back(item);
                }
            }
            NextAttempt::After(after) | NextAttempt::AtBroker(after) => {
                complete(&context, item.lease, RowOutcome::Retry { after, hold: false, error }).await;
            }
            NextAttempt::GiveUp => {
                let notify = context.notifies();
                let outcome = RowOutcome::Failed {
                    reason,
                    error: error.clone(),
                    counted: true,
                    keep: options.failed_expire_after,
                    notify,
                };
                let applied = complete_and_wait(&context, item.lease, outcome, item.attempts).await;
                metrics::counter!("cap_parked_total").increment(1);
                if applied {
                    context.failed_for_good(Failure {
                        side: Side::Outbox,
                        id: item.lease.id,
                        message: item.message,
                        group: "".into(),
                        reason,
                        error,
                        attempts,
                        lease: item.lease,
                        bus: context.bus.clone(),
                    });
                }
            }
        }
    }
}

/// Gives those back to the storage whose topic is full for the moment, and gives back the others.
async fn leave_out_full(context: &Context, batch: Vec<RelayItem>) -> Vec<RelayItem> {
    let mut rest = Vec::with_capacity(batch.len());
    for item in batch {
        let pause = if item.broker_delay().is_some() {
            // It goes to another queue.
            None
        } else {
            context.full_destinations.pause(item.message.name().unwrap_or_default(), item.lease.id)
        };
        match pause {
            Some(after) => complete(context, item.lease, RowOutcome::Release { after }).await,
            None => rest.push(item),
        }
    }
    rest
}

/// Sends a batch, those that the broker is to keep apart from the others; an answer for each, in order.
async fn send(context: &Context, batch: &[RelayItem]) -> Vec<Answer> {
    let (mut plain, mut delayed) = (Vec::new(), Vec::new());
    let at_once: Vec<bool> = batch
        .iter()
        .map(|item| {
            let message = Arc::clone(&item.message);
            let delay = item.broker_delay();
            match delay {
                None => plain.push(message),
                Some(delay) => {
                    delayed.push(Delayed { message, delay: delay.in_steps(), to: Destination::Topic });
                }
            }
            delay.is_none()
        })
        .collect();
    if delayed.is_empty() {
        return context.transport.send(&plain).await.into_iter().map(|sent| sent.map(Taken::Sent)).collect();
    }
    let (sent, kept) = tokio::join!(context.transport.send(&plain), context.transport.delay(&delayed));
    let (mut sent, mut kept) = (sent.into_iter(), kept.into_iter());
    let answer = |at_once| {
        let sent = if at_once { sent.next() } else { kept.next().map(|kept| kept.map(|()| Sent::Routed)) };
        sent.map(|sent| sent.map(Taken::Sent))
    };
    at_once.into_iter().map(answer).map(|answer| answer.unwrap_or_else(|| Err(context.no_answer()))).collect()
}

async fn complete(context: &Context, lease: Lease, outcome: RowOutcome) {
    let row_completion = RowCompletion { lease, outcome, publishes: Vec::new() };
    // The lane outlives the relay; were it gone, the lease would run out and the message be sent again.
    let _ = context.complete.send(OutcomeItem::new(Side::Outbox, row_completion)).await;
}

async fn complete_and_wait(context: &Context, lease: Lease, outcome: RowOutcome, failed_before: u32) -> bool {
    let row_completion = RowCompletion { lease, outcome, publishes: Vec::new() };
    let (item, applied) = OutcomeItem::new(Side::Outbox, row_completion).counting(failed_before).awaited();
    context.complete.send(item).await.is_ok() && applied.await.unwrap_or(false)
}

async fn all_declared(undeclared: &mut watch::Receiver<usize>) {
    // The sender is in the context, which outlives this.
    let _ = undeclared.wait_for(|groups| *groups == 0).await;
}

async fn until(pause: Option<Instant>) {
    if let Some(instant) = pause {
        tokio::time::sleep_until(instant).await;
    }
}

impl Context {
    /// Notes whether older messages still wait in the store.
    pub(crate) fn set_backlog(&self, backlog: bool) {
        self.backlog.store(backlog, Ordering::Relaxed);
    }
}
