//! The transport itself: its builder, and what the bus calls.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cap_adapter::error::TransportError;
use cap_adapter::message::Message;
use cap_adapter::transport::{Delayed, GroupSpec, Sent, Transport, TransportContext};
use cap_adapter::{BoxError, UnverifiedTransport};
use lapin::types::ShortString;
use tracing::warn;

use crate::NAME;
use crate::address::Address;
use crate::connection::{ConnectSettings, Connector};
use crate::consumer::RabbitMqConsumer;
use crate::credentials::{Credentials, Provider};
use crate::error::unusable;
use crate::exchange::Joined;
use crate::identity::{self, ClientIdentity};
use crate::options::{QueueType, RabbitMqOptions};
use crate::publisher::Publisher;
use crate::topology::{OwnQueues, Topology};

/// The longest that may be waited for anything: longer makes no sense, and the clock has an end.
const LONGEST_WAIT: Duration = Duration::from_hours(24);

/// The longest time to live that RabbitMQ takes: 2^32 - 1 milliseconds, almost 50 days.
const LONGEST_TTL: Duration = Duration::from_millis(u32::MAX as u64);

/// A RabbitMQ broker, or a cluster of them, as the transport of a bus.
///
/// Nothing is connected, and no setting is looked at, before the bus starts.
pub struct RabbitMq {
    options: RabbitMqOptions,
    provider: Option<Provider>,
    started: OnceLock<Started>,
}

/// What exists once the bus has started.
struct Started {
    publisher: Publisher,
    consumers: Connector,
    topology: Topology,
}

impl RabbitMq {
    /// A transport for the broker at `amqp://user:password@host:5672/vhost`; see [`RabbitMqOptions::url`]. A url
    /// that makes no sense is an error when the bus starts.
    pub fn new(url: impl Into<String>) -> Self {
        Self::with_options(RabbitMqOptions { url: url.into(), ..RabbitMqOptions::default() })
    }

    /// A transport with settings from elsewhere, such as a configuration file.
    #[must_use]
    pub fn with_options(options: RabbitMqOptions) -> Self {
        Self { options, provider: None, started: OnceLock::new() }
    }

    /// Adds more hosts of the same cluster: [`RabbitMqOptions::hosts`].
    #[must_use]
    pub fn hosts<H: Into<String>>(mut self, hosts: impl IntoIterator<Item = H>) -> Self {
        self.options.hosts.extend(hosts.into_iter().map(Into::into));
        self
    }

    /// Trusts more authorities, as PEM text: [`RabbitMqOptions::ca_certificates`].
    #[must_use]
    pub fn ca_certificates(mut self, pem: impl Into<String>) -> Self {
        self.options.ca_certificates = Some(pem.into());
        self
    }

    /// Shows a certificate to a broker that asks for one: [`RabbitMqOptions::identity`].
    #[must_use]
    pub fn identity(mut self, identity: ClientIdentity) -> Self {
        self.options.identity = Some(identity);
        self
    }

    /// Logs in by that certificate: [`RabbitMqOptions::certificate_login`].
    #[must_use]
    pub fn certificate_login(mut self) -> Self {
        self.options.certificate_login = true;
        self
    }

    /// Decides about plain `amqp://` to other hosts: [`RabbitMqOptions::unverified_transport`].
    #[must_use]
    pub fn unverified_transport(mut self, treatment: UnverifiedTransport) -> Self {
        self.options.unverified_transport = treatment;
        self
    }

