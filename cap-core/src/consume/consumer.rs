//! From the broker to the inbox: one task a group receives, stores, acknowledges, and hands on.
//!
//! A delivery is acknowledged once it is durable, and not before. The broker being away, the store being away or out of
//! order, or a queue being deleted only makes the task wait and begin anew.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::ended::Ended;
use super::group_inbox::GroupInbox;
use super::received::Received;
use super::retry_copy::Copied;
use crate::error::{StorageError, StorageErrorKind, TransportError};
use crate::faults::point;
use crate::message::headers::names;
use crate::runtime::backoff::Backoff;
use crate::runtime::batch_queue::BATCH_BYTES;
use crate::runtime::erased::DynConsumer;
use crate::runtime::health::Tracker;
use crate::storage::{Lease, NewIncoming, RowOutcome, Side, Stored};
use crate::transport::{Acknowledge, GroupSpec, Incoming, Tag};

/// Receives for one group until intake stops. `connected` learns of the first success or failure.
pub(crate) async fn run_consumer(
    task: GroupInbox,
    health: Arc<Tracker>,
    connected: oneshot::Sender<Result<(), TransportError>>,
) {
    let engine = &task.inbox.engine;
    let stop = engine.lifecycle.stop.intake.clone();
    if !engine.lifecycle.ready().await {
        return;
    }
    let group = &task.group;
    let spec = GroupSpec {
        group: Arc::clone(&group.name),
        topics: group.members.iter().map(|member| member.pattern.clone()).collect(),
        existing: group.existing,
        prefetch: engine.options.prefetch,
    };
    let mut connected = Some(connected);
    // What this bus sends may go past a queue of somebody else's: that is bound, or not, without it.
    let mut undeclared = !task.group.existing;
    let mut backoff = Backoff::default();
    loop {
        let consuming = engine.broker.consume_within(&spec, task.channels.budget.share());
        let Some(consumer) = stop.run_until_cancelled(consuming).await else { return };
        // A refusal is an answer, too: no waiting repairs it, and others' messages need not wait for that.
        if undeclared && !consumer.as_ref().is_err_and(TransportError::is_unavailable) {
            undeclared = false;
            engine.broker.undeclared.send_modify(|groups| *groups = groups.saturating_sub(1));
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

impl GroupInbox {
    /// Receives until the consumer ends.
    ///
    /// What was received when intake stops is stored and acknowledged, if that does not take long. Leaving it is
    /// safe, too: what is not acknowledged is delivered again, and what is stored but not handed on is claimed when
    /// its lease has run out.
    async fn receive(&self, consumer: &mut dyn DynConsumer) -> Ended {
        /// How long a batch may take after intake has stopped.
        const GRACE: Duration = Duration::from_secs(5);
        let stop = &self.inbox.engine.lifecycle.stop.intake;
        let prefetch = usize::from(self.inbox.engine.options.prefetch);
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
        StorageError::new(StorageErrorKind::Refused, self.inbox.engine.storage.name(), text)
    }

    /// Waits for deliveries, no more than there is room for, in messages and in bytes: a handler that falls behind stops
    /// the intake here, and the broker's prefetch stops the broker. What is not held needs no room.
    async fn next_batch(&self, consumer: &mut dyn DynConsumer) -> Result<Vec<Incoming>, TransportError> {
        let limit = self.inbox.engine.options.batch_size;
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
        let bytes = self.channels.budget.opens().await;
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
        self.channels.budget.expect(deliveries.iter().map(Incoming::size).max().unwrap_or_default());
        // While they are stored nothing is claimed in their place.
        let _reserved = self.channels.budget.reserve(deliveries.iter().map(Incoming::size).sum());
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

    /// Acknowledges deliveries, and then hands on what is new of them: a slow handler must not make the broker wait
    /// for its answer. Should the acknowledgement fail, the redelivery is seen to be a duplicate.
    pub(super) async fn acknowledge(
        &self,
        consumer: &mut dyn DynConsumer,
        tags: &[Tag],
        new: Vec<Received>,
    ) -> Result<(), TransportError> {
        point("acknowledge.before").await;
        let acknowledged = consumer.acknowledge(tags, Acknowledge::Accept).await;
        point("acknowledge.after").await;
        for received in new {
            self.hand_on(received).await;
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
                Copied::Message => messages.push(delivery),
                Copied::Ours(lease) => retries.push((lease, delivery.tag)),
                Copied::Forged => refused.push(delivery.tag),
            }
        }
        (messages, retries, refused)
    }

    /// Hands a message to the group's task. If that has ended, the message is nobody's again.
    async fn hand_on(&self, received: Received) {
        if let Err(mpsc::error::SendError(received)) = self.channels.intake.send(received).await {
            let outcome = RowOutcome::Release { after: Duration::ZERO };
            self.inbox.outbox.outcomes.write(Side::Inbox, received.lease(), outcome).await;
        }
    }
}
