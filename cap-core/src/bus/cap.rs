//! The handle to a bus that a service uses: publish, inspect, shut down. It owns the tasks and has no logic of its own.

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use cap_adapter::{AfterCommit, Bus, Delivery, FromDelivery, HandlerError};
use serde::Serialize;

use crate::consume::GroupGauge;
use crate::error::StorageError;
use crate::handlers::Group;
use crate::message::MessageId;
use crate::operate::messages::Messages;
#[allow(deprecated)]
use crate::operate::monitor::BusMonitor;
use crate::operate::operated_storage::OperatedStorage;
use crate::operate::operator::Operator;
use crate::operate::waiting_counts::StorageProbe;
use crate::publish::{MessageBatch, Outbox, PendingCommit, Publish, PublishAll, Target};
use crate::runtime::engine::Engine;
use crate::runtime::health::{FullDestination, GroupHealth, Health, Tracker};
use crate::runtime::options::CapOptions;
use crate::runtime::tasks::Tasks;
use crate::storage::Side;

/// A handle to a running bus. It is cheap to clone, and all clones refer to the same bus.
///
/// ```standalone_crate
/// use cap_core::prelude::*;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (done, mut received) = tokio::sync::mpsc::channel(1);
/// let cap = Cap::builder()
///     .storage(MemoryStorage::new())
///     .transport(MemoryTransport::new())
///     .subscribe("greeting", move |name: String| {
///         let done = done.clone();
///         async move { done.send(format!("hello, {name}")).await }
///     })
///     .start()
///     .await?;
/// cap.publish("greeting", "world").await?;
/// assert_eq!(received.recv().await.unwrap(), "hello, world");
/// cap.shutdown().await?;
/// # Ok(())
/// # }
/// ```
///
/// If the last clone is dropped without [`shutdown`](Self::shutdown), the tasks are stopped at once, and a WARN says how many
/// messages were in hand. As after a crash no message is lost, but other nodes must wait for the leases to expire.
///
/// # Inside a handler
///
/// A handler can take it as an argument. Messages that it publishes this way are stored at once, even if the handler fails;
/// to publish only with the handler's success, use [`Publisher`](crate::Publisher). A clone in a handler keeps the bus
/// alive as any other, so that a clone that outlives the handler should belong to a task that ends. A handler must not wait
/// for `shutdown`: it would wait for itself, until the deadline of the shutdown.
///
/// ```
/// use cap_core::prelude::*;
///
/// #[cap_subscribe("order.cancelled")]
/// async fn cancelled(reminder: String, cap: Cap) -> Result<(), HandlerError> {
///     cap.cancel(&MessageId::new(reminder)).await.map_err(HandlerError::failed)?;
///     Ok(())
/// }
/// ```
#[derive(Clone)]
pub struct Cap(pub(super) Arc<Inner>);

/// A weak handle for the bus's own tasks, which must not keep it alive.
#[derive(Debug, Clone, Default)]
pub(crate) struct OwnBus(Weak<Inner>);

pub(super) struct Inner {
    pub(super) outbox: Arc<Outbox>,
    tasks: Tasks,
    groups: Vec<GroupRuntime>,
    probe: StorageProbe,
    /// Locked during a shutdown, so that a second call waits for the first.
    pub(super) shutting_down: tokio::sync::Mutex<()>,
}

/// A group with its health and its gauge.
#[derive(Clone)]
pub(crate) struct GroupRuntime {
    pub(crate) group: Arc<Group>,
    pub(crate) health: Arc<Tracker>,
    pub(crate) gauge: Arc<GroupGauge>,
}

impl Cap {
    /// Creates a bus with these groups, without starting its tasks.
    pub(super) fn new(groups: Vec<GroupRuntime>, outbox: Arc<Outbox>) -> Self {
        Self(Arc::new(Inner {
            outbox,
            tasks: Tasks::default(),
            groups,
            probe: StorageProbe::default(),
            shutting_down: tokio::sync::Mutex::new(()),
        }))
    }

    /// A weak handle for the bus's own tasks.
    pub(super) fn own(&self) -> OwnBus {
        OwnBus(Arc::downgrade(&self.0))
    }

