//! Sends batches and finds out what became of each message.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cap_adapter::error::TransportError;
use cap_adapter::message::Message;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use lapin::message::BasicReturnMessage;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::protocol::AMQPSoftError;
use lapin::{Channel, Confirmation};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep, timeout_at};

use crate::batch::{Answer, Batch, Fate};
use crate::connection::{ConnectSettings, Connector, Link, before};
use crate::delay::Declared;
use crate::error::{invalid, no_fault_of_the_message, refused, soft, text, unavailable};
use crate::outgoing::{self, Outgoing};
use crate::returned::unrouted;
use crate::topology::Topology;

/// So many batches are under way at once, each on a channel of its own: a returned message says nothing of the batch
/// it belongs to, so no two may share one. More channels were measured to gain nothing.
const CHANNELS: usize = 4;
/// A body that is larger than a window gets more time, at this rate.
const BYTES_A_SECOND: usize = 8 * 1024 * 1024;
/// How often a blocked connection is looked at. lapin's own events reach only one of those who listen.
const BLOCKED_POLL: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(crate) struct Publisher {
    pub(crate) connector: Connector,
    pub(crate) topology: Topology,
    pub(crate) confirm_timeout: Duration,
    /// The delay queues that need not be declared again.
    pub(crate) declared: Declared,
    /// The longest frame of the latest connection; before there is one, the longest that could be agreed on.
    max_frame: AtomicUsize,
    slots: Semaphore,
    idle: Mutex<Vec<PublishChannel>>,
}

impl Publisher {
    pub(crate) fn new(settings: ConnectSettings, topology: Topology, confirm_timeout: Duration) -> Self {
        Self {
            max_frame: AtomicUsize::new(settings.address.max_frame()),
            connector: Connector::new(settings),
            topology,
            confirm_timeout,
            declared: Declared::default(),
            slots: Semaphore::new(CHANNELS),
            idle: Mutex::default(),
        }
    }

    /// Whether a message could be sent, as far as that is known without the broker.
    pub(crate) fn check(&self, message: &Message) -> Result<(), TransportError> {
        outgoing::check(message, self.max_frame.load(Ordering::Relaxed))
    }

    pub(crate) async fn send(&self, messages: &[Arc<Message>]) -> Vec<Answer> {
        self.send_all(Batch::new(messages)).await
    }

    pub(crate) async fn send_all(&self, mut batch: Batch) -> Vec<Answer> {
        let problem = self.send_batch(&mut batch).await.err();
        batch.finish(problem)
    }

    /// Whether a batch could be sent now. Takes its turn as a batch does, and where a channel is idle at once.
    pub(crate) async fn probe(&self) -> Result<(), TransportError> {
        let deadline = Instant::now() + self.confirm_timeout;
        let _slot = self.slot(deadline).await?;
        let channel = self.channel(deadline).await?;
        let link = Arc::clone(&channel.link);
        self.give_back(channel);
        // A batch would wait for the end of it.
        self.wait_while_blocked(&link, Instant::now()).await
    }

    pub(crate) async fn close(&self) {
        self.idle().clear();
        self.connector.close().await;
    }

    /// Sends what can be sent. An error is the answer to all that has none yet.
    async fn send_batch(&self, batch: &mut Batch) -> Result<(), TransportError> {
        if batch.all_answered() {
            return Ok(());
        }
        let deadline = Instant::now() + self.confirm_timeout;
        let _slot = self.slot(deadline).await?;
        let mut channel = self.channel(deadline).await.map_err(no_fault_of_the_message)?;
        let mut windows = batch.windows(channel.link.max_frame());
        while let Some(window) = windows.pop_front() {
            self.wait_while_blocked(&channel.link, Instant::now() + self.confirm_timeout).await?;
            let report = self.publish(&channel, &batch.pick(&window)).await;
            let unknown = batch.record(&window, &report.fates);
            match report.trouble {
                None => continue,
                Some(Trouble::Refusal(refusal)) => match unknown.as_slice() {
                    [] => {}
                    [culprit] => batch.answer(*culprit, Err(refusal)),
                    // One of them is at fault. Sent one by one, the others do not suffer for it.
                    _ => unknown.into_iter().rev().for_each(|index| windows.push_front(vec![index])),
                },
                Some(Trouble::Outage(reason)) => return Err(unavailable(reason)),
            }
            if windows.is_empty() {
                return Ok(());
            }
            channel = self.another_channel().await?;
        }
        self.give_back(channel);
        Ok(())
    }

