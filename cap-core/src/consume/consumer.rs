//! The consumer task, one for each group: it receives deliveries, stores them in the inbox, acknowledges them, and passes
//! them on to the group's executor.
//!
//! A delivery is acknowledged only after it is stored. If the broker or the storage is unavailable or needs operator
//! action, or a queue is deleted, the task waits and starts consuming again.

use std::collections::VecDeque;
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

/// The part of the room for waiting messages that has to be free before more are received, as a divisor.
const LEAST_PART: usize = 4;

/// Consumes for one group until intake stops. `connected` receives the first success, or the first error that
/// waiting cannot fix.
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
    let topics = group.members.iter().map(|member| member.pattern.clone()).collect();
    let mut spec = GroupSpec::new(Arc::clone(&group.name), topics, engine.options.prefetch);
    spec.existing = group.existing;
    let mut connected = Some(connected);
    // An existing queue is bound, or not, independently of this bus. Sending need not wait for it.
    let mut undeclared = !task.group.existing;
    let mut backoff = Backoff::default();
    loop {
        let consuming = engine.broker.consume_within(&spec, task.channels.budget.share());
        let Some(consumer) = stop.run_until_cancelled(consuming).await else { return };
        // Nor is there any use in waiting for a queue that the broker refuses to declare: messages to other groups need not
        // wait for an operator to fix it.
        if undeclared && !consumer.as_ref().is_err_and(TransportError::is_unavailable) {
            undeclared = false;
            engine.broker.undeclared.send_modify(|groups| *groups = groups.saturating_sub(1));
        }
        match consumer {
            Ok(mut consumer) => {
                health.up();
                report(&mut connected, Ok(()));
                match task.receive(&mut *consumer).await {
                    Ended::WithIntake => return,
                    Ended::ByBroker(error) => {
                        backoff.reset();
                        health.down(&error);
                    }
                    // The backoff is not reset: the broker redelivers the unacknowledged messages at once to the next
                    // consumer, so that the pauses must grow.
                    Ended::ByStorage(error) => health.down(&error),
                    Ended::WithGroup => {
                        return health
                            .down(&"the task that runs this group's handlers has died; restart the process");
                    }
                }
            }
            Err(error) => {
                report(&mut connected, Err(error.clone()));
                health.down(&error);
            }
        }
        if !backoff.wait(&stop).await {
            return;
        }
    }
}

/// Reports the first result that waiting does not change to the start of the bus: a success, or an error that only an
/// operator can fix.
fn report(
    connected: &mut Option<oneshot::Sender<Result<(), TransportError>>>,
    result: Result<(), TransportError>,
) {
    let is_final = result.as_ref().err().is_none_or(TransportError::requires_operator);
    if let Some(connected) = connected.take_if(|_| is_final) {
        // The receiver is gone if the start has timed out.
        let _ = connected.send(result);
    }
}

impl GroupInbox {
    /// Receives deliveries until intake stops or the consumer fails, and returns why it ended.
    ///
    /// A batch that was received before intake stopped is still stored and acknowledged if that does not take long. It is
    /// safe to drop it at any point: deliveries that are not acknowledged are delivered again, and rows that are stored
    /// but not passed on are claimed once their lease has expired.
    async fn receive(&self, consumer: &mut dyn DynConsumer) -> Ended {
        /// How long a batch may take after intake has stopped.
        const BATCH_TIMEOUT_AFTER_STOP: Duration = Duration::from_secs(5);
        let stop = &self.inbox.engine.lifecycle.stop.intake;
        let prefetch = usize::from(self.inbox.engine.options.prefetch);
        let mut left_behind = 0;
        loop {
            let deliveries = tokio::select! {
                // Biased, with the stop first: a stop also ends the group's task, which may be gone before this task runs
                // again. Only if the group's task is gone without a stop has it died. Dropping any arm loses nothing: a
                // receive takes messages only when it completes.
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
                tokio::time::sleep(BATCH_TIMEOUT_AFTER_STOP).await;
            };
            // Biased: a batch that is complete is not given up because the timeout has passed as well.
            tokio::select! {
                biased;
                kept = self.keep(consumer, deliveries) => match kept {
                    Ok(left) => left_behind += left,
                    Err(ended) => return ended,
                },
                () = too_late => return Ended::WithIntake,
            }
            // Each unacknowledged message occupies a place of the prefetch for as long as this consumer lives.
            if left_behind * 2 > prefetch {
                return Ended::ByStorage(self.rejection(left_behind));
            }
        }
    }

    fn rejection(&self, left_behind: usize) -> StorageError {
        let text = format!("storage rejects {left_behind} received messages; they stay at the broker");
        StorageError::new(StorageErrorKind::Refused, self.inbox.engine.storage.name(), text)
    }

