//! From the broker to the inbox: one task a group receives, stores, acknowledges, and hands on.
//!
//! A delivery is acknowledged once it is durable, and not before. The broker being away, the store being away or out of
//! order, or a queue being deleted only makes the task wait and begin anew.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::broker_retry::Received;
use super::in_flight::Intake;
use super::incoming_hook::IncomingHook;
use crate::error::{StorageError, StorageErrorKind, TransportError};
use crate::faults::point;
use crate::handlers::Group;
use crate::message::headers::names;
use crate::operate::failure_callback::Failure;
use crate::runtime::backoff::Backoff;
use crate::runtime::batch_queue::{BATCH_BYTES, split};
use crate::runtime::byte_budget::Room;
use crate::runtime::context::Context;
use crate::runtime::erased::DynConsumer;
use crate::runtime::health::Tracker;
use crate::runtime::repeated_events::Event;
use crate::storage::{Entry, Lease, NewIncoming, Reason, RowCompletion, RowOutcome, Side, Stored};
use crate::transport::{Acknowledge, GroupSpec, Incoming, Tag};
use crate::writer::{InsertItem, OutcomeItem};

/// Receives for one group until intake stops. `connected` learns of the first success or failure.
pub(crate) async fn run_consumer(
    context: Arc<Context>,
    group: Arc<Group>,
    hook: IncomingHook,
    health: Arc<Tracker>,
    channels: GroupChannels,
    connected: oneshot::Sender<Result<(), TransportError>>,
) {
    let stop = context.stop.intake.clone();
    if !context.ready().await {
        return;
    }
    let spec = GroupSpec {
        group: Arc::clone(&group.name),
        topics: group.members.iter().map(|member| member.pattern.clone()).collect(),
        existing: group.existing,
        prefetch: context.options().prefetch,
    };
    let task = Consumption::new(context, group, hook, channels);
    let mut connected = Some(connected);
    // What this bus sends may go past a queue of somebody else's: that is bound, or not, without it.
    let mut undeclared = !task.group.existing;
    let mut backoff = Backoff::default();
    loop {
        let consuming = task.context.transport.consume_within(&spec, task.channels.room.share());
        let Some(consumer) = stop.run_until_cancelled(consuming).await else { return };
        // A refusal is an answer, too: no waiting repairs it, and others' messages need not wait for that.
        if undeclared && !consumer.as_ref().is_err_and(TransportError::is_unavailable) {
            undeclared = false;
            task.context.undeclared.send_modify(|groups| *groups = groups.saturating_sub(1));
        }
        match consumer {
            Ok(mut consumer) => {
                health.up();
                tell(&mut connected, Ok(()));
                match task.receive(&mut *consumer).await {
                    Ended::WithIntake => return,
                    Ended::ByBroker(error) => {
                        backoff.reset();
                        health.down(&error);
                    }
                    // What it left behind comes at once to whoever asks next: the pauses grow.
                    Ended::ByStore(error) => health.down(&error),
                    Ended::WithGroup => {
                        return health
                            .down(&"the task that runs its handlers has died; start this process anew");
                    }
                }
            }
            Err(error) => {
                tell(&mut connected, Err(error.clone()));
                health.down(&error);
            }
        }
        if !backoff.wait(&stop).await {
            return;
        }
    }
}

fn tell(
    connected: &mut Option<oneshot::Sender<Result<(), TransportError>>>,
    result: Result<(), TransportError>,
) {
    if let Some(connected) = connected.take() {
        // Nobody listens when start has given up waiting.
        let _ = connected.send(result);
    }
}

/// Why a consumption has ended.
pub(super) enum Ended {
    /// Intake has stopped.
    WithIntake,
    /// The group takes no more, though intake goes on.
    WithGroup,
    ByBroker(TransportError),
    /// The store does not take what comes.
    ByStore(StorageError),
}

impl From<TransportError> for Ended {
    fn from(error: TransportError) -> Self {
        Self::ByBroker(error)
    }
}

