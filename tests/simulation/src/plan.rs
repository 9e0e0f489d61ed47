//! What a seed stands for: how many nodes, what they are asked to do, and what goes wrong.

use std::time::Duration;

use fastrand::Rng;

/// How long a lease lasts here. Everything else is measured by it.
pub(crate) const LEASE: Duration = Duration::from_secs(6);

/// The longest delay of a message.
pub(crate) const LONG_DELAY: Duration = Duration::from_mins(8);

/// A run, as its seed has it.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) nodes: usize,
    /// How long messages are published and things go wrong.
    pub(crate) length: Duration,
    pub(crate) messages: usize,
    /// Whether messages are delayed for longer than messages that succeeded are kept.
    pub(crate) long_delays: bool,
    /// Whether the keyed group is held to its order. Then no answer of the store is lost that would hide from a node
    /// that it has stored a message.
    pub(crate) orderly: bool,
    /// How likely a call of each kind goes wrong.
    pub(crate) rates: Rates,
    /// What happens to whole nodes and servers.
    pub(crate) blows: Vec<(Duration, Blow)>,
}

/// How likely a single call goes wrong, from 0 to 1.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rates {
    /// A call to the store fails, before or after it was applied, is late, or hangs.
    pub(crate) store: f64,
    /// The store refuses a single row.
    pub(crate) refused_row: f64,
    /// A call to the broker fails, before or after, is late, or hangs.
    pub(crate) broker: f64,
    /// The broker refuses a single message.
    pub(crate) refused_message: f64,
    /// A queue has no room for a message.
    pub(crate) full: f64,
    /// A message is delivered twice.
    pub(crate) duplicate: f64,
    /// The node dies right before or after a call.
    pub(crate) death: f64,
}

/// What happens to a whole node or server.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Blow {
    /// A node dies, and comes back under another name.
    Crash { node: usize },
    /// A node is shut down, and comes back under another name.
    Restart { node: usize },
    /// A node stands still while the others go on.
    Pause { node: usize, length: Duration },
    /// A node does not reach the store.
    CutOff { node: usize, length: Duration },
    /// Nobody reaches the store.
    StoreAway { length: Duration },
    /// Nobody reaches the broker.
    BrokerAway { length: Duration },
    /// The broker's queues have no room for anything.
    QueuesFull { length: Duration },
    /// A node's consumers end.
    DropConsumers { node: usize },
}

impl Plan {
    /// The plan of a seed. Small seeds are as wild as large ones; every tenth is calm, so that a mistake of the
    /// simulation's own shows without noise.
    pub(crate) fn of(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let nodes = rng.usize(1..=4);
        let length = Duration::from_secs(rng.u64(10..=40));
        let messages = rng.usize(5..=24);
        let long_delays = rng.u8(0..12) == 0;
        let calm = seed.is_multiple_of(10);
        let rates = if calm { Rates::default() } else { Rates::of(&mut rng) };
        let blows = if calm { 0 } else { rng.usize(0..=6) };
        let mut blows: Vec<_> =
            (0..blows).map(|_| (within(&mut rng, length), Blow::of(&mut rng, nodes))).collect();
        blows.sort_by_key(|(at, _)| *at);
        Self { nodes, length, messages, long_delays, orderly: calm || rng.bool(), rates, blows }
    }
}

impl Rates {
    /// Each kind of fault is off in half of the runs, so that few of them hide behind others.
    fn of(rng: &mut Rng) -> Self {
        let mut rate = |highest: f64| if rng.bool() { 0.0 } else { highest * rng.f64() };
        Self {
            store: rate(0.15),
            refused_row: rate(0.05),
            broker: rate(0.2),
            refused_message: rate(0.3),
            duplicate: rate(0.5),
            death: rate(0.02),
            full: rate(0.4),
        }
    }
}

impl Blow {
    fn of(rng: &mut Rng, nodes: usize) -> Self {
        let node = rng.usize(0..nodes);
        let length = within(rng, LEASE * 4);
        match rng.u8(0..9) {
            0 | 1 => Self::Crash { node },
            2 => Self::Restart { node },
            3 => Self::Pause { node, length },
            4 => Self::CutOff { node, length },
            5 => Self::StoreAway { length },
            6 => Self::BrokerAway { length },
            7 => Self::QueuesFull { length },
            _ => Self::DropConsumers { node },
        }
    }
}

/// A random part of a time.
pub(crate) fn within(rng: &mut Rng, longest: Duration) -> Duration {
    Duration::from_millis(rng.u64(0..=u64::try_from(longest.as_millis()).unwrap_or(u64::MAX)))
}
