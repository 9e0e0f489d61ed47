//! A RabbitMQ with settings of a test's own, kept by a script.

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// It is stopped when this value is dropped, or when the process ends in any other way.
pub(crate) struct PrivateBroker {
    pub(crate) url: lapin::uri::AMQPUri,
    stdin: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
    script: Child,
    settings: PathBuf,
}

impl PrivateBroker {
    /// Starts a broker with these files in its folder. `None`, with a line that says so, where there is no RabbitMQ to be
    /// started. Blocks for the seconds that a broker takes to boot.
    #[allow(clippy::print_stderr, reason = "a test that is left out says so")]
    pub(crate) fn start(files: &[(&str, String)]) -> Option<Self> {
        let settings = std::env::temp_dir().join(format!("cap-test-settings-{:016x}", fastrand::u64(..)));
        std::fs::create_dir(&settings).unwrap();
        for (name, content) in files {
            std::fs::write(settings.join(name), content).unwrap();
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rabbitmq/support/private_broker.sh");
        let mut command = Command::new("bash");
        command.arg(script).arg(&settings).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut script = command.spawn().unwrap();
        let stdin = script.stdin.take();
        let mut lines = BufReader::new(script.stdout.take().unwrap()).lines();
        let Some(line) = lines.next() else {
            assert_eq!(script.wait().unwrap().code(), Some(2), "the private broker did not start");
            eprintln!("LEFT OUT: there is no RabbitMQ to be started here");
            std::fs::remove_dir_all(&settings).unwrap();
            return None;
        };
        let url = line.unwrap().strip_prefix("ready ").unwrap().parse().unwrap();
        Some(Self { url, stdin, lines, script, settings })
    }

    /// Runs rabbitmqctl.
    pub(crate) fn control(&mut self, words: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{words}").unwrap();
        assert_eq!(self.lines.next().unwrap().unwrap(), "ok", "{words}");
    }
}

impl Drop for PrivateBroker {
    fn drop(&mut self) {
        drop(self.stdin.take());
        drop(self.script.wait());
        drop(std::fs::remove_dir_all(&self.settings));
    }
}

/// A port that nothing listens on.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
