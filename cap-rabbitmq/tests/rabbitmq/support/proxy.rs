//! A TCP proxy before the broker: cuts connections, holds them up, and speaks in the broker's name.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What the proxy is told; every connection follows the latest order.
#[derive(Clone, Default)]
struct Order {
    /// Connections of an older generation are cut.
    generation: usize,
    stalled: bool,
    /// Methods of the clients that hold this are not passed on, as if whatever they name did not answer.
    swallow: Option<String>,
    /// From the first of these methods on the broker's answers are kept back, until as many have been sent.
    together: Option<([u8; 4], usize)>,
    /// What the clients write first of these becomes the second, which is of the same length.
    rename: Option<(Vec<u8>, Vec<u8>)>,
    /// Bytes to be written to the clients once, and the number of this injection.
    inject: (usize, Vec<u8>),
}

pub(crate) struct Proxy {
    pub(crate) port: u16,
    orders: watch::Sender<Order>,
    accepted: Arc<AtomicUsize>,
    from_clients: Arc<Mutex<Vec<Vec<u8>>>>,
    _task: JoinSet<()>,
}

impl Proxy {
    /// Listens on a free port and passes on to the broker of the tests.
    pub(crate) async fn start() -> Self {
        Self::start_as(None).await
    }

    /// Makes the broker out to be of another major version, of one digit.
    pub(crate) async fn start_as(version: Option<u8>) -> Self {
        let target: lapin::uri::AMQPUri = super::amqp_url().parse().unwrap();
        let target = format!("{}:{}", target.authority.host, target.authority.port);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let orders = watch::Sender::new(Order::default());
        let accepted = Arc::new(AtomicUsize::new(0));
        let from_clients = Arc::<Mutex<Vec<Vec<u8>>>>::default();
        let mut task = JoinSet::new();
        let (count, record, follow) = (Arc::clone(&accepted), Arc::clone(&from_clients), orders.clone());
        task.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let number = count.fetch_add(1, Ordering::SeqCst);
                record.lock().unwrap().push(Vec::new());
                let server = TcpStream::connect(&target).await.unwrap();
                connections.spawn(pass(
                    client,
                    server,
                    follow.subscribe(),
                    Arc::clone(&record),
                    number,
                    version,
                ));
            }
        });
        Self { port, orders, accepted, from_clients, _task: task }
    }

    /// The tests' url, by way of this proxy.
    pub(crate) fn url(&self) -> String {
        let mut uri: lapin::uri::AMQPUri = super::amqp_url().parse().unwrap();
        "127.0.0.1".clone_into(&mut uri.authority.host);
        uri.authority.port = self.port;
        uri.to_string()
    }

    /// Closes every connection there is. New ones are accepted.
    pub(crate) fn cut(&self) {
        self.orders.send_modify(|order| order.generation += 1);
    }

    /// Passes nothing on any more, in neither direction, or does so again.
    pub(crate) fn stall(&self, stalled: bool) {
        self.orders.send_modify(|order| order.stalled = stalled);
    }

    /// Keeps back the methods that name something.
    pub(crate) fn swallow(&self, name: &str) {
        self.orders.send_modify(|order| order.swallow = Some(name.to_owned()));
    }

    /// Replaces what the clients say by something else of the same length, which must not begin with the last byte of
    /// a frame.
    pub(crate) fn rename(&self, from: &[u8], to: &[u8]) {
        assert_eq!(from.len(), to.len());
        self.orders.send_modify(|order| order.rename = Some((from.to_vec(), to.to_vec())));
    }

    /// Makes the broker answer a method only once so many of them have been sent.
    pub(crate) fn answer_together(&self, class: u16, method: u16, count: usize) {
        self.orders.send_modify(|order| order.together = Some((name(class, method), count)));
    }

    /// Says something to every client in the broker's name. The connections must be idle.
    pub(crate) fn inject(&self, bytes: &[u8]) {
        self.orders.send_modify(|order| order.inject = (order.inject.0 + 1, bytes.to_vec()));
    }

    /// How many connections were ever made.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// How many method frames of a class and method the clients have sent.
    pub(crate) fn count_methods(&self, class: u16, method: u16) -> usize {
        self.from_clients.lock().unwrap().iter().map(|bytes| count_in(bytes, name(class, method))).sum()
    }
}

