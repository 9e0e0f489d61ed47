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
/// Every field has a default, so that a configuration contains only what it changes; unknown keys are errors. Durations
/// are strings such as `"30s"`, `"4m"` or `"15days"`, of at most 100 years.
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
    /// The group of handlers that do not set one. Default: `cap.queue.` and the program's name in lower case, as CAP
    /// takes it from the entry assembly.
    pub default_group: String,
    /// A prefix for the names of all groups, separated by a dot. Default: none.
    pub group_prefix: Option<String>,
    /// A prefix for all topics, separated by a dot: those published and subscribed to, and callback topics. Default: none.
    pub topic_prefix: Option<String>,
    /// Whether callback topics are sent without the prefix, as .NET CAP does. By default the sender writes the full
    /// callback topic including the prefix, and the reply is published to exactly that topic, so that services with
    /// different prefixes can reply to each other. .NET CAP writes it without a prefix, and each consumer adds its own: set
    /// this to true if a prefix is used together with .NET services. Default: false.
    pub dotnet_callback_prefix: bool,
    /// The topics that a sender may request replies to with `cap-callback-name`. These are patterns as in a subscription;
    /// they are compared with the topic that the reply is published to, including any prefix. A reply is published with the
    /// permissions of this service, so that without a list anyone who may write to one of its topics can publish wherever
    /// it can. A subscription may have a list of its own. An empty list allows no replies. Topics that a handler sets with
    /// [`rewrite_callback`](crate::CapHeaders::rewrite_callback) are not checked. Default: any topic.
    pub callbacks_to: Option<Vec<String>>,
    /// What happens to a message that requests a reply to another topic. Default: it is parked.
    pub callback_not_allowed: CallbackNotAllowed,
    /// Whether a handler that returns `()` sends a reply, with an empty body, if the sender requests one. .NET CAP does,
    /// and its callers wait for it. Default: true.
    pub reply_to_unit: bool,
    /// Whether a received message must name the topic that it was sent to: `cap-msg-name` must equal the routing key, on
    /// transports that have one (RabbitMQ). The name selects the handler, so that topic permissions at the broker have no
    /// effect within a group unless the two are equal. A message in which they differ is parked with
    /// [`Reason::NameMismatch`](crate::storage::Reason::NameMismatch). Not checked are existing queues (`queue = ".."`),
    /// names set by [`map_incoming`](crate::CapBuilder::map_incoming), and messages whose routing key is the name of the
    /// group's own queue, as when an operator moves them there. Default: true.
    pub match_routing_key: bool,
    /// Separates deployments that share a broker and a storage: it is part of the names of groups and of the exchange, and
    /// a node processes only rows of its own version. 1 to 20 characters. Default: `v1`.
    pub version: String,
    /// The name of this node, unique among those that share the storage. Default: the host name, the process id and a
    /// random part.
    pub node_name: String,
    /// The worker id of this node, part of the ids that it generates: 0 to 1023. Default: the environment variable
    /// `CAP_WORKERID`, otherwise an id that the storage assigns.
    pub worker_id: Option<u16>,
    /// How many messages of one group are handled at the same time, new ones and retries together, unless its handlers set
    /// it. With 1 they are handled in delivery order. Default: 1.
    pub group_concurrency: u16,
    /// How many messages a group receives from the broker before earlier ones are stored, and how many stored messages wait
    /// in memory for their handlers. Default: 256.
    pub prefetch: u16,
    /// How many bytes of received messages the bus keeps in memory, from receipt until they are stored and their handlers
    /// have finished. The groups share it equally. A message that is larger than a group's share is received on its own.
    /// About as much again is prefetched from the broker, and about as much may be on its way to the storage, so that a
    /// process grows by at most three times this value plus the largest message. At least 64 KiB. Default: 128 MiB.
    pub receive_bytes: usize,
    /// Whether two messages with the same id, topic and body are different messages if the broker has verified that they
    /// are from different users: by RabbitMQ's property `user-id`, which it accepts only from that user. For brokers on
    /// which several users may write to the same topics. Senders must then set the property, and must not change their user
    /// name while messages are in flight. Messages received before the option was set count as those of another user.
    /// Default: false.
    pub user_in_identity: bool,
    /// How long a handler may take before the attempt counts as failed. Default: no limit.
    #[serde(with = "humantime_serde")]
    pub handler_timeout: Option<Duration>,
    /// When a failed attempt is retried. Default: CAP's policy; see [`RetryPolicy`].
    pub retry: RetryPolicy,
    /// Whether errors may quote values of the payload: `invalid type: string "4111 1111 ..", expected i64` instead of
    /// `invalid type: string, expected i64`. Errors are stored, logged and passed to `on_failed`. Error texts written by
    /// handlers are not filtered. Default: false.
    pub payload_in_errors: bool,
    /// How many crashes (abort, out of memory, stack overflow, `exit`) are counted for a message that was being handled
    /// before it is parked with the reason [`ProcessCrashed`](crate::storage::Reason::ProcessCrashed). A crash does not count
    /// as an attempt of `retry`. The first one of a message is not counted, since a node leases many messages and it is not
    /// recorded which of them it was handling. Zero: the message is never parked, crashes are only recorded. Default: 5.
    pub crash_limit: u32,
    /// When subscribers are paused because a dependency is down. Default: never.
    pub circuit_breaker: Option<CircuitBreaker>,
    /// When a message that the broker rejected is sent again. While the broker is unreachable messages wait, and no attempts
    /// are counted. Default: CAP's policy; see [`RetryPolicy`].
    pub publish_retry: RetryPolicy,
    /// How a message that the broker could not route to any queue is treated. Default: as sent, with a warning and a
    /// counter.
    pub unrouted: Unrouted,
    /// How long a message that succeeded is kept. Zero deletes it at once, and duplicates of it are then no longer
    /// recognized. Default: one day.
    #[serde(with = "humantime_serde")]
    pub succeeded_expire_after: Duration,
    /// How long a message that failed for good is kept. A message that has attempts left never expires. Default: 15 days.
    #[serde(with = "humantime_serde")]
    pub failed_expire_after: Duration,
    /// How often expired messages are deleted. Default: five minutes.
    #[serde(with = "humantime_serde")]
    pub collector_interval: Duration,
    /// How many expired messages of a table are deleted in one transaction. Default: 1000.
    pub collector_batch: usize,
    /// How long a lease lasts unless it is renewed, and therefore how soon other nodes take over the messages of a dead
    /// node. At least one second. Default: 30 seconds.
    #[serde(with = "humantime_serde")]
    pub lease: Duration,
    /// After how many lease durations without a response the runtime counts as dead, with its threads blocked by handlers
    /// that do not return. Its leases and its worker id are then no longer renewed, an ERROR is logged, and other nodes take
    /// over. This applies only to storages that renew leases [on a separate thread](crate::storage::Storage::apart)
    /// (PostgreSQL, SQLite); on others the leases of a blocked runtime expire anyway. At least 2. Default: 10, which is five
    /// minutes.
    pub runtime_dead_after: u32,
    /// How often the storage is polled for due work that was not announced. Messages of this process never wait for it.
    /// Default: 10 seconds.
    #[serde(with = "humantime_serde")]
    pub poll_interval: Duration,
    /// How many messages on their way to the broker are kept in memory; more wait in the storage. Default: 4096.
    pub relay_buffer: usize,
    /// The most messages in one call to the storage or to the broker. Default: 512.
    pub batch_size: usize,
    /// The largest message that can be published, headers and body together, in bytes. A broker has a limit of its own, and
    /// rejects larger messages: RabbitMQ's `max_message_size` is 16 MiB by default since 4.0, and was 128 MiB before.
    /// Default: 128 MiB.
    pub max_message_size: usize,
    /// How long `publish` waits for the storage. Default: 30 seconds.
    #[serde(with = "humantime_serde")]
    pub publish_timeout: Duration,
    /// How long `start` waits for the storage and the broker before it returns while they are still unavailable. Errors that
    /// need operator action (permissions, a foreign schema) fail the start if they occur within this time. Default: 10
    /// seconds.
    #[serde(with = "humantime_serde")]
    pub start_timeout: Duration,
    /// How long `shutdown` lets running handlers finish. Default: 30 seconds.
    #[serde(with = "humantime_serde")]
    pub shutdown_timeout: Duration,
}

