//! The options of a bus, with CAP's defaults.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::RetryPolicy;
use crate::error::StartError;
use crate::message::{MAX_WORKER, validate_group, validate_topic};
use crate::runtime::callback_policy::{CallbackNotAllowed, callback_patterns};
use crate::runtime::circuit::{CircuitBreaker, LONGEST};

/// The options of a bus.
///
/// Every field has a default, so a configuration names only what it changes; unknown keys are refused. Durations
/// are texts such as `"30s"`, `"4m"`, `"15days"`; none may be longer than 100 years.
///
/// ```
/// let options: cap_core::CapOptions = serde_json::from_str(r#"{
///     "version": "v2",
///     "topic_prefix": "shop",
///     "succeeded_expire_after": "2h"
/// }"#).unwrap();
/// assert_eq!(options.collector_interval, std::time::Duration::from_secs(300));
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
#[allow(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub struct CapOptions {
    /// The group of handlers that name none. Default: `cap.queue.` and the program's name in lower case, as CAP
    /// takes it from the entry assembly.
    pub default_group: String,
    /// Put before every group's name with a dot. Default: none.
    pub group_prefix: Option<String>,
    /// Put before every topic with a dot: published, subscribed, and callbacks. Default: none.
    pub topic_prefix: Option<String>,
    /// How callback topics and the prefix go together. By default the sender writes the callback's full topic, prefix
    /// included, and the answer goes there as it is written, so that services with different prefixes answer each
    /// other. .NET CAP writes it without, and each consumer puts its own prefix before it: set this to true in a
    /// fleet with .NET services that has a prefix. Default: false.
    pub dotnet_callback_prefix: bool,
    /// The topics that a sender may have replies go to with `cap-callback-name`: patterns as of a subscription, compared
    /// with the topic as it is sent, any prefix included. A reply is published with the rights of this service, so
    /// without a list everybody who may write to one of its topics can publish wherever it can. A subscription may
    /// have a list of its own. An empty list allows no replies. Where a handler sends a reply with
    /// [`rewrite_callback`](crate::CapHeaders::rewrite_callback) is not checked. Default: any topic.
    pub callbacks_to: Option<Vec<String>>,
    /// What happens to a message that asks for a reply to another topic. Default: it is parked.
    pub callback_not_allowed: CallbackNotAllowed,
    /// Whether a handler that returns `()` sends a reply, with an empty body, where the sender asks for one. .NET CAP
    /// does, and its callers wait for it. Default: true.
    pub reply_to_unit: bool,
    /// Whether a received message must name the topic that it was sent to: `cap-msg-name` equal to the routing key, on a
    /// transport that has one (RabbitMQ). The handler is chosen by the name, so a broker's topic permissions mean nothing
    /// within a group unless the two agree. One that differs is parked with
    /// [`Reason::NameMismatch`](crate::storage::Reason::NameMismatch). Not looked at: queues of somebody else's
    /// (`queue = ".."`), names given by [`map_incoming`](crate::CapBuilder::map_incoming), and messages whose routing key
    /// is the group's own queue, as when an operator moves them there. Default: true.
    pub match_routing_key: bool,
    /// Keeps fleets apart that share a broker and a store: part of group names and of the exchange's name, and a
    /// node works only on rows of its own version. One to 20 characters. Default: `v1`.
    pub version: String,
    /// The name of this node, unique among those that share the store. Default: the host's name, the process id
    /// and a random part.
    pub node_name: String,
    /// This node's number for making ids, 0 to 1023. Default: the environment's `CAP_WORKERID`, else one that the
    /// store finds free.
    pub worker_id: Option<u16>,
    /// How many messages of one group run at the same time, over fresh ones and retries together, unless its
    /// handlers say otherwise. With 1 they run in delivery order. Default: 1.
    pub group_concurrency: u16,
    /// How many messages a group takes from the broker before the earlier ones are stored, and how many stored
    /// ones it holds in memory before their handlers. Default: 256.
    pub prefetch: u16,
    /// How many bytes of received messages the bus holds in memory, from their receipt until they are stored and their
    /// handlers have ended; its groups share it in equal parts. A message that is larger than a part is taken alone. About
    /// as much is fetched ahead of that from a broker, and about as much may be on its way into the store: with all of it
    /// a process grows by at most three times as much, plus the largest message. At least 64 KiB. Default: 128 MiB.
    pub receive_bytes: usize,
    /// Whether two messages with one id, topic and body are two messages if the broker has verified them to be from two
    /// users: RabbitMQ's property `user-id`, which it refuses from anybody else. For brokers on which several users
    /// may write to the same topics. Senders must set the property then, and keep their user name while messages
    /// are on their way; messages received before the option was set count as another user's. Default: false.
    pub user_in_identity: bool,
    /// How long a handler may take before the attempt counts as failed. Default: no limit.
    #[serde(with = "humantime_serde")]
    pub handler_timeout: Option<Duration>,
    /// When a failed handler is tried again. Default: CAP's; see [`RetryPolicy`].
    pub retry: RetryPolicy,
    /// Whether errors may quote what a message carries: `invalid type: string "4111 1111 ..", expected i64` instead of
    /// `invalid type: string, expected i64`. Errors are stored, logged and given to `on_failed`. What a handler says in
    /// its own words is never looked at. Default: false.
    pub payload_in_errors: bool,
    /// How often the process may die while a message is being handled (abort, out of memory, stack overflow, `exit`)
    /// until the message is parked, with the reason
    /// [`ProcessCrashed`](crate::storage::Reason::ProcessCrashed). Such a death counts as no attempt of `retry`, and the first
    /// one of a message is not counted, since a node leases many messages and nothing says which of them it ran. Zero:
    /// never; crashes are then recorded only. Default: 5.
    pub crash_limit: u32,
    /// When subscribers pause because what they depend on is away. Default: never.
    pub circuit_breaker: Option<CircuitBreaker>,
    /// When a message that the broker refused is sent again. A broker that cannot be reached counts for nothing:
    /// messages wait for it. Default: CAP's; see [`RetryPolicy`].
    pub publish_retry: RetryPolicy,
    /// What it means that no queue wanted a published message. Default: success, with a warning and a counter.
    pub unrouted: Unrouted,
    /// How long a message that succeeded is kept. Zero deletes it at once, and with it the memory that it was
    /// received before. Default: one day.
    #[serde(with = "humantime_serde")]
    pub succeeded_expire_after: Duration,
    /// How long a message that failed for good is kept. One that has attempts left never expires. Default: 15 days.
    #[serde(with = "humantime_serde")]
    pub failed_expire_after: Duration,
    /// How often expired messages are deleted. Default: five minutes.
    #[serde(with = "humantime_serde")]
    pub collector_interval: Duration,
    /// How many messages of a table the collector deletes in one transaction. Default: 1000.
    pub collector_batch: usize,
    /// How long the claim on a message lasts without a heartbeat, and so how soon the work of a dead node goes on
    /// elsewhere. At least one second. Default: 30 seconds.
    #[serde(with = "humantime_serde")]
    pub lease: Duration,
    /// After so many leases without a sign of life a runtime counts as dead, its threads blocked by handlers that do not
    /// come back: its leases and its worker id are renewed no longer, with an ERROR, and other nodes take over. Only on
    /// stores that renew [apart](crate::storage::Storage::apart) from the runtime (PostgreSQL, SQLite); on others the leases
    /// of a blocked runtime run out anyway. At least 2. Default: 10, which is five minutes.
    pub runtime_dead_after: u32,
    /// How often the store is asked for due work when nothing has announced any. Messages of this process never
    /// wait for it. Default: 10 seconds.
    #[serde(with = "humantime_serde")]
    pub poll_interval: Duration,
    /// How many messages on their way to the broker are held in memory; more wait in the store. Default: 4096.
    pub relay_buffer: usize,
    /// How many messages go to the store or to the broker in one call at most. Default: 512.
    pub batch_size: usize,
    /// The largest message to publish, headers and body together, in bytes. A broker has a limit of its own, and what
    /// is larger fails as refused: RabbitMQ's `max_message_size` is 16 MiB by default since 4.0, and was 128 MiB
    /// before. Default: 128 MiB.
    pub max_message_size: usize,
    /// How long `publish` waits for the store. Default: 30 seconds.
    #[serde(with = "humantime_serde")]
    pub publish_timeout: Duration,
    /// How long `start` waits for store and broker before it goes on without them. What is merely away delays
    /// work; what is wrong (permissions, a foreign schema) is an error if it shows within this time. Default: 10 seconds.
    #[serde(with = "humantime_serde")]
    pub start_timeout: Duration,
    /// How long `shutdown` lets running handlers finish. Default: 30 seconds.
    #[serde(with = "humantime_serde")]
    pub shutdown_timeout: Duration,
}

