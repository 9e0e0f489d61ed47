//! Handlers that block the runtime of their node past the lease: another node must not run the message, too, unless the
//! blocked one counts as dead. Issue 8, row 10.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use cap_core::CapBuilder;
use cap_core::memory::{MemoryStorage, MemoryTransport};
use cap_core::monitor::{Monitor, Query};
use cap_core::prelude::*;
use cap_core::storage::{Side, Status, Storage};
use cap_sqlite::Sqlite;
use cap_tests::{Scene, heard, scene, until};
use sqlx::{AssertSqlSafe, Executor as _, Row as _};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;
use tracing_subscriber::EnvFilter;

const LEASE: Duration = Duration::from_secs(1);

/// What the nodes have logged, and their threads.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// The lines that hold all of these.
    fn lines(&self, parts: &[&str]) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().filter(|line| parts.iter().all(|part| line.contains(part))).map(str::to_owned).collect()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A node on a runtime of one thread, as in a process of its own.
struct Node {
    stop: oneshot::Sender<()>,
    thread: thread::JoinHandle<()>,
}

impl Node {
    async fn start(log: &Log, builder: CapBuilder) -> (Self, Cap) {
        let (stop, stopped) = oneshot::channel::<()>();
        let (tell, started) = oneshot::channel();
        let writer = log.clone();
        let thread = thread::spawn(move || {
            let log = tracing_subscriber::fmt()
                .with_env_filter(EnvFilter::new("info"))
                .with_writer(move || writer.clone())
                .with_ansi(false)
                .finish();
            let _guard = tracing_subscriber::util::SubscriberInitExt::set_default(log);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let cap = builder.start().await.unwrap();
                assert!(tell.send(cap.clone()).is_ok());
                // Without a word the runtime ends under the bus.
                if stopped.await.is_ok() {
                    cap.shutdown().await.unwrap();
                }
            });
        });
        (Self { stop, thread }, started.await.unwrap())
    }

    /// Shuts it down, when its handlers have ended.
    async fn stop(self) {
        self.stop.send(()).unwrap();
        tokio::task::spawn_blocking(|| self.thread.join().unwrap()).await.unwrap();
    }

    /// Ends its runtime, and the bus with it, without a shutdown.
    async fn drop_runtime(self) {
        drop(self.stop);
        tokio::task::spawn_blocking(|| self.thread.join().unwrap()).await.unwrap();
    }
}

/// Two nodes whose handlers block their thread until they are let go.
struct Two {
    nodes: Vec<(Node, Cap)>,
    /// Handlers block once it has a permit.
    quiet: Arc<Semaphore>,
    /// Ends all blocks as it is dropped.
    hold: std::sync::mpsc::Sender<()>,
    begun: mpsc::Receiver<u32>,
    log: Log,
}

impl Two {
    async fn start(scene: &Scene, dead_after: u32, builder: impl Fn() -> CapBuilder) -> Self {
        let log = Log::default();
        let (tell, begun) = mpsc::channel(16);
        let (hold, gate) = std::sync::mpsc::channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        let quiet = Arc::new(Semaphore::new(0));
        let mut nodes = Vec::new();
        for _ in 0..2 {
            let (tell, gate, may_block) = (tell.clone(), Arc::clone(&gate), Arc::clone(&quiet));
            let handler = move |number: u32| {
                let (tell, gate, may_block) = (tell.clone(), Arc::clone(&gate), Arc::clone(&may_block));
                async move {
                    tell.send(number).await.unwrap();
                    drop(may_block.acquire().await.unwrap());
                    // As a sleep or a computation would, without an end known beforehand.
                    let _ = gate.lock().unwrap().recv();
                }
            };
            let builder = builder().subscribe("work", handler).configure(|options| {
                options.lease = LEASE;
                options.poll_interval = LEASE / 5;
                options.runtime_dead_after = dead_after;
            });
            let (node, cap) = Node::start(&log, builder).await;
            scene.note(&cap).await;
            nodes.push((node, cap));
        }
        nodes[0].1.publish("work", &7_u32).await.unwrap();
        Self { nodes, quiet, hold, begun, log }
    }

    /// Has the handlers block as soon as the message counts as sent: a node that blocked in the middle of a
    /// transaction would keep others from taking anything.
    async fn block(&self) {
        let published = self.nodes[0].1.messages().published();
        until("the message to be sent", async || {
            let rows = published.list().await.unwrap();
            rows.iter().all(|row| row.status == Status::Succeeded).then_some(())
        })
        .await;
        self.quiet.add_permits(1);
    }

    /// Lets the handlers go, and shuts the nodes down. Gives back the rest of what had begun, and the log.
    async fn end(self) -> (mpsc::Receiver<u32>, Log) {
        drop(self.hold);
        for (node, cap) in self.nodes {
            drop(cap);
            node.stop().await;
        }
        (self.begun, self.log)
    }
}