/// How a message that the broker could not route to any queue is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unrouted {
    /// As sent, since an event may have no subscribers yet. A warning is logged, `cap_unrouted_total` is incremented, and
    /// the row can be found by [`Reason::Unrouted`](crate::storage::Reason::Unrouted).
    #[default]
    Succeed,
    /// As a failed attempt, which is retried by the policy `publish_retry`.
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

/// The minimum of [`CapOptions::receive_bytes`]. With less, messages of ordinary size would be received one at a time.
const LEAST_RECEIVE_BYTES: usize = 64 * 1024;

impl CapOptions {
    /// Checks all options, so that a mistake is found at the start.
    ///
    /// # Errors
    ///
    /// [`StartError::Option`] with the first option that is out of range.
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

    /// The worker id from the option, or from the environment variable `CAP_WORKERID`.
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

    /// A topic with its prefix.
    pub(crate) fn full_topic(&self, topic: &str) -> String {
        match &self.topic_prefix {
            Some(prefix) => format!("{prefix}.{topic}"),
            None => topic.to_owned(),
        }
    }

    /// The callback topic as a sender writes it into the header.
    pub(crate) fn written_callback(&self, topic: &str) -> String {
        if self.dotnet_callback_prefix { topic.to_owned() } else { self.full_topic(topic) }
    }

    /// The topic that a reply is published to, for a callback topic as it is written in the header.
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
    fn defaults_are_those_of_cap_and_valid() {
        let options = CapOptions::default();
        options.validate().unwrap();
        assert_eq!(options.succeeded_expire_after.as_secs(), 86_400);
        assert_eq!(options.failed_expire_after.as_secs(), 1_296_000);
        assert_eq!(options.collector_interval.as_secs(), 300);
        assert_eq!(options.version, "v1");
        assert!(options.default_group.starts_with("cap.queue."));
    }

    #[test]
    fn options_round_trip_through_json_and_unknown_keys_fail() {
        let options = CapOptions::default();
        let text = serde_json::to_string(&options).unwrap();
        assert_eq!(serde_json::from_str::<CapOptions>(&text).unwrap(), options);
        let error = serde_json::from_str::<CapOptions>(r#"{"verison": "v2"}"#).unwrap_err().to_string();
        assert!(error.contains("verison") && error.contains("version"), "{error}");
        assert!(serde_json::from_str::<CapOptions>(r#"{"lease": "soon"}"#).is_err());
    }

    #[test]
    fn validate_names_the_option_that_is_out_of_range() {
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
    fn full_names_are_composed_as_in_cap() {
        let mut options = CapOptions { default_group: "cap.queue.orders".into(), ..CapOptions::default() };
        assert_eq!(options.full_group(None), "cap.queue.orders.v1");
        options.group_prefix = Some("eu".into());
        options.topic_prefix = Some("shop".into());
        assert_eq!(options.full_group(Some("billing")), "eu.billing.v1");
        assert_eq!(options.full_topic("order.created"), "shop.order.created");
    }
}
