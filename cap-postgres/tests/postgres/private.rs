//! Private servers: a primary and its standby, a pooler.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::support::url;

const LIMIT: Duration = Duration::from_secs(150);

/// Servers that a script keeps. They end with this value, and with this process.
pub(crate) struct Private {
    pub(crate) urls: Vec<String>,
    // Its end is the script's.
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    process: Child,
}

impl Private {
    pub(crate) async fn start(what: &[&str]) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/chaos/keeper.sh");
        let mut command = Command::new("bash");
        command
            .arg(script)
            .args(what)
            .env("DATABASE_URL", url())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let stdin = process.stdin.take().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut private = Self { urls: Vec::new(), stdin, lines, process };
        let line = private.answer().await;
        let urls = line.strip_prefix("ready ").unwrap_or_else(|| panic!("{what:?} did not start: {line}"));
        private.urls = urls.split(' ').map(str::to_owned).collect();
        private
    }

    pub(crate) async fn tell(&mut self, what: &str) {
        self.stdin.write_all(format!("{what}\n").as_bytes()).await.unwrap();
        assert_eq!(self.answer().await, "ok", "{what}");
    }

    /// Ends the servers, and waits until they are gone.
    pub(crate) async fn stop(self) {
        let Self { stdin, mut process, .. } = self;
        drop(stdin);
        timeout(LIMIT, process.wait()).await.unwrap().unwrap();
    }

    async fn answer(&mut self) -> String {
        timeout(LIMIT, self.lines.next_line()).await.unwrap().unwrap().unwrap_or_default()
    }
}
