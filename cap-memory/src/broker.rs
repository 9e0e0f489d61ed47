//! The in-memory broker: queues, bindings, deliveries. Pure state behind a lock; the transport does the waiting.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::queue::{Handed, Parcel, Queue};
use cap_adapter::message::TopicPattern;
use cap_adapter::transport::{Acknowledge, Destination, Incoming, Sent, Tag};

/// The state shared by all clones of a transport.
#[derive(Debug)]
pub(super) struct Broker {
    state: Mutex<State>,
    /// Signals that a queue may have room, or that waiting for it is useless.
    pub(super) room: Notify,
    pub(super) capacity: usize,
}

/// The queues by name, and whether the broker can be reached.
#[derive(Debug, Default)]
pub(super) struct State {
    queues: BTreeMap<Arc<str>, Queue>,
    /// Ordered by due time, and then by arrival.
    waiting: BTreeMap<(Instant, u64), Waiting>,
    last_waiting: u64,
    away: bool,
    last_consumer: u64,
}

/// A message that is kept until it is due.
#[derive(Debug)]
struct Waiting {
    version: Arc<str>,
    parcel: Parcel,
    to: Destination,
}

/// The result of enqueuing a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Put {
    Done(Sent),
    /// One of its queues is full.
    Full,
    Away,
}

/// The queues of a message whose sender waits for the acknowledgement.
#[derive(Debug, Default)]
pub(super) struct Offered {
    /// Queues that have it. The receiver fails if the queue drops it.
    pub(super) taken: Vec<(Arc<str>, oneshot::Receiver<()>)>,
    pub(super) full: Vec<Arc<str>>,
    /// Queues without a consumer.
    pub(super) unattended: Vec<Arc<str>>,
}

/// The limits of a batch for a consumer.
#[derive(Debug, Clone, Copy)]
pub(super) struct AtMost {
    pub(super) messages: usize,
    /// The size in bytes. A larger message is delivered alone.
    pub(super) bytes: usize,
    /// The maximum number of unacknowledged messages.
    pub(super) unacknowledged: usize,
}

/// What the broker has for a consumer.
#[derive(Debug)]
pub(super) enum Taken {
    Messages(Vec<Incoming>),
    Nothing,
    /// The consumer no longer exists.
    Ended,
}

impl Broker {
    pub(super) fn new(capacity: usize) -> Self {
        Self { state: Mutex::default(), room: Notify::new(), capacity }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a message into all of its queues, or into none if one of them is full.
    pub(super) fn put(&self, version: &Arc<str>, parcel: &Parcel) -> Put {
        let mut state = self.lock();
        if state.away {
            return Put::Away;
        }
        self.move_due(&mut state, Instant::now());
        state.route(version, parcel, self.capacity).map_or(Put::Full, Put::Done)
    }

    /// Puts a message into each of its queues that is not excluded, has room and has a consumer; into none if the
    /// broker is unavailable. No queue keeps it longer than its sender waits and its consumers exist.
    pub(super) fn offer(&self, version: &Arc<str>, parcel: &Parcel, except: &[Arc<str>]) -> Option<Offered> {
        let mut state = self.lock();
        if state.away {
            return None;
        }
        self.move_due(&mut state, Instant::now());
        let mut offered = Offered::default();
        for (group, queue) in &mut state.queues {
            if except.contains(group) || !queue.wants(version, &parcel.routing_key) {
                continue;
            }
            if queue.len() >= self.capacity {
                queue.ready.retain(|_, stored| !stored.is_abandoned());
            }
            if queue.consumers.is_empty() {
                offered.unattended.push(Arc::clone(group));
            } else if queue.len() >= self.capacity {
                offered.full.push(Arc::clone(group));
            } else {
                let (sender, receiver) = oneshot::channel();
                queue.add(parcel.clone(), false, Some(sender));
                offered.taken.push((Arc::clone(group), receiver));
            }
        }
        Some(offered)
    }

    /// Keeps a message until it is due, unless the limit is reached.
    pub(super) fn keep(&self, version: &Arc<str>, parcel: &Parcel, to: &Destination, due: Instant) -> Put {
        let mut state = self.lock();
        if state.away {
            return Put::Away;
        }
        self.move_due(&mut state, Instant::now());
        if state.waiting.len() >= self.capacity {
            return Put::Full;
        }
        state.last_waiting += 1;
        let (version, to) = (Arc::clone(version), to.clone());
        let place = (due, state.last_waiting);
        state.waiting.insert(place, Waiting { version, parcel: parcel.clone(), to });
        // A waiting consumer may have planned to sleep longer than until this due time.
        for queue in state.queues.values() {
            queue.arrived.notify_waiters();
        }
        Put::Done(Sent::Routed)
    }

    /// Delivers ready messages within the limits, and returns when to check again even if nothing arrives.
    pub(super) fn take(&self, group: &Arc<str>, consumer: u64, at_most: AtMost) -> (Taken, Option<Instant>) {
        let mut state = self.lock();
        // One time for both steps: a message that becomes due in between would be neither moved nor waited for.
        let now = Instant::now();
        self.move_due(&mut state, now);
        (state.take(group, consumer, at_most), state.next_due(now))
    }

    /// Moves due messages to their queues, which makes room for more delayed ones.
    fn move_due(&self, state: &mut State, now: Instant) {
        if state.move_due(self.capacity, now) {
            self.room.notify_waiters();
        }
    }

    /// Acknowledges deliveries of a consumer. Those that it no longer has are ignored.
    pub(super) fn acknowledge(&self, group: &Arc<str>, consumer: u64, tags: &[Tag], how: Acknowledge) {
        let mut state = self.lock();
        let Some(queue) = state.queues.get_mut(group) else { return };
        let Some(handed) = queue.consumers.get_mut(&consumer) else { return };
        let acknowledged: Vec<_> = tags.iter().filter_map(|tag| handed.unacknowledged.remove(tag)).collect();
        match how {
            Acknowledge::Accept => {
                for (_, stored) in acknowledged {
                    if let Some(sender) = stored.sender {
                        // A sender that has stopped waiting sends it again, and the inbox recognizes the duplicate.
                        let _ = sender.send(());
                    }
                }
                // There may be room now for due messages.
                self.move_due(&mut state, Instant::now());
                self.room.notify_waiters();
            }
            Acknowledge::Requeue => queue.take_back(acknowledged),
        }
    }

    /// Ends a consumer; its unacknowledged messages go back to their positions in the queue.
    pub(super) fn end(&self, group: &Arc<str>, consumer: u64) {
        if let Some(queue) = self.lock().queues.get_mut(group) {
            queue.end(consumer);
        }
    }

    /// Makes the broker unreachable, which ends every consumer, or reachable again.
    pub(super) fn set_available(&self, available: bool) {
        let mut state = self.lock();
        state.away = !available;
        if state.away {
            for queue in state.queues.values_mut() {
                let consumers: Vec<u64> = queue.consumers.keys().copied().collect();
                for consumer in consumers {
                    queue.end(consumer);
                }
            }
        }
        self.room.notify_waiters();
    }
}

impl State {
    pub(super) fn is_away(&self) -> bool {
        self.away
    }

