//! Runs the handlers of one group, within its concurrency limit and, with `order_by`, in order for each key.
//!
//! One task owns all of the group's state, so there is nothing to lock. New messages, claimed ones and immediate retries
//! all pass through it and share one limit. Each handler runs in a task of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cap_adapter::engine::DeliveryParts;
use cap_adapter::{Delivery, HandlerError};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::circuit_breaking::{Circuits, Pausing};
use super::completion::{End, Ending};
use super::inbox::Inbox;
use super::inbox_row::disallowed_callback;
use super::key_order::KeyOrder;
use super::received::{Job, Received};
use super::suspects::{Suspects, mark_started};
use crate::faults::point;
use crate::handlers::{Group, Next, Outcome, run_handler};
use crate::message::headers::names;
use crate::publish::attempt_data::AttemptData;
use crate::runtime::circuit::Admission;
use crate::runtime::in_flight::InFlight;
use crate::runtime::suspect_gate::Pass;
use crate::storage::{Lease, Reason, RowOutcome, Side};
use crate::writer::OutcomeItem;

/// How many messages of a group are running and waiting, for health and metrics.
#[derive(Debug, Default)]
pub(crate) struct GroupGauge {
    pub(crate) running: AtomicUsize,
    pub(crate) queued: AtomicUsize,
    /// Suspects that wait for their turn.
    pub(crate) suspects: AtomicUsize,
    pub(crate) circuits: Arc<Circuits>,
}

/// The tasks in which handlers run.
type Handlers = JoinSet<(Job, Outcome)>;

/// Runs a group's handlers until intake has stopped and all started handlers have finished, or everything stops.
pub(crate) async fn run_group(
    inbox: Arc<Inbox>,
    group: Arc<Group>,
    intake: mpsc::Receiver<Received>,
    gauge: Arc<GroupGauge>,
) {
    let everything = inbox.engine.lifecycle.stop.everything.clone();
    let pausing = Pausing::new(&group, Arc::clone(&gauge.circuits));
    let executor = Executor {
        inbox,
        group,
        ending: FuturesUnordered::new(),
        running: 0,
        order: KeyOrder::default(),
        pausing,
        suspects: Suspects::default(),
        gauge,
    };
    let mut handlers = Handlers::new();
    everything.run_until_cancelled(executor.run(intake, &mut handlers)).await;
    // Handlers that have not finished by the deadline are dropped. Waiting for that ensures that they have released their
    // resources when this returns.
    handlers.shutdown().await;
}

struct Executor {
    inbox: Arc<Inbox>,
    group: Arc<Group>,
    /// Steps that wait for the storage or for a suspect's turn, most of them at the end of an attempt.
    ending: FuturesUnordered<BoxFuture<'static, End>>,
    /// Attempts that have started and whose outcome is not yet written or queued to be written.
    running: usize,
    order: KeyOrder,
    pausing: Pausing,
    suspects: Suspects,
    gauge: Arc<GroupGauge>,
}

impl Executor {
    async fn run(mut self, mut intake: mpsc::Receiver<Received>, handlers: &mut Handlers) {
        let stop = self.inbox.engine.lifecycle.stop.intake.clone();
        let limit = usize::from(self.inbox.engine.options.prefetch);
        loop {
            self.show(intake.len());
            let stopping = stop.is_cancelled();
            if stopping && self.running == 0 {
                return;
            }
            let room = !stopping && self.running < usize::from(self.group.concurrency);
            if room && let Some(received) = self.order.next() {
                self.start(received, handlers).await;
                continue;
            }
            // With a concurrency of 1, no message may overtake a suspect that waits for its turn.
            let in_order = self.group.concurrency > 1 || !self.suspects.has_turn;
            let takes = room && in_order && self.order.waiting() < limit;
            // Biased: finished work frees places before new work is taken. Dropping an arm loses nothing, since each takes
            // something only when it completes.
            tokio::select! {
                biased;
                Some(done) = handlers.join_next(), if !handlers.is_empty() => {
                    // A panic of a handler is caught and is an outcome, and the tasks are cancelled only when this one
                    // ends, so that joining does not fail.
                    if let Ok((job, outcome)) = done {
                        self.finished(job, outcome).await;
                    }
                }
                Some(end) = self.ending.next(), if !self.ending.is_empty() => self.ended(end, handlers).await,
                Some(received) = intake.recv(), if takes => self.take(received, handlers).await,
                () = stop.cancelled(), if !stopping => {}
            }
        }
    }