/// What it means that no queue wanted a published message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unrouted {
    /// An event may have no audience yet: success, with a warning, the counter `cap_unrouted_total`, and the row
    /// findable by [`Reason::Unrouted`](crate::storage::Reason::Unrouted).
    #[default]
    Succeed,
    /// A failed attempt, retried by the policy `publish_retry`.
    Fail,
}

impl Default for CapOptions {
    fn default() -> Self {
        Self {
            default_group: format!("cap.queue.{}", program_name()),
            group_prefix: None,
            topic_prefix: None,
            dotnet_callback_prefix: false,
            callbacks_to: None,
            callback_not_allowed: CallbackNotAllowed::Park,
            reply_to_unit: true,
            match_routing_key: true,
            version: "v1".to_owned(),
            node_name: node_name(),
            worker_id: None,
            group_concurrency: 1,
            prefetch: 256,
            receive_bytes: 128 * 1024 * 1024,
            user_in_identity: false,
            handler_timeout: None,
            retry: RetryPolicy::default(),
            payload_in_errors: false,
            crash_limit: 5,
            circuit_breaker: None,
            publish_retry: RetryPolicy::default(),
            unrouted: Unrouted::Succeed,
            succeeded_expire_after: Duration::from_hours(24),
            failed_expire_after: Duration::from_hours(15 * 24),
            collector_interval: Duration::from_mins(5),
            collector_batch: 1000,
            lease: Duration::from_secs(30),
            runtime_dead_after: 10,
            poll_interval: Duration::from_secs(10),
            relay_buffer: 4096,
            batch_size: 512,
            max_message_size: 128 * 1024 * 1024,
            publish_timeout: Duration::from_secs(30),
            start_timeout: Duration::from_secs(10),
            shutdown_timeout: Duration::from_secs(30),
        }
    }
}

