//! A TCP proxy before a server, for tests: it closes, stalls, slows down and changes what passes through it.
//!
//! Every connection follows the state of the [`Network`] as it is at the time; tests that speak the server's protocol
//! change what passes by a [`Rewrite`].

#![allow(clippy::expect_used, reason = "without a port or a server there is no test")]

mod address;
mod connection;
mod network;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::address::{host_and_port, with_default_port};
use crate::connection::Connection;
use crate::network::State;

pub use network::Network;

/// How long a connection may take to end after it was closed here.
const PATIENCE: Duration = Duration::from_mins(2);

/// Changes what passes through the connections, which are numbered from 0 in the order in which they are made.
pub trait Rewrite: Send + Sync + 'static {
    /// What the server gets in the place of these bytes of a client.
    fn to_server(&self, connection: usize, bytes: &[u8]) -> Vec<u8> {
        let _ = connection;
        bytes.to_vec()
    }

    /// What the client gets in the place of these bytes of the server.
    fn to_client(&self, connection: usize, bytes: &[u8]) -> Vec<u8> {
        let _ = connection;
        bytes.to_vec()
    }

    /// Whether the server's bytes wait until the client has sent more.
    fn holds_server(&self, connection: usize) -> bool {
        let _ = connection;
        false
    }
}

/// Passes everything on unchanged.
struct Unchanged;

impl Rewrite for Unchanged {}

/// What the proxy has seen.
#[derive(Debug, Default)]
struct Counts {
    accepted: AtomicUsize,
    client_writes: AtomicU64,
}

/// Listens on a port of its own and passes connections on to a server. It ends, with its connections, when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    state: Arc<watch::Sender<State>>,
    /// How many connections there are now.
    open: watch::Sender<usize>,
    counts: Arc<Counts>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// A proxy before the server of this URL.
    ///
    /// # Panics
    ///
    /// If no port can be had.
    pub async fn start(url: &str) -> Self {
        Self::start_with(url, Network::Up, Unchanged).await
    }

    /// A proxy that refuses connections until it is [`set`](Self::set) otherwise.
    ///
    /// # Panics
    ///
    /// If no port can be had.
    pub async fn start_down(url: &str) -> Self {
        Self::start_with(url, Network::Down, Unchanged).await
    }

    /// A proxy that changes what passes.
    ///
    /// # Panics
    ///
    /// If no port can be had.
    pub async fn start_with(url: &str, network: Network, rewrite: impl Rewrite) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port for the proxy");
        let address = listener.local_addr().expect("a port for the proxy");
        let server = with_default_port(url);
        let state = Arc::new(watch::Sender::new(State::new(network)));
        let (open, counts) = (watch::Sender::new(0), Arc::new(Counts::default()));
        let connections = Acceptor {
            server,
            state: Arc::clone(&state),
            open: open.clone(),
            counts: Arc::clone(&counts),
            rewrite: Arc::new(rewrite),
        };
        let task = tokio::spawn(connections.accept(listener));
        Self { address, state, open, counts, task }
    }

    /// The port that it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// This URL of the server, by way of the proxy.
    #[must_use]
    pub fn url(&self, url: &str) -> String {
        let place = host_and_port(url);
        format!("{}{}{}", &url[..place.start], self.address, &url[place.end..])
    }

    /// Changes the state of the network, for connections that exist too.
    pub fn set(&self, network: Network) {
        self.state.send_modify(|state| state.network = network);
    }

    /// Closes all connections that exist now, without waiting for that. New ones are accepted.
    pub fn close_connections(&self) {
        self.state.send_modify(|state| state.generation += 1);
    }

    /// Closes all connections that exist now and waits until they have ended. New ones are accepted afterwards.
    ///
    /// # Panics
    ///
    /// If they do not end.
    pub async fn break_connections(&self) {
        self.set(Network::Down);
        let ended = async { self.open.subscribe().wait_for(|open| *open == 0).await.map(|_| ()) };
        timeout(PATIENCE, ended).await.expect("closed connections end").expect("the sender is ours");
        self.set(Network::Up);
    }

    /// Writes these bytes to every client, as if the server had sent them. The connections must be idle.
    pub fn write_to_clients(&self, bytes: &[u8]) {
        self.state.send_modify(|state| {
            state.injection += 1;
            state.injected = bytes.into();
        });
    }

    /// How many connections were accepted so far.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.counts.accepted.load(Ordering::SeqCst)
    }

    /// How often clients have written so far: at least once for each round trip.
    #[must_use]
    pub fn client_writes(&self) -> u64 {
        self.counts.client_writes.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.close_connections();
    }
}

/// Accepts connections and has each served by a task of its own.
struct Acceptor<R> {
    server: String,
    state: Arc<watch::Sender<State>>,
    open: watch::Sender<usize>,
    counts: Arc<Counts>,
    rewrite: Arc<R>,
}

impl<R: Rewrite> Acceptor<R> {
    async fn accept(self, listener: TcpListener) {
        loop {
            // Too many open files pass.
            let Ok((client, _)) = listener.accept().await else {
                sleep(Duration::from_millis(20)).await;
                continue;
            };
            if self.state.borrow().network == Network::Down {
                continue;
            }
            // Before the server is reached, so that a connection that cannot be made counts too.
            let number = self.counts.accepted.fetch_add(1, Ordering::SeqCst);
            let state = self.state.subscribe();
            let (server, counts, rewrite) =
                (self.server.clone(), Arc::clone(&self.counts), Arc::clone(&self.rewrite));
            let open = OpenConnection::new(&self.open);
            // It ends with either of its sides, or when it is closed here.
            tokio::spawn(async move {
                if let Ok(server) = TcpStream::connect(&server).await {
                    Connection::new(number, counts, rewrite, state).pass(client, server).await;
                }
                drop(open);
            });
        }
    }
}

/// Counts a connection while it exists.
struct OpenConnection(watch::Sender<usize>);

impl OpenConnection {
    fn new(open: &watch::Sender<usize>) -> Self {
        open.send_modify(|open| *open += 1);
        Self(open.clone())
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}