    async fn slot(&self, deadline: Instant) -> Result<SemaphorePermit<'_>, TransportError> {
        let slot =
            async { self.slots.acquire().await.map_err(|_| unavailable("this transport has been closed")) };
        before(deadline, "waiting for other batches", slot).await
    }

    /// A channel in confirm mode that nobody else uses.
    async fn channel(&self, deadline: Instant) -> Result<PublishChannel, TransportError> {
        let kept = {
            let mut idle = self.idle();
            idle.retain(PublishChannel::is_usable);
            idle.pop()
        };
        match kept {
            Some(channel) => Ok(channel),
            // Boxed, like the next one, since it is large and rarely needed.
            None => Box::pin(self.open(deadline)).await,
        }
    }

    async fn open(&self, deadline: Instant) -> Result<PublishChannel, TransportError> {
        let link = before(deadline, "connecting", self.connector.link()).await?;
        self.max_frame.store(link.max_frame(), Ordering::Relaxed);
        // The broker reads nothing from a blocked connection, not even the wish for a channel.
        self.wait_while_blocked(&link, deadline).await?;
        let open = async {
            let channel = self.topology.open_channel(&link, deadline).await?;
            channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(|error| {
                unavailable(format!("confirms could not be switched on: {}", text(&error)))
            })?;
            Ok(channel)
        };
        let lapin = before(deadline, "opening a channel", open).await?;
        Ok(PublishChannel { lapin, link, unwritten: AtomicUsize::new(0) })
    }

    /// A channel in the place of one that the broker closed. It may have closed the connection next, since more was
    /// on its way to that channel; then a second attempt finds another connection.
    async fn another_channel(&self) -> Result<PublishChannel, TransportError> {
        let deadline = Instant::now() + self.confirm_timeout;
        let opened = match Box::pin(self.open(deadline)).await {
            Err(error) if error.is_unavailable() => Box::pin(self.open(deadline)).await,
            result => result,
        };
        opened.map_err(no_fault_of_the_message)
    }

    fn give_back(&self, channel: PublishChannel) {
        if channel.is_usable() {
            self.idle().push(channel);
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<PublishChannel>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A broker short of memory or disk blocks those who publish. What is given to lapin meanwhile only piles up.
    pub(crate) async fn wait_while_blocked(
        &self,
        link: &Link,
        deadline: Instant,
    ) -> Result<(), TransportError> {
        while link.is_usable() && link.connection().status().blocked() {
            if Instant::now() >= deadline {
                return Err(unavailable(
                    "the broker has blocked publishers, being short of memory or of disk space",
                ));
            }
            sleep(BLOCKED_POLL).await;
        }
        Ok(())
    }

    /// Publishes one window and waits until each of its messages is confirmed, or none can be any more.
    async fn publish(&self, channel: &PublishChannel, window: &[&Outgoing]) -> Report {
        let bytes: usize = window.iter().map(|message| message.size()).sum();
        let allowance = Duration::from_secs(u64::try_from(bytes / BYTES_A_SECOND).unwrap_or(0));
        let limit = self.confirm_timeout + allowance;
        let deadline = Instant::now() + limit;
        channel.unwritten.store(window.len(), Ordering::Relaxed);
        let mut flights: FuturesUnordered<_> = window
            .iter()
            .enumerate()
            .map(|(index, message)| async move { (index, self.publish_one(channel, message).await) })
            .collect();
        let mut fates = vec![Fate::Unknown; window.len()];
        let mut returned = Vec::new();
        let mut trouble = None;
        loop {
            match timeout_at(deadline, flights.next()).await {
                Ok(Some((index, Ok(confirmation)))) => {
                    fates[index] = Fate::of(&confirmation);
                    returned.extend(confirmation.take_message());
                }
                Ok(Some((_, Err(error)))) => trouble = Some(Trouble::of(&error).or(trouble)),
                Ok(None) => break,
                Err(_) => {
                    trouble = Some(Trouble::Outage(format!(
                        "the broker did not confirm in time: confirm_timeout allows {limit:?} for these bytes"
                    )));
                    break;
                }
            }
        }
        mark_unrouted(&mut fates, window, &returned);
        Report { fates, trouble }
    }

    /// The first await ends when the message is on the wire, the second with the broker's word on it.
    async fn publish_one(&self, channel: &PublishChannel, message: &Outgoing) -> lapin::Result<Confirmation> {
        let written = channel
            .lapin
            .basic_publish(
                message.exchange.as_ref().unwrap_or(&self.topology.exchange).clone(),
                message.routing_key.clone(),
                BasicPublishOptions { mandatory: true, immediate: false },
                &message.body,
                message.properties.clone(),
            )
            .await;
        channel.unwritten.fetch_sub(1, Ordering::Relaxed);
        written?.await
    }
}

/// A channel for one batch at a time.
struct PublishChannel {
    lapin: Channel,
    link: Arc<Link>,
    /// Messages of which lapin may still hold something that is not on the wire.
    unwritten: AtomicUsize,
}

impl PublishChannel {
    fn is_usable(&self) -> bool {
        self.lapin.status().connected() && self.link.is_usable()
    }
}

impl Drop for PublishChannel {
    /// lapin would send what it still holds after the channel is closed, onto a new channel of the same number, where
    /// each confirm would then be taken for that of another message. So the connection goes with it.
    fn drop(&mut self) {
        if self.unwritten.load(Ordering::Relaxed) > 0 {
            self.link.cut();
        }
    }
}

impl std::fmt::Debug for PublishChannel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PublishChannel").field("channel", &self.lapin.id()).finish_non_exhaustive()
    }
}