/// The least that [`CapOptions::receive_bytes`] may be: with less, messages of the usual size would go one by one.
const LEAST_RECEIVE_BYTES: usize = 64 * 1024;

impl CapOptions {
    /// Checks every range, so that a mistake is found at start-up.
    ///
    /// # Errors
    ///
    /// [`StartError::Option`] naming the first option that is out of range.
    pub fn validate(&self) -> Result<(), StartError> {
        let fail = |option, reason: String| Err(StartError::Option { option, reason });
        if let Err(error) = validate_group(&self.default_group) {
            return fail("default_group", error.to_string());
        }
        if let Some(Err(error)) = self.group_prefix.as_deref().map(validate_group) {
            return fail("group_prefix", error.to_string());
        }
        if let Some(Err(error)) = self.topic_prefix.as_deref().map(validate_topic) {
            return fail("topic_prefix", error.to_string());
        }
        if let Some(Err(problem)) = self.callbacks_to.as_deref().map(callback_patterns) {
            return fail("callbacks_to", problem);
        }
        if self.version.chars().count() > 20 || validate_group(&self.version).is_err() {
            return fail("version", format!("{:?} is not a name of 1 to 20 characters", self.version));
        }
        if self.node_name.is_empty() || self.node_name.len() > 200 {
            return fail("node_name", "must have 1 to 200 bytes".to_owned());
        }
        if let Some(worker) = self.worker_id.filter(|worker| *worker > MAX_WORKER) {
            return fail("worker_id", format!("is {worker}; it must be 0 to {MAX_WORKER}"));
        }
        if self.lease < Duration::from_secs(1) {
            return fail("lease", format!("is {:?}; it must be at least 1s", self.lease));
        }
        if self.runtime_dead_after < 2 {
            let dead_after = self.runtime_dead_after;
            return fail("runtime_dead_after", format!("is {dead_after}; it must be at least 2"));
        }
        if self.receive_bytes < LEAST_RECEIVE_BYTES {
            let bytes = self.receive_bytes;
            return fail("receive_bytes", format!("is {bytes}; it must be at least {LEAST_RECEIVE_BYTES}"));
        }
        if let Some(problem) = self.circuit_breaker.and_then(|breaker| breaker.problem()) {
            return fail("circuit_breaker", problem.to_owned());
        }
        for (option, value) in [
            ("group_concurrency", usize::from(self.group_concurrency)),
            ("prefetch", usize::from(self.prefetch)),
            ("collector_batch", self.collector_batch),
            ("relay_buffer", self.relay_buffer),
            ("batch_size", self.batch_size),
            ("max_message_size", self.max_message_size),
        ] {
            if value == 0 {
                return fail(option, "is 0; it must be at least 1".to_owned());
            }
        }
        for (option, value) in [
            ("collector_interval", self.collector_interval),
            ("poll_interval", self.poll_interval),
            ("publish_timeout", self.publish_timeout),
            ("failed_expire_after", self.failed_expire_after),
            ("handler_timeout", self.handler_timeout.unwrap_or(LONGEST)),
        ] {
            if value.is_zero() {
                return fail(option, "is 0s; it must be longer".to_owned());
            }
        }
        for (option, value) in [
            ("handler_timeout", self.handler_timeout.unwrap_or_default()),
            ("succeeded_expire_after", self.succeeded_expire_after),
            ("failed_expire_after", self.failed_expire_after),
            ("collector_interval", self.collector_interval),
            ("lease", self.lease),
            ("poll_interval", self.poll_interval),
            ("publish_timeout", self.publish_timeout),
            ("start_timeout", self.start_timeout),
            ("shutdown_timeout", self.shutdown_timeout),
        ] {
            if value > LONGEST {
                return fail(option, "is longer than 100 years (36525days)".to_owned());
            }
        }
        Ok(())
    }

