//! The broker as one node reaches it: messages get lost on the way there, come twice, and come back in disorder.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use cap_core::BoxFuture;
use cap_core::error::{TransportError, TransportErrorKind};
use cap_core::memory::MemoryConsumer;
use cap_core::message::Message;
use cap_core::transport::{
    Acknowledge, BrokerDelay, Consumer, Delayed, GroupSpec, Incoming, Sent, Tag, Transport, TransportContext,
};
use cap_ledger::Event;

use crate::job::{name, number_of};
use crate::life::Life;

/// The broker as one node reaches it.
#[derive(Debug)]
pub(crate) struct SimTransport(pub(crate) Arc<Life>);

/// The longest that a call to a transport may take.
const LATE: Duration = Duration::from_secs(3);
/// How many past deliveries a consumer may see again.
const REMEMBERED: usize = 8;

impl SimTransport {
    fn fails(&self) -> bool {
        self.0.world.chance(self.0.world.plan.rates.broker)
    }

    async fn there(&self) -> Result<(), TransportError> {
        if self.0.is_well_soon().await { Ok(()) } else { Err(unavailable("the node is dead")) }
    }

    fn dies(&self) -> bool {
        let dies = self.0.world.chance(self.0.world.plan.rates.death);
        if dies {
            self.0.die();
        }
        dies
    }

    /// Whether the queue that a message is to go to has room for it.
    fn has_room(&self) -> Result<(), TransportError> {
        let world = &self.0.world;
        if world.is_full() || world.chance(world.plan.rates.full) {
            return Err(TransportError::new(TransportErrorKind::DestinationFull, NAME, "the queue is full"));
        }
        Ok(())
    }

    /// Sends one message, unless the broker refuses it or has no room for it.
    async fn send_one(&self, message: &Arc<Message>) -> Result<Sent, TransportError> {
        self.has_room()?;
        let world = &self.0.world;
        if let Some(number) = number_of(message)
            && world.chance(world.plan.rates.refused_message)
        {
            world.note(Event::SendRefused { message: name(number) });
            return Err(TransportError::new(TransportErrorKind::Refused, NAME, "the broker refuses it"));
        }
        let mut sent = world.transport.send(std::slice::from_ref(message)).await;
        sent.pop().unwrap_or_else(|| Err(unavailable("no answer")))
    }

    async fn delay_one(&self, message: &Delayed) -> Result<(), TransportError> {
        let mut kept = self.0.world.transport.delay(std::slice::from_ref(message)).await;
        kept.pop().unwrap_or_else(|| Err(unavailable("no answer")))
    }
}

impl Transport for SimTransport {
    type Consumer = SimConsumer;

    fn name(&self) -> &'static str {
        NAME
    }

    fn start(&self, context: &TransportContext) -> Result<(), TransportError> {
        self.0.world.transport.start(context)
    }

    async fn probe(&self) -> Result<(), TransportError> {
        self.there().await?;
        self.0.world.transport.probe().await
    }

    async fn send(&self, messages: &[Arc<Message>]) -> Vec<Result<Sent, TransportError>> {
        let all = |why: &str| messages.iter().map(|_| Err(unavailable(why))).collect();
        if self.there().await.is_err() || self.dies() {
            return all("the node is dead");
        }
        let world = &self.0.world;
        // The line breaks after so many messages, and after so many answers.
        let (mut taken, mut answered) = (messages.len(), messages.len());
        if self.fails() {
            tokio::time::sleep(world.within(LATE)).await;
            if world.pick(3) > 0 {
                taken = world.pick(messages.len() + 1);
                answered = world.pick(taken + 1);
            }
        }
        let mut answers = Vec::with_capacity(messages.len());
        for (index, message) in messages.iter().enumerate() {
            answers.push(match index {
                index if index < answered => self.send_one(message).await,
                index if index < taken => {
                    // It may even have been refused; nobody learns of it.
                    let _ = world.transport.send(std::slice::from_ref(message)).await;
                    Err(unavailable("the confirm was lost"))
                }
                _ => Err(unavailable("the line broke")),
            });
        }
        if self.dies() || self.there().await.is_err() {
            return all("the node is dead");
        }
        answers
    }

    fn broker_delay(&self) -> Option<&dyn BrokerDelay> {
        Some(self)
    }

    async fn consume(&self, spec: &GroupSpec) -> Result<SimConsumer, TransportError> {
        self.there().await?;
        if self.fails() {
            tokio::time::sleep(self.0.world.within(LATE)).await;
            return Err(unavailable("the channel broke"));
        }
        Ok(SimConsumer {
            life: Arc::clone(&self.0),
            inner: self.0.world.transport.consume(spec).await?,
            last_tag: 0,
            open: BTreeMap::new(),
            past: VecDeque::new(),
        })
    }

    async fn close(&self) {}
}