/// RabbitMQ returns a message before it confirms it, and does both in the order of publishing. So whatever was
/// confirmed, be the window confirmed or not, its return has come along with some confirm of this window.
fn mark_unrouted(fates: &mut [Fate], window: &[&Outgoing], returned: &[BasicReturnMessage]) {
    for (fate, came_back) in fates.iter_mut().zip(unrouted(window, returned)) {
        if came_back && *fate == Fate::Taken {
            *fate = Fate::Unrouted;
        }
    }
}

struct Report {
    fates: Vec<Fate>,
    /// Why some are unknown.
    trouble: Option<Trouble>,
}

enum Trouble {
    /// The broker closed the channel over one of the messages.
    Refusal(TransportError),
    /// Nothing wrong with any message.
    Outage(String),
}

impl Trouble {
    /// The one to go by: the refusal of a message is the cause of whatever else went wrong on the channel, and the
    /// first outage is the cause of the next.
    fn or(self, earlier: Option<Self>) -> Self {
        match earlier {
            Some(earlier) if matches!(self, Self::Outage(_)) => earlier,
            _ => self,
        }
    }

    fn of(error: &lapin::Error) -> Self {
        let what = text(error);
        match soft(error) {
            // Larger than the broker's max_message_size, which no other attempt changes.
            Some(AMQPSoftError::PRECONDITIONFAILED | AMQPSoftError::CONTENTTOOLARGE) => {
                Self::Refusal(invalid(format!("the broker can never take this message: {what}")))
            }
            Some(AMQPSoftError::ACCESSREFUSED) => {
                Self::Refusal(refused(format!("this user may not publish to that topic: {what}")))
            }
            _ => Self::Outage(format!("the outcome of a publish is unknown: {what}")),
        }
    }
}
