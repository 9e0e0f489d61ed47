//! What nodes and people do, drawn at random.
//!
//! All times are whole hours: what is waited for takes an odd number of them, and what passes is an even number. So no
//! lease, delay or expiry ever ends at the very moment at which something is asked, and a store on a real clock, which
//! is a few milliseconds ahead of the model's, gives the same answers.

use std::time::Duration;

use cap_core::monitor::{Among, Change};
use cap_core::storage::{Reason, Retention, RowOutcome, Side};
use proptest::prelude::*;
use proptest::sample::Index;

/// So long is an hour.
pub const HOUR: Duration = Duration::from_secs(3600);
/// How long leases last.
pub const LEASE: Duration = Duration::from_secs(3 * 3600);
/// How long what has ended is kept, where a outcome says so.
pub const KEEP: Duration = Duration::from_secs(7 * 3600);
/// How long messages that succeeded are kept.
pub const KEEP_SUCCEEDED: Duration = Duration::from_secs(9 * 3600);

/// Two nodes of one version, and one of another.
pub const NODES: [(&str, &str); 3] = [("a", "v1"), ("b", "v1"), ("c", "v2")];
/// The groups of the inbox.
pub const GROUPS: [&str; 2] = ["billing.v1", "stock.v1"];

/// One thing that happens.
#[allow(missing_docs, reason = "the fields say by their names what they are")]
#[derive(Debug, Clone)]
pub enum Step {
    /// So many times two hours pass.
    Pass(u32),
    /// A node publishes.
    Publish { node: usize, messages: Vec<Outgoing>, how: How },
    /// A node receives: new messages, and, as message ids are few, some again.
    Receive { node: usize, messages: Vec<Incoming> },
    /// A node repeats an insert whose answer it has not heard.
    Repeat { earlier: Index },
    /// Two nodes share a worker id: a row id is used again, for another message.
    Clash { earlier: Index },
    /// A node asks for work.
    Claim { node: usize, side: Side, groups: Vec<usize>, limit: usize },
    /// The broker brings a node its copies of retries, be they long out of date.
    Deliver { node: usize, copies: Vec<BrokerCopy> },
    /// Nodes say what became of rows, each under a lease that it was given, be it long lost.
    Complete { side: Side, words: Vec<Word> },
    /// A node renews leases.
    Renew { side: Side, leases: Vec<Index> },
    /// A node dies, and with it what it knew of its leases.
    Crash { node: usize },
    /// An operator runs rows again, with a change or as they are.
    Rerun { side: Side, rows: Vec<Index>, among: Among, change: Change },
    /// An operator calls delayed messages off.
    Cancel { rows: Vec<Index> },
    /// An operator deletes rows.
    Delete { side: Side, rows: Vec<Index>, among: Among },
    /// The collector comes by.
    Expire { limit: usize },
}

/// A message to be published.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// Which message id it has; `None` for its row id.
    pub id: Option<u8>,
    /// Whether it is due at once and held, due at once, or due after so many hours.
    pub start: Start,
}

/// How a published message begins.
#[derive(Debug, Clone, Copy)]
pub enum Start {
    /// Held by the node that stores it.
    Held,
    /// Anybody's.
    Free,
    /// Due after so many hours.
    Delayed(u32),
}

/// In which way messages are published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// By themselves.
    Alone,
    /// In a transaction of the application's, which is committed.
    Committed,
    /// In one that is rolled back.
    RolledBack,
}

/// A message that is received.
#[derive(Debug, Clone)]
pub struct Incoming {
    /// Which message id it has, if any.
    pub id: Option<u8>,
    /// Which group receives it.
    pub group: usize,
    /// How it enters.
    pub entry: Entrance,
    /// Which message it is of those with its id, by its digest; `None`: an older node receives it, which makes none.
    pub twin: Option<u8>,
    /// Whether it is stored apart, as it has met another one.
    pub apart: bool,
}

/// How a received message enters.
#[derive(Debug, Clone, Copy)]
pub enum Entrance {
    /// For its handler, held by the node that stores it.
    Held,
    /// For its handler, anybody's.
    Free,
    /// Parked; whether an operator is to be told.
    Parked(bool),
}

/// A copy of a retry that the broker has kept.
#[derive(Debug, Clone)]
pub struct BrokerCopy {
    /// The lease that stands on it, of those that were ever given.
    pub lease: Index,
    /// Whether it is one of those that still wait.
    pub waits: bool,
}

/// What a node says of a row.
#[derive(Debug, Clone)]
pub struct Word {
    /// Which of its leases it speaks under.
    pub lease: Index,
    /// Whether it picks among those that are live, or among all that were ever given.
    pub live: bool,
    /// What it says.
    pub outcome: RowOutcome,
    /// How many messages it publishes with it.
    pub publishes: usize,
}

/// A whole history.
pub fn history(longest: usize) -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 1..=longest)
}