fn name(class: u16, method: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (class.to_be_bytes(), method.to_be_bytes());
    [a, b, c, d]
}

/// How many frames of a method a client's stream holds.
fn count_in(bytes: &[u8], wanted: [u8; 4]) -> usize {
    let (mut at, mut count) = (8, 0);
    while at + 11 <= bytes.len() {
        let size = u32::from_be_bytes(bytes[at + 3..at + 7].try_into().unwrap());
        count += usize::from(bytes[at] == 1 && bytes[at + 7..at + 11] == wanted);
        at += usize::try_from(size).unwrap() + 8;
    }
    count
}

async fn pass(
    mut client: TcpStream,
    mut server: TcpStream,
    mut orders: watch::Receiver<Order>,
    record: Arc<Mutex<Vec<Vec<u8>>>>,
    number: usize,
    version: Option<u8>,
) {
    let mut order = orders.borrow_and_update().clone();
    let mut from_client = vec![0; 64 * 1024];
    let mut from_server = vec![0; 64 * 1024];
    // The beginning of something to be renamed.
    let mut held = Vec::new();
    loop {
        let kept_back = order.together.is_some_and(|(method, count)| {
            (1..count).contains(&count_in(&record.lock().unwrap()[number], method))
        });
        tokio::select! {
            changed = orders.changed() => {
                let Ok(()) = changed else { return };
                let new = orders.borrow_and_update().clone();
                if new.generation != order.generation {
                    return;
                }
                if new.inject.0 != order.inject.0 && client.write_all(&new.inject.1).await.is_err() {
                    return;
                }
                order = new;
            }
            read = client.read(&mut from_client), if !order.stalled => {
                let Ok(length @ 1..) = read else { return };
                record.lock().unwrap()[number].extend_from_slice(&from_client[..length]);
                let mut bytes = std::mem::take(&mut held);
                bytes.extend_from_slice(&from_client[..length]);
                if let Some((from, to)) = &order.rename {
                    held = rename(&mut bytes, from, to);
                }
                if let Some(name) = &order.swallow {
                    bytes = without(&bytes, name.as_bytes());
                }
                if server.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            read = server.read(&mut from_server), if !order.stalled && !kept_back => {
                let Ok(length @ 1..) = read else { return };
                if let Some(version) = version {
                    const FIELD: &[u8] = b"\x07versionS\0\0\0";
                    if let Some(at) = from_server[..length].windows(FIELD.len()).position(|some| some == FIELD) {
                        // Behind the field stands the last byte of the text's length.
                        from_server[at + FIELD.len() + 1] = b'0' + version;
                    }
                }
                if client.write_all(&from_server[..length]).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Replaces every occurrence, and takes from the end what may be the beginning of one more.
fn rename(bytes: &mut Vec<u8>, from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut at = 0;
    while at + from.len() <= bytes.len() {
        if bytes[at..].starts_with(from) {
            bytes[at..at + to.len()].copy_from_slice(to);
            at += to.len();
        } else {
            at += 1;
        }
    }
    let begun = (1..from.len()).rev().find(|length| bytes.ends_with(&from[..*length])).unwrap_or(0);
    bytes.split_off(bytes.len() - begun)
}

/// Whole frames, less the methods that hold a name.
fn without(bytes: &[u8], name: &[u8]) -> Vec<u8> {
    let (mut at, mut left) = (0, Vec::new());
    while at + 8 <= bytes.len() {
        let size = u32::from_be_bytes(bytes[at + 3..at + 7].try_into().unwrap());
        let end = (at + usize::try_from(size).unwrap() + 8).min(bytes.len());
        let frame = &bytes[at..end];
        if frame[0] != 1 || !frame.windows(name.len()).any(|some| some == name) {
            left.extend_from_slice(frame);
        }
        at = end;
    }
    left.extend_from_slice(&bytes[at..]);
    left
}
