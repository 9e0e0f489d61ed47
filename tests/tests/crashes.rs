//! Messages that kill the process that handles them: issue 8, row 2.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use cap_tests::{Scene, amqp_url, database_url, scene, soon};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::{sleep, timeout};

const GROUPS: [&str; 3] = ["plain", "inside", "calm"];
const GOOD: i64 = 255;

/// A service in a process of its own.
struct Service {
    process: Child,
    /// It ends when this is dropped.
    stdin: ChildStdin,
    lines: tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
}

impl Service {
    fn start(scene: &Scene) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_crashing-service"))
            .env("CRASH_SCENE", scene.name())
            .env("CRASH_AMQP", amqp_url())
            .env("CRASH_DATABASE", database_url())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (stdin, stdout) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        Self { process, stdin, lines: BufReader::new(stdout).lines() }
    }

    /// The next line; `None` once it is dead.
    async fn line(&mut self) -> Option<String> {
        self.lines.next_line().await.unwrap()
    }

    async fn end(mut self) {
        drop(self.stdin);
        soon(self.process.wait()).await.unwrap();
    }
}

async fn number(scene: &Scene, query: &str) -> i64 {
    let query = query.replace("{s}", &format!("\"{}\"", scene.name()));
    sqlx::query_scalar(sqlx::AssertSqlSafe(query)).fetch_one(scene.pool()).await.unwrap()
}

/// One message that kills its process in one of three groups, among 255 that do not: the service is started again whenever
/// it has died, until everything is quiet. The message is parked and told of, all others are handled, and for none of
/// them a crash is counted, also not in the group that ran beside it.
async fn is_parked(dies_in: &'static str, dies_by: &'static str) {
    scene(async |scene| {
        let queues = scene.builder().configure(|options| options.poll_interval = Duration::from_secs(1));
        // It declares the queues that it sends to, and handles nothing.
        let mut first = Service::start(scene);
        while first.line().await.unwrap() != "ready" {}
        first.end().await;
        scene.note_queues(GROUPS);
        let publisher = scene.start(queues).await;
        let jobs = (0..=GOOD).map(|number| match number {
            100 => json!({"number": number, "dies_in": dies_in, "dies_by": dies_by}),
            _ => json!({"number": number}),
        });
        publisher.publish_all("crash.work", jobs).await.unwrap();

        let mut began: BTreeMap<String, usize> = BTreeMap::new();
        let (mut told, mut starts) = (Vec::new(), 0);
        let quiet = async {
            loop {
                let mut service = Service::start(scene);
                starts += 1;
                let died = loop {
                    match timeout(Duration::from_millis(500), service.line()).await {
                        Ok(None) => break true,
                        Ok(Some(line)) => {
                            if let Some(what) = line.strip_prefix("began ") {
                                *began.entry(what.to_owned()).or_default() += 1;
                            }
                            told.extend(line.strip_prefix("failed ").map(str::to_owned));
                        }
                        Err(_) => {
                            let all = number(scene, "SELECT count(*) FROM {s}.inbox").await;
                            let open = "SELECT count(*) FROM {s}.inbox_state WHERE status < 3 OR due IS NOT NULL";
                            if all == 3 * (GOOD + 1) && number(scene, open).await == 0 {
                                break false;
                            }
                        }
                    }
                };
                if !died {
                    return service.end().await;
                }
                soon(service.process.wait()).await.unwrap();
                // As a supervisor does.
                sleep(Duration::from_millis(100)).await;
            }
        };
        timeout(Duration::from_secs(200), quiet).await.expect("it is quiet in the end");

        let parked = "SELECT count(*) FROM {s}.inbox_state WHERE reason = 'process-crashed' AND crashes = 5 AND attempts = 0";
        assert_eq!(number(scene, parked).await, 1);
        assert_eq!(number(scene, "SELECT count(*) FROM {s}.inbox_state WHERE status = 3").await, 1);
        let crashes = "SELECT count(*) FROM {s}.attempts WHERE error LIKE 'process died while handling, node %'";
        assert_eq!(number(scene, crashes).await, 5, "each crash is on record");
        let whose = "SELECT count(DISTINCT a.id) FROM {s}.attempts AS a";
        assert_eq!(number(scene, whose).await, 1, "and none of another message");
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with("process-crashed process died while handling, node "), "{told:?}");
        assert!(told[0].ends_with(", 5 times in all"), "{told:?}");
        // Once unsuspected, once perhaps beside a suspect of another group, and five times alone.
        let runs = began.get(&format!("{dies_in} 100")).copied().unwrap_or_default();
        assert!((6..=7).contains(&runs), "it has run {runs} times");
        assert_eq!(starts, runs + 1, "nothing else kills the service");
        for group in GROUPS {
            for number in 0..=GOOD {
                assert!(began.contains_key(&format!("{group} {number}")), "{group} {number} was never handled");
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abort_in_a_handler_is_parked() {
    is_parked("plain", "abort").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stack_overflow_inside_a_pg_tx_is_parked() {
    is_parked("inside", "overflow").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exit_in_a_handler_is_parked() {
    is_parked("plain", "exit").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_from_within_a_pg_tx_is_parked() {
    is_parked("inside", "kill").await;
}
