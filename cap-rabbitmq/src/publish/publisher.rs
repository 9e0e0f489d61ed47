//! Sends batches and finds out what became of each message.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cap_adapter::error::TransportError;
use cap_adapter::message::Message;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use lapin::Confirmation;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use crate::connection::connector::{ConnectSettings, Connector};
use crate::connection::deadline::before;
use crate::declare::topology::Topology;
use crate::error::{no_fault_of_the_message, text, unavailable};
use crate::publish::amqp_message::{self, AmqpMessage};
use crate::publish::batch::{Answer, Batch, Fate};
use crate::publish::channel::PublishChannel;
use crate::publish::report::{Report, Trouble, mark_unrouted};

/// How many batches are sent at the same time, each on a channel of its own: a returned message does not name its batch, so
/// that no two batches may share a channel. More channels were measured to gain nothing.
const CHANNELS: usize = 4;
/// A body that is larger than a window gets more time, at this rate.
const BYTES_A_SECOND: usize = 8 * 1024 * 1024;

/// Sends batches on channels of one connection.
#[derive(Debug)]
pub(crate) struct Publisher {
    pub(crate) connector: Connector,
    pub(crate) topology: Topology,
    pub(crate) confirm_timeout: Duration,
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
            slots: Semaphore::new(CHANNELS),
            idle: Mutex::default(),
        }
    }

    /// Whether a message could be sent, as far as that is known without the broker.
    pub(crate) fn check(&self, message: &Message) -> Result<(), TransportError> {
        amqp_message::check(message, self.max_frame.load(Ordering::Relaxed))
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
        link.wait_while_blocked(Instant::now()).await
    }

    pub(crate) async fn close(&self) {
        self.idle().clear();
        self.connector.close().await;
    }

    /// Sends what can be sent. An error answers all messages that have no answer yet.
    async fn send_batch(&self, batch: &mut Batch) -> Result<(), TransportError> {
        if batch.all_answered() {
            return Ok(());
        }
        let deadline = Instant::now() + self.confirm_timeout;
        let _slot = self.slot(deadline).await?;
        let mut channel = self.channel(deadline).await.map_err(no_fault_of_the_message)?;
        let mut windows = batch.windows(channel.link.max_frame());
        while let Some(window) = windows.pop_front() {
            channel.link.wait_while_blocked(Instant::now() + self.confirm_timeout).await?;
            let report = self.publish(&channel, &batch.pick(&window)).await;
            let unknown = batch.record(&window, &report.fates);
            match report.trouble {
                None => continue,
                Some(Trouble::Refusal(refusal)) => match unknown.as_slice() {
                    [] => {}
                    [culprit] => batch.answer(*culprit, Err(refusal)),
                    // One of them is at fault. They are sent one by one, so that the others arrive.
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
        // The broker reads nothing from a blocked connection, not even the request for a channel.
        link.wait_while_blocked(deadline).await?;
        let open = async {
            let channel = self.topology.open_channel(&link, deadline).await?;
            channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(|error| {
                unavailable(format!("confirms could not be switched on: {}", text(&error)))
            })?;
            Ok(channel)
        };
        let lapin = before(deadline, "opening a channel", open).await?;
        Ok(PublishChannel::new(lapin, link))
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

    /// Publishes one window and waits until each of its messages is confirmed, or none can be any more.
    async fn publish(&self, channel: &PublishChannel, window: &[&AmqpMessage]) -> Report {
        let bytes: usize = window.iter().map(|message| message.size()).sum();
        let allowance = Duration::from_secs(u64::try_from(bytes / BYTES_A_SECOND).unwrap_or(0));
        let limit = self.confirm_timeout + allowance;
        let deadline = Instant::now() + limit;
        channel.unwritten.expect(window.len());
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

    /// The first await ends when the message is on the wire, the second with the broker's confirm.
    async fn publish_one(
        &self,
        channel: &PublishChannel,
        message: &AmqpMessage,
    ) -> lapin::Result<Confirmation> {
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
        channel.unwritten.one_is_written();
        written?.await
    }
}