    /// The worker id from the option, or from the environment's `CAP_WORKERID`.
    pub(crate) fn configured_worker(&self) -> Result<Option<u16>, StartError> {
        if self.worker_id.is_some() {
            return Ok(self.worker_id);
        }
        match std::env::var("CAP_WORKERID") {
            Err(_) => Ok(None),
            Ok(text) => match text.trim().parse::<u16>() {
                Ok(worker) if worker <= MAX_WORKER => Ok(Some(worker)),
                _ => Err(StartError::Option {
                    option: "CAP_WORKERID",
                    reason: format!("is {text:?}; it must be a number from 0 to {MAX_WORKER}"),
                }),
            },
        }
    }

    /// A topic with the prefix before it.
    pub(crate) fn full_topic(&self, topic: &str) -> String {
        match &self.topic_prefix {
            Some(prefix) => format!("{prefix}.{topic}"),
            None => topic.to_owned(),
        }
    }

    /// What a sender writes as the callback's topic.
    pub(crate) fn written_callback(&self, topic: &str) -> String {
        if self.dotnet_callback_prefix { topic.to_owned() } else { self.full_topic(topic) }
    }

    /// Where an answer goes that was asked for to this topic.
    pub(crate) fn answered_callback(&self, written: &str) -> String {
        if self.dotnet_callback_prefix { self.full_topic(written) } else { written.to_owned() }
    }

    /// A group's full name: `[prefix.]group.version`.
    pub(crate) fn full_group(&self, group: Option<&str>) -> String {
        let group = group.unwrap_or(&self.default_group);
        match &self.group_prefix {
            Some(prefix) => format!("{prefix}.{group}.{}", self.version),
            None => format!("{group}.{}", self.version),
        }
    }
}

