//! The proxy before the broker, which understands as much of AMQP as the tests change or count.

use std::sync::{Arc, Mutex, MutexGuard};

use cap_test_proxy::{Network, Rewrite};

/// A network to the broker of the tests.
pub(crate) struct Proxy {
    network: cap_test_proxy::Proxy,
    traffic: Arc<Mutex<Traffic>>,
}

/// What the clients have sent, and what is changed about it.
#[derive(Default)]
struct Traffic {
    /// The bytes of each connection.
    sent: Vec<Vec<u8>>,
    /// The beginning of something to be replaced, of each connection.
    begun: Vec<Vec<u8>>,
    /// Methods that contain this name are not passed on, as if whatever they name did not answer.
    swallow: Option<String>,
    /// From the first of these methods on the broker's answers are kept back, until this many have been sent.
    together: Option<([u8; 4], usize)>,
    /// What is written first of these becomes the second, which is of the same length.
    replace: Option<(Vec<u8>, Vec<u8>)>,
}

/// Changes what passes; `version` is the broker's major version, of one digit, in the place of the real one.
struct AmqpRewrite {
    traffic: Arc<Mutex<Traffic>>,
    version: Option<u8>,
}

impl Proxy {
    pub(crate) async fn start() -> Self {
        Self::start_as(None).await
    }

    /// Presents the broker as one of another major version, of one digit.
    pub(crate) async fn start_as(version: Option<u8>) -> Self {
        let traffic = Arc::<Mutex<Traffic>>::default();
        let rewrite = AmqpRewrite { traffic: Arc::clone(&traffic), version };
        let url = super::amqp_url();
        let network = cap_test_proxy::Proxy::start_with(&url, Network::Up, rewrite).await;
        Self { network, traffic }
    }

    pub(crate) fn port(&self) -> u16 {
        self.network.port()
    }

    /// The tests' URL, by way of this proxy.
    pub(crate) fn url(&self) -> String {
        self.network.url(&super::amqp_url())
    }

    /// Closes every connection there is. New ones are accepted.
    pub(crate) fn close_connections(&self) {
        self.network.close_connections();
    }

    /// Passes nothing on any more, in neither direction, or does so again.
    pub(crate) fn stall(&self, stalled: bool) {
        self.network.set(if stalled { Network::Stalled } else { Network::Up });
    }

    /// Keeps back the methods that contain a name.
    pub(crate) fn swallow(&self, name: &str) {
        self.traffic().swallow = Some(name.to_owned());
    }

    /// Replaces what the clients write by something else of the same length, which must not begin with the last byte of
    /// a frame.
    pub(crate) fn replace(&self, from: &[u8], to: &[u8]) {
        assert_eq!(from.len(), to.len());
        self.traffic().replace = Some((from.to_vec(), to.to_vec()));
    }

    /// Has the broker answer a method only once this many of them have been sent.
    pub(crate) fn answer_together(&self, class: u16, method: u16, count: usize) {
        self.traffic().together = Some((name(class, method), count));
    }

    /// Writes to every client in the broker's name. The connections must be idle.
    pub(crate) fn write_to_clients(&self, bytes: &[u8]) {
        self.network.write_to_clients(bytes);
    }

    /// How many connections were ever made.
    pub(crate) fn accepted(&self) -> usize {
        self.network.accepted()
    }

    /// How many method frames of a class and method the clients have sent.
    pub(crate) fn count_methods(&self, class: u16, method: u16) -> usize {
        self.traffic().sent.iter().map(|bytes| count_in(bytes, name(class, method))).sum()
    }

    fn traffic(&self) -> MutexGuard<'_, Traffic> {
        self.traffic.lock().unwrap()
    }
}

impl Rewrite for AmqpRewrite {
    fn to_server(&self, connection: usize, bytes: &[u8]) -> Vec<u8> {
        let mut traffic = self.traffic.lock().unwrap();
        let Traffic { sent, begun, swallow, replace, .. } = &mut *traffic;
        let count = sent.len().max(connection + 1);
        sent.resize_with(count, Vec::new);
        begun.resize_with(count, Vec::new);
        sent[connection].extend_from_slice(bytes);
        let mut bytes = [std::mem::take(&mut begun[connection]).as_slice(), bytes].concat();
        if let Some((from, to)) = replace {
            begun[connection] = replaced(&mut bytes, from, to);
        }
        match swallow {
            Some(name) => without(&bytes, name.as_bytes()),
            None => bytes,
        }
    }

    fn to_client(&self, _: usize, bytes: &[u8]) -> Vec<u8> {
        const FIELD: &[u8] = b"\x07versionS\0\0\0";
        let mut bytes = bytes.to_vec();
        if let Some(version) = self.version
            && let Some(at) = bytes.windows(FIELD.len()).position(|some| some == FIELD)
        {
            // Behind the field stands the last byte of the text's length.
            bytes[at + FIELD.len() + 1] = b'0' + version;
        }
        bytes
    }

    fn holds_server(&self, connection: usize) -> bool {
        let traffic = self.traffic.lock().unwrap();
        traffic.together.is_some_and(|(method, count)| {
            let sent = traffic.sent.get(connection).map_or(0, |bytes| count_in(bytes, method));
            (1..count).contains(&sent)
        })
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

/// Replaces every occurrence, and takes from the end what may be the beginning of one more.
fn replaced(bytes: &mut Vec<u8>, from: &[u8], to: &[u8]) -> Vec<u8> {
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
