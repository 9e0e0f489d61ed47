//! What is up, what is down and since when, and what is waiting.

use std::fmt::Display;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crate::error::{StorageError, StorageErrorKind, TransportError, error_text};
use crate::monitor::Count;
use crate::runtime::circuit::CircuitHealth;

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
    /// The topics for which the broker has no room, or whose queues fail: their messages wait in the storage, and are
    /// sent again with growing pauses.
    pub full: Vec<FullDestination>,
    /// Messages in memory on their way to the broker.
    pub relaying: usize,
    /// Whether more messages wait in the store for the broker than memory may hold.
    pub backlog: bool,
    /// Messages with a state row, by side, group and status; `None` if it is not known now, since the storage cannot be
    /// asked or its count takes too long, which is no trouble by itself. Those that were cancelled wait for nobody, and
    /// are not counted.
    ///
    /// A count costs the same however many rows there are: at most 10,000 are looked at of each kind. It is at most a
    /// second old.
    pub waiting: Option<Vec<Count>>,
    /// There are more than 10,000 rows of a kind: each number in [`waiting`](Self::waiting) means at least so many.
    /// [`BusMonitor::counts`](crate::BusMonitor::counts) has the exact numbers, at a cost.
    pub waiting_is_capped: bool,
}

impl Health {
    /// Whether everything is up, and no message waits for room at the broker.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.is_up() && self.full.is_empty()
    }

    /// Whether everything is up, but messages to [some topics](Self::full) wait for room at the broker.
    #[must_use]
    pub fn is_degraded(&self) -> bool {
        self.is_up() && !self.full.is_empty()
    }

    fn is_up(&self) -> bool {
        self.phase == Phase::Running
            && self.storage.up
            && self.transport.up
            && self.groups.iter().all(|group| group.consumer.up)
    }
}

/// A topic whose messages the broker has rejected, since a queue that they go to is full or fails.
///
/// A broker's negative confirm has neither a reason nor the name of the queue.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FullDestination {
    /// Where the messages are sent to: the exchange.
    pub destination: String,
    /// Their topic.
    pub topic: String,
    /// The groups of this bus that take this topic. One of their queues may be the full one, or that of another service.
    pub own_groups: Vec<String>,
    /// How many of its messages this node knows to wait for room; 10,000 means at least so many.
    pub waiting: usize,
    /// Since when.
    pub since: SystemTime,
    /// What the broker said.
    pub error: String,
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

/// Why a component is down.
pub(crate) trait Trouble: Display {
    /// Whether it stays until an operator does something.
    fn needs_a_person(&self) -> bool {
        false
    }
}

impl Trouble for &str {}

impl Trouble for StorageError {
    fn needs_a_person(&self) -> bool {
        self.kind() == StorageErrorKind::Unusable
    }
}

impl Trouble for TransportError {
    fn needs_a_person(&self) -> bool {
        self.requires_operator()
    }
}

/// Follows one component; speaks up in the log only when it changes.
#[derive(Debug)]
pub(crate) struct Tracker(Mutex<Tracked>);

#[derive(Debug)]
struct Tracked {
    component: Component,
    /// A write has failed, and none has succeeded since.
    write_failed: bool,
    /// What the log has been told last.
    told: Told,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Nothing,
    Up,
    Down,
    DownUntilMended,
}

impl Tracker {
    pub(crate) fn new(name: impl Into<String>) -> Self {
        let error = Some("not connected yet".to_owned());
        let component = Component { name: name.into(), up: false, since: SystemTime::now(), error };
        Self(Mutex::new(Tracked { component, write_failed: false, told: Told::Nothing }))
    }

    /// A write has succeeded.
    pub(crate) fn up(&self) {
        self.set_up(true);
    }

    /// A read has succeeded: that does not end what a failed write has shown, such as a server that is read-only.
    pub(crate) fn read_succeeded(&self) {
        self.set_up(false);
    }

    fn set_up(&self, written: bool) {
        let mut tracked = self.lock();
        tracked.write_failed &= !written;
        if !tracked.component.up && !tracked.write_failed {
            tracked.component.up = true;
            tracked.component.since = SystemTime::now();
            tracked.component.error = None;
            tracked.told = Told::Up;
            tracing::info!(component = tracked.component.name, "up");
        }
    }

    /// A write has failed.
    pub(crate) fn down(&self, trouble: &dyn Trouble) {
        self.set_down(trouble, true);
    }

    /// A read has failed.
    pub(crate) fn read_failed(&self, trouble: &dyn Trouble) {
        self.set_down(trouble, false);
    }

    fn set_down(&self, trouble: &dyn Trouble, written: bool) {
        let mut tracked = self.lock();
        tracked.write_failed |= written;
        if tracked.component.up {
            tracked.component.up = false;
            tracked.component.since = SystemTime::now();
        }
        let error = error_text(trouble);
        tracked.component.error = Some(error.clone());
        let component = &tracked.component.name;
        tracked.told = match (tracked.told, trouble.needs_a_person()) {
            (Told::Nothing | Told::Up | Told::Down, true) => {
                tracing::error!(component, error, "unusable: operator action required; processing is paused");
                Told::DownUntilMended
            }
            (Told::Nothing | Told::Up, false) => {
                tracing::warn!(component, error, "unreachable, retrying; processing resumes automatically");
                Told::Down
            }
            (told, _) => told,
        };
    }

    pub(crate) fn get(&self) -> Component {
        self.lock().component.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Tracked> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