    pub(super) fn outbox(&self) -> &Arc<Outbox> {
        &self.0.outbox
    }

    pub(super) fn engine(&self) -> &Arc<Engine> {
        &self.0.outbox.engine
    }

    pub(super) fn tasks(&self) -> &Tasks {
        &self.0.tasks
    }

    pub(super) fn groups(&self) -> &[GroupRuntime] {
        &self.0.groups
    }

    /// Publishes a payload to a topic. The payload is serialized at once; set options on the returned [`Publish`], then
    /// await it.
    ///
    /// `&()` and `&None` are null payloads, which are sent as an empty body.
    ///
    /// # Errors
    ///
    /// [`PublishError`](crate::PublishError) when it is awaited: an invalid topic or header, a payload that cannot be
    /// serialized or is too large, a storage that is unavailable for longer than `publish_timeout`, or a bus that is shut
    /// down.
    pub fn publish<T: Serialize + ?Sized>(&self, topic: impl Into<String>, payload: &T) -> Publish {
        Publish::new(self.target(), topic.into(), payload)
    }

    /// Publishes a body as it is, without serializing it: JSON that exists already, or any other bytes. A handler takes it as
    /// [`RawBody`](crate::RawBody), or as a payload if it is JSON.
    ///
    /// ```
    /// # use cap_core::prelude::*;
    /// # async fn example(cap: Cap) -> Result<(), PublishError> {
    /// cap.publish_bytes("thumbnail.made", vec![0xff, 0xd8]).type_name("Shop.Contracts.Thumbnail").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`publish`](Self::publish).
    pub fn publish_bytes(&self, topic: impl Into<String>, body: impl Into<Bytes>) -> Publish {
        Publish::of_bytes(self.target(), topic.into(), body.into())
    }

    /// Publishes several payloads to a topic, stored in one round trip: all of them or none.
    ///
    /// # Errors
    ///
    /// Those of [`publish`](Self::publish), for the first invalid message.
    pub fn publish_all<T: Serialize>(
        &self,
        topic: impl Into<String>,
        payloads: impl IntoIterator<Item = T>,
    ) -> PublishAll {
        PublishAll::new(self.target(), &topic.into(), payloads)
    }

    /// Collects messages to any topics, to be stored together in one statement: all of them or none.
    pub fn batch(&self) -> MessageBatch {
        MessageBatch::new(Arc::clone(&self.0.outbox))
    }

    fn target(&self) -> Target {
        Target::Bus(Arc::clone(&self.0.outbox))
    }

    /// Cancels a delayed message that is not due yet. Its row is kept as failed, with the reason `cancelled`, and can be
    /// re-run by its row id; [`Messages::parked`] includes it only with that reason. Returns `false` if there is no such
    /// message or it is no longer delayed.
    ///
    /// # Errors
    ///
    /// Those of the storage.
    pub async fn cancel(&self, id: &MessageId) -> Result<bool, StorageError> {
        let engine = self.engine();
        let rows = engine.storage.find(Side::Outbox, id.as_str()).await?;
        let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
        Ok(!engine.storage.cancel(&ids, engine.options.failed_expire_after).await?.is_empty())
    }

    /// The stored messages, for an operator: find and inspect them, fix, re-run or delete them.
    pub fn messages(&self) -> Messages {
        self.operator().messages()
    }

    /// The operator's API of this bus as a handle of its own, for what needs no bus, such as a dashboard. It keeps the storage
    /// open, but not the bus running.
    #[must_use]
    pub fn operator(&self) -> Operator {
        Operator::new(OperatedStorage::of(self.engine()))
    }

