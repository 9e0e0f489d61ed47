//! A private server, kept by a script that starts it, does to it what it is told, and stops it with the test.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

/// A private server takes some seconds to boot, on a busy machine many.
const LIMIT: Duration = Duration::from_secs(150);

/// A private server. It is stopped when this value is dropped, or when the process ends in any other way.
#[derive(Debug)]
pub struct Keeper {
    url: String,
    // Its end is the script's end.
    stdin: ChildStdin,
    lines: tokio::io::Lines<BufReader<ChildStdout>>,
    process: Child,
}

impl Keeper {
    /// Starts a private `rabbitmq` or `postgres`. `None`, with a line that says so, where the server's programs are
    /// missing.
    #[allow(clippy::print_stderr, reason = "a test that is left out says so")]
    pub async fn start(kind: &str) -> Option<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("keeper.sh");
        let mut command = Command::new("bash");
        command.arg(script).arg(kind).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("bash");
        let stdin = process.stdin.take().expect("it is piped");
        let lines = BufReader::new(process.stdout.take().expect("it is piped")).lines();
        let mut keeper = Self { url: String::new(), stdin, lines, process };
        let Some(line) = keeper.answer().await else {
            let status = keeper.process.wait().await.expect("bash can be waited for");
            assert_eq!(status.code(), Some(2), "the private {kind} did not start");
            eprintln!("LEFT OUT: there is no {kind} to be started here");
            return None;
        };
        let url = line.strip_prefix("ready ");
        url.expect("the keeper says where the server is").clone_into(&mut keeper.url);
        Some(keeper)
    }

    /// Where the server is. For PostgreSQL its administrator's.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Has something done to the server.
    ///
    /// # Panics
    ///
    /// When that fails.
    pub async fn tell(&mut self, what: &str) {
        self.stdin.write_all(format!("{what}\n").as_bytes()).await.expect("the keeper listens");
        let answer = self.answer().await;
        assert_eq!(answer.as_deref(), Some("ok"), "{what}");
    }

    /// A folder on a small disk that can be filled; `None` where that cannot be had.
    pub async fn small_disk(&mut self) -> Option<String> {
        self.stdin.write_all(b"room\n").await.expect("the keeper listens");
        Some(self.answer().await?.strip_prefix("ok ")?.to_owned())
    }

    async fn answer(&mut self) -> Option<String> {
        let line = timeout(LIMIT, self.lines.next_line()).await.expect("the keeper answers");
        line.expect("the keeper's lines can be read")
    }

    /// Stops the server, and waits until it is gone.
    pub async fn stop(self) {
        let Self { stdin, mut process, .. } = self;
        drop(stdin);
        let _ = timeout(LIMIT, process.wait()).await;
    }
}
