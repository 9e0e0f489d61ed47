//! Sending over a transport of this process, which keeps nothing: a message counts as sent when the groups that want it
//! have it in their inboxes, those of this bus and those of other buses in the process.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use tokio::time::Instant;

use super::delay_steps::broker_delay;
use super::sending::{Answer, Taken};
use crate::error::{StorageError, TransportError, TransportErrorKind};
use crate::message::Message;
use crate::runtime::engine::Engine;
use crate::runtime::in_flight::InFlight;
use crate::transport::{Confirmed, Outbound, Sent};

/// The first pause of a message that a group of another bus has not stored. A message rests for as long as it is old.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How many messages are remembered that some groups have and others have not. One that is forgotten is stored a second
/// time, which the inboxes notice.
const REMEMBERED: usize = 10_000;

/// How often the log says that messages wait for another bus.
const REMINDER: Duration = Duration::from_mins(1);

/// A group of this bus, as the relay sees it.
pub(crate) trait OwnGroup: Send + Sync {
    /// The full name of the group.
    fn name(&self) -> &Arc<str>;

    /// Whether the group takes this topic from the bus itself.
    fn wants(&self, topic: &str) -> bool;

    /// Stores messages in the group's inbox. Gives back one answer for each, in order. Storing one again does nothing, as
    /// long as the inbox knows it.
    fn take_in<'a>(&'a self, messages: &'a [Arc<Message>]) -> BoxFuture<'a, Vec<Result<(), StorageError>>>;
}

/// The groups of this bus, and which groups have what must be sent again.
pub(crate) struct InProcess {
    own: Vec<Box<dyn OwnGroup>>,
    partly: Mutex<Partly>,
}

#[derive(Default)]
struct Partly {
    /// By the outbox row, the groups that have its message though it is not sent to all.
    groups: HashMap<i64, Vec<Arc<str>>>,
    reminded: Option<Instant>,
}

impl InProcess {
    pub(crate) fn new(own: Vec<Box<dyn OwnGroup>>) -> Self {
        Self { own, partly: Mutex::default() }
    }

    /// Sends a batch; an answer for each, in order. Cancel safe: what was stored already is recognized when it is stored
    /// again.
    pub(super) async fn send(&self, engine: &Engine, batch: &[InFlight]) -> Vec<Answer> {
        if let Err(error) = engine.broker.probe().await {
            return batch.iter().map(|_| Err(error.clone())).collect();
        }
        let parts: Vec<Part> = batch.iter().filter_map(|item| self.part(item)).collect();
        let outbound: Vec<Outbound> = parts.iter().map(Part::outbound).collect();
        // At the same time: neither a slow bus holds up this one's groups, nor the other way round.
        let (refused, confirmed) =
            tokio::join!(self.take_in(&parts), engine.broker.send_confirmed(&outbound));
        let mut confirmed = confirmed.into_iter();
        let mut answers = parts.into_iter().zip(refused).map(|(part, refused)| {
            let confirmed = confirmed.next().unwrap_or_else(|| Err(engine.broker.no_answer()));
            self.answer(engine, part, refused, confirmed)
        });
        batch
            .iter()
            .map(|item| match broker_delay(item) {
                Some(delay) => Ok(Taken::Later(delay.in_steps())),
                None => answers.next().unwrap_or_else(|| Err(engine.broker.no_answer())),
            })
            .collect()
    }

    /// Who gets a message; nobody yet if it is delayed.
    fn part<'a>(&'a self, item: &'a InFlight) -> Option<Part<'a>> {
        if broker_delay(item).is_some() {
            return None;
        }
        let have = self.partly().groups.get(&item.lease.id).cloned().unwrap_or_default();
        let topic = item.message.name().unwrap_or_default();
        let own = self.own.iter().map(|group| &**group).filter(|group| group.wants(topic)).collect();
        Some(Part { item, own, have })
    }

