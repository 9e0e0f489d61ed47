//! Health: which components are up or down and since when, and how many messages are waiting.

use std::fmt::Display;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde::Serialize;

use crate::error::{StorageError, StorageErrorKind, TransportError, error_text};
use crate::monitor::Count;
use crate::runtime::circuit::CircuitHealth;

/// The health of a bus, as returned by [`Cap::health`](crate::Cap::health).
///
/// It serializes with the names of the fields; times are text as in RFC 3339. Later versions may add fields.
///
/// ```
/// # async fn endpoint(cap: cap_core::Cap) -> Result<String, serde_json::Error> {
/// let health = cap.health().await;
/// serde_json::to_string(&health)
/// # }
/// ```
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Health {
    /// Whether the bus is starting, running, stopping or stopped.
    pub phase: Phase,
    /// The storage.
    pub storage: Component,
    /// The broker, as the publishing side sees it.
    pub transport: Component,
    /// Each consuming group.
    pub groups: Vec<GroupHealth>,
    /// The topics whose messages the broker rejects because a queue is full or failing. These messages wait in the storage
    /// and are sent again with growing pauses.
    pub full: Vec<FullDestination>,
    /// Messages in memory on their way to the broker.
    pub relaying: usize,
    /// Whether more messages wait in the storage to be sent than memory has room for.
    pub backlog: bool,
    /// The number of messages with a state row, by side, group and status. `None` if the numbers are not known at the
    /// moment, because the storage is unavailable or counting takes too long; the latter is not a fault. Cancelled
    /// messages are not counted, as they wait for nothing.
    ///
    /// The cost of a count does not depend on the number of rows: at most 10,000 rows of each kind are read. The numbers
    /// are at most a second old.
    pub waiting: Option<Vec<Count>>,
    /// Whether there are more than 10,000 rows of some kind. If so, each number in [`waiting`](Self::waiting) is a lower
    /// bound; [`Messages::counts`](crate::Messages::counts) returns the exact numbers, but reads every row.
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

/// A topic whose messages the broker rejects because a queue that they are routed to is full or failing.
///
/// A broker's negative confirm has neither a reason nor the name of the queue.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct FullDestination {
    /// The exchange that the messages are sent to.
    pub destination: String,
    /// Their topic.
    pub topic: String,
    /// The groups of this bus that subscribe to this topic. The full queue may be that of one of these groups, or of
    /// another service.
    pub own_groups: Vec<String>,
    /// How many messages of this topic are waiting for room, as far as this node knows; 10,000 means at least that many.
    pub waiting: usize,
    /// Since when the broker has been rejecting them.
    #[serde(with = "humantime_serde")]
    pub since: SystemTime,
    /// The broker's error.
    pub error: String,
}

/// The phase of a bus's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Phase {
    /// The storage has not answered yet.
    Starting,
    /// The bus publishes, receives and handles messages.
    Running,
    /// The bus is draining: it takes no new work and completes what it has.
    Stopping,
    /// Every task has ended.
    Stopped,
}

/// A component that the bus depends on, and whether it is up.
#[derive(Debug, Clone, Serialize)]
pub struct Component {
    /// Its display name.
    pub name: String,
    /// Whether it worked the last time it was used.
    pub up: bool,
    /// Since when it has been up or down.
    #[serde(with = "humantime_serde")]
    pub since: SystemTime,
    /// Why it is down.
    pub error: Option<String>,
}

/// A consuming group.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct GroupHealth {
    /// Its full name.
    pub group: String,
    /// The topics that it subscribes to.
    pub topics: Vec<String>,
    /// Its consumer at the broker.
    pub consumer: Component,
    /// How many handlers are running.
    pub running: usize,
    /// How many stored messages wait in memory for a handler.
    pub queued: usize,
    /// The circuits of those of its subscribers that have one.
    pub circuits: Vec<CircuitHealth>,
}

/// The reason why a component is down.
pub(crate) trait Trouble: Display {
    /// Whether it persists until an operator acts.
    fn requires_operator(&self) -> bool {
        false
    }
}

impl Trouble for &str {}

impl Trouble for StorageError {
    fn requires_operator(&self) -> bool {
        self.kind() == StorageErrorKind::Unusable
    }
}

impl Trouble for TransportError {
    fn requires_operator(&self) -> bool {
        Self::requires_operator(self)
    }
}

/// Tracks the health of one component, and logs only changes.
#[derive(Debug)]
pub(crate) struct Tracker(Mutex<Tracked>);

#[derive(Debug)]
struct Tracked {
    component: Component,
    /// A write has failed, and none has succeeded since.
    write_failed: bool,
    /// What was logged last.
    logged: Logged,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Logged {
    Nothing,
    Up,
    Down,
    DownUntilOperatorActs,
}

impl Tracker {
    pub(crate) fn new(name: impl Into<String>) -> Self {
        let error = Some("not connected yet".to_owned());
        let component = Component { name: name.into(), up: false, since: SystemTime::now(), error };
        Self(Mutex::new(Tracked { component, write_failed: false, logged: Logged::Nothing }))
    }

    /// Records that a write has succeeded.
    pub(crate) fn up(&self) {
        self.set_up(true);
    }

    /// Records that a read has succeeded. A component whose last write failed stays down: its server may be read-only.
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
            tracked.logged = Logged::Up;
            tracing::info!(component = tracked.component.name, "up");
        }
    }

    /// Records that a write has failed.
    pub(crate) fn down(&self, trouble: &dyn Trouble) {
        self.set_down(trouble, true);
    }

    /// Records that a read has failed.
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
        tracked.logged = match (tracked.logged, trouble.requires_operator()) {
            (Logged::Nothing | Logged::Up | Logged::Down, true) => {
                tracing::error!(component, error, "unusable: operator action required; processing is paused");
                Logged::DownUntilOperatorActs
            }
            (Logged::Nothing | Logged::Up, false) => {
                tracing::warn!(component, error, "unreachable, retrying; processing resumes automatically");
                Logged::Down
            }
            (logged, _) => logged,
        };
    }

    pub(crate) fn get(&self) -> Component {
        self.lock().component.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Tracked> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
