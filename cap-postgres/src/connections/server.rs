//! The server that the bus works on: its connections by purpose, and what happens when it is no longer the one to write to.

use tokio::sync::Notify;

use crate::connections::pool::Connections;
use crate::connections::source::Source;
use crate::connections::target::Target;

/// How many connections there are for operators. They are opened when they are needed.
const CONNECTIONS_FOR_OPERATORS: u32 = 2;

/// What a connection is for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Purpose {
    /// The work of the bus.
    Bus,
    /// What operators look at and change, which may take long: it must not block the bus.
    Operators,
    /// Health probes, which wait neither for the bus nor for operators.
    Health,
}

/// The bus's connections to its server.
#[derive(Debug)]
pub(crate) struct Server {
    bus: Connections,
    operators: Connections,
    health: Connections,
    target: Target,
    /// A connection has shown that its server is no longer the one to write to.
    left: Notify,
}

impl Server {
    /// Up to `connections` for the bus, of which none is open yet.
    pub(crate) fn new(source: &Source, connections: u32) -> Self {
        Self {
            bus: Connections::new(source.clone(), connections),
            operators: Connections::new(source.clone(), CONNECTIONS_FOR_OPERATORS),
            health: Connections::new(source.clone(), 1),
            target: Target::new(&source.options()),
            left: Notify::new(),
        }
    }

    pub(crate) fn connections(&self, purpose: Purpose) -> &Connections {
        match purpose {
            Purpose::Bus => &self.bus,
            Purpose::Operators => &self.operators,
            Purpose::Health => &self.health,
        }
    }

    /// Where the connections lead.
    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// Has every caller look for the right server: idle connections are closed, and the `LISTEN` connection is opened anew.
    pub(crate) fn leave(&self) {
        self.bus.close_idle();
        self.operators.close_idle();
        self.health.close_idle();
        self.left.notify_one();
    }

    /// Waits until a connection has shown that its server is no longer the one to write to.
    pub(crate) async fn left(&self) {
        self.left.notified().await;
    }
}
