//! What the tests share: a place of their own on the broker, messages, and a plain lapin channel to look from outside.

pub(crate) mod log;
pub(crate) mod private_broker;
pub(crate) mod proxy;
pub(crate) mod raw;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cap_core::message::{Headers, Message, TopicPattern};
use cap_core::transport::{Consumer, GroupSpec, Incoming, Transport, TransportContext};
use cap_rabbitmq::{QueueType, RabbitMq, RabbitMqConsumer};
use lapin::options::{
    ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Connection, ConnectionProperties, ExchangeKind};

/// Long enough for any machine; a test that runs into it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

pub(crate) fn amqp_url() -> String {
    std::env::var("AMQP_URL").unwrap_or_else(|_| "amqp://guest:guest@127.0.0.1:5672".to_owned())
}

/// Waits for something that must come.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("waited far too long")
}

/// The delays of the tests, in milliseconds: 200 ms, a second, ten minutes.
pub(crate) const DELAYS: [u64; 3] = [200, 1000, 600_000];

/// Today as the number that is part of a delay queue's name.
pub(crate) fn today() -> u64 {
    std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() / 86_400
}

/// The names of whatever messages may have waited in.
fn delay_queues(exchange: &str, queues: &[String]) -> Vec<String> {
    let mut names = Vec::new();
    for day in [today() - 1, today()] {
        for delay in DELAYS {
            names.extend(queues.iter().map(|queue| format!("cap.delay.queue.{queue}.{delay}.{day}")));
            for exchange in [exchange.to_owned(), format!("{exchange}.v2")] {
                names.push(format!("cap.delay.exchange.{exchange}.{delay}.{day}"));
            }
        }
    }
    names
}

/// An exchange and queues that no other test knows. They are deleted when it is dropped, after a failure too.
pub(crate) struct Place {
    pub(crate) exchange: String,
    queues: Mutex<Vec<String>>,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { exchange: format!("cap-test-{:016x}", fastrand::u64(..)), queues: Mutex::default() }
    }

    /// The name of a queue that will be deleted, whoever declares it.
    pub(crate) fn queue(&self, name: &str) -> String {
        let queue = format!("{}.{name}", self.exchange);
        let mut queues = self.queues.lock().unwrap();
        if !queues.contains(&queue) {
            queues.push(queue.clone());
        }
        queue
    }

    /// A transport on this place, not started. Classic queues: quick to make and to delete.
    pub(crate) fn transport(&self) -> RabbitMq {
        self.transport_at(&amqp_url())
    }

    pub(crate) fn transport_at(&self, url: &str) -> RabbitMq {
        RabbitMq::new(url).exchange(&self.exchange).queue_type(QueueType::Classic)
    }

    pub(crate) fn started(&self) -> RabbitMq {
        start(self.transport())
    }

    pub(crate) fn spec(&self, queue: &str, topics: &[&str], prefetch: u16) -> GroupSpec {
        let topics = topics.iter().map(|topic| TopicPattern::parse(topic).unwrap()).collect();
        GroupSpec::new(self.queue(queue), topics, prefetch)
    }

    pub(crate) async fn declare_exchange(&self, channel: &Channel) {
        let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
        channel
            .exchange_declare(
                self.exchange.as_str().into(),
                ExchangeKind::Topic,
                durable,
                FieldTable::default(),
            )
            .await
            .unwrap();
    }

    /// A channel of plain lapin, with the exchange and a queue bound to `topic`.
    pub(crate) async fn plain_queue(&self, queue: &str, topic: &str) -> (Channel, String) {
        let channel = plain_channel().await;
        let queue = self.queue(queue);
        let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
        channel
            .exchange_declare(
                self.exchange.as_str().into(),
                ExchangeKind::Topic,
                durable,
                FieldTable::default(),
            )
            .await
            .unwrap();
        let durable = QueueDeclareOptions { durable: true, ..Default::default() };
        channel.queue_declare(queue.as_str().into(), durable, FieldTable::default()).await.unwrap();
        channel
            .queue_bind(
                queue.as_str().into(),
                self.exchange.as_str().into(),
                topic.into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            )
            .await
            .unwrap();
        (channel, queue)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let (exchange, queues) = (self.exchange.clone(), std::mem::take(&mut *self.queues.lock().unwrap()));
        let cleaning = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
            runtime.unwrap().block_on(async move {
                let channel = plain_channel().await;
                for queue in delay_queues(&exchange, &queues).into_iter().chain(queues) {
                    // Of a long group there are no delay queues of these names.
                    let Ok(queue) = ShortString::try_new(queue) else { continue };
                    drop(channel.queue_delete(queue, QueueDeleteOptions::default()).await);
                }
                // The version v2 of a bus has one of its own.
                for exchange in [format!("{exchange}.v2"), exchange] {
                    let exit = format!("cap.delay.exit.{exchange}");
                    drop(channel.queue_delete(exit.as_str().into(), QueueDeleteOptions::default()).await);
                    drop(channel.exchange_delete(exit.into(), ExchangeDeleteOptions::default()).await);
                    drop(channel.exchange_delete(exchange.into(), ExchangeDeleteOptions::default()).await);
                }
            });
        });
        drop(cleaning.join());
    }
}

pub(crate) fn start(transport: RabbitMq) -> RabbitMq {
    transport.start(&TransportContext::new("cap-test", "v1")).unwrap();
    transport
}

pub(crate) async fn plain_connection() -> Connection {
    let properties = ConnectionProperties::default().with_connection_name("cap-test plain".into());
    Connection::connect(&amqp_url(), properties).await.unwrap()
}

/// A channel on a connection of its own, which lives as long as the channel.
pub(crate) async fn plain_channel() -> Channel {
    plain_connection().await.create_channel().await.unwrap()
}

pub(crate) fn message(id: impl Into<String>, topic: &str, body: impl Into<bytes::Bytes>) -> Arc<Message> {
    let mut headers = Headers::new();
    headers.insert("cap-msg-id", id);
    headers.insert("cap-msg-name", topic);
    Arc::new(Message::new(headers, body))
}

/// Receives until `count` messages are there.
pub(crate) async fn receive(consumer: &mut RabbitMqConsumer, count: usize) -> Vec<Incoming> {
    let mut all = Vec::new();
    while all.len() < count {
        all.extend(soon(consumer.receive(count - all.len())).await.unwrap());
    }
    all
}

/// How many messages a queue holds ready, seen from outside.
pub(crate) async fn ready(channel: &Channel, queue: &str) -> u32 {
    let passive = QueueDeclareOptions { passive: true, ..Default::default() };
    channel.queue_declare(queue.into(), passive, FieldTable::default()).await.unwrap().message_count()
}

/// Waits until a queue holds so many ready messages.
pub(crate) async fn until_ready(channel: &Channel, queue: &str, count: u32) {
    soon(async {
        while ready(channel, queue).await != count {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
