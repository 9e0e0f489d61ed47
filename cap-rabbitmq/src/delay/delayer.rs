//! Delays messages at the broker: declares the queues in which they wait, and sends them there.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cap_adapter::error::TransportError;
use cap_adapter::transport::{Delayed, Sent};
use futures_util::future::join_all;
use lapin::options::{ExchangeBindOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::protocol::AMQPSoftError;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, ExchangeKind};
use tokio::time::{Instant, timeout};
use tracing::warn;

use crate::connection::deadline::before;
use crate::connection::link::Link;
use crate::declare::topology::Topology;
use crate::delay::declared_queues::DeclaredQueues;
use crate::delay::delay_queue::{DelayQueue, Exit};
use crate::error::{refused, soft, text, unavailable};
use crate::publish::amqp_message::AmqpMessage;
use crate::publish::batch::{Answer, Batch};
use crate::publish::publisher::Publisher;

/// How many other queues are tried instead of one that confirms nothing.
const ALTERNATIVES: u64 = 3;

/// How long a healthy broker may take to open a channel.
const ANSWER: Duration = Duration::from_secs(2);

/// How many queues are declared at the same time, each on a channel of its own.
const AT_ONCE: usize = 16;

/// Has the broker keep messages for a while.
#[derive(Debug)]
pub(crate) struct Delayer {
    publisher: Arc<Publisher>,
    declared: DeclaredQueues,
}

impl Delayer {
    pub(crate) fn new(publisher: Arc<Publisher>) -> Self {
        Self { publisher, declared: DeclaredQueues::default() }
    }

    /// Has the broker keep each message for its time. A queue that was deleted meanwhile is declared once more.
    pub(crate) async fn delay(&self, messages: &[Delayed]) -> Vec<Result<(), TransportError>> {
        let now = SystemTime::now();
        let queues: Vec<_> = messages.iter().map(|message| self.queue_for(message, now)).collect();
        // While this is still the connection in use, a missing confirm does not mean that the connection is broken.
        let link = self.publisher.connector.current();
        let mut answers: Vec<Option<Result<(), TransportError>>> =
            queues.iter().map(|queue| queue.as_ref().err().map(|error| Err(error.clone()))).collect();
        for _ in 0..2 {
            let open: Vec<_> = messages
                .iter()
                .zip(&queues)
                .enumerate()
                .filter(|(index, _)| answers[*index].is_none())
                .filter_map(|(index, (message, queue))| Some((index, message, queue.as_ref().ok()?)))
                .collect();
            if open.is_empty() {
                break;
            }
            let problems = self.declare(open.iter().map(|(_, _, queue)| *queue)).await;
            let batch = open.iter().map(|(_, message, queue)| match problems.get(&queue.name) {
                Some(problem) => Err(problem.clone()),
                None => {
                    AmqpMessage::new(&message.message).map(|outgoing| outgoing.by_way_of(queue.entrance()))
                }
            });
            let sent = self.publisher.send_all(Batch::of(batch)).await;
            let unknown = |answer: &Answer| matches!(answer, Err(error) if error.is_unavailable());
            let silent = open.iter().zip(&sent).filter(|(_, answer)| unknown(answer));
            let silent: HashSet<_> = silent.map(|((_, _, queue), _)| &queue.name).collect();
            if let (Some(link), false) = (&link, silent.is_empty()) {
                self.avoid(link, silent).await;
            }
            for ((index, _, queue), sent) in open.iter().zip(sent) {
                if !matches!(sent, Ok(Sent::Routed)) {
                    self.declared.forget(&queue.name);
                }
                answers[*index] = match sent {
                    Ok(Sent::Routed) => Some(Ok(())),
                    Ok(Sent::Unrouted) => None,
                    Err(error) => Some(Err(error)),
                };
            }
        }
        let gone = || Err(unavailable("a delay queue was deleted as soon as it was declared"));
        answers.into_iter().map(|answer| answer.unwrap_or_else(gone)).collect()
    }

    /// The queue that a message waits in. Instead of one that confirms nothing it is one with a slightly longer delay.
    fn queue_for(&self, message: &Delayed, now: SystemTime) -> Result<DelayQueue, TransportError> {
        let mut queue = DelayQueue::new(&self.publisher.topology.exchange, &message.to, message.delay, now)?;
        for longer in 1..=ALTERNATIVES {
            if !self.declared.is_silent(&queue.name) {
                break;
            }
            let delay = message.delay + Duration::from_millis(longer);
            queue = DelayQueue::new(&self.publisher.topology.exchange, &message.to, delay, now)?;
        }
        Ok(queue)
    }

    /// Avoids queues that confirmed nothing in time, if the broker answers all else on the same connection: a quorum
    /// queue that has lost its leader, as after a crash of its node, takes no message until it has another, which on
    /// RabbitMQ 3.10 may be never.
    async fn avoid(&self, link: &Arc<Link>, silent: HashSet<&ShortString>) {
        if !link.is_usable() || link.is_blocked() {
            return;
        }
        let answers = self.publisher.topology.open_channel(link, Instant::now() + ANSWER);
        if !matches!(timeout(ANSWER, answers).await, Ok(Ok(_))) {
            return;
        }
        for queue in silent {
            if self.declared.add_silent(queue) {
                warn!(
                    queue = queue.as_str(),
                    "delay queue confirms no messages, using another one from now on"
                );
            }
        }
    }