    /// Stores messages in the inboxes of this bus's groups. Gives back for each the error of a group that could not
    /// take it.
    async fn take_in(&self, parts: &[Part<'_>]) -> Vec<Option<StorageError>> {
        let groups = self.own.iter().map(async |group| {
            let (places, messages): (Vec<usize>, Vec<Arc<Message>>) = parts
                .iter()
                .enumerate()
                .filter(|(_, part)| part.lacks(&**group))
                .map(|(place, part)| (place, Arc::clone(&part.item.message)))
                .unzip();
            let answers = group.take_in(&messages).await;
            places.into_iter().zip(answers)
        });
        let mut refused: Vec<Option<StorageError>> = parts.iter().map(|_| None).collect();
        for (place, answer) in join_all(groups).await.into_iter().flatten() {
            if let Err(error) = answer {
                refused[place] = Some(error);
            }
        }
        refused
    }

    /// What becomes of a message, by what the groups have said.
    fn answer(
        &self,
        engine: &Engine,
        part: Part<'_>,
        refused: Option<StorageError>,
        confirmed: Result<Confirmed, TransportError>,
    ) -> Answer {
        if let Some(error) = refused {
            let kind = if error.is_refused() {
                TransportErrorKind::Refused
            } else {
                TransportErrorKind::Unavailable
            };
            return Err(TransportError::new(kind, engine.broker.name(), error.to_string()));
        }
        let Part { item, own, mut have } = part;
        have.extend(own.iter().map(|group| Arc::clone(group.name())));
        let confirmed = match confirmed {
            Ok(confirmed) => confirmed,
            Err(error) => {
                self.remember(item.lease.id, have);
                return Err(error);
            }
        };
        have.extend(confirmed.stored);
        if confirmed.pending.is_empty() {
            self.partly().groups.remove(&item.lease.id);
            return Ok(Taken::Sent(if have.is_empty() { Sent::Unrouted } else { Sent::Routed }));
        }
        self.remember(item.lease.id, have);
        self.remind(item, &confirmed.pending);
        // After a restart it need not rest.
        let stopping = engine.lifecycle.stop.intake.is_cancelled();
        let pause =
            if stopping { Duration::ZERO } else { item.age_now().clamp(SHORTEST_PAUSE, LONGEST_PAUSE) };
        Ok(Taken::Later(pause))
    }

    fn remember(&self, row: i64, groups: Vec<Arc<str>>) {
        let mut partly = self.partly();
        if !groups.is_empty() && (partly.groups.len() < REMEMBERED || partly.groups.contains_key(&row)) {
            partly.groups.insert(row, groups);
        }
    }

    fn remind(&self, item: &InFlight, pending: &[Arc<str>]) {
        let (message_id, topic, row) = (item.message.id(), item.message.name(), item.lease.id);
        tracing::debug!(
            message_id,
            topic,
            row,
            ?pending,
            "not stored by every group yet, sending it again later"
        );
        let mut partly = self.partly();
        if partly.reminded.is_none_or(|at| at.elapsed() >= REMINDER) {
            partly.reminded = Some(Instant::now());
            drop(partly);
            tracing::info!(
                topic,
                ?pending,
                "messages wait for groups of another bus in this process; they are sent again until it stores them"
            );
        }
    }

    fn partly(&self) -> MutexGuard<'_, Partly> {
        self.partly.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for InProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InProcess({} groups)", self.own.len())
    }
}

/// A message, and who gets it.
struct Part<'a> {
    item: &'a InFlight,
    /// The groups of this bus that want it.
    own: Vec<&'a dyn OwnGroup>,
    /// The groups that have it from an earlier attempt.
    have: Vec<Arc<str>>,
}

impl Part<'_> {
    fn outbound(&self) -> Outbound {
        let own = self.own.iter().map(|group| Arc::clone(group.name()));
        let except = self.have.iter().cloned().chain(own).collect();
        Outbound { message: Arc::clone(&self.item.message), except }
    }

    /// Whether this group of this bus is still to get it.
    fn lacks(&self, group: &dyn OwnGroup) -> bool {
        let name = group.name();
        self.own.iter().any(|own| own.name() == name) && !self.have.contains(name)
    }
}
