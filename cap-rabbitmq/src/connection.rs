//! Connections to the broker: opened when first needed, opened anew once they are broken.

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use cap_adapter::error::TransportError;
use lapin::tcp::OwnedTLSConfig;
use lapin::types::LongString;
use lapin::uri::AMQPScheme;
use lapin::{AsyncTcpStream, Channel, ChannelStatus, Connection, ConnectionProperties};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{debug, info};

use crate::address::{Address, Host};
use crate::credentials::Provider;
use crate::dial::dial;
use crate::error::{text, unavailable};
use crate::expected::ExpectedCloses;
use crate::greeting::Broker;
use crate::quiet::Quiet;
use crate::renewal::renew;
use crate::socket::{self, Control};

/// How long saying goodbye may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long closing the channels before that may take, and how often it is looked at.
const CHANNELS_TIMEOUT: Duration = Duration::from_millis(500);
const CHANNELS_POLL: Duration = Duration::from_millis(5);

/// What is needed to connect.
#[derive(Clone)]
pub(crate) struct ConnectSettings {
    pub(crate) address: Address,
    /// Asked for user and password at each connect, in the place of those of the address.
    pub(crate) provider: Option<Provider>,
    pub(crate) tls: OwnedTLSConfig,
    pub(crate) timeout: Duration,
    pub(crate) heartbeat_seconds: u16,
    /// What the broker shows of us in its list of connections.
    pub(crate) name: String,
}

/// One connection. It is never repaired: once broken, it is replaced.
pub(crate) struct Link {
    connection: Arc<Connection>,
    control: Control,
    retired: AtomicBool,
    /// Of the channels that may still be open.
    channels: StdMutex<Vec<ChannelStatus>>,
    /// Renews the credentials, for as long as somebody has the connection.
    renewal: JoinSet<()>,
}

impl Link {
    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The longest frame that both sides take.
    pub(crate) fn max_frame(&self) -> usize {
        usize::try_from(self.connection.configuration().frame_max()).unwrap_or(usize::MAX)
    }

    /// Whether the broker drops a message of a quorum queue that it delivered often, unless the queue says not to.
    pub(crate) fn limits_deliveries(&self) -> bool {
        self.control.broker().is_some_and(Broker::limits_deliveries)
    }

    /// Where to note that the broker may close a channel.
    pub(crate) fn expected_closes(&self) -> &ExpectedCloses {
        self.control.expected_closes()
    }

    pub(crate) fn is_usable(&self) -> bool {
        self.connection.status().connected() && !self.control.is_cut()
    }

    /// Gives it no more channels. Those that it has go on, and it ends with the last of them.
    ///
    /// lapin never uses the number of a channel again that the broker closed: it takes every later channel of that
    /// number for the closed one. So a connection has room for so many failures only, `channel_max`.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    fn takes_channels(&self) -> bool {
        self.is_usable() && !self.retired.load(Ordering::Relaxed)
    }

    /// Ends the connection at once, with all that still waits to be sent on it.
    pub(crate) fn cut(&self) {
        self.control.cut();
    }

    /// A channel that was opened on this connection.
    pub(crate) fn note(&self, channel: &Channel) {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        channels.retain(is_open);
        channels.push(channel.status().clone());
    }

    fn has_open_channels(&self) -> bool {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner).iter().any(is_open)
    }

    /// Waits until lapin has closed the channels that were dropped. It does so in its own time, and takes it for an error
    /// of the connection, which it logs, if that is closed first. It tells of it by no event.
    async fn channels_closed(&self) {
        while self.is_usable() && self.has_open_channels() {
            sleep(CHANNELS_POLL).await;
        }
    }

    async fn close(&self) {
        // One that somebody still has is not waited for any longer.
        let _ = timeout(CHANNELS_TIMEOUT, self.channels_closed()).await;
        match timeout(CLOSE_TIMEOUT, self.connection.close(200, "closing".into())).await {
            // lapin's thread ends by itself; cut now, it would log an error about its socket.
            Ok(Ok(())) => return,
            // Whoever closes races with channels that close themselves, and with the broker going away.
            Ok(Err(error)) => debug!(error = text(&error), "a RabbitMQ connection did not close cleanly"),
            Err(_) => debug!("RabbitMQ did not answer the closing of a connection in time"),
        }
        self.cut();
    }
}

