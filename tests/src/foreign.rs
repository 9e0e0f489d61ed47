//! A peer on the broker that is not cap: plain lapin, as any AMQP client.

use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use lapin::message::Delivery;
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions,
    QueueDeclareOptions, QueuePurgeOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Consumer, ExchangeKind};
use tokio::time::timeout;

use crate::amqp_url;
use crate::patience::soon;

/// A connection of its own to the broker of the tests.
#[derive(Debug)]
pub struct Foreign {
    connection: Connection,
    channel: Channel,
    exchange: String,
}

impl Foreign {
    /// Connects; publishes to and listens on this exchange, which a bus declares.
    pub(crate) async fn connect(exchange: &str) -> Self {
        let connection = soon(Connection::connect(&amqp_url(), ConnectionProperties::default()))
            .await
            .expect("the tests need a RabbitMQ: see scripts/test");
        let channel = soon(connection.create_channel()).await.unwrap();
        soon(channel.confirm_select(ConfirmSelectOptions::default())).await.unwrap();
        Self { connection, channel, exchange: exchange.to_owned() }
    }

    /// Throws away what is ready in a queue, and says how much that was; none if there is no such queue.
    pub async fn purge(&self, queue: &str) -> u32 {
        let Ok(channel) = self.connection.create_channel().await else { return 0 };
        channel.queue_purge(queue.into(), QueuePurgeOptions::default()).await.unwrap_or(0)
    }

    pub(crate) fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Publishes a message, and waits until the broker has put it into some queue.
    pub async fn publish(&self, routing_key: &str, properties: BasicProperties, body: &[u8]) {
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        let sent = self.channel.basic_publish(
            self.exchange.as_str().into(),
            routing_key.into(),
            options,
            body,
            properties,
        );
        let confirm = soon(async { sent.await.unwrap().await.unwrap() }).await;
        assert!(confirm.is_ack(), "the broker refused the message");
        assert!(confirm.take_message().is_none(), "no queue wants {routing_key}");
    }

    /// Publishes a message to a queue by its name, as an operator does who moves it there.
    pub async fn publish_to_queue(&self, queue: &str, properties: BasicProperties, body: &[u8]) {
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        let sent = self.channel.basic_publish("".into(), queue.into(), options, body, properties);
        let confirm = soon(async { sent.await.unwrap().await.unwrap() }).await;
        assert!(confirm.is_ack() && confirm.take_message().is_none(), "no queue {queue}");
    }

    /// Publishes a message with these headers and nothing else.
    pub async fn send(&self, routing_key: &str, headers: &[(&str, &str)], body: &[u8]) {
        self.publish(routing_key, BasicProperties::default().with_headers(long_strings(headers)), body).await;
    }

    /// Publishes a message as CAP's documentation tells senders in other languages to: with an id and a name.
    pub async fn send_named(&self, topic: &str, id: &str, body: &[u8]) {
        self.send(topic, &[("cap-msg-id", id), ("cap-msg-name", topic)], body).await;
    }

    /// Listens to a topic with a queue of its own, which ends with the connection.
    pub async fn listen(&self, topic: &str) -> Listener {
        let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
        let queue =
            soon(self.channel.queue_declare("".into(), options, FieldTable::default())).await.unwrap();
        let bound = self.channel.queue_bind(
            queue.name().clone(),
            self.exchange.as_str().into(),
            topic.into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        soon(bound).await.unwrap();
        let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let consumer =
            self.channel.basic_consume(queue.name().clone(), "".into(), options, FieldTable::default());
        Listener(soon(consumer).await.unwrap())
    }

    /// A queue of its own for a topic, which takes so many messages and rejects others; it ends with the connection.
    pub async fn small_queue(&self, topic: &str, length: i32) -> String {
        let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
        self.bounded_queue("", topic, length, options, FieldTable::default()).await
    }

    /// A quorum queue for a topic, which takes about so many messages and rejects others.
    pub async fn small_quorum_queue(&self, name: &str, topic: &str, length: i32) {
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        self.bounded_queue(name, topic, length, options, arguments).await;
    }

    async fn bounded_queue(
        &self,
        name: &str,
        topic: &str,
        length: i32,
        options: QueueDeclareOptions,
        mut arguments: FieldTable,
    ) -> String {
        arguments.insert("x-max-length".into(), AMQPValue::LongInt(length));
        arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
        let queue = soon(self.channel.queue_declare(name.into(), options, arguments)).await.unwrap();
        let bound = self.channel.queue_bind(
            queue.name().clone(),
            self.exchange.as_str().into(),
            topic.into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        soon(bound).await.unwrap();
        queue.name().to_string()
    }

    /// Consumes a queue.
    pub async fn consume(&self, queue: &str) -> Listener {
        let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let consumer = self.channel.basic_consume(queue.into(), "".into(), options, FieldTable::default());
        Listener(soon(consumer).await.unwrap())
    }

    /// Declares the durable queue of a group as a .NET service does, bound to a topic.
    pub async fn dotnet_queue(&self, queue: &str, topic: &str) {
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let mut arguments = FieldTable::default();
        arguments.insert("x-message-ttl".into(), AMQPValue::LongInt(864_000_000));
        soon(self.channel.queue_declare(queue.into(), durable, arguments)).await.unwrap();
        let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let exchange = self.exchange.as_str();
        let declared = self.channel.exchange_declare(
            exchange.into(),
            ExchangeKind::Topic,
            durable,
            FieldTable::default(),
        );
        soon(declared).await.unwrap();
        let options = QueueBindOptions::default();
        let bound = self.channel.queue_bind(
            queue.into(),
            exchange.into(),
            topic.into(),
            options,
            FieldTable::default(),
        );
        soon(bound).await.unwrap();
    }

    /// Whether there is a queue of this name.
    pub async fn has_queue(&self, queue: &str) -> bool {
        // A channel of its own, which a "no" closes.
        let channel = soon(self.connection.create_channel()).await.unwrap();
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        soon(channel.queue_declare(queue.into(), options, FieldTable::default())).await.is_ok()
    }

    /// How many messages wait in a queue.
    pub async fn waiting_in(&self, queue: &str) -> u32 {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let declared = self.channel.queue_declare(queue.into(), options, FieldTable::default());
        soon(declared).await.unwrap().message_count()
    }

    pub(crate) async fn close(self) {
        let _ = timeout(Duration::from_secs(5), self.connection.close(200, "done".into())).await;
    }
}

/// Hears what is published to a topic.
#[derive(Debug)]
pub struct Listener(Consumer);

impl Listener {
    /// The next message.
    pub async fn next(&mut self) -> Delivery {
        soon(self.0.next()).await.expect("the consumer should be there still").unwrap()
    }

    /// Whether nothing has come so far.
    pub fn is_silent(&mut self) -> bool {
        self.0.next().now_or_never().is_none()
    }
}

/// A header table of long strings, as CAP writes it.
#[must_use]
pub fn long_strings(headers: &[(&str, &str)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in headers {
        table.insert((*name).into(), AMQPValue::LongString((*value).into()));
    }
    table
}