/// A group of this bus, and the way into its inbox.
pub(crate) struct Consumption {
    pub(super) context: Arc<Context>,
    pub(super) group: Arc<Group>,
    pub(super) hook: IncomingHook,
    pub(super) channels: GroupChannels,
}

/// Where what a group receives goes, and what it may take of the memory.
#[derive(Debug, Clone)]
pub(crate) struct GroupChannels {
    /// To the group's insert writer.
    pub(crate) store: mpsc::Sender<InsertItem>,
    /// To the task that runs its handlers.
    pub(crate) intake: mpsc::Sender<Intake>,
    pub(crate) room: Arc<Room>,
}

impl Consumption {
    pub(crate) fn new(
        context: Arc<Context>,
        group: Arc<Group>,
        hook: IncomingHook,
        channels: GroupChannels,
    ) -> Self {
        Self { context, group, hook, channels }
    }

    /// Receives until the consumer ends.
    ///
    /// What was received when intake stops is stored and acknowledged, if that does not take long. Leaving it is
    /// safe, too: what is not acknowledged is delivered again, and what is stored but not handed on is claimed when
    /// its lease has run out.
    async fn receive(&self, consumer: &mut dyn DynConsumer) -> Ended {
        /// How long a batch may take after intake has stopped.
        const GRACE: Duration = Duration::from_secs(5);
        let stop = &self.context.stop.intake;
        let prefetch = usize::from(self.context.options().prefetch);
        let mut left_behind = 0;
        loop {
            let deliveries = tokio::select! {
                // The stop is looked at first: it ends the group's task, too, which may be gone before this task runs
                // again. Only a group that is gone without a stop has died. All arms may be dropped: a receive that is
                // given up takes no message with it.
                biased;
                () = stop.cancelled() => return Ended::WithIntake,
                () = self.channels.intake.closed() => return Ended::WithGroup,
                batch = self.next_batch(consumer) => match batch {
                    Ok(deliveries) => deliveries,
                    Err(error) => return Ended::ByBroker(error),
                },
            };
            let too_late = async {
                stop.cancelled().await;
                tokio::time::sleep(GRACE).await;
            };
            tokio::select! {
                biased;
                kept = self.keep(consumer, deliveries) => match kept {
                    Ok(left) => left_behind += left,
                    Err(ended) => return ended,
                },
                () = too_late => return Ended::WithIntake,
            }
            // Each takes a place of the prefetch for as long as this consumer lives.
            if left_behind * 2 > prefetch {
                return Ended::ByStore(self.refusal(left_behind));
            }
        }
    }

    fn refusal(&self, left_behind: usize) -> StorageError {
        let text = format!("{left_behind} received messages are refused and stay at the broker");
        StorageError::new(StorageErrorKind::Refused, self.context.storage.name(), text)
    }

    /// Waits for deliveries, no more than there is room for, in messages and in bytes: a handler that falls behind stops
    /// the intake here, and the broker's prefetch stops the broker. What is not held needs no room.
    async fn next_batch(&self, consumer: &mut dyn DynConsumer) -> Result<Vec<Incoming>, TransportError> {
        let limit = self.context.options().batch_size;
        if !self.holds_what_it_stores() {
            return consumer.receive_within(limit, BATCH_BYTES).await;
        }
        let free = match self.channels.intake.capacity() {
            0 => {
                let room = self.channels.intake.reserve().await;
                drop(room);
                1
            }
            free => free,
        };
        let bytes = self.channels.room.opens().await;
        consumer.receive_within(free.min(limit), bytes.min(BATCH_BYTES)).await
    }

