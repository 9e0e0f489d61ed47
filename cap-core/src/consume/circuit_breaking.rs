//! The circuits of a group's subscribers, and the messages that wait for the outcome of a probe.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use metrics::Counter;
use tokio::time::Instant;

use super::received::Received;
use crate::handlers::{Group, HandlerError, HandlerErrorKind, Member};
use crate::runtime::circuit::{Admission, Circuit, CircuitHealth, CircuitState, Sign};

/// The circuits of the executor's group.
pub(crate) struct Pausing {
    members: Vec<Option<Paused>>,
    shown: Arc<Circuits>,
}

/// The circuits as reported by [`Cap::health`](crate::Cap::health).
#[derive(Debug, Default)]
pub(crate) struct Circuits(Mutex<Vec<CircuitHealth>>);

struct Paused {
    /// Its index in [`Circuits`]. A name would not identify it: a function may subscribe to two topics, and closures have
    /// no name.
    place: usize,
    circuit: Circuit,
    opened: Counter,
    /// Messages that wait for the probe's outcome.
    waiting: VecDeque<Received>,
}

impl Circuits {
    pub(crate) fn get(&self) -> Vec<CircuitHealth> {
        self.lock().clone()
    }

    /// Adds a closed circuit, and returns its index.
    fn add(&self, member: &Member) -> usize {
        let mut shown = self.lock();
        shown.push(CircuitHealth {
            subscriber: member.function.clone(),
            topic: member.pattern.to_string(),
            state: CircuitState::Closed,
            since: SystemTime::now(),
        });
        shown.len() - 1
    }

    /// Sets the state of a circuit, and returns the circuit if its state has changed.
    fn set(&self, place: usize, state: CircuitState) -> Option<CircuitHealth> {
        let mut shown = self.lock();
        let circuit = shown.get_mut(place).filter(|circuit| circuit.state != state)?;
        (circuit.state, circuit.since) = (state, SystemTime::now());
        Some(circuit.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<CircuitHealth>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pausing {
    pub(crate) fn new(group: &Group, shown: Arc<Circuits>) -> Self {
        let paused = |(index, member): (usize, &Member)| {
            member.circuit.map(|settings| Paused {
                place: shown.add(member),
                circuit: Circuit::new(settings),
                opened: group.metrics.member(Some(index)).circuit_opened.clone(),
                waiting: VecDeque::new(),
            })
        };
        Self { members: group.members.iter().enumerate().map(paused).collect(), shown }
    }

    /// Decides what to do with a message whose handler could run now.
    pub(crate) fn admit(&mut self, member: usize) -> Admission {
        let Some(paused) = &mut self.members[member] else { return Admission::Run };
        let admission = paused.circuit.admit(Instant::now());
        Self::show(&self.shown, paused);
        admission
    }

    /// Whether a subscriber is paused.
    pub(crate) fn is_open(&self, member: usize) -> bool {
        let paused = self.members[member].as_ref();
        paused.is_some_and(|paused| paused.circuit.state() != CircuitState::Closed)
    }

    /// Keeps a message until the outcome of the probe is known.
    pub(crate) fn wait(&mut self, member: usize, message: Received) {
        if let Some(paused) = &mut self.members[member] {
            paused.waiting.push_back(message);
        }
    }

    /// Records that a handler succeeded.
    pub(crate) fn succeeded(&mut self, member: usize, probe: bool) {
        self.record(member, Sign::Up, probe);
    }

    /// Records that a handler failed. If the attempt is not to be counted, returns how long its message is released to the
    /// storage for.
    pub(crate) fn failed(&mut self, member: usize, error: &HandlerError, probe: bool) -> Option<Duration> {
        let paused = self.members[member].as_ref()?;
        let counts = error.is_outage() || !paused.circuit.outages_only();
        let sign = match error.kind() {
            HandlerErrorKind::Failed if counts => Sign::Down,
            _ => Sign::None,
        };
        self.record(member, sign, probe)
    }

    fn record(&mut self, member: usize, sign: Sign, probe: bool) -> Option<Duration> {
        let paused = self.members[member].as_mut()?;
        let rest = paused.circuit.record(Instant::now(), sign, probe);
        Self::show(&self.shown, paused);
        rest
    }

    /// Takes the messages of a subscriber that waited for a probe, if the probe has ended.
    pub(crate) fn take_waiting(&mut self, member: usize) -> VecDeque<Received> {
        match &mut self.members[member] {
            Some(paused) if paused.circuit.state() != CircuitState::Probing => {
                std::mem::take(&mut paused.waiting)
            }
            _ => VecDeque::new(),
        }
    }

    fn show(shown: &Circuits, paused: &Paused) {
        let Some(CircuitHealth { subscriber, topic, state, .. }) =
            shown.set(paused.place, paused.circuit.state())
        else {
            return;
        };
        match state {
            CircuitState::Open => {
                paused.opened.increment(1);
                tracing::warn!(
                    subscriber,
                    topic,
                    "circuit open: a dependency of this handler seems to be down"
                );
            }
            CircuitState::Probing => {
                tracing::info!(subscriber, topic, "circuit half-open: handling one message as a probe");
            }
            CircuitState::Closed => {
                tracing::info!(subscriber, topic, "circuit closed: the handler runs again");
            }
        }
    }
}
