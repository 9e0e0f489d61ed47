//! A network between the nodes and a server that can be made slow, deaf on one side, torn or dead.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// What the network does with what is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// It passes it on.
    Fine,
    /// It passes it on after this time.
    Slow(Duration),
    /// Nothing reaches the server any more; nobody is told.
    DeafServer,
    /// Nothing comes back from the server any more; nobody is told.
    DeafClient,
    /// It passes on so many bytes more, of each connection in each direction, and ends it then: in the middle of
    /// whatever that is.
    Torn(usize),
    /// It ends connections, and every new one as soon as it is made.
    Cut,
}

/// Passes connections on to a server, in a mood.
#[derive(Debug)]
pub struct Network {
    server: String,
    address: SocketAddr,
    mood: Arc<watch::Sender<Mood>>,
    connections: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Network {
    /// A network to the server of this URL.
    pub async fn to(url: &str) -> Self {
        let server = host_and_port(url).to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port for the network");
        let address = listener.local_addr().expect("a port for the network");
        let mood = Arc::new(watch::Sender::new(Mood::Fine));
        let connections = Arc::new(AtomicU64::new(0));
        let task =
            tokio::spawn(accept(listener, server.clone(), Arc::clone(&mood), Arc::clone(&connections)));
        Self { server, address, mood, connections, task }
    }

    /// The URL by which the server is reached through this.
    #[must_use]
    pub fn url(&self, url: &str) -> String {
        url.replacen(&self.server, &self.address.to_string(), 1)
    }

    /// Changes its mood.
    pub fn feel(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }

    /// How many connections were made through it.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(
    listener: TcpListener,
    server: String,
    mood: Arc<watch::Sender<Mood>>,
    connections: Arc<AtomicU64>,
) {
    loop {
        // Too many open files pass.
        let Ok((client, _)) = listener.accept().await else {
            sleep(Duration::from_millis(20)).await;
            continue;
        };
        if *mood.borrow() == Mood::Cut {
            continue;
        }
        connections.fetch_add(1, Ordering::Relaxed);
        let (there, back) = (mood.subscribe(), mood.subscribe());
        let server = server.clone();
        // It ends with either of its sides, which end with the nodes.
        tokio::spawn(async move {
            let Ok(server) = TcpStream::connect(server).await else { return };
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            let (client_in, client_out) = client.into_split();
            let (server_in, server_out) = server.into_split();
            tokio::select! {
                () = pass(client_in, server_out, there, Mood::DeafServer) => {}
                () = pass(server_in, client_out, back, Mood::DeafClient) => {}
            }
        });
    }
}

/// Passes on what comes until either side ends.
async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut mood: watch::Receiver<Mood>,
    deaf: Mood,
) {
    let mut buffer = vec![0; 16 * 1024];
    let mut torn = None;
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            changed = mood.changed() => match changed {
                Ok(()) if *mood.borrow_and_update() != Mood::Cut => continue,
                _ => return,
            },
        };
        let Ok(length @ 1..) = read else { return };
        // What a deaf side is sent waits for the network to be repaired, as in a stalled connection.
        if mood.wait_for(|mood| *mood != deaf).await.is_err() {
            return;
        }
        let now = *mood.borrow_and_update();
        let length = match now {
            Mood::Slow(time) => {
                sleep(time).await;
                length
            }
            Mood::Torn(left) => length.min(*torn.get_or_insert(left)),
            Mood::Cut => return,
            Mood::Fine | Mood::DeafServer | Mood::DeafClient => length,
        };
        if !matches!(now, Mood::Torn(_)) {
            torn = None;
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
        if let Some(left) = &mut torn {
            *left -= length;
            if *left == 0 {
                return;
            }
        }
    }
}

fn host_and_port(url: &str) -> &str {
    let after = url.split_once("://").map_or(url, |(_, after)| after);
    let authority = after.split(['/', '?']).next().unwrap_or(after);
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}
