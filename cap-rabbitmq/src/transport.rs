//! The transport itself: its builder, and what the bus calls.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cap_adapter::error::TransportError;
use cap_adapter::message::Message;
use cap_adapter::transport::{BrokerDelay, Delayed, GroupSpec, Sent, Transport, TransportContext};
use cap_adapter::{BoxError, BoxFuture, UnverifiedTransport};

use crate::connection::credentials::{Credentials, Provider};
use crate::connection::identity::ClientIdentity;
use crate::consume::consumer::RabbitMqConsumer;
use crate::error::{NAME, unusable};
use crate::options::{QueueType, RabbitMqOptions};
use crate::start::Started;

/// A RabbitMQ broker, or a cluster of them, as the transport of a bus.
///
/// Nothing is connected, and no setting is looked at, before the bus starts.
pub struct RabbitMq {
    options: RabbitMqOptions,
    provider: Option<Provider>,
    started: OnceLock<Started>,
}

impl RabbitMq {
    /// A transport for the broker at `amqp://user:password@host:5672/vhost`; see [`RabbitMqOptions::url`]. With an
    /// invalid URL the bus does not start.
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

    /// Asks for user and password, or a token, at each connect, instead of those of the URL.
    ///
    /// The provider has `connect_timeout` to answer; its future may be dropped before it ends. It is asked again before the
    /// credentials [expire](Credentials::expires_in), and the broker gets the new ones on the open connection
    /// (`update-secret`); if they belong to another user, the connection is replaced. A provider that fails, or whose
    /// credentials the broker rejects, is an outage: it is logged as an error, messages wait, and the next attempt asks
    /// again.
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

    /// Sets how often both sides send a heartbeat: [`RabbitMqOptions::heartbeat`].
    #[must_use]
    pub fn heartbeat(mut self, interval: Duration) -> Self {
        self.options.heartbeat = interval;
        self
    }

    pub(crate) fn options(&self) -> &RabbitMqOptions {
        &self.options
    }

    pub(crate) fn started(&self) -> Result<&Started, TransportError> {
        self.started.get().ok_or_else(|| unusable("this transport was used before a bus started it"))
    }
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

    /// Rejects what AMQP cannot carry: too long names, and headers that do not fit into a frame; and the headers `CC` and
    /// `BCC`, which RabbitMQ takes as lists only.
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

    fn broker_delay(&self) -> Option<&dyn BrokerDelay> {
        Some(self)
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

impl BrokerDelay for RabbitMq {
    fn delay<'a>(&'a self, messages: &'a [Delayed]) -> BoxFuture<'a, Vec<Result<(), TransportError>>> {
        Box::pin(async move {
            match self.started() {
                Ok(started) => started.delayer.delay(messages).await,
                Err(error) => messages.iter().map(|_| Err(error.clone())).collect(),
            }
        })
    }

    /// Not for groups that .NET services may share: all of them consume the queue that a copy returns to, and they do not
    /// know the row that it stands for. Those are the queues that are declared for .NET services, and those that existed
    /// with other properties than this bus declares.
    fn delays_retries_of(&self, group: &str) -> bool {
        !self.options.dotnet_queues
            && self.started.get().is_some_and(|started| started.topology.own_queues.contains(group))
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
