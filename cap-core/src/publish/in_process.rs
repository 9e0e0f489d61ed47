//! Sending over an in-process transport, which keeps no messages: a message counts as sent once every subscribed group has
//! it in its inbox, both the groups of this bus and those of other buses in the process.

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

/// The limits of the pause before a message is sent again that a group of another bus has not stored. In between, the
/// pause is as long as the message is old.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How many messages are remembered that some groups have stored and others have not. Further ones are stored again in all
/// groups, and the inboxes recognize them as duplicates.
const REMEMBERED_LIMIT: usize = 10_000;

/// How often it is logged that messages wait for another bus.
const REMINDER_INTERVAL: Duration = Duration::from_mins(1);

/// A group of this bus, as the relay sees it.
pub(crate) trait OwnGroup: Send + Sync {
    /// The full name of the group.
    fn name(&self) -> &Arc<str>;

    /// Whether the bus stores messages of this topic in the group's inbox itself.
    fn wants(&self, topic: &str) -> bool;

    /// Stores messages in the group's inbox. Returns one result for each, in order. Storing a message again has no effect
    /// as long as the inbox recognizes it as a duplicate.
    fn take_in<'a>(&'a self, messages: &'a [Arc<Message>]) -> BoxFuture<'a, Vec<Result<(), StorageError>>>;
}

/// The groups of this bus, and which groups already have the messages that must be sent again.
pub(crate) struct InProcess {
    own: Vec<Box<dyn OwnGroup>>,
    partly: Mutex<Partly>,
}

#[derive(Default)]
struct Partly {
    /// For outbox rows that are not sent to all groups yet: the groups that have the message.
    groups: HashMap<i64, Vec<Arc<str>>>,
    reminded: Option<Instant>,
}

impl InProcess {
    pub(crate) fn new(own: Vec<Box<dyn OwnGroup>>) -> Self {
        Self { own, partly: Mutex::default() }
    }

    /// Sends a batch, and returns one answer for each message, in order. Cancel safe: messages that were already stored are
    /// recognized as duplicates when they are stored again.
    pub(super) async fn send(&self, engine: &Engine, batch: &[InFlight]) -> Vec<Answer> {
        if let Err(error) = engine.broker.probe().await {
            return batch.iter().map(|_| Err(error.clone())).collect();
        }
        let parts: Vec<Part> = batch.iter().filter_map(|item| self.part(item)).collect();
        let outbound: Vec<Outbound> = parts.iter().map(Part::outbound).collect();
        // Concurrently, so that neither a slow bus delays this one's groups nor the other way round.
        let (rejected, confirmed) =
            tokio::join!(self.take_in(&parts), engine.broker.send_confirmed(&outbound));
        let mut confirmed = confirmed.into_iter();
        let mut answers = parts.into_iter().zip(rejected).map(|(part, rejected)| {
            let confirmed = confirmed.next().unwrap_or_else(|| Err(engine.broker.no_answer()));
            self.answer(engine, part, rejected, confirmed)
        });
        batch
            .iter()
            .map(|item| match broker_delay(item) {
                Some(delay) => Ok(Taken::Later(delay.in_steps())),
                None => answers.next().unwrap_or_else(|| Err(engine.broker.no_answer())),
            })
            .collect()
    }

    /// Determines which groups get a message; `None` if it is delayed.
    fn part<'a>(&'a self, item: &'a InFlight) -> Option<Part<'a>> {
        if broker_delay(item).is_some() {
            return None;
        }
        let have = self.partly().groups.get(&item.lease.id).cloned().unwrap_or_default();
        let topic = item.message.name().unwrap_or_default();
        let own = self.own.iter().map(|group| &**group).filter(|group| group.wants(topic)).collect();
        Some(Part { item, own, have })
    }

    /// Stores messages in the inboxes of this bus's groups. Returns for each message the error of a group that could not
    /// store it, if any.
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
        let mut errors: Vec<Option<StorageError>> = parts.iter().map(|_| None).collect();
        for (place, answer) in join_all(groups).await.into_iter().flatten() {
            if let Err(error) = answer {
                errors[place] = Some(error);
            }
        }
        errors
    }

    /// Determines the answer for a message from the results of all groups.
    fn answer(
        &self,
        engine: &Engine,
        part: Part<'_>,
        rejected: Option<StorageError>,
        confirmed: Result<Confirmed, TransportError>,
    ) -> Answer {
        if let Some(error) = rejected {
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
        // While the bus stops there is no pause, so that the message is due at once after a restart.
        let stopping = engine.lifecycle.stop.intake.is_cancelled();
        let pause =
            if stopping { Duration::ZERO } else { item.age_now().clamp(SHORTEST_PAUSE, LONGEST_PAUSE) };
        Ok(Taken::Later(pause))
    }

    fn remember(&self, row: i64, groups: Vec<Arc<str>>) {
        let mut partly = self.partly();
        if !groups.is_empty() && (partly.groups.len() < REMEMBERED_LIMIT || partly.groups.contains_key(&row))
        {
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
            "message not stored by every group yet; sending it again later"
        );
        let mut partly = self.partly();
        if partly.reminded.is_none_or(|at| at.elapsed() >= REMINDER_INTERVAL) {
            partly.reminded = Some(Instant::now());
            drop(partly);
            tracing::info!(
                topic,
                ?pending,
                "messages wait for groups of another bus in this process; retrying until it stores them"
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

/// A message, and the groups that get it.
struct Part<'a> {
    item: &'a InFlight,
    /// The groups of this bus that subscribe to it.
    own: Vec<&'a dyn OwnGroup>,
    /// The groups that have it from an earlier attempt.
    have: Vec<Arc<str>>,
}

impl Part<'_> {
    fn outbound(&self) -> Outbound {
        let own = self.own.iter().map(|group| Arc::clone(group.name()));
        let except = self.have.iter().cloned().chain(own).collect();
        Outbound::new(Arc::clone(&self.item.message), except)
    }

    /// Whether this group of this bus subscribes to the message and does not have it yet.
    fn lacks(&self, group: &dyn OwnGroup) -> bool {
        let name = group.name();
        self.own.iter().any(|own| own.name() == name) && !self.have.contains(name)
    }
}
