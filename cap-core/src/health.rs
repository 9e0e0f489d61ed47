//! What is up, what is down and since when, and what is waiting.

use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use crate::circuit::CircuitHealth;
use crate::monitor::Count;

/// How the bus is, as [`Cap::health`](crate::Cap::health) tells it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Health {
    /// Where the bus is in its life.
    pub phase: Phase,
    /// The store.
    pub storage: Component,
    /// The broker, as the publishing side sees it.
    pub transport: Component,
    /// Each consuming group.
    pub groups: Vec<GroupHealth>,
    /// Messages in memory on their way to the broker.
    pub relaying: usize,
    /// Whether more messages wait in the store for the broker than memory may hold.
    pub backlog: bool,
    /// Messages with a state row, by side, group and status; `None` if the store cannot be asked now. Those that were
    /// called off wait for nobody, and are not counted.
    pub waiting: Option<Vec<Count>>,
}

impl Health {
    /// Whether everything is up.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.phase == Phase::Running
            && self.storage.up
            && self.transport.up
            && self.groups.iter().all(|group| group.consumer.up)
    }
}

/// Where a bus is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// The store has not answered yet.
    Starting,
    /// At work.
    Running,
    /// Draining.
    Stopping,
    /// Done.
    Stopped,
}

/// One thing that is up or down.
#[derive(Debug, Clone)]
pub struct Component {
    /// Its name for people.
    pub name: String,
    /// Whether it answered last time.
    pub up: bool,
    /// Since when it has been so.
    pub since: SystemTime,
    /// Why it is down.
    pub error: Option<String>,
}

/// A consuming group.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GroupHealth {
    /// Its full name.
    pub group: String,
    /// The topics it takes.
    pub topics: Vec<String>,
    /// Its consumer at the broker.
    pub consumer: Component,
    /// Handlers that are running.
    pub running: usize,
    /// Stored messages in memory that wait for a handler.
    pub queued: usize,
    /// The circuits of its subscribers that have one.
    pub circuits: Vec<CircuitHealth>,
}

/// Follows one component; speaks up in the log only when it changes.
#[derive(Debug)]
pub(crate) struct Tracker(Mutex<Component>);

impl Tracker {
    pub(crate) fn new(name: impl Into<String>) -> Self {
        let error = Some("not connected yet".to_owned());
        Self(Mutex::new(Component { name: name.into(), up: false, since: SystemTime::now(), error }))
    }

    pub(crate) fn up(&self) {
        let mut component = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !component.up {
            component.up = true;
            component.since = SystemTime::now();
            component.error = None;
            tracing::info!(component = component.name, "up");
        }
    }

    pub(crate) fn down(&self, error: &dyn std::fmt::Display) {
        let mut component = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let first = component.up || component.error.as_deref() == Some("not connected yet");
        if component.up {
            component.up = false;
            component.since = SystemTime::now();
        }
        component.error = Some(error.to_string());
        if first {
            tracing::warn!(component = component.name, %error, "down; work waits and goes on by itself");
        }
    }

    pub(crate) fn get(&self) -> Component {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
