//! The life of a node: it does what its parent says, and dies with it.

use std::io::BufRead;
use std::time::Duration;

use fastrand::Rng;
use sqlx::postgres::PgPoolOptions;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tracing_subscriber::EnvFilter;

use crate::notes::Notes;
use crate::publishing::Publishing;
use crate::service;
use crate::settings::{Settings, VARIABLE};

/// Lives as the environment says until it is told to end (SIGTERM), or until its parent is gone.
///
/// It says `ready` when its bus has started, `published` when it has published what a line `publish N` asked for, and
/// `ended` after a shutdown.
pub fn live() {
    let settings = std::env::var(VARIABLE).expect("a node is started by the fault tests");
    let settings: Settings = serde_json::from_str(&settings).expect("settings of a node");
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,cap_core=debug,lapin=off"));
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(std::io::stderr).init();
    let mut runtime = if settings.one_thread {
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    let runtime = runtime.enable_all().build().expect("a runtime");
    runtime.block_on(run(settings, orders()));
}

/// The lines of the parent. Its end is this process's end, whatever that is doing.
fn orders() -> mpsc::UnboundedReceiver<u64> {
    let (order, orders) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if let Some(count) = line.strip_prefix("publish ").and_then(|count| count.parse().ok()) {
                let _ = order.send(count);
            }
        }
        std::process::exit(3);
    });
    orders
}

#[allow(clippy::print_stdout, reason = "it is what the parent waits for")]
async fn run(settings: Settings, mut orders: mpsc::UnboundedReceiver<u64>) {
    let mut terminate = signal(SignalKind::terminate()).expect("signals can be heard");
    let notes = Notes::open(&settings.notes, &settings.node);
    let pool = PgPoolOptions::new()
        .max_connections(6)
        .acquire_timeout(Duration::from_secs(3))
        .connect_lazy(&settings.database)
        .expect("the URL of a database");
    let cap = service::builder(&settings, pool.clone(), &notes).start().await.expect("the bus should start");
    println!("ready");
    let mut publishing = Publishing {
        cap: cap.clone(),
        pool,
        shop: service::Desk::new(&settings, notes.clone()).shop,
        notes,
        random: Rng::with_seed(settings.seed),
        number: 0,
    };
    let publish = async {
        while let Some(count) = orders.recv().await {
            for _ in 0..count {
                publishing.one().await;
                publishing.pause().await;
            }
            println!("published");
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = publish => {}
        _ = terminate.recv() => {}
    }
    match cap.shutdown().await {
        Ok(()) => println!("ended"),
        Err(error) => println!("ended in haste: {error}"),
    }
    // The thread that reads the parent's lines has no other end.
    std::process::exit(0);
}