    /// The former API for stored messages, which covers all versions and does not record who acts.
    #[deprecated(
        note = "use messages(); it is limited to this bus's version unless all_versions() is called"
    )]
    #[allow(deprecated)]
    #[must_use]
    pub fn monitor(&self) -> BusMonitor {
        BusMonitor::new(Arc::clone(self.engine()))
    }

    /// The former name of [`messages().parked()`](Messages::parked).
    #[deprecated(note = "use messages().parked()")]
    pub fn parked(&self) -> Messages {
        self.messages().parked()
    }

    /// The options of the bus.
    #[must_use]
    pub fn options(&self) -> &CapOptions {
        &self.engine().options
    }

    /// The storage, which an adapter can downcast to its own type. For adapters.
    #[must_use]
    pub fn storage(&self) -> &dyn std::any::Any {
        self.engine().storage.as_any()
    }

    /// The display name of the broker's transport, such as `RabbitMQ`.
    #[must_use]
    pub fn broker_name(&self) -> &'static str {
        self.engine().broker.name()
    }

    /// Creates the collection in which an adapter's transaction keeps the messages that are dispatched after its commit.
    /// For adapters.
    #[must_use]
    pub fn after_commit(&self) -> AfterCommit {
        AfterCommit::new(Box::new(PendingCommit::of_transaction(Arc::clone(&self.0.outbox))))
    }

    /// The former name of [`after_commit`](Self::after_commit).
    #[deprecated(note = "renamed to after_commit")]
    #[must_use]
    pub fn handover(&self) -> AfterCommit {
        self.after_commit()
    }

    /// Reports which components are up or down and since when, and how many messages are waiting. Takes at most three
    /// seconds.
    ///
    /// It is cheap enough for any number of health probes. The process runs at most one query at a time and one per second;
    /// concurrent callers share its result. The query counts rows at a cost that does not depend on their number, and the
    /// storage stops it if it takes longer than a second.
    pub async fn health(&self) -> Health {
        let engine = self.engine();
        let counted = self.0.probe.counts(engine, &self.0.tasks.upkeep).await;
        let groups = self.0.groups.iter().map(GroupRuntime::health).collect();
        Health {
            phase: engine.lifecycle.phase.get(),
            storage: engine.storage.health.get(),
            transport: engine.broker.health.get(),
            groups,
            full: self.full_destinations(),
            relaying: engine.storage.leases.all(Side::Outbox).len(),
            backlog: self.0.outbox.relay.is_backlogged(),
            waiting_is_capped: counted.as_ref().is_some_and(|counted| counted.is_capped),
            waiting: counted.map(|counted| counted.counts),
        }
    }

    fn full_destinations(&self) -> Vec<FullDestination> {
        let engine = self.engine();
        let mut all = self.0.outbox.full_destinations.all();
        for full in &mut all {
            full.destination = engine.broker.destination();
            let groups = self.0.groups.iter().filter(|group| group.group.member_for(&full.topic).is_some());
            full.own_groups = groups.map(|group| group.group.name.to_string()).collect();
        }
        all
    }
}

impl OwnBus {
    /// The bus, if there is still a handle to it.
    pub(crate) fn get(&self) -> Option<Cap> {
        self.0.upgrade().map(Cap)
    }
}

impl FromDelivery for Cap {
    async fn from_delivery(delivery: &Delivery) -> Result<Self, HandlerError> {
        let own = delivery.state::<OwnBus>();
        own.and_then(|own| own.get()).ok_or_else(|| HandlerError::cancelled().because("the bus is gone"))
    }
}

impl GroupRuntime {
    pub(crate) fn new(group: Arc<Group>, transport: &str) -> Self {
        let health = Arc::new(Tracker::new(format!("{transport} consumer of {}", group.name)));
        Self { group, health, gauge: Arc::default() }
    }

    fn health(&self) -> GroupHealth {
        GroupHealth {
            group: self.group.name.to_string(),
            topics: self.group.members.iter().map(|member| member.pattern.to_string()).collect(),
            consumer: self.health.get(),
            running: self.gauge.running.load(Ordering::Relaxed),
            queued: self.gauge.queued.load(Ordering::Relaxed),
            circuits: self.gauge.circuits.get(),
        }
    }
}

impl Bus for Cap {
    fn storage(&self) -> &dyn std::any::Any {
        Self::storage(self)
    }

    fn after_commit(&self) -> AfterCommit {
        Self::after_commit(self)
    }
}

impl fmt::Debug for Cap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let engine = self.engine();
        f.debug_struct("Cap")
            .field("node", &engine.storage.owner.node)
            .field("storage", &engine.storage.name())
            .field("transport", &engine.broker.name())
            .field("phase", &engine.lifecycle.phase.get())
            .finish_non_exhaustive()
    }
}
