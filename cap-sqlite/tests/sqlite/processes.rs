//! Several processes on one file, and their sudden ends.
//!
//! A process is this very program, told by its environment to be another one.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use cap_core::message::{Headers, Message};
use cap_core::prelude::*;
use cap_core::storage::{
    ClaimRequest, Entry, Identity, NewIncoming, Owner, Side, Storage as _, Wake, WriteBatch,
};
use cap_sqlite::{Sqlite, SqliteTx};
use tokio_util::sync::CancellationToken;

use crate::support::{Database, incoming, outgoing, owner};

const ROLE: &str = "CAP_SQLITE_TEST_ROLE";
const FILE: &str = "CAP_SQLITE_TEST_FILE";

/// Another process, which is killed when it is dropped.
struct Process {
    child: Child,
    words: BufReader<ChildStdout>,
}

impl Process {
    fn start(role: &str, path: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "processes::another_process", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .env(FILE, path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let words = BufReader::new(child.stdout.take().unwrap());
        Self { child, words }
    }

    /// The next thing that it says, if that is of the kind `word`.
    fn hear(&mut self, word: &str) -> Option<String> {
        let mut line = String::new();
        while self.words.read_line(&mut line).unwrap() > 0 {
            // The first words stand behind those of the test program.
            if let Some((_, rest)) = line.trim_end().split_once(word) {
                return Some(rest.to_owned());
            }
            line.clear();
        }
        None
    }

    /// SIGKILL: it cannot do anything about it.
    fn kill(&mut self) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

#[allow(clippy::print_stdout, reason = "it speaks to the test that started it")]
fn say(word: &str) {
    println!("{word}");
}

/// What another process does; nothing in the process of the tests.
#[test]
fn another_process() {
    let (Ok(role), Some(path)) = (std::env::var(ROLE), std::env::var_os(FILE)) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let storage = Sqlite::open(path);
        match role.as_str() {
            "write" => write_for_ever(&storage).await,
            "leave work" => {
                let batch = WriteBatch { incoming: vec![incoming(1)], ..WriteBatch::default() };
                storage.write(&owner("other"), &batch).await.unwrap();
            }
            _ => {
                let _cap = bus(storage).start().await.unwrap();
                say("started");
                std::future::pending::<()>().await;
            }
        }
    });
}

async fn write_for_ever(storage: &Sqlite) {
    let first: i64 = i64::from(std::process::id()) * 1_000_000;
    for id in first.. {
        let new = NewIncoming { id, ..incoming(id) };
        let batch = WriteBatch { outgoing: vec![outgoing(id)], incoming: vec![new], ..WriteBatch::default() };
        storage.write(&owner("other"), &batch).await.unwrap();
        say(&format!("stored {id}"));
    }
}

async fn book(number: i64, mut tx: SqliteTx) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO ledger VALUES (?)").bind(number).execute(&mut *tx).await?;
    Ok(())
}

fn bus(storage: Sqlite) -> cap_core::CapBuilder {
    Cap::builder()
        .handlers(Handlers::none())
        .storage(storage)
        .transport(MemoryTransport::new())
        .configure(|options| {
            options.default_group = "ledger".into();
            options.lease = Duration::from_secs(1);
        })
        .subscribe(Subscribe::to("book").concurrency(4), book)
}

fn to_be_booked(id: i64) -> NewIncoming {
    let headers: Headers =
        [("cap-msg-id", id.to_string()), ("cap-msg-name", "book".to_owned())].into_iter().collect();
    let message = Arc::new(Message::new(headers, id.to_string().into_bytes()));
    NewIncoming {
        id,
        group: "ledger.v1".into(),
        message,
        entry: Entry::Scheduled { held: false },
        identity: Identity::default(),
    }
}

#[tokio::test]
async fn what_was_reported_as_stored_survives_a_kill() {
    let database = Database::new().await;
    for round in 1..=5 {
        let mut process = Process::start("write", &database.path);
        let stored: Vec<String> = (0..round * 20).map(|_| process.hear("stored ").unwrap()).collect();
        process.kill();
        for id in stored {
            let whole = format!(
                "SELECT (SELECT count(*) FROM cap_outbox JOIN cap_outbox_state USING (id) WHERE id = {id})
                    + (SELECT count(*) FROM cap_inbox JOIN cap_inbox_state USING (id) WHERE id = {id})"
            );
            assert_eq!(database.count(&whole).await, 2, "{id}");
        }
        for (messages, states) in [("cap_outbox", "cap_outbox_state"), ("cap_inbox", "cap_inbox_state")] {
            let half = format!(
                "SELECT count(*) FROM {messages} FULL JOIN {states} s USING (id) WHERE s.due IS NULL"
            );
            assert_eq!(database.count(&half).await, 0, "half a message");
        }
        assert_eq!(database.text("PRAGMA integrity_check").await, "ok");
    }
}

#[tokio::test]
async fn three_processes_and_a_killed_one_do_everything_once() {
    const ALL: i64 = 300;
    let database = Database::new().await;
    database.execute("CREATE TABLE ledger (number INTEGER NOT NULL)").await;
    let mut processes: Vec<Process> = (0..3).map(|_| Process::start("handle", &database.path)).collect();
    for process in &mut processes {
        process.hear("started").unwrap();
    }
    database.receive((1..=ALL).map(to_be_booked).collect()).await;
    let booked = async |at_least: i64| {
        let patience = tokio::time::timeout(Duration::from_secs(60), async {
            while database.count("SELECT count(*) FROM ledger").await < at_least {
                tokio::task::yield_now().await;
            }
        });
        patience.await.unwrap();
    };
    booked(ALL / 10).await;
    processes[0].kill();
    booked(ALL).await;
    let left = "SELECT count(*) FROM cap_inbox_state";
    tokio::time::timeout(Duration::from_secs(60), async {
        while database.count(left).await > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    assert_eq!(database.count("SELECT count(*) FROM ledger").await, ALL, "nothing twice");
    assert_eq!(database.count("SELECT count(DISTINCT number) FROM ledger").await, ALL, "nothing left out");
}

#[tokio::test]
async fn work_of_another_process_is_noticed() {
    let database = Database::new().await;
    let (wake, cancelled) = (Wake::default(), CancellationToken::new());
    let listening = tokio::spawn({
        let (storage, wake, cancelled) = (database.storage.clone(), wake.clone(), cancelled.clone());
        async move { storage.listen(wake, cancelled).await }
    });
    let woken =
        async || tokio::time::timeout(Duration::from_secs(20), wake.woken(Side::Inbox)).await.unwrap();
    woken().await;
    let _process = Process::start("leave work", &database.path);
    woken().await;
    let request = ClaimRequest::new(Side::Inbox, vec!["billing.v1".into()], 10);
    let here = Owner { node: "here".into(), ..owner("a") };
    assert_eq!(database.storage.claim(&here, &request).await.unwrap().rows.len(), 1);
    cancelled.cancel();
    listening.await.unwrap();
}
