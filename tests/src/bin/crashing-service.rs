//! A service whose process dies of one of its messages, for the tests of crash loops. It says on its standard output what
//! its handlers begin and end, one line each, and ends when its standard input does.

#![allow(
    clippy::unwrap_used,
    clippy::exit,
    clippy::print_stdout,
    reason = "it is made to die, and its words are for the test that starts it"
)]

use std::io::{Read as _, Write as _};
use std::time::Duration;

use cap_core::prelude::*;
use cap_core::{BoxError, Cap};
use cap_postgres::{PgTx, Postgres};
use cap_rabbitmq::RabbitMq;
use serde_json::Value;
use tokio::time::sleep;

fn setting(name: &str) -> String {
    std::env::var(name).unwrap()
}

/// One write, so that a line is there whole when the process dies right after it.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(format!("{line}\n").as_bytes());
    let _ = out.flush();
}

#[tokio::main]
async fn main() {
    let scene = setting("CRASH_SCENE");
    let pool = sqlx::PgPool::connect(&setting("CRASH_DATABASE")).await.unwrap();
    let cap = Cap::builder()
        .handlers(Handlers::none())
        .storage(Postgres::new(pool).schema(&scene))
        .transport(RabbitMq::new(setting("CRASH_AMQP")).exchange(&scene))
        .configure(|options| {
            options.group_prefix = Some(scene.clone());
            options.lease = Duration::from_secs(1);
            options.poll_interval = Duration::from_millis(200);
            options.group_concurrency = 8;
        })
        .on_failed(|failure| async move {
            say(&format!("failed {} {}", failure.reason.as_str(), failure.error));
        })
        .subscribe(Subscribe::to("crash.work").group("plain"), plain)
        .subscribe(Subscribe::to("crash.work").group("inside"), inside)
        .subscribe(Subscribe::to("crash.work").group("calm"), calm)
        .start()
        .await
        .unwrap();
    say("ready");
    // A thread of its own: the end of the test is the end of this process, whatever it is doing.
    let parent = tokio::task::spawn_blocking(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
    });
    let _ = parent.await;
    let _ = cap.shutdown().await;
}

async fn plain(job: Value) -> Result<(), BoxError> {
    work(&job, "plain").await;
    Ok(())
}

async fn inside(job: Value, mut tx: PgTx) -> Result<(), BoxError> {
    sqlx::query("SELECT 1").execute(&mut *tx).await?;
    work(&job, "inside").await;
    Ok(())
}

async fn calm(job: Value) -> Result<(), BoxError> {
    say(&format!("began calm {}", job["number"]));
    sleep(Duration::from_millis(3)).await;
    say(&format!("ended calm {}", job["number"]));
    Ok(())
}

async fn work(job: &Value, group: &str) {
    say(&format!("began {group} {}", job["number"]));
    // Long enough that others of the process are at work when it dies.
    sleep(Duration::from_millis(5)).await;
    if job["dies_in"] == group {
        match job["dies_by"].as_str().unwrap_or_default() {
            "exit" => std::process::exit(9),
            "overflow" => {
                std::hint::black_box(overflow(0));
            }
            "kill" => {
                let own = std::process::id().to_string();
                let _ = std::process::Command::new("kill").args(["-9", &own]).status();
                sleep(Duration::from_secs(60)).await;
            }
            _ => std::process::abort(),
        }
    }
    say(&format!("ended {group} {}", job["number"]));
}

#[allow(unconditional_recursion, reason = "the stack is to overflow")]
fn overflow(depth: u64) -> u64 {
    let page = std::hint::black_box([depth; 512]);
    overflow(depth + 1) + page[usize::try_from(depth % 512).unwrap_or(0)]
}
