//! What the network between clients and server does.

use std::sync::Arc;
use std::time::Duration;

/// What happens to what is sent. What is held back is passed on once the state allows it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// It is passed on.
    Up,
    /// Connections are closed, and every new one as soon as it is made.
    Down,
    /// It is passed on after this time.
    Slow(Duration),
    /// Nothing is passed on, in either direction.
    Stalled,
    /// Nothing reaches the server.
    ServerUnreachable,
    /// Nothing comes back from the server.
    ServerSilent,
    /// Each connection passes on this many more bytes in each direction and is closed then, in the middle of whatever
    /// that is.
    CloseAfter(usize),
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    ToServer,
    ToClient,
}

impl Network {
    /// Whether bytes that go this way wait.
    pub(crate) fn holds(self, direction: Direction) -> bool {
        match self {
            Self::Stalled => true,
            Self::ServerUnreachable => direction == Direction::ToServer,
            Self::ServerSilent => direction == Direction::ToClient,
            Self::Up | Self::Down | Self::Slow(_) | Self::CloseAfter(_) => false,
        }
    }
}

/// What every connection follows.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub(crate) network: Network,
    /// Connections of an earlier generation are closed.
    pub(crate) generation: usize,
    /// The number of bytes' last injection, and the bytes.
    pub(crate) injection: usize,
    pub(crate) injected: Arc<[u8]>,
}

impl State {
    pub(crate) fn new(network: Network) -> Self {
        Self { network, generation: 0, injection: 0, injected: Arc::default() }
    }
}