    /// Updates the gauge.
    fn show(&self, in_queue: usize) {
        let suspects = self.suspects.waiting.len();
        self.gauge.running.store(self.running, Ordering::Relaxed);
        self.gauge.suspects.store(suspects, Ordering::Relaxed);
        self.gauge.queued.store(in_queue + self.order.len() + suspects, Ordering::Relaxed);
    }

    /// Starts a message, or makes it wait for its key; parks it if it cannot be handled.
    async fn take(&mut self, mut received: Received, handlers: &mut Handlers) {
        if received.message().id().is_none() || received.message().name().is_none() {
            match self.inbox.hook.apply_again(received.message()) {
                Ok(given) => received.in_flight.message = Arc::new(given),
                Err(panic) => return self.park(received, Reason::MissingHeaders, panic),
            }
        }
        let topic = received.message().name().unwrap_or_default();
        let Some(member) = self.group.member_for(topic) else {
            return self.park_unhandled(received);
        };
        if !self.holds(&received) {
            return;
        }
        if let Some((reason, error)) = self.forbids(member, &received) {
            return self.park(received, reason, error);
        }
        let received = match self.key(member, &received) {
            Some(key) => self.order.take(key, received),
            None => Some(received),
        };
        if let Some(received) = received {
            self.start(received, handlers).await;
        }
    }

    /// Says why a message is parked instead of handled, if that is so.
    fn forbids(&self, member: usize, received: &Received) -> Option<(Reason, String)> {
        let options = &self.inbox.engine.options;
        let headers = &received.message().headers;
        if let Some(error) = disallowed_callback(options, &self.group.members[member], headers) {
            return Some((Reason::CallbackNotAllowed, error));
        }
        let suspect = received.suspect.as_ref()?;
        if options.crash_limit == 0 || received.crashes < options.crash_limit {
            return None;
        }
        let died = suspect.crashed.as_ref().map(|node| format!(", node {node}")).unwrap_or_default();
        let error = format!("process died while handling{died}, {} times in all", received.crashes);
        Some((Reason::ProcessCrashed, error))
    }

    fn holds(&self, received: &Received) -> bool {
        self.inbox.engine.storage.leases.holds(Side::Inbox, received.lease())
    }

    fn key(&self, member: usize, received: &Received) -> Option<String> {
        let header = self.group.members[member].order_by.as_deref()?;
        received.message().headers.get(header).map(str::to_owned)
    }

    async fn start(&mut self, mut received: Received, handlers: &mut Handlers) {
        let topic: Arc<str> = received.message().name().unwrap_or_default().into();
        let Some(member) = self.group.member_for(&topic) else {
            return self.park_unhandled(received);
        };
        let key = self.key(member, &received);
        // The lease may have been lost while the message waited; if so, another node handles it.
        if !self.holds(&received) {
            self.end_turn(received.pass.take());
            return self.order.free(key);
        }
        if received.suspect.is_some() && received.pass.is_none() {
            return self.wait_for_turn(received);
        }
        let probe = match self.pausing.admit(member) {
            Admission::Run => false,
            Admission::Probe => true,
            Admission::Wait => {
                self.end_turn(received.pass.take());
                self.order.waits_elsewhere();
                return self.pausing.wait(member, received);
            }
            Admission::Rest(after) => {
                self.end_turn(received.pass.take());
                self.order.free(key);
                return self.release(received.lease(), after);
            }
        };
        let delivery = self.delivery(member, topic, &mut received);
        let job = Job { delivery, received, member, key, probe };
        self.running += 1;
        if job.received.pass.is_none() {
            point("handler.before").await;
            return self.spawn(job, handlers);
        }
        let inbox = Arc::clone(&self.inbox);
        self.ending.push(Box::pin(async move {
            let marked = mark_started(&inbox, job.lease()).await;
            End::Marked(job, marked)
        }));
    }

