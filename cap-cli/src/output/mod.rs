//! What a command prints: tables and sentences for people, one JSON object for machines.

mod progress;
mod table;
mod times;

use std::io::{self, Write as _};

use serde_json::{Value, json};

use crate::failure::Failure;
pub(crate) use progress::Progress;
pub(crate) use table::{Table, one_line};
pub(crate) use times::{iso, parse_time};

/// Where results go. Results are written to standard output; errors, questions and progress to standard error.
#[derive(Debug)]
pub(crate) struct Output {
    is_json: bool,
}

impl Output {
    pub(crate) fn new(is_json: bool) -> Self {
        Self { is_json }
    }

    /// Prints the object for machines, or what `plain` writes for people.
    ///
    /// # Errors
    ///
    /// Standard output cannot be written. If its reader has gone, that is no error: it has seen enough.
    pub(crate) fn print(&self, object: &Value, plain: impl FnOnce() -> String) -> Result<(), Failure> {
        let text = if self.is_json { object.to_string() } else { plain() };
        Self::line(&text)
    }

    /// Prints one line, at once.
    pub(crate) fn line(text: &str) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        match writeln!(out, "{}", text.trim_end()).and_then(|()| out.flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Prints a note for people to standard error.
    pub(crate) fn note(&self, text: &str) {
        if !self.is_json {
            let _ = writeln!(io::stderr(), "{text}");
        }
    }

    /// Prints why the command failed.
    pub(crate) fn failure(&self, failure: &Failure) {
        self.error(&format!("error: {failure}"), &failure.to_string(), failure.code());
    }

    /// Prints what is wrong with the arguments.
    pub(crate) fn usage(&self, text: &str) {
        self.error(text, text.trim_start_matches("error: "), crate::failure::USAGE);
    }

    fn error(&self, plain: &str, text: &str, code: u8) {
        let object = json!({ "error": text, "code": code }).to_string();
        // If standard error is closed, the exit code is all that is left.
        let _ = writeln!(io::stderr(), "{}", if self.is_json { &object } else { plain });
    }

    /// Progress of long work, shown on a terminal only.
    pub(crate) fn progress(&self, total: u64, what: &'static str) -> Progress {
        Progress::new(total, what, !self.is_json)
    }
}