    /// Declares the queue of a group with its bindings.
    pub(super) fn declare(&mut self, version: &Arc<str>, group: &Arc<str>, topics: &[TopicPattern]) {
        let queue = self.queues.entry(Arc::clone(group)).or_default();
        for topic in topics {
            let binding = (Arc::clone(version), topic.clone());
            if !queue.bindings.contains(&binding) {
                queue.bindings.push(binding);
            }
        }
    }

    /// Adds a consumer to an existing queue, and returns the consumer's number and the signal for arrivals.
    pub(super) fn consume(&mut self, group: &Arc<str>) -> Option<(u64, Arc<Notify>)> {
        let queue = self.queues.get_mut(group)?;
        self.last_consumer += 1;
        queue.consumers.insert(self.last_consumer, Handed::default());
        Some((self.last_consumer, Arc::clone(&queue.arrived)))
    }

    /// Puts a message into all of its queues, or returns `None` and puts it into none if one of them is full.
    fn route(&mut self, version: &Arc<str>, parcel: &Parcel, capacity: usize) -> Option<Sent> {
        let key = parcel.routing_key.as_str();
        let mut wanting: Vec<_> =
            self.queues.values_mut().filter(|queue| queue.wants(version, key)).collect();
        if wanting.iter().any(|queue| queue.len() >= capacity) {
            return None;
        }
        for queue in &mut wanting {
            queue.add(parcel.clone(), false, None);
        }
        Some(if wanting.is_empty() { Sent::Unrouted } else { Sent::Routed })
    }

    /// Moves due messages to their queues. Messages without room or without a queue keep waiting. Returns whether any
    /// was moved.
    fn move_due(&mut self, capacity: usize, now: Instant) -> bool {
        if self.waiting.is_empty() {
            return false;
        }
        let later = self.waiting.split_off(&(now, u64::MAX));
        let due = std::mem::replace(&mut self.waiting, later);
        let mut moved = false;
        for (place, waiting) in due {
            if self.deliver(&waiting, capacity) {
                moved = true;
            } else {
                self.waiting.insert(place, waiting);
            }
        }
        moved
    }

    /// Moves a due message and returns whether that succeeded.
    fn deliver(&mut self, waiting: &Waiting, capacity: usize) -> bool {
        match &waiting.to {
            Destination::Topic => self.route(&waiting.version, &waiting.parcel, capacity).is_some(),
            Destination::Group(group) => match self.queues.get_mut(group) {
                Some(queue) if queue.len() < capacity => {
                    queue.add(waiting.parcel.clone(), true, None);
                    true
                }
                _ => false,
            },
        }
    }

    /// When the next message is due. Overdue messages wait for room, not for the clock.
    fn next_due(&self, now: Instant) -> Option<Instant> {
        self.waiting.range((now, u64::MAX)..).next().map(|((due, _), _)| *due)
    }

    fn take(&mut self, group: &Arc<str>, consumer: u64, at_most: AtMost) -> Taken {
        let Some(queue) = self.queues.get_mut(group) else { return Taken::Ended };
        let Some(handed) = queue.consumers.get_mut(&consumer) else { return Taken::Ended };
        let room = at_most.unacknowledged.saturating_sub(handed.unacknowledged.len()).min(at_most.messages);
        let (mut messages, mut bytes) = (Vec::new(), 0);
        while messages.len() < room
            && let Some(next) = queue.ready.first_entry()
        {
            let size = next.get().parcel.size();
            if !messages.is_empty() && bytes + size > at_most.bytes {
                break;
            }
            let (place, stored) = next.remove_entry();
            if !stored.is_abandoned() {
                bytes += size;
                messages.push(handed.hand_out(place, stored));
            }
        }
        if messages.is_empty() { Taken::Nothing } else { Taken::Messages(messages) }
    }
}