    /// Stores a batch, acknowledges it, and hands it on. Gives back how many of it had to be left unacknowledged.
    async fn keep(&self, consumer: &mut dyn DynConsumer, deliveries: Vec<Incoming>) -> Result<usize, Ended> {
        point("receive.after").await;
        metrics::counter!("cap_received_total").increment(deliveries.len() as u64);
        let (deliveries, retries, refused) = self.part(deliveries);
        self.keep_retries(consumer, &retries).await?;
        if !refused.is_empty() {
            self.acknowledge(consumer, &refused, Vec::new()).await?;
        }
        if deliveries.is_empty() {
            return Ok(0);
        }
        self.channels.room.expect(deliveries.iter().map(Incoming::size).max().unwrap_or_default());
        // While they are stored nothing is claimed in their place.
        let _held = self.channels.room.hold(deliveries.iter().map(Incoming::size).sum());
        let tags: Vec<Tag> = deliveries.iter().map(|delivery| delivery.tag).collect();
        let rows = self.rows(deliveries).await;
        match self.store(rows.clone()).await {
            Ok(stored) => self.accept(consumer, rows, &tags, &stored).await,
            Err(error) if error.kind() == StorageErrorKind::Refused => {
                self.one_by_one(consumer, rows, &tags, error).await
            }
            Err(error) => Err(Ended::ByStore(error)),
        }
    }

    /// Acknowledges what is stored and hands it on; first stores apart what another message has the id of. Gives back how
    /// many had to be left unacknowledged.
    async fn accept(
        &self,
        consumer: &mut dyn DynConsumer,
        rows: Vec<NewIncoming>,
        tags: &[Tag],
        stored: &[Stored],
    ) -> Result<usize, Ended> {
        if !stored.contains(&Stored::Conflict) {
            self.acknowledge(consumer, tags, self.hold(rows, stored)).await?;
            return Ok(0);
        }
        let (mut done, mut apart) = ((Vec::new(), Vec::new(), Vec::new()), (Vec::new(), Vec::new()));
        for ((row, tag), stored) in rows.into_iter().zip(tags).zip(stored) {
            if *stored == Stored::Conflict {
                apart.0.push(self.apart(&row));
                apart.1.push(*tag);
            } else {
                done.0.push(row);
                done.1.push(*tag);
                done.2.push(*stored);
            }
        }
        if !done.1.is_empty() {
            self.acknowledge(consumer, &done.1, self.hold(done.0, &done.2)).await?;
        }
        let (rows, tags) = apart;
        match self.store(rows.clone()).await {
            Ok(stored) => {
                self.acknowledge(consumer, &tags, self.hold(rows, &stored)).await?;
                Ok(0)
            }
            Err(error) if error.kind() == StorageErrorKind::Refused => {
                self.one_by_one(consumer, rows, &tags, error).await
            }
            Err(error) => Err(Ended::ByStore(error)),
        }
    }

    /// Has rows inserted, in parts that fit into a batch each: an error may leave some of them stored, which are
    /// duplicates when they are stored again.
    pub(super) async fn store(&self, rows: Vec<NewIncoming>) -> Result<Vec<Stored>, StorageError> {
        let mut parts = split(rows, BATCH_BYTES, |row| row.message.size()).into_iter();
        let Some(first) = parts.next() else { return Ok(Vec::new()) };
        let mut stored = self.store_part(first).await?;
        for part in parts {
            stored.extend(self.store_part(part).await?);
        }
        Ok(stored)
    }

    async fn store_part(&self, rows: Vec<NewIncoming>) -> Result<Vec<Stored>, StorageError> {
        let (reply, stored) = oneshot::channel();
        if self.channels.store.send(InsertItem::Incoming(rows, reply)).await.is_ok()
            && let Ok(stored) = stored.await
        {
            return stored;
        }
        // The lane has ended: the bus stops, and the broker keeps the messages.
        std::future::pending().await
    }

    /// Acknowledges deliveries, and then hands on what is new of them: a slow handler must not make the broker wait
    /// for its answer. Should the acknowledgement fail, the redelivery is seen to be a duplicate.
    pub(super) async fn acknowledge(
        &self,
        consumer: &mut dyn DynConsumer,
        tags: &[Tag],
        new: Vec<Intake>,
    ) -> Result<(), TransportError> {
        point("acknowledge.before").await;
        let acknowledged = consumer.acknowledge(tags, Acknowledge::Accept).await;
        point("acknowledge.after").await;
        for intake in new {
            self.hand_on(intake).await;
        }
        acknowledged
    }

