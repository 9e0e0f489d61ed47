//! Builds a bus and starts it.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use cap_adapter::engine::StorageView;
use cap_adapter::{CheckContext, Classify, States};
use tokio::sync::mpsc;

use super::cap::{Cap, GroupRuntime};
use super::failure::{Failure, OnFailed};
use super::launch::{Queues, Started, spawn};
use crate::consume::{Inbox, IncomingHook};
use crate::error::StartError;
use crate::handlers::{
    ErasedHandler, Group, HandlerFn, Handlers, Layer, Registration, Subscribe, build_groups, count_by_package,
};
use crate::message::{Headers, IdClock, IdGenerator, SystemIdClock};
use crate::monitor::Monitor;
use crate::publish::composer::Composer;
use crate::publish::{FullDestinations, LateCommits, OpenCommits, Outbox, OutgoingMetrics, RelayQueue};
use crate::runtime::broker_client::BrokerClient;
use crate::runtime::engine::Engine;
use crate::runtime::erased::{DynStorage, DynTransport};
use crate::runtime::lifecycle::Lifecycle;
use crate::runtime::notifier::Notifier;
use crate::runtime::options::CapOptions;
use crate::runtime::repeated_events::RepeatedEvents;
use crate::runtime::storage_client::StorageClient;
use crate::runtime::suspect_gate::SuspectGate;
use crate::storage::{Owner, Storage};
use crate::transport::{Incoming, Transport, TransportContext};
use crate::writer::OutcomeQueue;

/// Builds a bus; see [`Cap::builder`].
#[must_use = "a builder does nothing until .start()"]
pub struct CapBuilder {
    options: CapOptions,
    storage: Option<Arc<dyn DynStorage>>,
    transport: Option<Arc<dyn DynTransport>>,
    states: States,
    layers: Vec<Arc<dyn Layer>>,
    pub(super) registrations: Vec<Registration>,
    pub(super) handlers: Handlers,
    hook: IncomingHook,
    classify: Option<Classify>,
    on_failed: Option<OnFailed>,
    id_clock: Arc<dyn IdClock>,
}

impl Cap {
    /// Creates a builder for a bus.
    pub fn builder() -> CapBuilder {
        CapBuilder::new()
    }
}

impl CapBuilder {
    pub(crate) fn new() -> Self {
        Self {
            options: CapOptions::default(),
            storage: None,
            transport: None,
            states: States::default(),
            layers: Vec::new(),
            registrations: Vec::new(),
            handlers: Handlers::default(),
            hook: IncomingHook::default(),
            classify: None,
            on_failed: None,
            id_clock: Arc::new(SystemIdClock::new()),
        }
    }

    /// Sets the clock that message ids are generated from, for simulations. The default is the system's.
    #[doc(hidden)]
    pub fn id_clock(mut self, clock: impl IdClock + 'static) -> Self {
        self.id_clock = Arc::new(clock);
        self
    }

    /// Sets all options, for example as read from a configuration.
    pub fn options(mut self, options: CapOptions) -> Self {
        self.options = options;
        self
    }

    /// Changes individual options.
    ///
    /// ```
    /// # use cap_core::prelude::*;
    /// let builder = Cap::builder().configure(|options| {
    ///     options.topic_prefix = Some("shop".into());
    ///     options.group_concurrency = 8;
    /// });
    /// ```
    pub fn configure(mut self, change: impl FnOnce(&mut CapOptions)) -> Self {
        change(&mut self.options);
        self
    }

    /// Sets the storage of outbox and inbox. Required.
    pub fn storage(mut self, storage: impl Storage + Monitor) -> Self {
        self.storage = Some(Arc::new(storage));
        self
    }

    /// Sets the transport to the broker. Required.
    pub fn transport(mut self, transport: impl Transport) -> Self {
        self.transport = Some(Arc::new(transport));
        self
    }

