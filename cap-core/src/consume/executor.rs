//! Runs the handlers of one group: within its concurrency, in order where that is asked for, and with one
//! consequence for each outcome.
//!
//! One task owns all of the group's state, so there is nothing to lock: fresh messages, claimed ones and immediate
//! repetitions all pass through it, and one limit holds for them together.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cap_adapter::engine::DeliveryParts;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;

use super::circuit_breaking::{Circuits, Pausing};
use super::completion::{End, Ending};
use super::in_flight::Intake;
use super::inbox_row::refused_callback;
use super::incoming_hook::IncomingHook;
use super::suspects::{Suspects, mark_started};
use crate::runtime::circuit::Admission;
use crate::runtime::context::Context;

use crate::faults::point;
use crate::handlers::{
    Delivery, Done, EnginePart, ErasedHandler, Group, HandlerError, Job, Jobs, Layer, Next, Ticket, Worker,
};
use crate::message::headers::names;
use crate::runtime::suspect_gate::Pass;
use crate::storage::{Lease, Reason, RowCompletion, RowOutcome, Side};
use crate::writer::OutcomeItem;

/// How busy a group is.
#[derive(Debug, Default)]
pub(crate) struct GroupGauge {
    pub(crate) running: AtomicUsize,
    pub(crate) queued: AtomicUsize,
    /// Suspects that wait for their turn.
    pub(crate) suspects: AtomicUsize,
    pub(crate) circuits: Arc<Circuits>,
}

/// Runs a group's handlers until intake stops and what was started has ended, or everything stops.
pub(crate) async fn run_group(
    context: Arc<Context>,
    group: Arc<Group>,
    layers: Arc<[Arc<dyn Layer>]>,
    hook: IncomingHook,
    intake: mpsc::Receiver<Intake>,
    gauge: Arc<GroupGauge>,
) {
    let everything = context.stop.everything.clone();
    let (done, finished) = mpsc::channel(usize::from(group.concurrency));
    let mut workers = JoinSet::new();
    let senders = start_workers(&group, &layers, &done, &mut workers);
    let pausing = Pausing::new(&group, Arc::clone(&gauge.circuits));
    let executor = Executor {
        context,
        group,
        hook,
        senders,
        ending: FuturesUnordered::new(),
        running: 0,
        keys: HashMap::new(),
        held_back: 0,
        ready: VecDeque::new(),
        pausing,
        suspects: Suspects::default(),
        gauge,
    };
    // Dropping the workers at the end aborts those that have not come back by the deadline.
    everything.run_until_cancelled(executor.run(intake, finished)).await;
    workers.shutdown().await;
}

fn start_workers(
    group: &Group,
    layers: &Arc<[Arc<dyn Layer>]>,
    done: &mpsc::Sender<Done>,
    workers: &mut JoinSet<()>,
) -> Vec<mpsc::Sender<Job>> {
    let concurrency = usize::from(group.concurrency);
    let mut senders = Vec::with_capacity(group.members.len());
    for member in &group.members {
        let (sender, receiver) = mpsc::channel(concurrency);
        let jobs: Jobs = Arc::new(Mutex::new(receiver));
        for _ in 0..concurrency {
            let activity = Arc::clone(&member.activity);
            let worker = Worker::new(Arc::clone(&jobs), done.clone(), member.timeout, activity);
            workers.spawn(match &member.handler {
                ErasedHandler::Pointers(pointers) if layers.is_empty() => (pointers.drive)(worker),
                handler => Box::pin(call_each(worker, Next::new(Arc::clone(layers), handler.clone()))),
            });
        }
        senders.push(sender);
    }
    senders
}

/// The worker's loop for handlers that are called through a pointer.
async fn call_each(mut worker: Worker, next: Next) {
    while let Some(delivery) = worker.next().await {
        let (next, given) = (next.clone(), delivery.clone());
        // Within the future that is watched: a layer may panic before it has made one of its own.
        let outcome = worker.run(&delivery, async move { next.run(given).await }).await;
        drop(delivery);
        worker.finish(outcome).await;
    }
}