    /// Declares the queues that are not known to exist, and returns the errors of those that could not be declared.
    async fn declare<'a>(
        &self,
        queues: impl Iterator<Item = &'a DelayQueue>,
    ) -> HashMap<ShortString, TransportError> {
        let deadline = Instant::now() + self.publisher.confirm_timeout;
        let mut seen = HashSet::new();
        let distinct: Vec<&DelayQueue> = queues.filter(|queue| seen.insert(&queue.name)).collect();
        let mut problems = HashMap::new();
        // Several at once, so that one that does not answer takes no time from the others.
        for some in distinct.chunks(AT_ONCE) {
            let outcomes = some.iter().map(|queue| self.declare_before(deadline, queue));
            let outcomes = some.iter().zip(join_all(outcomes).await);
            problems
                .extend(outcomes.filter_map(|(queue, outcome)| Some((queue.name.clone(), outcome.err()?))));
        }
        problems
    }

    async fn declare_before(&self, deadline: Instant, queue: &DelayQueue) -> Result<(), TransportError> {
        // Boxed, since it is large and rarely needed.
        before(deadline, "declaring a delay queue", Box::pin(self.declare_one(queue, deadline))).await
    }

    /// On a channel of its own, which the broker closes if it rejects the declaration.
    async fn declare_one(&self, queue: &DelayQueue, deadline: Instant) -> Result<(), TransportError> {
        let link = self.publisher.connector.link().await?;
        if self.declared.contains(&link, &queue.name) {
            return Ok(());
        }
        link.wait_while_blocked(deadline).await?;
        let channel = self.publisher.topology.open_channel(&link, deadline).await?;
        declare(&channel, &self.publisher.topology, queue)
            .await
            .map_err(|error| declaration_error(queue, &error))?;
        self.declared.remember(&link, &queue.name);
        Ok(())
    }
}

async fn declare(channel: &Channel, topology: &Topology, queue: &DelayQueue) -> lapin::Result<()> {
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    match &queue.exit {
        Exit::Queue(_) => {
            channel.queue_declare(queue.name.clone(), durable, queue.arguments()).await?;
        }
        Exit::Exchange(exit) => {
            declare_exit(channel, topology, exit).await?;
            // It goes when its only queue does.
            declare_fanout(channel, &queue.name, true).await?;
            channel.queue_declare(queue.name.clone(), durable, queue.arguments()).await?;
            bind(channel, &queue.name, &queue.name).await?;
        }
    }
    Ok(())
}

/// Declares the exchange through which messages leave delay queues. A message that no queue wants would stay in its delay
/// queue, and a few dozen of them would block the others. So a queue of length 0 is bound to it too, which takes and drops
/// everything.
async fn declare_exit(channel: &Channel, topology: &Topology, exit: &ShortString) -> lapin::Result<()> {
    declare_fanout(channel, exit, false).await?;
    let mut nothing = FieldTable::default();
    nothing.insert("x-queue-type".into(), AMQPValue::LongString("classic".into()));
    nothing.insert("x-max-length".into(), AMQPValue::LongInt(0));
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(exit.clone(), durable, nothing).await?;
    bind(channel, exit, exit).await?;
    let (bus, options) = (topology.exchange.clone(), ExchangeBindOptions::default());
    channel.exchange_bind(bus, exit.clone(), "".into(), options, FieldTable::default()).await
}

async fn declare_fanout(channel: &Channel, name: &ShortString, auto_delete: bool) -> lapin::Result<()> {
    let options = ExchangeDeclareOptions { durable: true, auto_delete, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare(name.clone(), ExchangeKind::Fanout, options, FieldTable::default()).await
}

async fn bind(channel: &Channel, queue: &ShortString, exchange: &ShortString) -> lapin::Result<()> {
    let options = QueueBindOptions::default();
    channel.queue_bind(queue.clone(), exchange.clone(), "".into(), options, FieldTable::default()).await
}

fn declaration_error(queue: &DelayQueue, error: &lapin::Error) -> TransportError {
    let (queue, said) = (queue.name.as_str(), text(error));
    match soft(error) {
        Some(AMQPSoftError::PRECONDITIONFAILED) => refused(format!(
            "delay queue {queue:?} is there with other properties, or this broker cannot dead-letter at least once, \
             which takes RabbitMQ 3.10 with the feature flag stream_queue; delete the queue when it is empty: {said}"
        )),
        Some(AMQPSoftError::ACCESSREFUSED) => refused(format!(
            "delay queue {queue:?} could not be declared: this user needs the right to configure, write and read \
             what begins with \"cap.delay.\", and for retries to write to \"amq.default\": {said}"
        )),
        _ => unavailable(format!("delay queue {queue:?} could not be declared: {said}")),
    }
}