/// Keeps one connection open for one purpose.
pub(crate) struct Connector {
    settings: ConnectSettings,
    link: Mutex<Option<Arc<Link>>>,
    /// The host to try next. A host that failed is not the first to be tried again.
    next_host: AtomicUsize,
    /// Which address of a host comes first.
    next_address: AtomicUsize,
    closed: AtomicBool,
}

impl Connector {
    pub(crate) fn new(settings: ConnectSettings) -> Self {
        Self {
            settings,
            link: Mutex::new(None),
            next_host: AtomicUsize::new(0),
            next_address: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
        }
    }

    /// A connection that takes channels, opened if there is none. Callers wait for one another's attempt; the caller sets
    /// the time limit, and each host has its own.
    pub(crate) async fn link(&self) -> Result<Arc<Link>, TransportError> {
        let mut slot = self.link.lock().await;
        if self.closed.load(Ordering::Acquire) {
            return Err(unavailable("this transport has been closed"));
        }
        if let Some(link) = slot.as_ref().filter(|link| link.takes_channels()) {
            return Ok(Arc::clone(link));
        }
        // A broken one is not needed for anything, and must not linger.
        if let Some(broken) = slot.take().filter(|link| !link.is_usable()) {
            broken.cut();
        }
        // Boxed, since it is large and rarely needed: a future is as large as the largest it may await.
        let link = Arc::new(Box::pin(self.connect_to_any()).await?);
        *slot = Some(Arc::clone(&link));
        Ok(link)
    }

    /// The connection that stands, if there is one and nobody is opening another.
    pub(crate) fn current(&self) -> Option<Arc<Link>> {
        self.link.try_lock().ok()?.as_ref().filter(|link| link.is_usable()).cloned()
    }

    async fn connect_to_any(&self) -> Result<Link, TransportError> {
        let Some(provider) = &self.settings.provider else {
            return self.connect_with(&self.settings.address).await;
        };
        let limit = self.settings.timeout;
        let credentials = provider.ask(limit).await?;
        let mut link = self
            .connect_with(&self.settings.address.with_credentials(&credentials.user, &credentials.secret))
            .await?;
        let (connection, control) = (Arc::clone(&link.connection), link.control.clone());
        link.renewal.spawn(renew(connection, control, provider.clone(), credentials, limit));
        Ok(link)
    }

    async fn connect_with(&self, address: &Address) -> Result<Link, TransportError> {
        let hosts = address.hosts();
        let mut last = None;
        for _ in hosts {
            let next = self.next_host.load(Ordering::Relaxed) % hosts.len();
            // Moved on before the attempt, so that an attempt that the caller gives up counts as failed.
            self.next_host.store(next + 1, Ordering::Relaxed);
            let host = &hosts[next];
            match self.connect(address, host).await {
                Ok(link) => {
                    self.next_host.store(next, Ordering::Relaxed);
                    info!(%host, name = self.settings.name, "connected to RabbitMQ");
                    return Ok(link);
                }
                Err(error) => {
                    debug!(%host, name = self.settings.name, %error, "could not connect to RabbitMQ");
                    last = Some(error);
                }
            }
        }
        Err(last.unwrap_or_else(|| unavailable("there is no host to connect to")))
    }