struct Executor {
    context: Arc<Context>,
    group: Arc<Group>,
    hook: IncomingHook,
    /// To the workers of each member.
    senders: Vec<mpsc::Sender<Job>>,
    /// Failures and transactions, which need the store before they are over.
    ending: FuturesUnordered<BoxFuture<'static, End>>,
    running: usize,
    /// Keys under which a message runs now, and the messages that wait for each.
    keys: HashMap<String, VecDeque<Intake>>,
    /// How many messages wait for their keys, or for a probe.
    held_back: usize,
    /// Messages that need wait no longer.
    ready: VecDeque<Intake>,
    pausing: Pausing,
    suspects: Suspects,
    gauge: Arc<GroupGauge>,
}

impl Executor {
    async fn run(mut self, mut intake: mpsc::Receiver<Intake>, mut finished: mpsc::Receiver<Done>) {
        let stop = self.context.stop.intake.clone();
        let limit = usize::from(self.context.options().prefetch);
        loop {
            self.gauge.running.store(self.running, Ordering::Relaxed);
            let suspects = self.suspects.waiting.len();
            self.gauge.suspects.store(suspects, Ordering::Relaxed);
            let queued = intake.len() + self.held_back + self.ready.len() + suspects;
            self.gauge.queued.store(queued, Ordering::Relaxed);
            let stopping = stop.is_cancelled();
            if stopping && self.running == 0 {
                return;
            }
            let room = !stopping && self.running < usize::from(self.group.concurrency);
            if room && let Some(message) = self.ready.pop_front() {
                self.start(message).await;
                continue;
            }
            // Where one runs at a time, a suspect that waits for its turn is not overtaken either.
            let in_order = self.group.concurrency > 1 || !self.suspects.has_turn;
            tokio::select! {
                biased;
                Some(done) = finished.recv() => self.finished(done).await,
                Some(end) = self.ending.next(), if !self.ending.is_empty() => self.ended(end).await,
                Some(message) = intake.recv(), if room && in_order && self.held_back < limit => self.take(message).await,
                () = stop.cancelled(), if !stopping => {}
            }
        }
    }

    /// Starts a message, or has it wait for its key.
    async fn take(&mut self, mut message: Intake) {
        if message.message.id().is_none() || message.message.name().is_none() {
            match self.hook.apply_again(&message.message) {
                Ok(given) => message.message = Arc::new(given),
                Err(panic) => return self.park(message, Reason::MissingHeaders, panic),
            }
        }
        let topic = message.message.name().unwrap_or_default();
        let Some(member) = self.group.member_for(topic) else {
            return self.park_unhandled(message);
        };
        if !self.holds(&message) {
            return;
        }
        let headers = &message.message.headers;
        if let Some(error) = refused_callback(self.context.options(), &self.group.members[member], headers) {
            return self.park(message, Reason::CallbackNotAllowed, error);
        }
        let limit = self.context.options().crash_limit;
        if let Some(suspect) = &message.suspect
            && limit > 0
            && message.crashes >= limit
        {
            let died = suspect.crashed.as_ref().map(|node| format!(", node {node}")).unwrap_or_default();
            let error = format!("process died while handling{died}, {} times in all", message.crashes);
            return self.park(message, Reason::ProcessCrashed, error);
        }
        if let Some(key) = self.key(member, &message) {
            if let Some(waiting) = self.keys.get_mut(&key) {
                waiting.push_back(message);
                self.held_back += 1;
                return;
            }
            self.keys.insert(key, VecDeque::new());
        }
        self.start(message).await;
    }

    fn holds(&self, message: &Intake) -> bool {
        self.context.leases.holds(Side::Inbox, message.lease)
    }

    fn key(&self, member: usize, message: &Intake) -> Option<String> {
        let header = self.group.members[member].order_by.as_deref()?;
        message.message.headers.get(header).map(str::to_owned)
    }

