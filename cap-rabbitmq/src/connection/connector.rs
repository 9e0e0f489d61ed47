//! Opens connections to the broker: when first needed, and again when they are broken.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use cap_adapter::error::TransportError;
use lapin::tcp::OwnedTLSConfig;
use lapin::types::LongString;
use lapin::uri::AMQPScheme;
use lapin::{AsyncTcpStream, Connection, ConnectionProperties};
use tokio::sync::Mutex;
use tokio::time::timeout;
use tracing::{debug, info};

use crate::connection::address::{Address, Host};
use crate::connection::credential_renewal::renew;
use crate::connection::credentials::Provider;
use crate::connection::link::Link;
use crate::driver_fixes::dial::dial;
use crate::driver_fixes::log_filter::LogFilter;
use crate::driver_fixes::socket::{self, Control};
use crate::error::{text, unavailable};

/// What is needed to connect.
#[derive(Clone)]
pub(crate) struct ConnectSettings {
    pub(crate) address: Address,
    /// Asked for user and password at each connect, instead of those of the address.
    pub(crate) provider: Option<Provider>,
    pub(crate) tls: OwnedTLSConfig,
    pub(crate) timeout: Duration,
    pub(crate) heartbeat_seconds: u16,
    /// The name of the connection in the broker's list.
    pub(crate) name: String,
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
        // A broken one is of no use, and must not stay open.
        if let Some(broken) = slot.take().filter(|link| !link.is_usable()) {
            broken.cut();
        }
        // Boxed, since it is large and rarely needed: a future is as large as the largest it may await.
        let link = Arc::new(Box::pin(self.connect_to_any()).await?);
        *slot = Some(Arc::clone(&link));
        Ok(link)
    }

    /// The open connection, if there is one and no other is being opened.
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
        let (connection, control) = (Arc::clone(link.connection()), link.control().clone());
        link.renew_by(renew(connection, control, provider.clone(), credentials, limit));
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
        // However this attempt ends, also when it is dropped halfway, lapin's thread does not outlive it.
        let attempt = CutOnDrop(Some(control.clone()));
        let (opening, log_filter) = (control.clone(), LogFilter::current(control.expected_closes()));
        // As with the hosts: moved on before the attempt, and back after a success.
        let turn = self.next_address.fetch_add(1, Ordering::Relaxed);
        let limit = settings.timeout;
        let tls = settings.tls.clone();
        let connector = Connection::connector(
            uri,
            socket::runtime(log_filter.clone()),
            async move |uri, _| {
                // lapin calls this on its own thread, before anything is logged there that matters.
                log_filter.clone().install();
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
        Ok(Link::new(Arc::new(connection), control))
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

/// The error of a failed attempt to connect. Rejected logins and certificates need operator action.
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
