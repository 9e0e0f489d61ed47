//! The nodes of a run: started, killed, paused, shut down, and started again under another name.

use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cap_core::{Cap, Handlers, ShutdownError};
use cap_ledger::Event;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::handlers::subscribe;
use crate::id_clock::VirtualIdClock;
use crate::job::retry;
use crate::life::Life;
use crate::plan::{Blow, LEASE};
use crate::storage::SimStorage;
use crate::transport::SimTransport;
use crate::world::{World, millis};

/// The nodes of a run, each in its place.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub(crate) world: Arc<World>,
    places: Vec<Mutex<Place>>,
    started: AtomicU16,
    deaths: mpsc::UnboundedSender<usize>,
}

/// Where a node runs, one after the other.
#[derive(Debug, Default)]
struct Place {
    life: Option<Arc<Life>>,
    cap: Option<Cap>,
    /// What the application on this node is doing.
    tasks: JoinSet<()>,
}

/// What the application on a node works with.
#[derive(Debug, Clone)]
pub(crate) struct App {
    pub(crate) cap: Cap,
    pub(crate) life: Arc<Life>,
}

impl Fleet {
    pub(crate) fn new(world: Arc<World>) -> (Arc<Self>, mpsc::UnboundedReceiver<usize>) {
        let (deaths, heard) = mpsc::unbounded_channel();
        let places = (0..world.plan.nodes).map(|_| Mutex::default()).collect();
        (Arc::new(Self { world, places, started: AtomicU16::new(0), deaths }), heard)
    }

    fn place(&self, place: usize) -> MutexGuard<'_, Place> {
        self.places[place].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts every node.
    pub(crate) fn start_all(self: &Arc<Self>) {
        for place in 0..self.places.len() {
            tokio::spawn(Arc::clone(self).start(place));
        }
    }

    /// Clears away the dead, and starts others in their place.
    pub(crate) async fn keep(self: Arc<Self>, mut deaths: mpsc::UnboundedReceiver<usize>) {
        while let Some(place) = deaths.recv().await {
            let is_dead = self.place(place).life.as_ref().is_some_and(|life| life.is_dead());
            if is_dead {
                let dead = std::mem::take(&mut *self.place(place));
                drop(dead);
                tokio::spawn(Arc::clone(&self).start_later(place));
            }
        }
    }

    async fn start_later(self: Arc<Self>, place: usize) {
        tokio::time::sleep(self.world.within(LEASE * 2)).await;
        self.start(place).await;
    }

    /// Starts a node under a name and a number that none had before it.
    async fn start(self: Arc<Self>, place: usize) {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let name = format!("node-{place}-{number}");
        let life = Life::new(Arc::clone(&self.world), place, name.clone(), self.deaths.clone());
        self.place(place).life = Some(Arc::clone(&life));
        let mut rng = self.world.rng();
        let builder = Cap::builder()
            .id_clock(VirtualIdClock)
            .handlers(Handlers::none())
            .storage(SimStorage(Arc::clone(&life)))
            .transport(SimTransport(Arc::clone(&life)))
            .configure(|options| {
                options.node_name = name;
                options.worker_id = Some(number);
                options.lease = LEASE;
                options.poll_interval = LEASE / 2;
                options.retry = retry();
                options.publish_retry = retry();
                options.prefetch = rng.u16(3..=16);
                options.relay_buffer = rng.usize(1..=32);
                options.batch_size = rng.usize(1..=16);
                options.succeeded_expire_after = Duration::from_mins(5);
                options.collector_interval = Duration::from_secs(20);
                options.publish_timeout = Duration::from_secs(12);
                options.start_timeout = Duration::from_secs(2);
                options.shutdown_timeout = Duration::from_secs(rng.u64(5..=40));
            });
        match subscribe(builder, &life).start().await {
            Ok(cap) if !life.is_dead() => self.place(place).cap = Some(cap),
            Ok(_) => {}
            Err(error) => self.world.problem(format!("a node did not start: {error}")),
        }
    }

    /// Whether every node is up.
    pub(crate) fn is_whole(&self) -> bool {
        (0..self.places.len()).all(|place| self.place(place).cap.is_some())
    }