    async fn start(&mut self, mut message: Intake) {
        let topic: Arc<str> = message.message.name().unwrap_or_default().into();
        let Some(member) = self.group.member_for(&topic) else {
            return self.park_unhandled(message);
        };
        let key = self.key(member, &message);
        // While it waited the node may have lost it; another has handled it by now.
        if !self.holds(&message) {
            self.end_turn(message.pass.take());
            return self.free(key);
        }
        if message.suspect.is_some() && message.pass.is_none() {
            return self.wait_for_turn(message);
        }
        let probe = match self.pausing.admit(member) {
            Admission::Run => false,
            Admission::Probe => true,
            Admission::Wait => {
                self.end_turn(message.pass.take());
                self.held_back += 1;
                return self.pausing.wait(member, message);
            }
            Admission::Rest(after) => {
                self.end_turn(message.pass.take());
                self.free(key);
                return self.give_back(message.lease, after);
            }
        };
        let ticket = Ticket {
            lease: message.lease,
            member,
            attempts: message.attempts,
            attempts_before_rerun: message.attempts_before_rerun,
            age: message.age,
            key,
            probe,
            crashes: message.crashes,
            pass: message.pass,
            held: message.held,
        };
        let mut shared = message.message;
        Arc::make_mut(&mut shared).headers.insert(names::EXECUTION_INSTANCE, &*self.context.owner.node);
        let delivery = Delivery::new(DeliveryParts {
            message: shared,
            topic,
            group: Arc::clone(&self.group.name),
            attempt: message.attempts + 1,
            states: Arc::clone(&self.context.states),
            storage: Arc::clone(&self.context.storage).shared(),
            payload_in_errors: self.context.options().payload_in_errors,
            engine: EnginePart::new(Arc::clone(&self.context.composer)),
            cancelled: message.cancelled,
            timeout: self.group.members[member].timeout,
        });
        self.running += 1;
        let job = Job { delivery, ticket };
        if job.ticket.pass.is_none() {
            point("handler.before").await;
            return self.send(job).await;
        }
        let context = Arc::clone(&self.context);
        self.ending.push(Box::pin(async move {
            let marked = mark_started(&context, job.ticket.lease).await;
            End::Marked(job, marked)
        }));
    }

    /// Has a suspect wait until no other one of the group has its turn, and then for those of other groups. It takes no
    /// place of the group's concurrency meanwhile.
    fn wait_for_turn(&mut self, mut message: Intake) {
        if self.suspects.has_turn {
            return self.suspects.waiting.push_back(message);
        }
        self.suspects.has_turn = true;
        let context = Arc::clone(&self.context);
        self.ending.push(Box::pin(async move {
            let suspect = message.suspect.clone().unwrap_or_default();
            message.pass = Some(context.suspects.turn(message.lease, &suspect).await);
            End::Turn(Box::new(message))
        }));
    }

