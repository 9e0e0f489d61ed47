//! A node as its parent holds it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::settings::{Settings, VARIABLE};

/// A shutdown that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(30);

/// What was to be published in an outage waits up to a time limit, each message for itself.
const PUBLISHING: Duration = Duration::from_secs(60);

/// A process that publishes and handles. It dies with this value.
#[derive(Debug)]
pub struct Node {
    name: String,
    process: Child,
    stdin: ChildStdin,
    lines: tokio::io::Lines<BufReader<ChildStdout>>,
    /// How many of its answers to `publish` are still to be heard.
    asked: usize,
}

impl Node {
    pub(crate) async fn start(program: &Path, settings: &Settings, environment: &[(&str, &str)]) -> Self {
        let log = File::create(settings.notes.with_extension("log")).expect("a log for the node");
        let mut command = Command::new(program);
        command
            .env(VARIABLE, serde_json::to_string(settings).expect("settings serialize"))
            .env_remove("CAP_STOP_AT")
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true);
        let mut process = command.spawn().expect("a node can be started");
        let (stdin, stdout) = (process.stdin.take(), process.stdout.take());
        let (stdin, stdout) = (stdin.expect("it is piped"), stdout.expect("it is piped"));
        tokio::task::yield_now().await;
        Self { name: settings.node.clone(), process, stdin, lines: BufReader::new(stdout).lines(), asked: 0 }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Waits for a line that starts so, and passes over others. `false` when it is not said in time, or will never be.
    pub async fn says(&mut self, start: &str, limit: Duration) -> bool {
        let heard = async {
            while let Ok(Some(line)) = self.lines.next_line().await {
                if line.starts_with(start) {
                    return true;
                }
            }
            false
        };
        timeout(limit, heard).await.unwrap_or(false)
    }

    /// Has it publish so many messages; it says `published` after them.
    pub async fn publish(&mut self, count: usize) {
        self.asked += 1;
        // One that is dead has its reasons.
        let _ = self.stdin.write_all(format!("publish {count}\n").as_bytes()).await;
    }

    /// Waits until it has published all that it was asked to.
    ///
    /// # Panics
    ///
    /// When that takes too long, or it ends before.
    pub async fn has_published(&mut self) {
        while self.asked > 0 {
            assert!(self.says("published", PUBLISHING).await, "{} does not publish; see its log", self.name);
            self.asked -= 1;
        }
    }

    /// Kills it as the kernel would.
    pub async fn kill(&mut self) {
        self.process.kill().await.expect("a node can be killed");
    }

    /// Stops it for a while (SIGSTOP).
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on (SIGCONT).
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Asks it to shut down, without waiting for it.
    pub fn ask_to_end(&self) {
        self.signal(Signal::TERM);
    }

    /// Asks it to shut down and waits until it has.
    ///
    /// # Panics
    ///
    /// When it does not, or ends in any other way.
    pub async fn end(&mut self) {
        self.ask_to_end();
        self.has_ended().await;
    }

    /// Waits until it has shut down as it was asked to.
    ///
    /// # Panics
    ///
    /// When it does not, or ends in any other way.
    pub async fn has_ended(&mut self) {
        let ended = timeout(LIMIT, self.process.wait()).await;
        let ended = ended.unwrap_or_else(|_| panic!("{} does not shut down", self.name));
        let status = ended.expect("a node can be waited for");
        assert!(status.success(), "{} ended with {status}; see its log", self.name);
    }

    fn signal(&self, signal: Signal) {
        let pid = self.process.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let _ = kill_process(pid, signal);
        }
    }
}

/// The program of a node stands beside this one, or above it where tests are built.
pub(crate) fn program() -> PathBuf {
    let own = std::env::current_exe().expect("this program has a place");
    let beside = own.ancestors().skip(1).take(2).map(|folder| folder.join("chaos-node"));
    beside.into_iter().find(|path| path.exists()).expect("chaos-node is built together with this")
}