    async fn connect(&self, address: &Address, host: &Host) -> Result<Link, TransportError> {
        let settings = &self.settings;
        let uri = address.uri(host, settings.heartbeat_seconds);
        let control = Control::default();
        // Whatever becomes of this attempt, dropped halfway included, lapin's thread does not outlive it.
        let attempt = CutOnDrop(Some(control.clone()));
        let (opening, quiet) = (control.clone(), Quiet::current(control.expected_closes()));
        // As with the hosts: moved on before the attempt, and back after a success.
        let turn = self.next_address.fetch_add(1, Ordering::Relaxed);
        let limit = settings.timeout;
        let tls = settings.tls.clone();
        let connector = Connection::connector(
            uri,
            socket::runtime(),
            async move |uri, _| {
                // lapin calls this on its own thread, before anything is logged there that matters.
                quiet.clone().count_here();
                let runtime = async_rs::Runtime::tokio_current();
                let host = &uri.authority.host;
                let connect = async {
                    let dialled = dial(host, uri.authority.port, turn, limit, async |address| {
                        AsyncTcpStream::connect(&runtime, address).await
                    });
                    match uri.scheme {
                        AMQPScheme::AMQP => dialled.await,
                        AMQPScheme::AMQPS => dialled.await?.into_tls(host, tls.as_ref()).await,
                    }
                };
                Ok(opening.socket(opening.unless_cut(connect).await?).into_stream())
            },
            ConnectionProperties::default().with_connection_name(LongString::from(settings.name.as_str())),
        );
        let connection = match timeout(limit, connector).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return Err(refusal(address, host, &error)),
            Err(_) => {
                return Err(unavailable(format!("{host} did not answer within connect_timeout ({limit:?})")));
            }
        };
        attempt.succeeded();
        self.next_address.store(turn, Ordering::Relaxed);
        let connection = Arc::new(connection);
        let link = Link {
            connection,
            control,
            retired: AtomicBool::new(false),
            channels: StdMutex::default(),
            renewal: JoinSet::new(),
        };
        link.control.set_max_frame(link.max_frame());
        Ok(link)
    }

    /// Closes the connection; no other is opened afterwards.
    pub(crate) async fn close(&self) {
        self.closed.store(true, Ordering::Release);
        // An attempt to connect may hold the lock, but not for long: each host has its time limit.
        let link = self.link.lock().await.take();
        if let Some(link) = link.filter(|link| link.is_usable()) {
            link.close().await;
        }
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("name", &self.settings.name).finish_non_exhaustive()
    }
}

/// The error of an attempt to connect. What the broker or the certificates object to, only an operator can change.
fn refusal(address: &Address, host: &Host, error: &lapin::Error) -> TransportError {
    let what = text(error);
    let refused =
        |hint: String| unavailable(format!("cannot connect to {host}: {what}; {hint}")).requiring_operator();
    if what.contains("ACCESS_REFUSED") {
        refused(if address.logs_in_by_certificate() {
            "check that the broker knows a user of the certificate's name, and offers EXTERNAL".to_owned()
        } else {
            format!("check user {:?} and its password", address.user())
        })
    } else if what.contains("NOT_ALLOWED") {
        refused(format!("check that user {:?} may use vhost {:?}", address.user(), address.vhost()))
    } else if address.is_tls() {
        let error = unavailable(format!(
            "cannot connect to {host}: {what}; check that this port speaks TLS, of version 1.2 at least, that its \
             certificate is trusted here, and ours there"
        ));
        let objects = what.contains("fatal alert") || what.to_lowercase().contains("certificate");
        if objects { error.requiring_operator() } else { error }
    } else {
        unavailable(format!("cannot connect to {host}: {what}"))
    }
}

fn is_open(channel: &ChannelStatus) -> bool {
    channel.connected() || channel.closing()
}

/// Cuts the connection when an attempt ends without one.
struct CutOnDrop(Option<Control>);

impl CutOnDrop {
    fn succeeded(mut self) {
        self.0 = None;
    }
}

impl Drop for CutOnDrop {
    fn drop(&mut self) {
        if let Some(control) = &self.0 {
            control.cut();
        }
    }
}

/// Waits for a call to the broker, but no longer than it may take.
pub(crate) async fn before<T>(
    deadline: Instant,
    what: &str,
    call: impl Future<Output = Result<T, TransportError>>,
) -> Result<T, TransportError> {
    match timeout_at(deadline, call).await {
        Ok(result) => result,
        Err(_) => Err(unavailable(format!("{what} took longer than confirm_timeout allows"))),
    }
}
