//! Runs `cap` in a folder of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// A folder with a configuration file and a database, removed at the end.
pub(crate) struct Folder(PathBuf);

/// How a call ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Folder {
    pub(crate) fn new() -> Self {
        let path =
            std::env::temp_dir().join(format!("cap-cli-{}-{:08x}", std::process::id(), fastrand::u32(..)));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// One whose database has its tables.
    pub(crate) fn with_tables() -> Self {
        let folder = Self::new();
        assert_eq!(folder.on_file(&["schema", "apply"]).code, 0);
        folder
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.0.join("shop.db")
    }

    /// A command without any setting of this machine.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cap"));
        command.current_dir(&self.0).args(arguments).stdin(Stdio::null());
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CAP_")) {
            command.env_remove(name);
        }
        command.env("CAP_CONFIG", self.0.join("config.toml")).env("USER", "alice");
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        ended(&self.command(arguments).output().unwrap())
    }

    /// On the database file of this folder.
    pub(crate) fn on_file(&self, arguments: &[&str]) -> Ended {
        ended(&self.command(arguments).env("CAP_STORAGE", "sqlite:shop.db").output().unwrap())
    }

    /// As [`on_file`](Self::on_file), with the object that a successful call prints.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        self.on_file(&[arguments, &["--json"]].concat()).json()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Ended {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.code, 0, "{self:?}");
        serde_json::from_str(&self.out).unwrap()
    }

    /// It failed with this code, and this text is in its error.
    #[track_caller]
    pub(crate) fn failed(&self, code: i32, text: &str) {
        assert!(self.code == code && self.err.contains(text), "not {code} with {text:?}: {self:?}");
    }
}

pub(crate) fn ended(output: &Output) -> Ended {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    Ended { code: output.status.code().unwrap(), out: text(&output.stdout), err: text(&output.stderr) }
}

pub(crate) fn amqp_url() -> String {
    std::env::var("AMQP_URL").unwrap_or_else(|_| "amqp://guest:guest@127.0.0.1:5672".to_owned())
}

pub(crate) fn database_url() -> String {
    std::env::var("DATABASE_URL").unwrap_or_else(|_| "postgres://postgres@127.0.0.1:5432/test".to_owned())
}