    /// Shares a value with handlers that take [`State<T>`](crate::State), or an instance with its methods that are handlers
    /// (`#[cap_subscriber]`). There can be one value of each type.
    pub fn state<T: Send + Sync + 'static>(self, value: T) -> Self {
        self.shared_state(Arc::new(value))
    }

    /// Shares a value as [`state`](Self::state) does, for a value that is already in an [`Arc`].
    pub fn shared_state<T: Send + Sync + 'static>(mut self, value: Arc<T>) -> Self {
        self.states.insert(value);
        self
    }

    /// Wraps all handlers in a layer; the layer added first is the outermost.
    pub fn layer(mut self, layer: impl Layer) -> Self {
        self.layers.push(Arc::new(layer));
        self
    }

    /// Sets which annotated handlers (`#[cap_subscribe]`, `#[cap_subscriber]`) are subscribed: all that are linked into the
    /// program, which is the default, only those of a list, or none; see [`Handlers`]. Called again, it replaces what it set
    /// before. Handlers given to [`subscribe`](Self::subscribe) are added to them.
    ///
    /// ```
    /// # use cap_core::prelude::*;
    /// // A service that only publishes.
    /// let builder = Cap::builder().handlers(Handlers::none());
    /// ```
    pub fn handlers(mut self, handlers: Handlers) -> Self {
        self.handlers = handlers;
        self
    }

    /// Subscribes a function or closure, without macros: to a topic or pattern, or with more settings as a [`Subscribe`].
    ///
    /// ```
    /// # use cap_core::prelude::*;
    /// let builder = Cap::builder()
    ///     .subscribe("order.paid", async |order: u64| println!("order {order} is paid"))
    ///     .subscribe(Subscribe::to("order.#").group("audit"), async |topic: Topic| println!("{}", &*topic));
    /// ```
    pub fn subscribe<A: 'static, H: HandlerFn<A>>(
        mut self,
        subscribe: impl Into<Subscribe>,
        handler: H,
    ) -> Self {
        let function = std::any::type_name::<H>();
        let handler = ErasedHandler::shared(handler);
        self.registrations.push(Registration::from_builder(subscribe.into(), function, handler));
        self
    }

    /// Sets a hook that supplies headers for deliveries from senders that cannot write `cap-msg-id` and `cap-msg-name`. The
    /// hook gets the routing key, properties and headers of each delivery; the headers that it returns are set on the
    /// delivery.
    ///
    /// ```
    /// # use cap_core::prelude::*;
    /// let builder = Cap::builder().map_incoming(|delivery| {
    ///     let id = delivery.properties.get("message-id")?;
    ///     Some([("cap-msg-id", id), ("cap-msg-name", &delivery.routing_key)].into_iter().collect())
    /// });
    /// ```
    pub fn map_incoming(
        mut self,
        hook: impl Fn(&Incoming) -> Option<Headers> + Send + Sync + 'static,
    ) -> Self {
        self.hook = IncomingHook(Some(Arc::new(hook)));
        self
    }

    /// Sets the topics that senders may request replies to: [`CapOptions::callbacks_to`].
    ///
    /// ```
    /// # use cap_core::prelude::*;
    /// let builder = Cap::builder().callbacks_to(["shop.replies.#", "place.order.mark.status"]);
    /// ```
    pub fn callbacks_to<T: Into<String>>(mut self, patterns: impl IntoIterator<Item = T>) -> Self {
        self.options.callbacks_to = Some(patterns.into_iter().map(Into::into).collect());
        self
    }

    /// Sets whether a handler that returns `()` sends a reply: [`CapOptions::reply_to_unit`].
    pub fn reply_to_unit(mut self, reply: bool) -> Self {
        self.options.reply_to_unit = reply;
        self
    }

    /// Classifies handler errors: permanent, retry later, or outage; see [`Classify`]. A subscriber's own classifier takes
    /// precedence. Errors that already have a kind of their own, such as a [`HandlerError`](crate::HandlerError) of another
    /// kind than failed, are not classified.
    pub fn classify_errors(mut self, classify: Classify) -> Self {
        self.classify = Some(classify);
        self
    }

    /// Sets the failure callback, which is called once when a message has failed for good or was parked and needs an
    /// operator: CAP's `FailedThresholdCallback`. It is called again, possibly on another node, only if the process dies
    /// before it has returned. A callback that panics or takes longer than a minute counts as called.
    pub fn on_failed<F, Fut>(mut self, callback: F) -> Self
    where
        F: Fn(Failure) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.on_failed = Some(OnFailed(Arc::new(move |failure| Box::pin(callback(failure)))));
        self
    }

    /// Checks the configuration and starts the bus.
    ///
    /// Waits up to `start_timeout` for the storage and the broker. If they are still unavailable then, it returns
    /// nevertheless; the bus keeps connecting, and work is delayed until it succeeds.
    ///
    /// # Errors
    ///
    /// [`StartError`] with all mistakes in the subscriptions, an invalid option, an invalid connection string, or an error of
    /// the storage or the broker that only an operator can fix, such as a wrong password. No task keeps running then.
    pub async fn start(mut self) -> Result<Cap, StartError> {
        self.options.validate()?;
        let worker = self.options.configured_worker()?;
        let storage = self.storage.take().ok_or(StartError::NoStorage)?;
        let transport = self.transport.take().ok_or(StartError::NoTransport)?;
        storage.check()?;
        let groups = self.groups(&*storage)?;
        let (node, version) = (Arc::from(&*self.options.node_name), Arc::from(&*self.options.version));
        transport.start(&TransportContext::new(Arc::clone(&node), Arc::clone(&version)))?;
        let owner = Owner { node, version, lease: self.options.lease };
        crate::runtime::metric_names::describe();
        let start_timeout = self.options.start_timeout;
        let (cap, started) = self.launch(storage, transport, owner, worker, groups);
        match tokio::time::timeout(start_timeout, started.wait()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                cap.abort().await;
                return Err(error);
            }
            Err(_) => {
                tracing::warn!(timeout = ?start_timeout, "started, but the storage or the broker is not reachable yet; still connecting");
            }
        }
        Ok(cap)
    }

    fn groups(&mut self, storage: &dyn DynStorage) -> Result<Vec<Arc<Group>>, StartError> {
        let mut registrations = std::mem::take(&mut self.registrations);
        registrations.extend(self.handlers.registrations());
        let context =
            CheckContext::new(&self.states, StorageView { name: storage.name(), any: storage.as_any() });
        if registrations.is_empty() && !self.handlers.allows_none() {
            let problem = "no handler was found. A crate that no code refers to is not linked: add \
                           cap_core::link_handlers!(that_crate); to the program. If the service only publishes, call \
                           .handlers(Handlers::none())";
            return Err(StartError::Subscriptions(vec![problem.to_owned()]));
        }
        tracing::info!(handlers = count_by_package(&registrations), "found");
        let groups =
            build_groups(registrations, &self.options, &context).map_err(StartError::Subscriptions)?;
        let missing: Vec<String> = self
            .handlers
            .expected()
            .iter()
            .filter(|topic| {
                let topic = self.options.full_topic(topic);
                !groups.iter().any(|group| {
                    group.member_for(&topic).is_some()
                        || group.members.iter().any(|member| member.pattern.as_str() == topic)
                })
            })
            .map(|topic| format!("no handler for the expected topic {topic:?}: is its crate linked? (cap_core::link_handlers!)"))
            .collect();
        if missing.is_empty() {
            Ok(groups.into_iter().map(Arc::new).collect())
        } else {
            Err(StartError::Subscriptions(missing))
        }
    }

    fn launch(
        mut self,
        storage: Arc<dyn DynStorage>,
        transport: Arc<dyn DynTransport>,
        owner: Owner,
        worker: Option<u16>,
        groups: Vec<Arc<Group>>,
    ) -> (Cap, Started) {
        let own_queues = groups.iter().filter(|group| !group.existing).count();
        let groups = groups.into_iter().map(|group| GroupRuntime::new(group, transport.name())).collect();
        let options = Arc::new(self.options);
        let id_worker = worker.unwrap_or_else(|| fastrand::u16(..1024));
        let ids = Arc::new(IdGenerator::with_clock(id_worker, self.id_clock));
        let (inserts, insert_queue) = mpsc::channel(options.batch_size * 2);
        let (outcomes, outcome_queue) = OutcomeQueue::new(options.batch_size * 2);
        let (relay, relay_queue) = RelayQueue::new(options.relay_buffer);
        let (notifier, notifications) = Notifier::new(self.on_failed.is_some());
        let composer = Arc::new(Composer {
            ids: Arc::clone(&ids),
            options: Arc::clone(&options),
            can_delay: transport.broker_delay().is_some(),
            transport: Arc::clone(&transport),
        });
        let engine = Arc::new(Engine {
            lifecycle: Lifecycle::starting(),
            storage: StorageClient::new(storage, owner, options.succeeded_expire_after),
            broker: BrokerClient::new(transport, own_queues),
            notifier,
            repeated: RepeatedEvents::default(),
            ids,
            options,
        });
        let outbox = Arc::new(Outbox {
            full_destinations: FullDestinations::default(),
            late_commits: LateCommits::new(engine.options.relay_buffer),
            open_commits: OpenCommits::new(),
            metrics: OutgoingMetrics::default(),
            engine: Arc::clone(&engine),
            composer,
            inserts,
            outcomes,
            relay,
        });
        let cap = Cap::new(groups, Arc::clone(&outbox));
        self.states.insert(Arc::new(cap.own()));
        let inbox = Arc::new(Inbox {
            engine,
            outbox,
            states: Arc::new(self.states),
            layers: self.layers.into(),
            classify: self.classify,
            hook: self.hook,
            suspects: SuspectGate::default(),
        });
        let queues =
            Queues { inserts: insert_queue, outcomes: outcome_queue, relay: relay_queue, notifications };
        let started = spawn(&cap, &inbox, queues, worker, self.on_failed);
        (cap, started)
    }
}

impl fmt::Debug for CapBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CapBuilder").field("registrations", &self.registrations).finish_non_exhaustive()
    }
}