    /// Asks for user and password, or a token, at each connect, in the place of those of the url.
    ///
    /// The provider has `connect_timeout` to answer and may be dropped half-way. Credentials that
    /// [expire](Credentials::expires_in) are asked for anew before they do, and handed to the broker on the connection
    /// that stands (`update-secret`); where they are another user's, the connection is replaced. A provider that fails,
    /// or gives what the broker refuses, is an outage: it is logged as an error, everything waits, and the next attempt
    /// asks again.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use cap_rabbitmq::{Credentials, RabbitMq};
    ///
    /// # async fn fetch_token() -> Result<String, std::io::Error> { Ok(String::new()) }
    /// let transport = RabbitMq::new("amqps://rabbit.example/orders").credentials(|| async {
    ///     let token = fetch_token().await?;
    ///     Ok(Credentials::token(token).expires_in(Duration::from_secs(300)))
    /// });
    /// # let _ = transport;
    /// ```
    #[must_use]
    pub fn credentials<F, Fut>(mut self, provider: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Credentials, BoxError>> + Send + 'static,
    {
        self.provider = Some(Provider::new(provider));
        self
    }

    /// Uses another exchange: [`RabbitMqOptions::exchange`].
    #[must_use]
    pub fn exchange(mut self, exchange: impl Into<String>) -> Self {
        self.options.exchange = exchange.into();
        self
    }

    /// Chooses the kind of queue to declare: [`RabbitMqOptions::queue_type`].
    #[must_use]
    pub fn queue_type(mut self, queue_type: QueueType) -> Self {
        self.options.queue_type = queue_type;
        self
    }

    /// Declares missing queues exactly as .NET CAP does: [`RabbitMqOptions::dotnet_queues`].
    #[must_use]
    pub fn dotnet_queues(mut self) -> Self {
        self.options.dotnet_queues = true;
        self
    }

    /// Lets messages expire in the queues declared here: [`RabbitMqOptions::message_ttl`].
    #[must_use]
    pub fn message_ttl(mut self, ttl: Duration) -> Self {
        self.options.message_ttl = Some(ttl);
        self
    }

    /// Sets how long the broker may take: [`RabbitMqOptions::confirm_timeout`].
    #[must_use]
    pub fn confirm_timeout(mut self, limit: Duration) -> Self {
        self.options.confirm_timeout = limit;
        self
    }

    /// Sets how long connecting may take: [`RabbitMqOptions::connect_timeout`].
    #[must_use]
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.options.connect_timeout = limit;
        self
    }

    /// Sets how often both sides show that they live: [`RabbitMqOptions::heartbeat`].
    #[must_use]
    pub fn heartbeat(mut self, interval: Duration) -> Self {
        self.options.heartbeat = interval;
        self
    }

    fn started(&self) -> Result<&Started, TransportError> {
        self.started.get().ok_or_else(|| unusable("this transport was used before a bus started it"))
    }
}

impl Started {
    fn new(
        options: &RabbitMqOptions,
        provider: Option<&Provider>,
        context: &TransportContext,
    ) -> Result<Self, TransportError> {
        check(options)?;
        let mut address = Address::parse(&options.url, &options.hosts).map_err(|reason| {
            unusable(format!("the url is not of the form amqp://user:password@host:5672/vhost: {reason}"))
        })?;
        check_tls(options, &address)?;
        check_unverified(options, &address)?;
        if options.certificate_login {
            address.log_in_by_certificate();
        }
        let tls = identity::tls(options.ca_certificates.as_ref(), options.identity.as_ref());
        let topology = Topology {
            exchange: exchange_name(&options.exchange, &context.version)?,
            queue_type: options.queue_type,
            dotnet_queues: options.dotnet_queues,
            message_ttl: options.message_ttl,
            silence: options.confirm_timeout / 2,
            joined: Joined::default(),
            own_queues: OwnQueues::default(),
        };
        let settings = |purpose: &str| ConnectSettings {
            address: address.clone(),
            provider: provider.cloned(),
            tls: tls.clone(),
            timeout: options.connect_timeout,
            heartbeat_seconds: u16::try_from(options.heartbeat.as_secs()).unwrap_or(u16::MAX),
            name: format!("{} ({purpose})", context.node),
        };
        Ok(Self {
            publisher: Publisher::new(settings("publisher"), topology.clone(), options.confirm_timeout),
            consumers: Connector::new(settings("consumers")),
            topology,
        })
    }
}

/// Finds what is out of bounds in the settings.
fn check(options: &RabbitMqOptions) -> Result<(), TransportError> {
    for (name, value) in
        [("confirm_timeout", options.confirm_timeout), ("connect_timeout", options.connect_timeout)]
    {
        if value.is_zero() {
            return Err(unusable(format!("option {name} is 0; nothing could ever be done in that time")));
        }
        if value > LONGEST_WAIT {
            return Err(unusable(format!("option {name} is more than a day; a few seconds are meant")));
        }
    }
    match options.message_ttl {
        Some(_) if options.dotnet_queues => Err(unusable(
            "the options message_ttl and dotnet_queues contradict each other: a queue that is declared as .NET's CAP \
             declares it has that one's time to live; leave one of the two out",
        )),
        Some(ttl) if ttl > LONGEST_TTL || ttl.as_millis() == 0 => {
            Err(unusable("option message_ttl is not between 1 ms and 49 days, as RabbitMQ wants it"))
        }
        _ => Ok(()),
    }
}

