//! A service's bus inside a test.

use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use cap_core::memory::{MemoryStorage, MemoryTransport};
use cap_core::message::Headers;
use cap_core::monitor::Monitor;
use cap_core::storage::Storage;
use cap_core::{Cap, CapBuilder};

use crate::clock::tick;
use crate::faults::Faults;
use crate::faulty_storage::FaultyStorage;
use crate::faulty_transport::FaultyTransport;
use crate::observer::{Observe, Observer};
use crate::records::{Kind, Records};
use crate::world::{Service, World};

/// The shortest step of [`TestBus::advance`], so that it ends.
const SHORTEST_STEP: Duration = Duration::from_millis(1);

/// A service's own bus inside a test, on the embedded storage and broker.
///
/// It dereferences to the [`Cap`], so that a test publishes as the service does. Delays and retries are kept by the
/// storage, also those that would be kept by the broker. On the current-thread runtime of `#[tokio::test]` the runtime's
/// clock belongs to the bus: it runs with real time, and [`advance`](Self::advance) sets it forward. Do not start it paused.
///
/// Dropping it ends the bus without a shutdown. A test that wants to see the shutdown calls
/// [`Cap::shutdown`](cap_core::Cap::shutdown).
#[derive(Debug)]
pub struct TestBus {
    world: Arc<World>,
    service: Arc<Service>,
}

/// Starting.
impl TestBus {
    /// Starts a bus with the service's own builder. A storage and a transport that it has are replaced.
    ///
    /// Panics if the bus does not start.
    pub async fn start(builder: CapBuilder) -> Self {
        Self::start_in(Arc::new(World::new()), builder, |_| MemoryStorage::new()).await
    }

    /// Starts a bus on a storage of the test, such as one of SQLite in a temporary file, for handlers that take its
    /// transaction. The clock of the test does not move that of the database: there [`advance`](Self::advance) moves only the
    /// timers of the bus.
    ///
    /// Panics if the bus does not start.
    pub async fn start_on(storage: impl Storage + Monitor, builder: CapBuilder) -> Self {
        Self::start_in(Arc::new(World::new()), builder, |_| storage).await
    }

    /// Starts the bus of another service, with a storage of its own, on the same broker. What one of them awaits counts for
    /// both: the test is [settled](Self::settled) when neither has anything to do.
    ///
    /// Panics if the bus does not start.
    pub async fn join(&self, builder: CapBuilder) -> Self {
        Self::start_in(Arc::clone(&self.world), builder, |_| MemoryStorage::new()).await
    }

    async fn start_in<S: Storage + Monitor>(
        world: Arc<World>,
        builder: CapBuilder,
        storage: impl FnOnce(&World) -> S,
    ) -> Self {
        let (faults, observer) = (Arc::new(Faults::default()), Arc::new(Observer::default()));
        // The clocks are read together with those of the storage.
        let (inner, started) = (storage(&world), (SystemTime::now(), tokio::time::Instant::now()));
        let transport: FaultyTransport<MemoryTransport> = FaultyTransport {
            inner: world.broker.clone(),
            faults: Arc::clone(&faults),
            traffic: Arc::clone(&world.traffic),
        };
        let cap = builder
            .storage(FaultyStorage { inner, faults: Arc::clone(&faults) })
            .transport(transport)
            .layer(Observe(Arc::clone(&observer)))
            .start()
            .await
            .unwrap_or_else(|error| panic!("the bus of the test did not start: {error}"));
        let service = Arc::new(Service::new(cap, faults, observer, started));
        world.add(&service);
        Self { world, service }
    }

    /// Sets how long the test waits for what it expects, in real time, before it fails. Default: 10 seconds.
    pub fn patience(&self, patience: Duration) {
        self.world.set_patience(patience);
    }
}

