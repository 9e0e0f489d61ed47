//! The circuits of a group's subscribers, and the messages that wait for a probe.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::received::Received;
use crate::handlers::{Group, HandlerError, HandlerErrorKind, Member};
use crate::runtime::circuit::{Admission, Circuit, CircuitHealth, CircuitState, Sign};

/// What the executor keeps for the circuits of its group.
pub(crate) struct Pausing {
    members: Vec<Option<Paused>>,
    shown: Arc<Circuits>,
}

/// The circuits as `health` shows them.
#[derive(Debug, Default)]
pub(crate) struct Circuits(Mutex<Vec<CircuitHealth>>);

struct Paused {
    /// Its place among the circuits that are shown. Names do not tell them apart: one function may take two topics, and
    /// closures have none.
    place: usize,
    circuit: Circuit,
    /// Messages that wait for the probe's outcome.
    waiting: VecDeque<Received>,
}

impl Circuits {
    pub(crate) fn get(&self) -> Vec<CircuitHealth> {
        self.lock().clone()
    }

    /// Adds a circuit that is closed, and gives back its place.
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

    /// Notes where a circuit stands; gives it back if that is new.
    fn note(&self, place: usize, state: CircuitState) -> Option<CircuitHealth> {
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
        let paused = |member: &Member| {
            member.circuit.map(|settings| Paused {
                place: shown.add(member),
                circuit: Circuit::new(settings),
                waiting: VecDeque::new(),
            })
        };
        Self { members: group.members.iter().map(paused).collect(), shown }
    }

    /// What is to become of a message that could run now.
    pub(crate) fn admit(&mut self, member: usize) -> Admission {
        let Some(paused) = &mut self.members[member] else { return Admission::Run };
        let admission = paused.circuit.admit(Instant::now());
        Self::show(&self.shown, paused);
        admission
    }

    /// Whether a subscriber pauses.
    pub(crate) fn is_open(&self, member: usize) -> bool {
        let paused = self.members[member].as_ref();
        paused.is_some_and(|paused| paused.circuit.state() != CircuitState::Closed)
    }

    /// Has a message wait for the probe's outcome.
    pub(crate) fn wait(&mut self, member: usize, message: Received) {
        if let Some(paused) = &mut self.members[member] {
            paused.waiting.push_back(message);
        }
    }

    /// Hears that a handler succeeded.
    pub(crate) fn succeeded(&mut self, member: usize, probe: bool) {
        self.hear(member, Sign::Up, probe);
    }

    /// Hears that a handler failed. Gives back how long the message rests without its attempt being counted, if so.
    pub(crate) fn failed(&mut self, member: usize, error: &HandlerError, probe: bool) -> Option<Duration> {
        let paused = self.members[member].as_ref()?;
        let counts = error.is_outage() || !paused.circuit.outages_only();
        let sign = match error.kind() {
            HandlerErrorKind::Failed if counts => Sign::Down,
            _ => Sign::None,
        };
        self.hear(member, sign, probe)
    }

    fn hear(&mut self, member: usize, sign: Sign, probe: bool) -> Option<Duration> {
        let paused = self.members[member].as_mut()?;
        let rest = paused.circuit.hear(Instant::now(), sign, probe);
        Self::show(&self.shown, paused);
        rest
    }

    /// The messages of a subscriber that need wait no longer: its probe has ended.
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
            shown.note(paused.place, paused.circuit.state())
        else {
            return;
        };
        match state {
            CircuitState::Open => {
                metrics::counter!("cap_circuit_opened_total").increment(1);
                tracing::warn!(
                    subscriber,
                    topic,
                    "circuit open: a dependency of this handler seems to be down"
                );
            }
            CircuitState::Probing => {
                tracing::info!(subscriber, topic, "circuit half-open: trying one message");
            }
            CircuitState::Closed => {
                tracing::info!(subscriber, topic, "circuit closed: the handler runs again");
            }
        }
    }
}