/// A certificate that cannot be of use is a mistake better found now than by whoever listens on the wire.
fn check_tls(options: &RabbitMqOptions, address: &Address) -> Result<(), TransportError> {
    match &options.ca_certificates {
        Some(_) if !address.is_tls() => Err(unusable(
            "option ca_certificates is given, but the url is not amqps://: nothing would be encrypted",
        )),
        Some(pem) if !pem.contains("-----BEGIN CERTIFICATE-----") => Err(unusable(
            "option ca_certificates holds no certificate in PEM form; it takes the text, not a path",
        )),
        _ => Ok(()),
    }?;
    match &options.identity {
        None if options.certificate_login => {
            Err(unusable("option certificate_login is set, but no identity is given to log in by"))
        }
        Some(_) if !address.is_tls() => {
            Err(unusable("option identity is given, but the url is not amqps://: nobody would ask for it"))
        }
        Some(identity) => identity::check(identity)
            .map_err(|reason| unusable(format!("option identity cannot be used: {reason}"))),
        None => Ok(()),
    }
}

/// Without TLS everyone on the way to another host reads the password and the messages, and may change them.
fn check_unverified(options: &RabbitMqOptions, address: &Address) -> Result<(), TransportError> {
    if address.is_tls() || options.unverified_transport == UnverifiedTransport::Accept {
        return Ok(());
    }
    let Some(host) = address.hosts().iter().find(|host| !UnverifiedTransport::is_local(&host.name)) else {
        return Ok(());
    };
    if options.unverified_transport == UnverifiedTransport::Error {
        return Err(unusable(format!(
            "the connection to {host} would not be encrypted, and option unverified_transport is \"error\"; use amqps://"
        )));
    }
    warn!(%host, "RabbitMQ connection to another host is not encrypted; use amqps://, or set unverified_transport");
    Ok(())
}

/// The exchange of one version of the bus, as .NET CAP names it.
fn exchange_name(exchange: &str, version: &str) -> Result<ShortString, TransportError> {
    if exchange.is_empty() {
        return Err(unusable("option exchange is empty"));
    }
    let name = if version == "v1" { exchange.to_owned() } else { format!("{exchange}.{version}") };
    ShortString::try_new(name)
        .map_err(|_| unusable("option exchange is longer, with the version, than the 255 bytes AMQP allows"))
}

impl Transport for RabbitMq {
    type Consumer = RabbitMqConsumer;

    fn name(&self) -> &'static str {
        NAME
    }

    fn destination(&self) -> String {
        self.started().map_or_else(
            |_| self.options.exchange.clone(),
            |started| started.publisher.topology.exchange.to_string(),
        )
    }

    fn start(&self, context: &TransportContext) -> Result<(), TransportError> {
        let started = Started::new(&self.options, self.provider.as_ref(), context)?;
        self.started.set(started).map_err(|_| unusable("this transport is used by another bus already"))
    }

    /// What AMQP has no room for: long names, more headers than fit into a frame; and `CC` and `BCC`, which RabbitMQ takes
    /// as lists only.
    fn check_message(&self, message: &Message) -> Result<(), TransportError> {
        self.started()?.publisher.check(message)
    }

    async fn send(&self, messages: &[Arc<Message>]) -> Vec<Result<Sent, TransportError>> {
        match self.started() {
            Ok(started) => started.publisher.send(messages).await,
            Err(error) => messages.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    async fn probe(&self) -> Result<(), TransportError> {
        self.started()?.publisher.probe().await
    }

    fn routing_key_is_topic(&self) -> bool {
        true
    }

    fn can_delay(&self) -> bool {
        true
    }

    /// Not for groups that .NET services may be members of: a copy that comes back is in the queue that all members
    /// share, and a member that is not cap-core knows nothing of the row that it stands for. Those are the queues that are
    /// declared for .NET services, and those that were there, other than this bus would have declared them.
    fn can_delay_retries(&self, group: &str) -> bool {
        !self.options.dotnet_queues
            && self.started.get().is_some_and(|started| started.topology.own_queues.contains(group))
    }

    async fn delay(&self, messages: &[Delayed]) -> Vec<Result<(), TransportError>> {
        match self.started() {
            Ok(started) => started.publisher.delay(messages).await,
            Err(error) => messages.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    async fn consume(&self, spec: &GroupSpec) -> Result<RabbitMqConsumer, TransportError> {
        self.consume_within(spec, usize::MAX).await
    }

    async fn consume_within(
        &self,
        spec: &GroupSpec,
        bytes: usize,
    ) -> Result<RabbitMqConsumer, TransportError> {
        let started = self.started()?;
        let limit = self.options.confirm_timeout;
        RabbitMqConsumer::start(&started.consumers, &started.topology, spec, bytes, limit).await
    }

    async fn close(&self) {
        if let Some(started) = self.started.get() {
            tokio::join!(started.publisher.close(), started.consumers.close());
        }
    }
}

impl fmt::Debug for RabbitMq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitMq")
            .field("options", &self.options)
            .field("provider", &self.provider)
            .field("started", &self.started.get().is_some())
            .finish()
    }
}
