//! From the broker to the inbox: one task a group receives, stores, acknowledges, and hands on.
//!
//! A delivery is acknowledged once it is durable, and not before. The broker being away, the store being away, or a
//! queue being deleted only makes the task wait and begin anew.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::foreign::{IncomingHook, remember};
use super::intake::Intake;
use crate::backoff::Backoff;
use crate::context::Context;
use crate::erased::DynConsumer;
use crate::error::TransportError;
use crate::faults::{point, sabotaged};
use crate::health::Tracker;
use crate::message::headers::names;
use crate::message::{Headers, Message, MessageId, validate_topic};
use crate::notice::Failure;
use crate::storage::{Entry, Lease, NewIncoming, Reason, Side, Stored};
use crate::subscribe::Group;
use crate::transport::{Acknowledge, GroupSpec, Incoming, Tag};
use crate::writer::StoreItem;

/// Receives for one group until intake stops. `connected` hears of the first success or failure.
pub(crate) async fn run_consumer(
    context: Arc<Context>,
    group: Arc<Group>,
    hook: IncomingHook,
    health: Arc<Tracker>,
    intake: mpsc::Sender<Intake>,
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
    let task = Consumption { context, group, hook, intake };
    let mut connected = Some(connected);
    // What this bus sends may go past a queue of somebody else's: that is bound, or not, without it.
    let mut undeclared = !task.group.existing;
    let mut backoff = Backoff::default();
    loop {
        let Some(consumer) = stop.run_until_cancelled(task.context.transport.consume(&spec)).await else {
            return;
        };
        // A refusal is an answer, too: no waiting mends it, and others' messages need not wait for that.
        if undeclared && !consumer.as_ref().is_err_and(TransportError::is_unavailable) {
            undeclared = false;
            task.context.undeclared.send_modify(|groups| *groups = groups.saturating_sub(1));
        }
        let error = match consumer {
            Ok(mut consumer) => {
                health.up();
                backoff.reset();
                tell(&mut connected, Ok(()));
                match task.receive(&mut *consumer).await {
                    None => return,
                    Some(error) => error,
                }
            }
            Err(error) => {
                tell(&mut connected, Err(error.clone()));
                error
            }
        };
        health.down(&error);
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

pub(super) struct Consumption {
    pub(super) context: Arc<Context>,
    pub(super) group: Arc<Group>,
    hook: IncomingHook,
    pub(super) intake: mpsc::Sender<Intake>,
}

impl Consumption {
    /// Receives until the consumer ends, which is an error, or until intake stops, which is none.
    ///
    /// What was received when intake stops is stored and acknowledged, if that does not take long. Leaving it is
    /// safe, too: what is not acknowledged is delivered again, and what is stored but not handed on is claimed when
    /// its lease has run out.
    async fn receive(&self, consumer: &mut dyn DynConsumer) -> Option<TransportError> {
        /// How long a batch may take after intake has stopped.
        const GRACE: Duration = Duration::from_secs(5);
        let stop = &self.context.stop.intake;
        loop {
            let deliveries = match stop.run_until_cancelled(self.next_batch(consumer)).await? {
                Ok(deliveries) => deliveries,
                Err(error) => return Some(error),
            };
            let too_late = async {
                stop.cancelled().await;
                tokio::time::sleep(GRACE).await;
            };
            tokio::select! {
                biased;
                kept = self.keep(consumer, deliveries) => {
                    if let Err(error) = kept {
                        return Some(error);
                    }
                }
                () = too_late => return None,
            }
        }
    }

    /// Waits for deliveries, no more than there is room for: a handler that falls behind stops the intake here, and
    /// the broker's prefetch stops the broker.
    async fn next_batch(&self, consumer: &mut dyn DynConsumer) -> Result<Vec<Incoming>, TransportError> {
        let free = match self.intake.capacity() {
            0 => {
                let room = self.intake.reserve().await;
                drop(room);
                1
            }
            free => free,
        };
        consumer.receive(free.min(self.context.options().batch_size)).await
    }

    /// Stores a batch, hands it on, and acknowledges it.
    async fn keep(
        &self,
        consumer: &mut dyn DynConsumer,
        deliveries: Vec<Incoming>,
    ) -> Result<(), TransportError> {
        point("receive.after").await;
        metrics::counter!("cap_received_total").increment(deliveries.len() as u64);
        let (deliveries, retries) = Self::part(deliveries);
        if !retries.is_empty() {
            let (leases, tags): (Vec<Lease>, Vec<Tag>) = retries.into_iter().unzip();
            self.resume(&leases).await;
            point("acknowledge.before").await;
            consumer.settle(&tags, Acknowledge::Accept).await?;
        }
        if deliveries.is_empty() {
            return Ok(());
        }
        let tags: Vec<Tag> = deliveries.iter().map(|delivery| delivery.tag).collect();
        let rows: Vec<NewIncoming> = deliveries.into_iter().map(|delivery| self.row(delivery)).collect();
        if sabotaged("acknowledge-before-storing") {
            consumer.settle(&tags, Acknowledge::Accept).await?;
        }
        let (reply, stored) = oneshot::channel();
        let item = StoreItem::Incoming(rows.clone(), reply);
        let stored = match self.context.store.send(item).await {
            Ok(()) => stored.await.ok(),
            Err(_) => None,
        };
        match stored {
            Some(Ok(stored)) => {
                // Handed on first: should the acknowledgement fail, the redelivery is seen to be a duplicate.
                self.hand_on(rows, &stored).await;
                point("acknowledge.before").await;
                consumer.settle(&tags, Acknowledge::Accept).await?;
                point("acknowledge.after").await;
                Ok(())
            }
            Some(Err(_)) => self.one_by_one(consumer, rows, &tags).await,
            // The lane has ended: the bus stops, and the broker keeps the messages.
            None => std::future::pending().await,
        }
    }

    /// Tells those that came back from a delay, whose rows are in the store, from those that are new.
    fn part(deliveries: Vec<Incoming>) -> (Vec<Incoming>, Vec<(Lease, Tag)>) {
        if !deliveries.iter().any(|delivery| delivery.delayed) {
            return (deliveries, Vec::new());
        }
        let mut fresh = Vec::new();
        let mut retries = Vec::new();
        for delivery in deliveries {
            match Self::retry_of(&delivery) {
                Some(lease) => retries.push((lease, delivery.tag)),
                None => fresh.push(delivery),
            }
        }
        (fresh, retries)
    }

    /// The store has refused the batch: each message is tried alone, so that a bad one holds up none but itself.
    /// One that is refused alone stays unacknowledged at the broker, out of everyone's way.
    async fn one_by_one(
        &self,
        consumer: &mut dyn DynConsumer,
        rows: Vec<NewIncoming>,
        tags: &[Tag],
    ) -> Result<(), TransportError> {
        for (row, tag) in rows.into_iter().zip(tags) {
            let (reply, stored) = oneshot::channel();
            let item = StoreItem::Incoming(vec![row.clone()], reply);
            if self.context.store.send(item).await.is_err() {
                return std::future::pending().await;
            }
            match stored.await {
                Ok(Ok(stored)) => {
                    self.hand_on(vec![row], &stored).await;
                    consumer.settle(&[*tag], Acknowledge::Accept).await?;
                }
                Ok(Err(_)) if sabotaged("accept-what-is-refused") => {
                    consumer.settle(&[*tag], Acknowledge::Accept).await?;
                }
                Ok(Err(error)) => tracing::error!(
                    group = &*row.group,
                    message_id = row.message.id(),
                    %error,
                    "the store refuses a received message; it stays unacknowledged at the broker"
                ),
                Err(_) => return std::future::pending().await,
            }
        }
        Ok(())
    }

    async fn hand_on(&self, rows: Vec<NewIncoming>, stored: &[Stored]) {
        // All of them first: those that wait here for room are held by this node, too, and must be renewed.
        let tokens: Vec<_> = rows.iter().zip(stored).map(|(row, stored)| self.hold(row, *stored)).collect();
        for ((row, stored), cancelled) in rows.into_iter().zip(stored).zip(tokens) {
            let (message_id, topic) = (row.message.id(), row.message.name());
            if *stored == Stored::Duplicate && !sabotaged("no-deduplication") {
                metrics::counter!("cap_duplicates_total").increment(1);
                tracing::debug!(
                    message_id,
                    topic,
                    group = &*row.group,
                    "received again, and not handled again"
                );
                continue;
            }
            let lease = Lease { id: row.id, epoch: 1 };
            match row.entry {
                Entry::Scheduled { .. } => {
                    tracing::debug!(
                        message_id,
                        topic,
                        group = &*row.group,
                        row = row.id,
                        "stored in the inbox"
                    );
                    let intake = Intake::fresh(lease, row.message, cancelled);
                    // The group's task outlives this one; were it gone, the lease would run out.
                    let _ = self.intake.send(intake).await;
                }
                Entry::Parked { reason, error, notify, .. } => {
                    tracing::error!(
                        message_id,
                        topic,
                        group = &*row.group,
                        row = row.id,
                        error,
                        "parked a message"
                    );
                    metrics::counter!("cap_parked_total").increment(1);
                    if notify {
                        self.context.notify(Failure {
                            side: Side::Inbox,
                            id: row.id,
                            message: row.message,
                            group: row.group,
                            reason,
                            error,
                            attempts: 0,
                            lease,
                        });
                    }
                }
            }
        }
    }

    /// Notes that this node holds a row that it has just inserted, and gives back what tells its handler to stop.
    fn hold(&self, row: &NewIncoming, stored: Stored) -> CancellationToken {
        let cancelled = self.context.stop.handlers.child_token();
        let handled = stored == Stored::New || sabotaged("no-deduplication");
        if handled && matches!(row.entry, Entry::Scheduled { .. }) {
            let lease = Lease { id: row.id, epoch: 1 };
            self.context.leases.add(Side::Inbox, lease, Some(cancelled.clone()));
        }
        cancelled
    }

    /// Makes a delivery a row, or a parked row with its reason.
    fn row(&self, mut delivery: Incoming) -> NewIncoming {
        self.hook.apply(&mut delivery);
        let mut headers = delivery.headers;
        for name in [names::EXCEPTION, names::AUDIT, names::RETRY, names::BROKER_DELAY] {
            headers.remove(name);
        }
        headers.insert(names::GROUP, &*self.group.name);
        let problem = self.problem(&mut headers, &delivery.routing_key);
        if matches!(problem, Some((Reason::MissingHeaders, _))) {
            remember(&mut headers, &delivery.routing_key, &delivery.properties);
        }
        let entry = match problem {
            None => Entry::Scheduled { held: true },
            Some((reason, error)) => Entry::Parked {
                reason,
                error,
                keep: self.context.options().failed_expire_after,
                notify: self.context.notifies(),
            },
        };
        NewIncoming {
            id: self.context.composer.ids.next_id(),
            group: Arc::clone(&self.group.name),
            message: Arc::new(Message::new(headers, delivery.body)),
            entry,
        }
    }

    /// Why nobody here can handle a message with these headers. Values that no store's column could hold are moved
    /// to a header of another name, so that the row can still be found.
    fn problem(&self, headers: &mut Headers, routing_key: &str) -> Option<(Reason, String)> {
        let (id, name) = (names::MESSAGE_ID, names::MESSAGE_NAME);
        if let Some(text) = headers.get(id)
            && (text.len() > MessageId::MAX_LENGTH || text.contains('\0'))
        {
            move_aside(headers, id);
            return Some((
                Reason::MissingHeaders,
                format!("the header {id} is longer than 200 bytes or has a NUL"),
            ));
        }
        if let Some(text) = headers.get(name)
            && let Err(error) = validate_topic(text)
        {
            let error = format!("the header {name} is no topic: {error}");
            move_aside(headers, name);
            return Some((Reason::MissingHeaders, error));
        }
        let missing: Vec<&str> =
            [id, name].into_iter().filter(|name| headers.get(name).is_none_or(str::is_empty)).collect();
        if !missing.is_empty() {
            let error = format!(
                "the delivery has no {}; it came with the routing key {routing_key:?}",
                missing.join(" and no ")
            );
            return Some((Reason::MissingHeaders, error));
        }
        let topic = headers.get(name).unwrap_or_default();
        if self.group.member_for(topic).is_none() {
            let error = format!("no handler of the group {} takes the topic {topic}", self.group.name);
            return Some((Reason::NoSubscriber, error));
        }
        let callback = headers.get(names::CALLBACK_NAME).filter(|callback| !callback.is_empty());
        if let Some(Err(error)) = callback.map(validate_topic) {
            return Some((
                Reason::MissingHeaders,
                format!("the header {} is no topic: {error}", names::CALLBACK_NAME),
            ));
        }
        None
    }
}

fn move_aside(headers: &mut Headers, name: &'static str) {
    let value = headers.get(name).unwrap_or_default().replace('\0', "\u{fffd}");
    headers.remove(name);
    headers.insert(format!("cap-invalid-{}", name.trim_start_matches("cap-")), value);
}
