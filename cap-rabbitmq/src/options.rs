//! The settings of the transport, as a program or a configuration file gives them.

use std::fmt;
use std::time::Duration;

use cap_adapter::UnverifiedTransport;
use serde::{Deserialize, Serialize};

use crate::connection::address::{redacted, redacted_host};
use crate::connection::identity::ClientIdentity;

/// Which kind of queue is declared for a group that has none yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum QueueType {
    /// Replicated in a cluster, and the faster kind under load even on one node.
    #[default]
    Quorum,
    /// A queue of one node; it survives that node's restart, but not its loss.
    Classic,
}

/// Every setting of [`RabbitMq`](crate::RabbitMq), with its default.
///
/// ```
/// use cap_rabbitmq::{QueueType, RabbitMqOptions};
///
/// let options: RabbitMqOptions = serde_json::from_str(
///     r#"{ "url": "amqps://shop:secret@rabbit.example/orders", "queue_type": "classic", "confirm_timeout": "5s" }"#,
/// )?;
/// assert_eq!(options.queue_type, QueueType::Classic);
/// assert!(!format!("{options:?}").contains("secret"));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RabbitMqOptions {
    /// `amqp://user:password@host:5672/vhost`, or `amqps://` for TLS. Several hosts of one cluster may stand
    /// there, separated by commas; they are tried in turn. Without a vhost, or with an empty one, it is `/`. A
    /// special character in the password or the vhost is percent-encoded. All headers of a message go into one
    /// frame; where the broker's `frame_max` was raised for their sake, say the same here with `?frame_max=` (default
    /// 131072, at most 1048576). Default: `amqp://localhost`.
    pub url: String,
    /// More hosts of the same cluster, each `host` or `host:port`, tried after those of the url. Default: none.
    pub hosts: Vec<String>,
    /// Certificates of authorities that are trusted in addition to those of the operating system, as PEM text. For an
    /// `amqps://` broker with a certificate of your own authority. Default: none.
    pub ca_certificates: Option<String>,
    /// The certificate that this program shows to an `amqps://` broker that asks for one. Default: none.
    pub identity: Option<ClientIdentity>,
    /// Logs in by that certificate (SASL `EXTERNAL`, the broker's plugin `rabbitmq_auth_mechanism_ssl`) instead of user
    /// and password. Default: false.
    pub certificate_login: bool,
    /// What to do about plain `amqp://` to another host, where the network can read the password and the messages: `warn`, `error` (the bus does not start) or `accept`. Default: `warn`.
    pub unverified_transport: UnverifiedTransport,
    /// The topic exchange that all messages go through. A bus of a version other than `v1` uses
    /// `<exchange>.<version>`. Default: `cap.default.router`, as .NET CAP.
    pub exchange: String,
    /// The kind of queue to declare for a group that has none. A queue that is there is joined as it is.
    /// Default: [`QueueType::Quorum`].
    pub queue_type: QueueType,
    /// Declares missing queues exactly as .NET CAP does: classic, with a message time to live of ten days, after
    /// which the broker **drops a message silently**. For groups that .NET services are going to join; they refuse
    /// a queue with any other arguments. Overrides `queue_type`. The storage then keeps retries, also with
    /// `retry = broker(..)`: a .NET service of the same group would handle the returning copy too. Default: false.
    pub dotnet_queues: bool,
    /// How long a message may wait in a queue declared here before the broker drops it. Default: for ever.
    #[serde(with = "humantime_serde")]
    pub message_ttl: Option<Duration>,
    /// How long the broker may take to confirm what was sent to it, or to answer a declaration. Past it the
    /// outcome is unknown and the bus sends again. Very large bodies get some seconds on top. At most a day.
    /// Default: 10 s.
    #[serde(with = "humantime_serde")]
    pub confirm_timeout: Duration,
    /// How long connecting to one host may take, all of its addresses and the login included. At most a day.
    /// Default: 5 s.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// How often both sides send a heartbeat; a connection that is silent for twice as long is closed. Whole seconds;
    /// the broker's own setting counts if it is shorter, or if this is 0. A `heartbeat` in the url's query comes
    /// before this one. Default: 20 s.
    #[serde(with = "humantime_serde")]
    pub heartbeat: Duration,
}

impl Default for RabbitMqOptions {
    fn default() -> Self {
        Self {
            url: "amqp://localhost".to_owned(),
            hosts: Vec::new(),
            ca_certificates: None,
            identity: None,
            certificate_login: false,
            unverified_transport: UnverifiedTransport::default(),
            exchange: "cap.default.router".to_owned(),
            queue_type: QueueType::default(),
            dotnet_queues: false,
            message_ttl: None,
            confirm_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
            heartbeat: Duration::from_secs(20),
        }
    }
}

impl fmt::Debug for RabbitMqOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitMqOptions")
            .field("url", &redacted(&self.url))
            .field("hosts", &self.hosts.iter().map(|host| redacted_host(host)).collect::<Vec<_>>())
            .field("ca_certificates", &self.ca_certificates.as_ref().map(|_| "given"))
            .field("identity", &self.identity)
            .field("certificate_login", &self.certificate_login)
            .field("unverified_transport", &self.unverified_transport)
            .field("exchange", &self.exchange)
            .field("queue_type", &self.queue_type)
            .field("dotnet_queues", &self.dotnet_queues)
            .field("message_ttl", &self.message_ttl)
            .field("confirm_timeout", &self.confirm_timeout)
            .field("connect_timeout", &self.connect_timeout)
            .field("heartbeat", &self.heartbeat)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_password_however_odd_the_url() {
        for url in [
            "amqp://shop:s3cret@rabbit/orders",
            "amqp://shop:s3cret@a:1,b:2",
            "amqp://shop:s3cret/x@rabbit/orders",
            "amqp://shop:s3cret",
            "shop:s3cret@rabbit",
            "http://shop:s3cret@rabbit",
            "s3cret",
        ] {
            let options = RabbitMqOptions { url: url.to_owned(), ..RabbitMqOptions::default() };
            assert!(!format!("{options:?}").contains("s3cret"), "{options:?}");
        }
    }

    #[test]
    fn an_unknown_option_is_an_error() {
        let error = serde_json::from_str::<RabbitMqOptions>(r#"{"exchnage":"x"}"#).unwrap_err();
        assert!(error.to_string().contains("exchnage"), "{error}");
    }

    #[test]
    fn options_survive_a_round_trip() {
        let options =
            RabbitMqOptions { message_ttl: Some(Duration::from_secs(90)), ..RabbitMqOptions::default() };
        let text = serde_json::to_string(&options).unwrap();
        assert_eq!(serde_json::from_str::<RabbitMqOptions>(&text).unwrap(), options);
    }
}
