//! RabbitMQ transport for cap, over AMQP 0-9-1, compatible with .NET CAP on the wire.
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
//! - A queue that exists is joined as it was declared, with any arguments. If it is a stream, the start fails. A missing
//!   queue is declared as a durable quorum queue without a time to live, or [as .NET CAP does](RabbitMq::dotnet_queues).
//!   Bindings are only added.
//! - An exchange that was declared with arguments, such as an alternate exchange, is joined with a warning. If it is of
//!   another kind, the start fails.
//! - Each message is persistent, `mandatory`, and counts as sent once the broker has confirmed it. A message that
//!   the broker cannot route to any queue is reported as unrouted; if the broker rejects one message, the rest of its batch
//!   is sent all the same.
//! - Two connections, one for publishing and one for consuming, so that a broker that blocks publishers does not
//!   stop the consumers. Each is opened when first needed, and again when it is broken. When one has no number left for
//!   another channel, a second one is opened beside it.
//!
//! # Queues of RabbitMQ 3
//!
//! From version 4 on RabbitMQ drops, or dead-letters, what it has delivered from a quorum queue twenty times, unless the
//! queue says `x-delivery-limit` -1. A queue that is declared on version 4 says so. One that was declared on version 3
//! does not, and stays as it is when the broker is upgraded: a message that is redelivered that often, because its
//! node dies or the storage is unavailable, is then lost. Joining such a queue logs a warning. A policy fixes it:
//! `rabbitmqctl set_policy no-delivery-limit '^orders[.]' '{"delivery-limit": -1}' --apply-to quorum_queues`, with a
//! pattern for the queues in question. RabbitMQ heeds one policy for each queue, so add it to one that is there.
//! With or without a policy, the storage keeps the retries of a group on such a queue.
//!
//! # Delays
//!
//! Delayed messages wait in durable quorum queues without consumers until the queue's time to live is over. There is one
//! queue for each delay and group, or for each delay and exchange where a topic is delayed. The queues are declared when
//! first needed and expire by themselves. They are quorum queues with every `queue_type`, because a classic queue
//! dead-letters without waiting for a confirm. That takes RabbitMQ 3.10 or later with the feature flag `stream_queue`, and a user who may configure,
//! write and read what begins with `cap.delay.`, and for retries write to `amq.default`. Each different delay makes queues
//! of its own, so use few. What an outage has left of one is rounded up to a whole second or a 32nd of it, so that no delay makes more
//! than 33 a day. The longest is 47 days.
//!
//! | what | name | arguments |
//! |---|---|---|
//! | queue, to a group | `cap.delay.queue.<group>.<ms>.<day>` | `x-queue-type` `quorum`, `x-message-ttl` the delay, `x-expires` the delay and two days, `x-overflow` `reject-publish`, `x-dead-letter-strategy` `at-least-once`, `x-dead-letter-exchange` empty, `x-dead-letter-routing-key` the group |
//! | queue, to a topic, and the auto-deleted fanout exchange before it | `cap.delay.exchange.<exchange>.<ms>.<day>` | the same, but `x-dead-letter-exchange` `cap.delay.exit.<exchange>` and no routing key |
//! | fanout exchange, bound to the bus's exchange; and a classic queue of length 0, so that a message that no group wants does not stay | `cap.delay.exit.<exchange>` | of the queue: `x-max-length` 0 |
//!
//! A delay queue that confirms nothing although the broker answers, such as a quorum queue that lost its leader when its
//! node crashed, is avoided: new messages wait in one whose delay is up to three milliseconds longer.
//!
//! `<day>` is the number of days since 1970 (UTC) on which the queue takes messages, and a group or exchange of more than
//! 200 bytes is shortened and ends in a hash.
//!
//! # Headers of other senders
//!
//! Header values of every AMQP type are turned into text: numbers and booleans as .NET CAP reads them (`5`, `True`),
//! tables and arrays as JSON, down to 32 levels. Names that are not UTF-8 and tables that nest deeper are
//! sanitized before lapin reads them, because lapin would end the connection or overflow the stack.
//!
//! # Logging in
//!
//! By the url's user and password; by those, or a token, that [a provider](RabbitMq::credentials) gives; or by a
//! [certificate](RabbitMq::certificate_login). `amqps://` takes TLS 1.2 and 1.3.
//!
//! # Logging
//!
//! Its own events are under the target `cap_rabbitmq`; those of lapin, the AMQP client underneath, under `lapin`. lapin's
//! warning about an unroutable message contains the whole message and is left out, and so is its error about a channel
//! that the broker closes as the answer to a question, for example whether a queue exists.

mod connection;
mod consume;
mod declare;
mod delay;
mod driver_fixes;
mod error;
mod operate;
mod options;
mod publish;
mod start;
mod transport;

pub use connection::credentials::Credentials;
pub use connection::identity::ClientIdentity;
pub use consume::consumer::RabbitMqConsumer;
pub use consume::x_death::{Death, DeathReason, XDeath};
pub use operate::follower::Follower;
pub use operate::found_topology::{FoundItem, FoundState, FoundTopology};
pub use options::{QueueType, RabbitMqOptions};
pub use transport::RabbitMq;