/// Whichever node has the message blocks, for three leases at least; the other has nothing else to do than to take it.
async fn runs_once<S: Storage + Monitor>(
    scene: &Scene,
    storage: impl Fn() -> S,
    keeps_number: impl AsyncFn(),
) {
    let node = || scene.builder().storage(storage());
    let mut two = Two::start(scene, 60, node).await;
    assert_eq!(heard(&mut two.begun).await, 7);
    two.block().await;
    assert!(timeout(3 * LEASE, two.begun.recv()).await.is_err(), "another node has taken the message");
    until("a warning", async || {
        let warned = two.log.lines(&[" WARN ", "runtime blocked", "blocked::Two::start"]);
        assert!(warned.len() < 2, "once: {warned:?}");
        warned.first().map(|_| ())
    })
    .await;
    keeps_number().await;
    let (mut begun, log) = two.end().await;
    assert!(begun.try_recv().is_err(), "it ran again");
    assert_eq!(log.lines(&[" ERROR "]), [""; 0]);
    let rows = storage().list(&Query::new(Side::Inbox)).await.unwrap();
    let states: Vec<_> = rows.iter().map(|row| (row.status, row.attempts)).collect();
    assert_eq!(states, [(Status::Succeeded, 0)]);
}

#[tokio::test]
async fn a_handler_that_blocks_its_thread_runs_once_on_postgres() {
    scene(async |scene| {
        // When the number runs out that does so first.
        let first_end = async || {
            let schema = scene.name();
            let query = format!(
                "SELECT extract(epoch FROM min(lease_until))::float8 FROM {schema}.nodes WHERE worker >= 0"
            );
            let row = scene.pool().fetch_one(AssertSqlSafe(query)).await.unwrap();
            row.get::<f64, _>(0)
        };
        let renewed = async || {
            let before = first_end().await;
            until("a renewal of the worker id", async || (first_end().await > before).then_some(())).await;
        };
        runs_once(scene, || scene.storage(), renewed).await;
    })
    .await;
}

#[tokio::test]
async fn a_handler_that_blocks_its_thread_runs_once_on_sqlite() {
    scene(async |scene| {
        let folder = std::env::temp_dir().join(scene.name());
        std::fs::create_dir(&folder).unwrap();
        // Each node knows the file by a path of its own, as nodes of one process take turns at a path: one that is
        // blocked in its turn would keep the other out.
        let opened = AtomicUsize::new(0);
        let open = || {
            let detours = opened.fetch_add(1, Ordering::Relaxed);
            let folder = (0..detours).fold(folder.clone(), |path, _| path.join("..").join(scene.name()));
            Sqlite::open(folder.join("bus.db"))
        };
        runs_once(scene, open, async || ()).await;
        std::fs::remove_dir_all(&folder).unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_runtime_that_stays_blocked_counts_as_dead() {
    scene(async |scene| {
        let mut two = Two::start(scene, 2, || scene.builder()).await;
        assert_eq!(heard(&mut two.begun).await, 7);
        two.block().await;
        assert_eq!(heard(&mut two.begun).await, 7, "the other node takes over");
        let errors = two.log.lines(&[" ERROR ", "runtime dead", "blocked::Two::start"]);
        assert!(!errors.is_empty());
        drop(std::mem::replace(&mut two.hold, std::sync::mpsc::channel().0));
        until("life", async || two.log.lines(&[" WARN ", "runtime responds again"]).pop()).await;
        two.end().await;
        let rows = scene.storage().list(&Query::new(Side::Inbox)).await.unwrap();
        let states: Vec<_> = rows.iter().map(|row| (row.status, row.attempts)).collect();
        assert_eq!(states, [(Status::Succeeded, 0)]);
    })
    .await;
}

/// In memory nothing is renewed while the runtime is blocked, but said afterwards.
#[tokio::test]
async fn a_late_renewal_in_memory_names_the_handler() {
    let log = Log::default();
    let (tell, mut told) = mpsc::channel(16);
    let builder = Cap::builder()
        .handlers(Handlers::none())
        .storage(MemoryStorage::new())
        .transport(MemoryTransport::new())
        .configure(|options| options.lease = LEASE)
        .subscribe("waits", async |_: u32| std::future::pending::<()>().await)
        .subscribe(Subscribe::to("work").group("blocks"), move |number: u32| {
            let tell = tell.clone();
            async move {
                tell.send(number).await.unwrap();
                thread::sleep(2 * LEASE);
            }
        });
    let builder = builder.configure(|options| options.shutdown_timeout = Duration::ZERO);
    let (node, cap) = Node::start(&log, builder).await;
    cap.publish("waits", &1_u32).await.unwrap();
    cap.publish("work", &7_u32).await.unwrap();
    assert_eq!(heard(&mut told).await, 7);
    let line = until("a warning", async || log.lines(&[" WARN ", "leases renewed too late"]).pop()).await;
    assert!(line.contains("(group blocks.v1)") && !line.contains("cap.queue"), "{line}");
    drop(cap);
    node.drop_runtime().await;
}

/// The thread has what the bus has, so that nobody else has the state any more is its end.
#[tokio::test]
async fn the_thread_ends_with_its_bus() {
    scene(async |scene| {
        for orderly in [true, false] {
            let log = Log::default();
            let state = Arc::new(7_u32);
            let builder =
                scene.builder().shared_state(Arc::clone(&state)).subscribe("work", async |_: u32| ());
            let (node, cap) = Node::start(&log, builder).await;
            scene.note(&cap).await;
            assert!(Arc::strong_count(&state) > 1);
            drop(cap);
            if orderly {
                node.stop().await;
                assert_eq!(log.lines(&[" WARN "]).len() + log.lines(&[" ERROR "]).len(), 0);
            } else {
                node.drop_runtime().await;
            }
            until("the thread's end", async || (Arc::strong_count(&state) == 1).then_some(())).await;
        }
    })
    .await;
}