    /// Tells messages from copies that came back from a delay, whose rows are in the storage: gives back the messages, the
    /// claims that copies ask for, with their tags, and the tags of copies that are not ours.
    fn part(&self, deliveries: Vec<Incoming>) -> (Vec<Incoming>, Vec<(Lease, Tag)>, Vec<Tag>) {
        let (mut retries, mut refused) = (Vec::new(), Vec::new());
        if !deliveries.iter().any(|delivery| delivery.headers.contains(names::RETRY)) {
            return (deliveries, retries, refused);
        }
        let mut messages = Vec::new();
        for delivery in deliveries {
            match self.copy_of(&delivery) {
                Received::Message => messages.push(delivery),
                Received::Copy(lease) => retries.push((lease, delivery.tag)),
                Received::RefusedCopy => refused.push(delivery.tag),
            }
        }
        (messages, retries, refused)
    }

    /// Notes that this node holds rows that it has just inserted, has an operator told of those that are parked, and
    /// gives back what is to be handled. What waits for room later is held from now on, so that it is renewed.
    pub(super) fn hold(&self, rows: Vec<NewIncoming>, stored: &[Stored]) -> Vec<Intake> {
        rows.into_iter().zip(stored).filter_map(|(row, stored)| self.hold_one(row, *stored)).collect()
    }

    fn hold_one(&self, row: NewIncoming, stored: Stored) -> Option<Intake> {
        let NewIncoming { id, group, message, entry, .. } = row;
        let (message_id, topic) = (message.id(), message.name());
        if stored != Stored::New {
            metrics::counter!("cap_duplicates_total").increment(1);
            tracing::debug!(
                message_id,
                topic,
                group = &*group,
                "duplicate received; it is not handled again"
            );
            return None;
        }
        let lease = Lease { id, epoch: 1 };
        match entry {
            Entry::Scheduled { held } => {
                tracing::debug!(message_id, topic, group = &*group, row = id, "stored in the inbox");
                if !held {
                    self.context.wake(Side::Inbox);
                    return None;
                }
                let cancelled = self.context.stop.handlers.child_token();
                let is_ours = self.context.leases.add(Side::Inbox, lease, Some(cancelled.clone()));
                is_ours.then(|| Intake::fresh(lease, message, &self.channels.room, cancelled))
            }
            Entry::Parked { reason, error, notify, .. } => {
                if self.context.repeats.is_first(Event::Parked, &group, reason.as_str()) {
                    tracing::error!(message_id, topic, group = &*group, row = id, error, "message parked");
                } else {
                    tracing::debug!(message_id, topic, group = &*group, row = id, error, "message parked");
                }
                metrics::counter!("cap_parked_total").increment(1);
                if reason == Reason::IdConflict {
                    metrics::counter!("cap_id_conflicts_total").increment(1);
                }
                if notify {
                    let (side, attempts, bus) = (Side::Inbox, 0, self.context.bus.clone());
                    let failure = Failure { side, id, message, group, reason, error, attempts, lease, bus };
                    self.context.notify(failure);
                }
                None
            }
        }
    }

    /// Hands a message to the group's task. If that has ended, the message is nobody's again.
    async fn hand_on(&self, intake: Intake) {
        if let Err(mpsc::error::SendError(intake)) = self.channels.intake.send(intake).await {
            let outcome = RowOutcome::Release { after: Duration::ZERO };
            let row_completion = RowCompletion { lease: intake.lease, outcome, publishes: Vec::new() };
            // The lane ends after this task; were it gone, the lease would run out.
            let _ = self.context.complete.send(OutcomeItem::new(Side::Inbox, row_completion)).await;
        }
    }
}