    /// Creates the delivery that the handler receives.
    fn delivery(&self, member: usize, topic: Arc<str>, received: &mut Received) -> Delivery {
        let engine = &self.inbox.engine;
        // Nothing else refers to the message yet, so that `make_mut` does not copy it.
        let message = Arc::make_mut(&mut received.in_flight.message);
        message.headers.insert(names::EXECUTION_INSTANCE, &*engine.storage.owner.node);
        Delivery::new(DeliveryParts {
            message: Arc::clone(received.message()),
            topic,
            group: Arc::clone(&self.group.name),
            attempt: received.in_flight.attempts + 1,
            states: Arc::clone(&self.inbox.states),
            storage: Arc::clone(engine.storage.shared()).shared(),
            payload_in_errors: engine.options.payload_in_errors,
            engine: AttemptData::new(Arc::clone(&self.inbox.outbox.composer)),
            cancelled: received.cancelled.clone(),
            timeout: self.group.members[member].timeout,
        })
    }

    /// Runs an attempt in a task of its own.
    fn spawn(&self, job: Job, handlers: &mut Handlers) {
        let group = Arc::clone(&self.group);
        let member = &group.members[job.member];
        let next = Next::new(Arc::clone(&self.inbox.layers), member.handler.clone());
        handlers.spawn(async move {
            let begun = Instant::now();
            let outcome = run_handler(&group.members[job.member], next, &job.delivery).await;
            group.metrics.attempted(job.member, begun);
            (job, outcome)
        });
    }

    /// Makes a suspect wait for its turn: first within the group, where one has its turn at a time, then among all groups.
    /// Meanwhile it does not count against the group's concurrency.
    fn wait_for_turn(&mut self, mut received: Received) {
        if self.suspects.has_turn {
            return self.suspects.waiting.push_back(received);
        }
        self.suspects.has_turn = true;
        let inbox = Arc::clone(&self.inbox);
        self.ending.push(Box::pin(async move {
            let suspect = received.suspect.clone().unwrap_or_default();
            received.pass = Some(inbox.suspects.turn(received.lease(), &suspect).await);
            End::Turn(Box::new(received))
        }));
    }

    /// Ends the turn of a suspect, if the message had one, and lets the next suspect wait for its turn.
    fn end_turn(&mut self, pass: Option<Pass>) {
        if pass.is_none() {
            return;
        }
        drop(pass);
        self.suspects.has_turn = false;
        if let Some(next) = self.suspects.waiting.pop_front() {
            self.wait_for_turn(next);
        }
    }

    fn ending(&self) -> Ending {
        Ending { inbox: Arc::clone(&self.inbox), group: Arc::clone(&self.group), circuit_open: false }
    }

    /// Releases a message that is not to be handled now. As with a success, this does not wait for a full queue.
    fn release(&mut self, lease: Lease, after: Duration) {
        let item = OutcomeItem::of(Side::Inbox, lease, RowOutcome::Release { after });
        if let Err(item) = self.inbox.outbox.outcomes.try_send(item) {
            let inbox = Arc::clone(&self.inbox);
            self.running += 1;
            self.ending.push(Box::pin(async move {
                inbox.outbox.outcomes.send(item).await;
                End::Parked
            }));
        }
    }

    /// Parks a claimed message that no handler of the group subscribes to, as is done with a received one.
    fn park_unhandled(&mut self, received: Received) {
        let topic = received.message().name().unwrap_or_default();
        let error = format!("no handler of the group {} subscribes to the topic {topic}", self.group.name);
        self.park(received, Reason::NoSubscriber, error);
    }