fn program_name() -> String {
    let path = std::env::current_exe().unwrap_or_default();
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or("app");
    let name: String = stem
        .chars()
        .map(|c| if c.is_alphanumeric() || matches!(c, '-' | '_') { c.to_ascii_lowercase() } else { '-' })
        .collect();
    if name.is_empty() { "app".to_owned() } else { name }
}

fn node_name() -> String {
    let host = gethostname::gethostname().to_string_lossy().chars().take(50).collect::<String>();
    format!("{host}-{}-{:06x}", std::process::id(), fastrand::u32(..1 << 24))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_caps_and_valid() {
        let options = CapOptions::default();
        options.validate().unwrap();
        assert_eq!(options.succeeded_expire_after.as_secs(), 86_400);
        assert_eq!(options.failed_expire_after.as_secs(), 1_296_000);
        assert_eq!(options.collector_interval.as_secs(), 300);
        assert_eq!(options.version, "v1");
        assert!(options.default_group.starts_with("cap.queue."));
    }

    #[test]
    fn options_survive_a_round_trip_and_refuse_unknown_keys() {
        let options = CapOptions::default();
        let text = serde_json::to_string(&options).unwrap();
        assert_eq!(serde_json::from_str::<CapOptions>(&text).unwrap(), options);
        let error = serde_json::from_str::<CapOptions>(r#"{"verison": "v2"}"#).unwrap_err().to_string();
        assert!(error.contains("verison") && error.contains("version"), "{error}");
        assert!(serde_json::from_str::<CapOptions>(r#"{"lease": "soon"}"#).is_err());
    }

    #[test]
    fn ranges_are_checked_by_name() {
        #[track_caller]
        fn check(option: &str, change: impl FnOnce(&mut CapOptions)) {
            let mut options = CapOptions::default();
            change(&mut options);
            let error = options.validate().unwrap_err().to_string();
            assert!(error.contains(option), "{error}");
        }
        check("version", |o| o.version = "v".repeat(21));
        check("version", |o| o.version = String::new());
        check("default_group", |o| o.default_group = "a b".into());
        check("topic_prefix", |o| o.topic_prefix = Some("a.*".into()));
        check("callbacks_to", |o| o.callbacks_to = Some(vec!["a".into(), "b c".into()]));
        check("worker_id", |o| o.worker_id = Some(1024));
        check("lease", |o| o.lease = Duration::from_millis(999));
        check("runtime_dead_after", |o| o.runtime_dead_after = 1);
        check("prefetch", |o| o.prefetch = 0);
        check("batch_size", |o| o.batch_size = 0);
        check("receive_bytes", |o| o.receive_bytes = 65_535);
        check("poll_interval", |o| o.poll_interval = Duration::ZERO);
        check("handler_timeout", |o| o.handler_timeout = Some(Duration::ZERO));
        check("handler_timeout", |o| o.handler_timeout = Some(Duration::MAX));
        check("succeeded_expire_after", |o| o.succeeded_expire_after = Duration::MAX);
        check("failed_expire_after", |o| o.failed_expire_after = Duration::MAX);
        check("collector_interval", |o| o.collector_interval = Duration::MAX);
        check("lease", |o| o.lease = Duration::MAX);
        check("poll_interval", |o| o.poll_interval = Duration::MAX);
        check("publish_timeout", |o| o.publish_timeout = Duration::MAX);
        check("start_timeout", |o| o.start_timeout = Duration::MAX);
        check("shutdown_timeout", |o| o.shutdown_timeout = Duration::MAX);
        check("circuit_breaker", |o| {
            o.circuit_breaker = Some(CircuitBreaker::after(1).longest(Duration::MAX));
        });
    }

    #[test]
    fn names_are_put_together_as_cap_does() {
        let mut options = CapOptions { default_group: "cap.queue.orders".into(), ..CapOptions::default() };
        assert_eq!(options.full_group(None), "cap.queue.orders.v1");
        options.group_prefix = Some("eu".into());
        options.topic_prefix = Some("shop".into());
        assert_eq!(options.full_group(Some("billing")), "eu.billing.v1");
        assert_eq!(options.full_topic("order.created"), "shop.order.created");
    }
}
