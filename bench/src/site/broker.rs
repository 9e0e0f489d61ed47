//! The broker, as the hand-written loop and the raw measurements use it.

use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions, ExchangeDeleteOptions,
    QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Consumer};

use crate::BoxResult;

/// What the broker may leave unacknowledged at a consumer.
const PREFETCH: u16 = 300;

/// A connection for one round.
pub(crate) struct Broker {
    pub(crate) url: String,
    /// The hand-written loop's queue, and the name of cap's exchange and group.
    pub(crate) name: String,
    connection: Connection,
}

impl Broker {
    pub(crate) async fn new(url: &str, name: &str) -> BoxResult<Self> {
        let connection = Connection::connect(url, ConnectionProperties::default()).await?;
        Ok(Self { url: url.to_owned(), name: name.to_owned(), connection })
    }

    /// Declares the hand-written loop's queue, and returns its name.
    pub(crate) async fn declare(&self, kind: &'static str) -> BoxResult<ShortString> {
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString(kind.into()));
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        self.connection
            .create_channel()
            .await?
            .queue_declare(self.name.as_str().into(), options, arguments)
            .await?;
        Ok(self.name.as_str().into())
    }

    /// A channel on which the broker confirms.
    pub(crate) async fn publisher(&self) -> BoxResult<Channel> {
        let channel = self.connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(channel)
    }

    /// A channel that consumes a queue.
    pub(crate) async fn consumer(&self, queue: &ShortString) -> BoxResult<(Channel, Consumer)> {
        let channel = self.connection.create_channel().await?;
        channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
        let options = BasicConsumeOptions::default();
        let consumer =
            channel.basic_consume(queue.clone(), "".into(), options, FieldTable::default()).await?;
        Ok((channel, consumer))
    }

    /// The name of the queue of cap's group.
    pub(crate) fn group_queue(&self) -> String {
        format!("{}.v1", self.name)
    }

    pub(crate) async fn remove(self) -> BoxResult<()> {
        let channel = self.connection.create_channel().await?;
        for queue in [self.name.clone(), self.group_queue()] {
            channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await?;
        }
        channel.exchange_delete(self.name.as_str().into(), ExchangeDeleteOptions::default()).await?;
        // A channel that is dropped at the same moment makes closing fail now and then; nothing depends on it.
        drop(self.connection.close(200, "done".into()).await);
        Ok(())
    }
}

/// The properties of a message of the hand-written loop.
pub(crate) fn properties(id: u64) -> BasicProperties {
    BasicProperties::default().with_delivery_mode(2).with_message_id(id.to_string().into())
}

/// The headers that cap gives to a message, for one that was not published with it.
pub(crate) fn cap_properties(id: u64, topic: &str) -> BasicProperties {
    let id = id.to_string();
    let mut headers = FieldTable::default();
    for (name, value) in [
        ("cap-msg-id", id.as_str()),
        ("cap-corr-id", id.as_str()),
        ("cap-corr-seq", "0"),
        ("cap-msg-name", topic),
        ("cap-msg-type", "Payload"),
        ("cap-senttime", "11/27/2026 12:00:00"),
    ] {
        headers.insert(name.into(), AMQPValue::LongString(LongString::from(value)));
    }
    BasicProperties::default().with_delivery_mode(2).with_message_id(id.into()).with_headers(headers)
}

/// The broker returns what it cannot route, as cap has it.
pub(crate) fn mandatory() -> BasicPublishOptions {
    BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() }
}
