//! The quickstart on a file, killed in the middle and run again.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what went wrong by failing")]

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use cap_bus::monitor::{Monitor as _, Query};
use cap_bus::storage::{Side, Status};

#[path = "../../examples/quickstart.rs"]
mod story;

/// What the runs below start: this very program, told to run this test alone. So nothing has to be built beside it.
const CHILD: &str = "the_story_happens";

/// By itself it is the quickstart on a file of its own; [`quickstart`] names the file.
#[test]
fn the_story_happens() {
    if std::env::var_os("CAP_QUICKSTART_DB").is_some() {
        assert_eq!(story::main(), ExitCode::SUCCESS);
    } else {
        let folder = Folder::new("story");
        let told = run_to_the_end(&folder.0.join("quickstart.db"));
        assert!(told.contains("The story happened as told."), "{told}");
    }
}

fn quickstart(database: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "--nocapture", CHILD]);
    command.env("CAP_QUICKSTART_DB", database).env_remove("CAP_QUICKSTART_STOP");
    command
}

/// A folder that is removed with this value, also when the test fails.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("cap-quickstart-{name}-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left is in the folder for temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn run_to_the_end(database: &Path) -> String {
    let output = quickstart(database).output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{told}\n{}", String::from_utf8_lossy(&output.stderr));
    told
}

#[test]
fn what_a_killed_run_was_at_work_on_is_done_by_the_next() {
    const LEFT_UNDONE: &str = "What the last run left undone is done";
    let folder = Folder::new("restart");
    let database = folder.0.join("quickstart.db");
    let mut killed =
        quickstart(&database).env("CAP_QUICKSTART_STOP", "1").stdout(Stdio::piped()).spawn().unwrap();
    let told = BufReader::new(killed.stdout.take().unwrap());
    let stopped = told.lines().map(Result::unwrap).find(|line| line.contains("stopped in the middle"));
    // SIGKILL: it cannot do anything about it.
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert!(stopped.is_some(), "it ended before it was killed");

    let second = run_to_the_end(&database);
    assert!(second.contains(LEFT_UNDONE), "{second}");
    for order in 1..=4 {
        assert_eq!(second.matches(&format!("order {order} is marked succeeded")).count(), 1, "{second}");
    }
    let third = run_to_the_end(&database);
    assert!(!third.contains(LEFT_UNDONE), "{third}");
    assert!(third.contains("order 7 is marked succeeded"), "{third}");
}

/// Issue 8, row A: the broker in memory has nothing that would be lost with it.
#[test]
fn runs_that_are_killed_at_any_moment_lose_nothing() {
    let folder = Folder::new("killed");
    let database = folder.0.join("quickstart.db");
    for _ in 0..6 {
        let mut killed = quickstart(&database).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(killed.stdout.take().unwrap()).lines();
        // So many lines it writes before it places its last order.
        let _ = lines.take(fastrand::usize(3..22)).map(Result::unwrap).count();
        killed.kill().unwrap();
        killed.wait().unwrap();
    }
    run_to_the_end(&database);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let storage = cap_bus::sqlite::Sqlite::open(&database);
        let rows = async |side| storage.list(&Query::new(side).limit(1000)).await.unwrap();
        let (outbox, inbox) = (rows(Side::Outbox).await, rows(Side::Inbox).await);
        for row in &outbox {
            assert_eq!(row.status, Status::Succeeded, "{row:?}");
            let stored = inbox.iter().filter(|stored| stored.message.id() == row.message.id()).count();
            assert_eq!(stored, 1, "{row:?}");
        }
        assert!(outbox.len() >= 6, "{}", outbox.len());
    });
}