fn step() -> impl Strategy<Value = Step> {
    let several = || prop::collection::vec(any::<Index>(), 0..4);
    let node = || 0..NODES.len();
    let how = prop_oneof![3 => Just(How::Alone), 2 => Just(How::Committed), 1 => Just(How::RolledBack)];
    prop_oneof![
        3 => (1..4_u32).prop_map(Step::Pass),
        3 => (node(), prop::collection::vec(outgoing(), 1..4), how)
            .prop_map(|(node, messages, how)| Step::Publish { node, messages, how }),
        3 => (node(), prop::collection::vec(incoming(), 1..4))
            .prop_map(|(node, messages)| Step::Receive { node, messages }),
        1 => any::<Index>().prop_map(|earlier| Step::Repeat { earlier }),
        1 => any::<Index>().prop_map(|earlier| Step::Clash { earlier }),
        5 => (node(), side(), prop::sample::subsequence(vec![0, 1], 0..=2), prop_oneof![0..4_usize, Just(100)])
            .prop_map(|(node, side, groups, limit)| Step::Claim { node, side, groups, limit }),
        3 => (node(), prop::collection::vec(copy(), 1..5)).prop_map(|(node, copies)| Step::Deliver { node, copies }),
        6 => (side(), prop::collection::vec(word(), 1..4)).prop_map(|(side, words)| Step::Complete { side, words }),
        2 => (side(), several()).prop_map(|(side, leases)| Step::Renew { side, leases }),
        1 => node().prop_map(|node| Step::Crash { node }),
        2 => (side(), several(), among(), change())
            .prop_map(|(side, rows, among, change)| Step::Rerun { side, rows, among, change }),
        1 => several().prop_map(|rows| Step::Cancel { rows }),
        1 => (side(), several(), among()).prop_map(|(side, rows, among)| Step::Delete { side, rows, among }),
        1 => (0..4_usize).prop_map(|limit| Step::Expire { limit }),
    ]
}

fn side() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Side::Outbox), Just(Side::Inbox)]
}

fn outgoing() -> impl Strategy<Value = Outgoing> {
    let start = prop_oneof![
        2 => Just(Start::Held),
        2 => Just(Start::Free),
        1 => prop_oneof![Just(1), Just(5)].prop_map(Start::Delayed),
    ];
    (prop_oneof![3 => Just(None), 1 => (0..12_u8).prop_map(Some)], start)
        .prop_map(|(id, start)| Outgoing { id, start })
}

fn incoming() -> impl Strategy<Value = Incoming> {
    let entry = prop_oneof![
        3 => Just(Entrance::Held),
        3 => Just(Entrance::Free),
        1 => any::<bool>().prop_map(Entrance::Parked),
    ];
    let twin = prop_oneof![1 => Just(None), 5 => Just(Some(0)), 2 => (1..3_u8).prop_map(Some)];
    (prop::option::weighted(0.9, 0..12_u8), 0..GROUPS.len(), entry, twin, prop::bool::weighted(0.1))
        .prop_map(|(id, group, entry, twin, apart)| Incoming { id, group, entry, twin, apart })
}

fn copy() -> impl Strategy<Value = BrokerCopy> {
    (any::<Index>(), prop::bool::weighted(0.7)).prop_map(|(lease, waits)| BrokerCopy { lease, waits })
}

fn among() -> impl Strategy<Value = Among> {
    prop_oneof![Just(Among::All), Just(Among::Failed)]
}

fn change() -> impl Strategy<Value = Change> {
    let line = prop::sample::select(vec!["alice ran it", "bob\nmended it", "carol \u{1F40E}"]);
    let body = prop::sample::select(vec![&b"{\"mended\":1}"[..], b"\x00\xff", b""]);
    (prop::option::of(line), prop::option::weighted(0.3, body))
        .prop_map(|(line, body)| Change { audit: line.map(str::to_owned), body: body.map(Into::into) })
}

fn word() -> impl Strategy<Value = Word> {
    (any::<Index>(), prop::bool::weighted(0.8), outcome(), 0..3_usize)
        .prop_map(|(lease, live, outcome, publishes)| Word { lease, live, outcome, publishes })
}

fn outcome() -> impl Strategy<Value = RowOutcome> {
    let error = || prop::sample::select(vec!["no", "not now", "never", ""]).prop_map(str::to_owned);
    let hours = |hours: [u32; 3]| prop::sample::select(hours.map(|hours| HOUR * hours).to_vec());
    let retention =
        prop_oneof![Just(Retention::Forget), Just(Retention::Keep(KEEP)), Just(Retention::Delete)];
    let unrouted = prop_oneof![4 => Just(None), 1 => Just(Some(Reason::Unrouted))];
    let why = prop_oneof![Just(Reason::Exhausted), Just(Reason::Permanent)];
    prop_oneof![
        3 => (retention, unrouted).prop_map(|(retention, reason)| RowOutcome::Succeeded { retention, reason }),
        3 => (hours([0, 1, 5]), any::<bool>(), error())
            .prop_map(|(after, hold, error)| RowOutcome::Retry { after, hold, error }),
        3 => (prop::sample::select(vec![(0, 1), (1, 0), (1, 4), (5, 2)]), error()).prop_map(
            |((after, spare), error)| RowOutcome::RetryAtBroker { after: HOUR * after, spare: HOUR * spare, error }
        ),
        3 => (why, error(), any::<bool>(), any::<bool>()).prop_map(|(reason, error, counted, notify)| {
            RowOutcome::Failed { reason, error, counted, keep: KEEP, notify }
        }),
        1 => Just(RowOutcome::Notified),
        2 => hours([0, 1, 5]).prop_map(|after| RowOutcome::Release { after }),
    ]
}