    /// Ends a suspect's turn, if it is one, and gives it to the next.
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
        Ending { context: Arc::clone(&self.context), group: Arc::clone(&self.group), circuit_open: false }
    }

    async fn send(&mut self, job: Job) {
        // There is room: no more jobs are about than the channel holds. Workers end only with this task.
        let _ = self.senders[job.ticket.member].send(job).await;
    }

    /// Releases a message that is not to run now. As with a success, a full outcome writer is not waited for here.
    fn give_back(&mut self, lease: Lease, after: Duration) {
        let row_completion =
            RowCompletion { lease, outcome: RowOutcome::Release { after }, publishes: Vec::new() };
        let complete = self.context.complete.clone();
        if let Err(TrySendError::Full(item)) =
            complete.try_send(OutcomeItem::new(Side::Inbox, row_completion))
        {
            self.running += 1;
            self.ending.push(Box::pin(async move {
                let _ = complete.send(item).await;
                End::Parked
            }));
        }
    }

    /// A claimed message that no handler here takes: it waits for an operator, as a fresh one would.
    fn park_unhandled(&mut self, message: Intake) {
        let topic = message.message.name().unwrap_or_default();
        let error = format!("no handler of the group {} takes the topic {topic}", self.group.name);
        self.park(message, Reason::NoSubscriber, error);
    }

    fn park(&mut self, message: Intake, reason: Reason, error: String) {
        let ending = self.ending();
        self.running += 1;
        self.ending.push(Box::pin(async move {
            let Intake { lease, message, attempts, .. } = message;
            ending.give_up(lease, message, reason, error, attempts, false).await;
            End::Parked
        }));
    }

    async fn finished(&mut self, done: Done) {
        point("handler.after").await;
        let Done { job: Job { delivery, ticket }, outcome } = done;
        let mut ending = self.ending();
        let enlisted = delivery.take_enlisted();
        let outcome = outcome.map_err(|error| ending.classify(&ticket, error));
        let rest = match &outcome {
            Ok(_) => {
                self.pausing.succeeded(ticket.member, ticket.probe);
                None
            }
            Err(error) => self.pausing.failed(ticket.member, error, ticket.probe),
        };
        ending.circuit_open = self.pausing.is_open(ticket.member);
        self.let_waiting_go_on(ticket.member);
        match (outcome, enlisted) {
            (Ok(response), None) => match ending.row_completion(&ticket, &delivery, response) {
                Ok(row_completion) => {
                    Ending::log_success(&delivery);
                    let (row_completion, after_commit) = ending.with_pending_commit(row_completion);
                    let item =
                        OutcomeItem::new(Side::Inbox, row_completion).with_pending_commit(after_commit);
                    if ticket.pass.is_some() {
                        // The next suspect waits until this one's success is stored: were the process to die before, it
                        // would be blamed.
                        let (item, stored) = item.awaited();
                        return self.ending.push(Box::pin(async move {
                            if ending.context.complete.send(item).await.is_ok() {
                                let _ = stored.await;
                            }
                            End::Over(ticket)
                        }));
                    }
                    match self.context.complete.try_send(item) {
                        // A full lane means that the store is behind, and holds this group up. It is not waited for
                        // here: those that are ending wait for it, too, and would not be looked at meanwhile.
                        Err(TrySendError::Full(item)) => self.ending.push(Box::pin(async move {
                            let _ = ending.context.complete.send(item).await;
                            End::Over(ticket)
                        })),
                        _ => self.over(ticket),
                    }
                }
                Err(error) => self.ending.push(Box::pin(ending.failed(ticket, delivery, error))),
            },
            (Ok(response), Some(enlisted)) => {
                self.ending.push(Box::pin(async move {
                    match ending.row_completion(&ticket, &delivery, response) {
                        Ok(row_completion) => {
                            ending.complete(ticket, delivery, row_completion, enlisted).await
                        }
                        Err(error) => {
                            Ending::abandon(enlisted).await;
                            ending.failed(ticket, delivery, error).await
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
                        Some(rest) => ending.rest(ticket, &delivery, &error, rest).await,
                        None => ending.failed(ticket, delivery, error).await,
                    }
                }));
            }
        }
    }

    async fn ended(&mut self, end: End) {
        match end {
            End::Over(ticket) => self.over(ticket),
            End::Again(job) => self.send(job).await,
            End::Parked => self.running -= 1,
            End::Turn(message) => self.ready.push_front(*message),
            End::Marked(job, true) => {
                point("handler.before").await;
                self.send(job).await;
            }
            End::Marked(job, false) => self.not_started(job.ticket),
        }
    }

    /// A suspect's start could not be noted: its lease is lost, or the bus stops. A probe that it was tells nothing.
    fn not_started(&mut self, ticket: Ticket) {
        let _ = self.pausing.failed(ticket.member, &HandlerError::cancelled(), ticket.probe);
        self.let_waiting_go_on(ticket.member);
        self.over(ticket);
    }

    /// Those that waited for a probe need wait no longer, if it has ended.
    fn let_waiting_go_on(&mut self, member: usize) {
        let waited = self.pausing.take_waiting(member);
        self.held_back -= waited.len();
        self.ready.extend(waited);
    }

    /// Frees the message's place, the memory that it took, and its key for the next.
    fn over(&mut self, ticket: Ticket) {
        self.running -= 1;
        drop(ticket.held);
        self.end_turn(ticket.pass);
        self.free(ticket.key);
    }

    /// Frees a key for the next.
    fn free(&mut self, key: Option<String>) {
        if let Some(key) = key
            && let Some(waiting) = self.keys.get_mut(&key)
        {
            match waiting.pop_front() {
                Some(next) => {
                    self.held_back -= 1;
                    self.ready.push_back(next);
                }
                None => drop(self.keys.remove(&key)),
            }
        }
    }
}
