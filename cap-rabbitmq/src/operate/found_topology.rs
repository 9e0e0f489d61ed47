//! What is declared on the broker, beside what a bus with these settings would declare.

use cap_adapter::error::TransportError;
use lapin::options::{ExchangeDeclareOptions, QueueDeclareOptions};
use lapin::protocol::AMQPSoftError;
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, ExchangeKind};
use tokio::time::Instant;

use crate::connection::deadline::before;
use crate::connection::link::Link;
use crate::declare::topology::Topology;
use crate::error::{inequivalent, refused, soft, text, unavailable};
use crate::transport::RabbitMq;

/// What [`RabbitMq::found_topology`] found.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FoundTopology {
    /// The exchange that the settings name.
    pub exchange: FoundItem,
    /// The queues that were asked for, in the same order.
    pub queues: Vec<FoundItem>,
}

/// An exchange or a queue.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FoundItem {
    /// Its name.
    pub name: String,
    /// How it was found.
    pub state: FoundState,
    /// Messages that are ready to be delivered, for a queue that was found.
    pub messages: Option<u32>,
    /// Consumers, for a queue that was found.
    pub consumers: Option<u32>,
}

/// How an exchange or a queue was found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FoundState {
    /// As a bus with these settings declares it.
    AsExpected,
    /// It exists, with another value of this property: `x-queue-type`, or `unknown`.
    Differs(String),
    /// It does not exist. The bus that needs it declares it at its start.
    Missing,
    /// It exists, but this user may not compare its properties.
    Exists,
    /// This user may not ask.
    NoRight,
}

impl RabbitMq {
    /// Looks up the exchange of these settings and some queues, and compares them with what a bus with these settings
    /// declares. A missing one is not created. AMQP shows neither bindings nor other queues.
    ///
    /// The transport must have been [started](cap_adapter::transport::Transport::start).
    ///
    /// # Errors
    ///
    /// A broker that is unreachable.
    pub async fn found_topology(&self, queues: &[String]) -> Result<FoundTopology, TransportError> {
        let started = self.started()?;
        let deadline = Instant::now() + self.options().confirm_timeout;
        let link = before(deadline, "connecting", started.consumers.link()).await?;
        let look = async {
            let looking = Looking { topology: &started.topology, link: &link, deadline };
            let exchange = looking.exchange().await?;
            let mut found = Vec::with_capacity(queues.len());
            for queue in queues {
                found.push(looking.queue(queue).await?);
            }
            Ok(FoundTopology { exchange, queues: found })
        };
        before(deadline, "looking up the topology", look).await
    }
}

/// A connection to look with. Each question has a channel of its own, because the broker answers by closing it.
struct Looking<'a> {
    topology: &'a Topology,
    link: &'a Link,
    deadline: Instant,
}

impl Looking<'_> {
    async fn exchange(&self) -> Result<FoundItem, TransportError> {
        let name = self.topology.exchange.clone();
        let asked = async |passive| {
            let channel = self.channel().await?;
            let options =
                ExchangeDeclareOptions { passive, durable: true, ..ExchangeDeclareOptions::default() };
            let asked =
                channel.exchange_declare(name.clone(), ExchangeKind::Topic, options, FieldTable::default());
            Ok(self.link.expected_closes().during(&channel, asked).await)
        };
        let state = match asked(true).await? {
            // It exists, so that this declaration compares and creates nothing.
            Ok(()) => self.compared(asked(false).await?)?,
            Err(error) => self.missing(&error)?,
        };
        Ok(FoundItem { name: self.topology.exchange.to_string(), state, messages: None, consumers: None })
    }

    async fn queue(&self, queue: &str) -> Result<FoundItem, TransportError> {
        let name = ShortString::try_new(queue)
            .map_err(|_| refused(format!("queue {queue:?} is longer than the 255 bytes of a queue name")))?;
        let asked = async |passive| {
            let channel = self.channel().await?;
            let options = QueueDeclareOptions { passive, durable: true, ..QueueDeclareOptions::default() };
            let arguments = self.topology.queue_arguments(self.link.limits_deliveries());
            let asked = channel.queue_declare(name.clone(), options, arguments);
            Ok(self.link.expected_closes().during(&channel, asked).await)
        };
        let (state, counts) = match asked(true).await? {
            Ok(found) => {
                let counts = (found.message_count(), found.consumer_count());
                (self.compared(asked(false).await?.map(drop))?, Some(counts))
            }
            Err(error) => (self.missing(&error)?, None),
        };
        let (messages, consumers) = (counts.map(|counts| counts.0), counts.map(|counts| counts.1));
        Ok(FoundItem { name: queue.to_owned(), state, messages, consumers })
    }

    async fn channel(&self) -> Result<Channel, TransportError> {
        self.topology.new_channel(self.link, self.deadline).await
    }

    fn compared(&self, declared: lapin::Result<()>) -> Result<FoundState, TransportError> {
        let Err(error) = declared else { return Ok(FoundState::AsExpected) };
        match soft(&error) {
            Some(AMQPSoftError::PRECONDITIONFAILED) => {
                Ok(FoundState::Differs(inequivalent(&text(&error)).unwrap_or("unknown").to_owned()))
            }
            Some(AMQPSoftError::ACCESSREFUSED | AMQPSoftError::RESOURCELOCKED) => Ok(FoundState::Exists),
            _ => Err(self.failed(&error)),
        }
    }

    fn missing(&self, error: &lapin::Error) -> Result<FoundState, TransportError> {
        match soft(error) {
            Some(AMQPSoftError::NOTFOUND) => Ok(FoundState::Missing),
            Some(AMQPSoftError::ACCESSREFUSED) => Ok(FoundState::NoRight),
            Some(AMQPSoftError::RESOURCELOCKED) => Ok(FoundState::Exists),
            _ => Err(self.failed(error)),
        }
    }

    fn failed(&self, error: &lapin::Error) -> TransportError {
        let exchange = self.topology.exchange.as_str();
        unavailable(format!("the topology of exchange {exchange:?} could not be looked up: {}", text(error)))
    }
}