    /// Waits for deliveries, for no more messages and bytes than there is room for. If handlers fall behind, intake stops
    /// here, and the prefetch limit then stops the broker. Where rows are left to the claims, no room is needed.
    async fn next_batch(&self, consumer: &mut dyn DynConsumer) -> Result<Vec<Incoming>, TransportError> {
        let limit = self.inbox.engine.options.batch_size;
        if !self.holds_what_it_stores() {
            return consumer.receive_within(limit, BATCH_BYTES).await;
        }
        let free = self.room().await;
        let bytes = self.channels.budget.opens().await;
        consumer.receive_within(free.min(limit), bytes.min(BATCH_BYTES)).await
    }

    /// Waits until there is room for more than a few messages, and returns for how many. If handlers are slower than the
    /// broker, each that ends would otherwise make room for one message, which would be stored and acknowledged by itself;
    /// meanwhile enough messages wait in memory. Cancel safe: it reserves nothing.
    async fn room(&self) -> usize {
        let intake = &self.channels.intake;
        let enough = (intake.max_capacity() / LEAST_PART).max(1);
        if intake.capacity() < enough {
            // An error means that the group's task is gone, which the caller notices by itself.
            drop(intake.reserve_many(enough).await);
        }
        intake.capacity().max(enough)
    }

    /// Stores a batch, acknowledges it, and passes it on. Returns how many deliveries had to be left unacknowledged.
    async fn keep(&self, consumer: &mut dyn DynConsumer, deliveries: Vec<Incoming>) -> Result<usize, Ended> {
        point("receive.after").await;
        self.group.metrics.received(deliveries.len());
        let (deliveries, retries, forged) = self.separate_copies(deliveries);
        self.keep_retries(consumer, &retries).await?;
        if !forged.is_empty() {
            self.acknowledge(consumer, &forged, Vec::new()).await?;
        }
        if deliveries.is_empty() {
            return Ok(0);
        }
        self.channels.budget.expect(deliveries.iter().map(Incoming::size).max().unwrap_or_default());
        // Reserved while they are being stored, so that the claims do not take the memory meanwhile.
        let _reserved = self.channels.budget.reserve(deliveries.iter().map(Incoming::size).sum());
        let tags: Vec<Tag> = deliveries.iter().map(|delivery| delivery.tag).collect();
        let rows = self.rows(deliveries).await;
        match self.store(rows.clone()).await {
            Ok(stored) => self.accept(consumer, rows, &tags, &stored).await,
            Err(error) if error.kind() == StorageErrorKind::Refused => {
                self.one_by_one(consumer, rows, &tags, error).await
            }
            Err(error) => Err(Ended::ByStorage(error)),
        }
    }

    /// Acknowledges the deliveries that are stored and passes them on. Messages whose id belongs to another message are
    /// stored apart first. Returns how many deliveries had to be left unacknowledged.
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
            Err(error) => Err(Ended::ByStorage(error)),
        }
    }

    /// Acknowledges deliveries and passes the new ones on: first those that there is room for, so that their handlers do not
    /// wait for the acknowledgement, the others after it, so that it does not wait for handlers. If the acknowledgement fails,
    /// the redelivery is recognized as a duplicate.
    pub(super) async fn acknowledge(
        &self,
        consumer: &mut dyn DynConsumer,
        tags: &[Tag],
        new: Vec<Received>,
    ) -> Result<(), TransportError> {
        let mut waiting = VecDeque::from(new);
        while let Some(received) = waiting.pop_front() {
            if let Err(error) = self.channels.intake.try_send(received) {
                // Once one has to wait, so do those behind it: the order stays.
                waiting.push_front(error.into_inner());
                break;
            }
        }
        point("acknowledge.before").await;
        let acknowledged = consumer.acknowledge(tags, Acknowledge::Accept).await;
        point("acknowledge.after").await;
        for received in waiting {
            self.pass_on(received).await;
        }
        acknowledged
    }

    /// Separates messages from retry copies, whose rows are in the storage. Returns the messages, the claims that copies
    /// ask for with their tags, and the tags of forged copies.
    fn separate_copies(&self, deliveries: Vec<Incoming>) -> (Vec<Incoming>, Vec<(Lease, Tag)>, Vec<Tag>) {
        let (mut retries, mut forged) = (Vec::new(), Vec::new());
        if !deliveries.iter().any(|delivery| delivery.headers.contains(names::RETRY)) {
            return (deliveries, retries, forged);
        }
        let mut messages = Vec::new();
        for delivery in deliveries {
            match self.copy_of(&delivery) {
                Copied::Message => messages.push(delivery),
                Copied::Ours(lease) => retries.push((lease, delivery.tag)),
                Copied::Forged => forged.push(delivery.tag),
            }
        }
        (messages, retries, forged)
    }

    /// Passes a message to the group's executor. If that has ended, releases the lease.
    async fn pass_on(&self, received: Received) {
        if let Err(mpsc::error::SendError(received)) = self.channels.intake.send(received).await {
            let outcome = RowOutcome::Release { after: Duration::ZERO };
            self.inbox.outbox.outcomes.write(Side::Inbox, received.lease(), outcome).await;
        }
    }
}
