//! A service that says how much memory its process has had, for the tests of memory: `ready` and the kibibytes when it has
//! started, and a line for each message whose handler has ended. It ends when its standard input does.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "its words are for the test that starts it")]

use std::io::Read as _;
use std::time::Duration;

use cap_core::Cap;
use cap_core::prelude::*;
use cap_postgres::Postgres;
use cap_rabbitmq::RabbitMq;

fn setting(name: &str) -> String {
    std::env::var(name).unwrap()
}

/// The most memory that the process has had so far, in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim_end_matches("kB").trim().parse().unwrap()
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let scene = setting("COUNTING_SCENE");
    let pool = sqlx::PgPool::connect(&setting("COUNTING_DATABASE")).await.unwrap();
    let cap = Cap::builder()
        .handlers(Handlers::none())
        .storage(Postgres::new(pool).schema(&scene))
        .transport(RabbitMq::new(setting("COUNTING_AMQP")).exchange(&scene))
        .configure(|options| {
            options.group_prefix = Some(scene.clone());
            options.receive_bytes = setting("COUNTING_BYTES").parse().unwrap();
            options.group_concurrency = 4;
        })
        .subscribe(Subscribe::to("large").group("large"), async |RawBody(body): RawBody| {
            // What has come behind it is in memory, too.
            tokio::time::sleep(Duration::from_millis(50)).await;
            println!("handled {} {}", body.len(), peak());
        })
        .start()
        .await
        .unwrap();
    println!("ready {}", peak());
    // A thread of its own: the end of the test is the end of this process, whatever it is doing.
    let parent = tokio::task::spawn_blocking(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
    });
    let _ = parent.await;
    let _ = cap.shutdown().await;
}
