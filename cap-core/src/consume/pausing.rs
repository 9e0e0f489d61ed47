//! The circuits of a group's subscribers, and the messages that wait for a probe.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::intake::Intake;
use crate::circuit::{Admission, Circuit, CircuitHealth, CircuitState, Sign};
use crate::faults::sabotaged;
use crate::subscribe::{Group, HandlerError, HandlerErrorKind};

/// What the executor keeps for the circuits of its group.
pub(crate) struct Pausing {
    members: Vec<Option<Paused>>,
    shown: Arc<Circuits>,
}

/// The circuits as `health` shows them.
#[derive(Debug, Default)]
pub(crate) struct Circuits(Mutex<Vec<CircuitHealth>>);

struct Paused {
    subscriber: String,
    circuit: Circuit,
    /// Messages that wait for the probe's outcome.
    waiting: VecDeque<Intake>,
}

impl Circuits {
    pub(crate) fn get(&self) -> Vec<CircuitHealth> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes where a circuit stands; says whether that is new.
    fn note(&self, subscriber: &str, state: CircuitState) -> bool {
        let mut shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = SystemTime::now();
        match shown.iter_mut().find(|circuit| circuit.subscriber == subscriber) {
            Some(circuit) if circuit.state == state => false,
            Some(circuit) => {
                (circuit.state, circuit.since) = (state, now);
                true
            }
            None => {
                shown.push(CircuitHealth { subscriber: subscriber.to_owned(), state, since: now });
                false
            }
        }
    }
}

impl Pausing {
    pub(crate) fn new(group: &Group, shown: Arc<Circuits>) -> Self {
        let paused = |subscriber: &str, settings| {
            shown.note(subscriber, CircuitState::Closed);
            Paused {
                subscriber: subscriber.to_owned(),
                circuit: Circuit::new(settings),
                waiting: VecDeque::new(),
            }
        };
        let members = group
            .members
            .iter()
            .map(|member| member.circuit.map(|settings| paused(&member.function, settings)))
            .collect();
        Self { members, shown }
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
            && !sabotaged("repeat-while-open")
    }

    /// Has a message wait for the probe's outcome.
    pub(crate) fn wait(&mut self, member: usize, message: Intake) {
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
        rest.filter(|_| !sabotaged("count-while-open"))
    }

    /// The messages of a subscriber that need wait no longer: its probe has ended.
    pub(crate) fn take_waiting(&mut self, member: usize) -> VecDeque<Intake> {
        match &mut self.members[member] {
            Some(paused) if paused.circuit.state() != CircuitState::Probing => {
                std::mem::take(&mut paused.waiting)
            }
            _ => VecDeque::new(),
        }
    }

    fn show(shown: &Circuits, paused: &Paused) {
        let state = paused.circuit.state();
        if shown.note(&paused.subscriber, state) {
            let subscriber = &paused.subscriber;
            match state {
                CircuitState::Open => {
                    metrics::counter!("cap_circuit_opened_total").increment(1);
                    tracing::warn!(
                        subscriber,
                        "the circuit is open: what this handler depends on seems to be down"
                    );
                }
                CircuitState::Probing => {
                    tracing::info!(subscriber, "the circuit is open: trying one message");
                }
                CircuitState::Closed => {
                    tracing::info!(subscriber, "the circuit is closed: handlers run again");
                }
            }
        }
    }
}
