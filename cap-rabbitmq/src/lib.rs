//! RabbitMQ transport for cap, over AMQP 0-9-1, word for word compatible with .NET CAP on the wire.
//!
//! ```no_run
//! # fn main() {
//! use std::time::Duration;
//! use cap_rabbitmq::{QueueType, RabbitMq};
//!
//! let transport = RabbitMq::new("amqp://shop:secret@rabbit-1:5672,rabbit-2:5672/orders")
//!     .queue_type(QueueType::Quorum)
//!     .confirm_timeout(Duration::from_secs(5));
//! // Cap::builder().transport(transport)
//! # let _ = transport;
//! # }
//! ```
//!
//! # What it does on the broker
//!
//! - One durable topic exchange, `cap.default.router`; the routing key is the topic, the queue is the group.
//! - A queue that is there is joined as it was declared, whatever its arguments, unless it is a stream, which is an error
//!   of the start; one that is missing is declared as a durable quorum queue without a time to live, or
//!   [as .NET CAP does](RabbitMq::dotnet_queues). Bindings are only added.
//! - The exchange may have been declared with arguments, such as an alternate exchange, which is a warning; one of another
//!   kind is an error of the start.
//! - Each message is persistent, `mandatory`, and counts as sent once the broker has confirmed it. A message that no
//!   queue wants is reported as unrouted; one that the broker refuses is refused alone, not with its batch.
//! - Two connections, one for publishing and one for consuming, so that a broker that blocks publishers does not
//!   stop the consumers. Each is opened when first needed and anew once it is broken; one that has no room for another
//!   channel gets a second beside it.
//!
//! # Queues of RabbitMQ 3
//!
//! From version 4 on RabbitMQ drops, or dead-letters, what it has delivered from a quorum queue twenty times, unless the
//! queue says `x-delivery-limit` -1. A queue that is declared on version 4 says so. One that was declared on version 3
//! does not, and stays as it is when the broker is upgraded; a message that is redelivered that often, since its
//! node dies or its store is away, is then gone. There is a warning when such a queue is joined. A policy repairs it:
//! `rabbitmqctl set_policy no-delivery-limit '^orders[.]' '{"delivery-limit": -1}' --apply-to quorum_queues`, with a
//! pattern for the queues in question. RabbitMQ heeds one policy for each queue, so add it to one that is there.
//! The storage keeps the retries of a group on such a queue, whatever its policy says.
//!
//! # Delays
//!
//! What is delayed waits in a durable quorum queue without consumers, one for each delay to each group (or to whoever
//! wants its topic), until the queue's time to live is over. The queues are declared when first needed and vanish by
//! themselves; they are quorum queues whatever `queue_type` is, since a classic queue dead-letters without waiting for
//! a confirm. That takes RabbitMQ 3.10 or later with the feature flag `stream_queue`, and a user who may configure,
//! write and read what begins with `cap.delay.`, and for retries write to `amq.default`. Each different delay makes queues
//! of its own, so a service had better have few. What an outage has left of one is rounded up to a whole second or a 32nd of it, so that no delay makes more
//! than 33 a day. The longest is 47 days.
//!
//! | what | name | arguments |
//! |---|---|---|
//! | queue, to a group | `cap.delay.queue.<group>.<ms>.<day>` | `x-queue-type` `quorum`, `x-message-ttl` the delay, `x-expires` the delay and two days, `x-overflow` `reject-publish`, `x-dead-letter-strategy` `at-least-once`, `x-dead-letter-exchange` empty, `x-dead-letter-routing-key` the group |
//! | queue, to a topic, and the auto-deleted fanout exchange before it | `cap.delay.exchange.<exchange>.<ms>.<day>` | the same, but `x-dead-letter-exchange` `cap.delay.exit.<exchange>` and no routing key |
//! | fanout exchange, bound to the bus's exchange; and a classic queue that has room for nothing, so that a message that nobody wants does not stay | `cap.delay.exit.<exchange>` | of the queue: `x-max-length` 0 |
//!
//! A delay queue that confirms nothing although the broker answers, such as a quorum queue that lost its leader when its
//! node crashed, is avoided: new messages wait in one whose delay is up to three milliseconds longer.
//!
//! `<day>` is the number of days since 1970 (UTC) on which the queue takes messages, and a group or exchange of more than
//! 200 bytes is shortened and ends in a hash.
//!
//! # What it does with what others send
//!
//! Header values of every AMQP type are turned into text: numbers and booleans as .NET CAP reads them (`5`, `True`),
//! tables and arrays as JSON, down to 32 levels. Names that are not UTF-8 and tables that nest deeper are made harmless
//! before lapin's reader sees them; it would give up the connection, or the process.
//!
//! # Logging in
//!
//! By the url's user and password; by those, or a token, that [a provider](RabbitMq::credentials) gives; or by a
//! [certificate](RabbitMq::certificate_login). `amqps://` takes TLS 1.2 and 1.3.
//!
//! # Logging
//!
//! Its own events are under the target `cap_rabbitmq`; those of lapin, the AMQP client underneath, under `lapin`. lapin's
//! warning about a message that no queue wants holds the whole message, and is left out; so is its error about a channel
//! that the broker closes to answer a question of ours, such as whether a queue is there.

mod acks;
mod address;
mod batch;
mod connection;
mod consumer;
mod credentials;
mod delay;
mod delay_topology;
mod dial;
mod error;
mod exchange;
mod expected;
mod fields;
mod greeting;
mod headers;
mod identity;
mod options;
mod outgoing;
mod publisher;
mod queue_kind;
mod quiet;
mod renewal;
mod returned;
mod socket;
mod topology;
mod transport;
mod wash;
mod window;
mod x_death;

pub use consumer::RabbitMqConsumer;
pub use credentials::Credentials;
pub use identity::ClientIdentity;
pub use options::{QueueType, RabbitMqOptions};
pub use transport::RabbitMq;
pub use x_death::{Death, DeathReason, XDeath};

/// The transport's name in errors and logs.
const NAME: &str = "RabbitMQ";
