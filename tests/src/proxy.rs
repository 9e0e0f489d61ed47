//! A network between the bus and a server that can be cut and repaired.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::patience::until;

/// Passes connections on to a server while it is up; while it is down, it ends those there are and takes no others.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    up: Arc<watch::Sender<bool>>,
    spoken: Arc<AtomicU64>,
    /// Each connection has a clone.
    connections: Arc<()>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// A network to the server of this URL that is down at first.
    pub async fn down(url: &str) -> Self {
        let server = host_and_port(url).to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let up = Arc::new(watch::Sender::new(false));
        let spoken = Arc::new(AtomicU64::new(0));
        let connections = Arc::new(());
        let counted = Arc::clone(&connections);
        let task = tokio::spawn(pass_on(listener, server, Arc::clone(&up), Arc::clone(&spoken), counted));
        Self { address, up, spoken, connections, task }
    }

    /// How often the clients have spoken so far: at least once for each round trip.
    #[must_use]
    pub fn spoken(&self) -> u64 {
        self.spoken.load(Ordering::Relaxed)
    }

    /// The URL by which the server is reached through this.
    #[must_use]
    pub fn url(&self, url: &str) -> String {
        url.replacen(host_and_port(url), &self.address.to_string(), 1)
    }

    /// Lets connections through.
    pub fn mend(&self) {
        self.up.send_replace(true);
    }

    /// Ends all connections that there are now.
    pub async fn break_off(&self) {
        self.cut();
        // One is ours and one the task's.
        until("all connections have ended", async || {
            (Arc::strong_count(&self.connections) == 2).then_some(())
        })
        .await;
        self.mend();
    }

    /// Ends all connections, and every new one as soon as it is made.
    pub fn cut(&self) {
        self.up.send_replace(false);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass_on(
    listener: TcpListener,
    server: String,
    up: Arc<watch::Sender<bool>>,
    spoken: Arc<AtomicU64>,
    connections: Arc<()>,
) {
    while let Ok((mut client, _)) = listener.accept().await {
        let mut up = up.subscribe();
        let (server, spoken, connection) = (server.clone(), Arc::clone(&spoken), Arc::clone(&connections));
        tokio::spawn(async move {
            if !*up.borrow_and_update() {
                return;
            }
            let Ok(server) = TcpStream::connect(server).await else { return };
            let mut server = Counted { server, spoken };
            tokio::select! {
                _ = copy_bidirectional(&mut client, &mut server) => {}
                _ = up.wait_for(|up| !up) => {}
            }
            drop(connection);
        });
    }
}

/// A connection to the server that counts what is written to it.
struct Counted {
    server: TcpStream,
    spoken: Arc<AtomicU64>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.server).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.server).poll_write(cx, buf);
        if matches!(written, Poll::Ready(Ok(_))) {
            self.spoken.fetch_add(1, Ordering::Relaxed);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.server).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.server).poll_shutdown(cx)
    }
}

fn host_and_port(url: &str) -> &str {
    let after = url.split_once("://").map_or(url, |(_, after)| after);
    let authority = after.split(['/', '?']).next().unwrap_or(after);
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}