    /// Does something on a node that is up, if there is one.
    pub(crate) fn act<F>(&self, requested: usize, act: impl FnOnce(App) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        for place in 0..self.places.len() {
            let mut place = self.place((requested + place) % self.places.len());
            if let (Some(cap), Some(life)) = (place.cap.clone(), place.life.clone()) {
                place.tasks.spawn(act(App { cap, life }));
                return;
            }
        }
    }

    fn life(&self, place: usize) -> Option<Arc<Life>> {
        self.place(place).life.clone()
    }

    /// Has something happen to a node or a server; what takes time goes on by itself.
    pub(crate) fn strike(self: &Arc<Self>, blow: Blow) {
        match blow {
            Blow::Crash { node } => {
                if let Some(life) = self.life(node) {
                    life.die();
                }
            }
            Blow::Restart { node } => drop(tokio::spawn(Arc::clone(self).restart(node))),
            Blow::Pause { node, length } => {
                if let Some(life) = self.life(node) {
                    tokio::spawn(pause(life, length));
                }
            }
            Blow::CutOff { node, length } => {
                if let Some(life) = self.life(node) {
                    note_trouble(&life, length);
                    life.cut_off(true);
                    tokio::spawn(async move {
                        tokio::time::sleep(length).await;
                        life.cut_off(false);
                    });
                }
            }
            Blow::StoreAway { length } => {
                let world = Arc::clone(&self.world);
                world.take_store_away(true);
                for life in (0..self.places.len()).filter_map(|place| self.life(place)) {
                    note_trouble(&life, length);
                }
                tokio::spawn(async move {
                    tokio::time::sleep(length).await;
                    world.take_store_away(false);
                });
            }
            Blow::BrokerAway { length } => drop(tokio::spawn(broker_away(Arc::clone(&self.world), length))),
            Blow::QueuesFull { length } => drop(tokio::spawn(queues_full(Arc::clone(&self.world), length))),
            Blow::DropConsumers { node } => {
                if let Some(life) = self.life(node) {
                    life.consumers_end.notify_waiters();
                }
            }
        }
    }

    async fn restart(self: Arc<Self>, place: usize) {
        if self.place(place).cap.is_none() {
            return;
        }
        let node = std::mem::take(&mut *self.place(place));
        // What was not over in time is noted.
        let _ = self.shut_down(node).await;
        self.start_later(place).await;
    }

    /// Shuts a node down. What was not over in time is dropped, as in a death.
    async fn shut_down(&self, node: Place) -> Result<(), ShutdownError> {
        let Place { life: Some(life), cap: Some(cap), tasks } = node else { return Ok(()) };
        let began = self.world.now();
        let result = cap.shutdown().await;
        if result.is_err() {
            self.world.note_at(began, Event::Died { node: life.name.clone() });
        }
        life.end();
        drop(tasks);
        result
    }

    /// Shuts every node down, and gives back what was not over in time.
    pub(crate) async fn shut_down_all(&self) -> Vec<ShutdownError> {
        let mut late = Vec::new();
        for place in 0..self.places.len() {
            let node = std::mem::take(&mut *self.place(place));
            late.extend(self.shut_down(node).await.err());
        }
        late
    }

    /// Ends whatever is still being done to the nodes.
    pub(crate) fn calm_down(&self) {
        self.world.calm_down();
        for place in 0..self.places.len() {
            if let Some(life) = self.life(place) {
                life.pause(false);
                life.cut_off(false);
            }
        }
    }
}

/// Stops a node for a while.
async fn pause(life: Arc<Life>, length: Duration) {
    note_trouble(&life, length);
    life.pause(true);
    tokio::time::sleep(length).await;
    life.pause(false);
}

/// A node that does not reach the store for long may lose leases, and does not know it before it has asked.
fn note_trouble(life: &Life, length: Duration) {
    if length > LEASE / 6 {
        let (now, node) = (life.world.now(), life.name.clone());
        life.world.note_at(now, Event::Trouble { node: node.clone() });
        life.world.note_at(now + millis(length + LEASE / 2), Event::Recovered { node });
    }
}

/// Takes the broker away for a while.
pub(crate) async fn broker_away(world: Arc<World>, length: Duration) {
    world.transport.set_available(false);
    tokio::time::sleep(length).await;
    world.transport.set_available(true);
}

/// Leaves no room in the broker's queues for a while.
async fn queues_full(world: Arc<World>, length: Duration) {
    world.fill_queues(true);
    tokio::time::sleep(length).await;
    world.fill_queues(false);
}