impl BrokerDelay for SimTransport {
    fn delay<'a>(&'a self, messages: &'a [Delayed]) -> BoxFuture<'a, Vec<Result<(), TransportError>>> {
        Box::pin(async move {
            let all = |why: &str| messages.iter().map(|_| Err(unavailable(why))).collect();
            if self.there().await.is_err() || self.dies() {
                return all("the node is dead");
            }
            let world = &self.0.world;
            // The line breaks after so many messages; what was said of those is lost with it.
            if self.fails() {
                tokio::time::sleep(world.within(LATE)).await;
                let taken = world.pick(messages.len() + 1);
                drop(world.transport.delay(&messages[..taken]).await);
                return all("the line broke");
            }
            let mut answers = Vec::with_capacity(messages.len());
            for message in messages {
                answers.push(match self.has_room() {
                    Ok(()) => self.delay_one(message).await,
                    Err(full) => Err(full),
                });
            }
            if self.dies() || self.there().await.is_err() {
                return all("the node is dead");
            }
            answers
        })
    }
}

/// A group's way to its queue. What it hands out twice has a tag that the broker knows nothing of.
#[derive(Debug)]
pub(crate) struct SimConsumer {
    life: Arc<Life>,
    inner: MemoryConsumer,
    last_tag: Tag,
    open: BTreeMap<Tag, Option<Tag>>,
    past: VecDeque<Incoming>,
}

impl SimConsumer {
    fn hand_out(&mut self, mut delivery: Incoming, of: Option<Tag>) -> Incoming {
        self.last_tag += 1;
        self.open.insert(self.last_tag, of);
        delivery.tag = self.last_tag;
        delivery
    }

    /// Mixes copies of what was delivered before into a batch, and shuffles what comes back.
    fn stir(&mut self, batch: Vec<Incoming>, limit: usize) -> Vec<Incoming> {
        let life = Arc::clone(&self.life);
        let world = &life.world;
        let mut all = Vec::with_capacity(batch.len());
        for delivery in batch {
            let (tag, copy) = (delivery.tag, delivery.clone());
            let delivery = self.hand_out(delivery, Some(tag));
            if delivery.redelivered && world.chance(world.plan.rates.duplicate) {
                all.insert(world.pick(all.len() + 1), delivery);
            } else {
                all.push(delivery);
            }
            self.past.push_back(copy);
            if self.past.len() > REMEMBERED {
                self.past.pop_front();
            }
        }
        while all.len() < limit && world.chance(world.plan.rates.duplicate) {
            let mut past = self.past[world.pick(self.past.len())].clone();
            past.redelivered = true;
            all.push(self.hand_out(past, None));
        }
        // Tags rise within a batch, as the engine acknowledges them together.
        let mut tags: Vec<Tag> = all.iter().map(|delivery| delivery.tag).collect();
        let of: Vec<Option<Tag>> = tags.iter().map(|tag| self.open.remove(tag).flatten()).collect();
        tags.sort_unstable();
        for ((delivery, tag), of) in all.iter_mut().zip(tags).zip(of) {
            delivery.tag = tag;
            self.open.insert(tag, of);
        }
        all
    }
}

impl Consumer for SimConsumer {
    async fn receive(&mut self, limit: usize) -> Result<Vec<Incoming>, TransportError> {
        self.receive_within(limit, usize::MAX).await
    }

    async fn receive_within(&mut self, limit: usize, bytes: usize) -> Result<Vec<Incoming>, TransportError> {
        if !self.life.is_well_soon().await {
            return Err(unavailable("the node is dead"));
        }
        let world = &self.life.world;
        if world.chance(world.plan.rates.broker / 2.0) {
            return Err(unavailable("the consumer was cancelled"));
        }
        let batch = tokio::select! {
            biased;
            () = self.life.consumers_end.notified() => return Err(unavailable("the consumer was ended")),
            batch = self.inner.receive_within(limit, bytes) => batch?,
        };
        Ok(self.stir(batch, limit))
    }

    async fn acknowledge(&mut self, tags: &[Tag], how: Acknowledge) -> Result<(), TransportError> {
        if !self.life.is_well_soon().await {
            return Err(unavailable("the node is dead"));
        }
        let world = &self.life.world;
        let of: Vec<Tag> = tags.iter().filter_map(|tag| self.open.remove(tag).flatten()).collect();
        if world.chance(world.plan.rates.death) {
            self.life.die();
            return Err(unavailable("the node is dead"));
        }
        if world.chance(world.plan.rates.broker) {
            let done = world.pick(of.len() + 1);
            let _ = self.inner.acknowledge(&of[..done], how).await;
            return Err(unavailable("the channel broke over an acknowledgement"));
        }
        self.inner.acknowledge(&of, how).await
    }
}

const NAME: &str = "simulated broker";

fn unavailable(why: &str) -> TransportError {
    TransportError::new(TransportErrorKind::Unavailable, NAME, why)
}