    fn park(&mut self, received: Received, reason: Reason, error: String) {
        let ending = self.ending();
        self.running += 1;
        self.ending.push(Box::pin(async move {
            let InFlight { lease, message, attempts, .. } = received.in_flight;
            ending.give_up(lease, message, reason, error, attempts, false).await;
            End::Parked
        }));
    }

    async fn finished(&mut self, job: Job, outcome: Outcome) {
        point("handler.after").await;
        let mut ending = self.ending();
        let enlisted = job.delivery.take_enlisted();
        let outcome = outcome.map_err(|error| ending.classify(&job, error));
        let rest = match &outcome {
            Ok(_) => {
                self.pausing.succeeded(job.member, job.probe);
                None
            }
            Err(error) => self.pausing.failed(job.member, error, job.probe),
        };
        ending.circuit_open = self.pausing.is_open(job.member);
        self.let_waiting_go_on(job.member);
        match (outcome, enlisted) {
            (Ok(response), None) => match ending.row_completion(&job, response) {
                Ok(row_completion) => {
                    ending.log_success(&job);
                    let item = ending.item(row_completion);
                    self.succeeded(job, item);
                }
                Err(error) => self.ending.push(Box::pin(ending.failed(job, error))),
            },
            (Ok(response), Some(enlisted)) => {
                self.ending.push(Box::pin(async move {
                    match ending.row_completion(&job, response) {
                        Ok(row_completion) => ending.complete(job, row_completion, enlisted).await,
                        Err(error) => {
                            Ending::abandon(enlisted).await;
                            ending.failed(job, error).await
                        }
                    }
                }));
            }
            (Err(error), enlisted) => {
                self.ending.push(Box::pin(async move {
                    if let Some(enlisted) = enlisted {
                        Ending::abandon(enlisted).await;
                    }
                    match rest {
                        Some(rest) => ending.rest(job, &error, rest).await,
                        None => ending.failed(job, error).await,
                    }
                }));
            }
        }
    }

    /// Passes a success to the outcome writer.
    fn succeeded(&mut self, job: Job, item: OutcomeItem) {
        let inbox = Arc::clone(&self.inbox);
        if job.received.pass.is_some() {
            // The next suspect waits until this one's success is stored. If the process died before that, the crash would
            // be counted for this message.
            return self.ending.push(Box::pin(async move {
                inbox.outbox.outcomes.send_and_wait(item).await;
                End::Over(job)
            }));
        }
        match self.inbox.outbox.outcomes.try_send(item) {
            Ok(()) => self.over(job),
            // A full queue means that the storage is slow, which slows this group down. But this task must not wait for
            // it: the futures in `ending` wait for the same queue and would not be polled meanwhile.
            Err(item) => self.ending.push(Box::pin(async move {
                inbox.outbox.outcomes.send(item).await;
                End::Over(job)
            })),
        }
    }

    async fn ended(&mut self, end: End, handlers: &mut Handlers) {
        match end {
            End::Over(job) => self.over(job),
            End::Again(job) => self.spawn(job, handlers),
            End::Parked => self.running -= 1,
            End::Turn(received) => self.order.first(*received),
            End::Marked(job, true) => {
                point("handler.before").await;
                self.spawn(job, handlers);
            }
            End::Marked(job, false) => self.not_started(job),
        }
    }

    /// Ends a suspect whose start could not be marked, because its lease is lost or the bus stops. If it was a probe, it
    /// says nothing about the dependency.
    fn not_started(&mut self, job: Job) {
        let _ = self.pausing.failed(job.member, &HandlerError::cancelled(), job.probe);
        self.let_waiting_go_on(job.member);
        self.over(job);
    }

    /// Makes messages that waited for a probe ready to run, if the probe has ended.
    fn let_waiting_go_on(&mut self, member: usize) {
        self.order.release(self.pausing.take_waiting(member));
    }

    /// Frees the place and the memory of a message, and its key for the next one.
    fn over(&mut self, job: Job) {
        self.running -= 1;
        let Job { received, key, .. } = job;
        self.end_turn(received.pass);
        self.order.free(key);
    }
}