/// What happened.
impl TestBus {
    /// The messages that were published to a topic, replies included, whether sent already or not. With or without the prefix
    /// of the bus.
    pub fn published(&self, topic: impl Into<String>) -> Records<'_> {
        Records::new(&self.world, &self.service, Kind::Published, topic.into())
    }

    /// The messages of a topic that a handler has handled with success: one for each group.
    pub fn handled(&self, topic: impl Into<String>) -> Records<'_> {
        Records::new(&self.world, &self.service, Kind::Handled, topic.into())
    }

    /// The messages of a topic that failed for good, on either side. The test then [expects](Self::expect_parked) them.
    pub fn parked(&self, topic: impl Into<String>) -> Records<'_> {
        let topic = topic.into();
        self.expect_parked(topic.clone());
        Records::new(&self.world, &self.service, Kind::Parked, topic)
    }

    /// Lets messages of this topic be parked. Without it a parked message fails the test when it next waits for quiet.
    pub fn expect_parked(&self, topic: impl Into<String>) {
        self.service.expect_parked(topic.into());
    }

    /// Lets handlers of this topic panic. Without it a panic fails the test when it next waits for quiet, although the bus
    /// counts it as a failed attempt like any other.
    pub fn expect_panics(&self, topic: impl Into<String>) {
        self.service.expect_panics(topic.into());
    }

    /// Everything that is stored and under way, in words, as it appears when a test fails.
    pub async fn story(&self) -> String {
        self.world.story().await
    }
}

/// Waiting, and time.
impl TestBus {
    /// Waits until nothing is queued, running or due on any bus of the test. What is due later does not count.
    ///
    /// Panics with the story of all messages if this takes longer than the [patience](Self::patience) of the test, if a
    /// message was parked, or if a handler panicked, unless the test expects that.
    pub async fn settled(&self) {
        self.world.settled().await;
    }

    /// Like [`settled`](Self::settled), and advances the clock to whatever is due within this time, until nothing is: delayed
    /// messages and retries of the next four minutes, for example. Stops as soon as nothing is due, so that it may advance by
    /// less.
    pub async fn settled_within(&self, time: Duration) {
        let end = tokio::time::Instant::now() + time;
        while let Some(next) = self.world.quiet().await {
            if tokio::time::Instant::now() + next > end {
                break;
            }
            self.world.clock.advance(next.max(SHORTEST_STEP)).await;
        }
        self.world.check().await;
    }

    /// Sets the clock forward and lets everything happen that is due meanwhile, in its order: delayed messages, retries,
    /// timeouts, expiry. Leases are renewed as in reality. Waits until the bus is [settled](Self::settled), before and after.
    ///
    /// Panics like `settled`, and on a multi-thread runtime.
    pub async fn advance(&self, by: Duration) {
        let end = tokio::time::Instant::now() + by;
        // The node must be seen alive on the way, as it is when time passes. After a wait for quiet it has no leases.
        let longest = self.service.cap.options().lease / 2;
        loop {
            let next = self.world.quiet().await;
            let left = end.saturating_duration_since(tokio::time::Instant::now());
            if left.is_zero() {
                break;
            }
            let step = next.map_or(longest, |next| next.min(longest)).max(SHORTEST_STEP).min(left);
            self.world.clock.advance(step).await;
        }
        self.world.check().await;
    }
}

/// Trouble.
impl TestBus {
    /// Makes the storage or the broker of this bus fail.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.service.faults
    }

    /// Makes the broker unreachable or reachable for all buses of the test.
    pub fn set_broker_available(&self, available: bool) {
        self.world.broker.set_available(available);
    }

    /// Delivers a message from a foreign program, exactly as given, to the queues that want it, and waits until it is stored.
    ///
    /// Panics if no queue wants it, or the broker is unavailable.
    pub async fn deliver(&self, topic: impl Into<String>, headers: Headers, body: impl Into<Bytes>) {
        let topic = topic.into();
        let id = headers.get("cap-msg-id").unwrap_or_default().to_owned();
        self.world.traffic.sending(&topic, &id);
        let sent = self.world.broker.publish_raw(topic.clone(), headers, Headers::new(), body).await;
        if !matches!(sent, Ok(cap_core::transport::Sent::Routed)) {
            self.world.traffic.not_sent(&topic, &id);
            panic!("the message to {topic} was not delivered: {sent:?}");
        }
        let deadline = std::time::Instant::now() + self.world.patience();
        while !self.world.traffic.under_way().is_empty() {
            assert!(std::time::Instant::now() < deadline, "the message to {topic} was not received");
            tick().await;
        }
    }
}

impl Deref for TestBus {
    type Target = Cap;

    fn deref(&self) -> &Cap {
        &self.service.cap
    }
}
