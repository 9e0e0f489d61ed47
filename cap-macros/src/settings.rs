//! The `key = value` part of an attribute: which keys are known where, and which values they accept.

use std::time::Duration;

use syn::{Error, Expr, Ident, Lit, LitBool, LitStr, Path, Result};

use crate::literals::{literal, text};
use crate::names::{check_group, check_topic};
use crate::parse::{Setting, Value};
use crate::problems::Problems;
use crate::retry::Retry;

/// The keys of `#[cap_subscribe]` on a function.
pub(crate) const OF_A_FUNCTION: &[&str] = &[
    "group",
    "queue",
    "concurrency",
    "timeout",
    "retry",
    "classify",
    "circuit",
    "order_by",
    "callbacks_to",
    "callback_not_allowed",
    "reply_to_unit",
    "crate",
];
/// The keys of `#[cap_subscribe]` on a method.
pub(crate) const OF_A_METHOD: &[&str] = &[
    "group",
    "queue",
    "concurrency",
    "timeout",
    "retry",
    "classify",
    "circuit",
    "order_by",
    "callbacks_to",
    "callback_not_allowed",
    "reply_to_unit",
    "partial",
];
/// The keys of `#[cap_subscriber]`.
pub(crate) const OF_A_SUBSCRIBER: &[&str] = &["group", "crate"];

/// The values of one attribute, checked.
#[derive(Default)]
pub(crate) struct Settings {
    pub(crate) group: Option<LitStr>,
    pub(crate) concurrency: Option<u16>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) queue: Option<LitStr>,
    pub(crate) retry: Option<Retry>,
    pub(crate) classify: Option<Expr>,
    pub(crate) circuit: Option<Expr>,
    pub(crate) order_by: Option<LitStr>,
    pub(crate) callbacks_to: Option<Vec<LitStr>>,
    pub(crate) callback_not_allowed: Option<Expr>,
    pub(crate) reply_to_unit: Option<LitBool>,
    pub(crate) partial: Option<LitBool>,
    pub(crate) krate: Option<Path>,
}

impl Settings {
    /// Validates the settings of one attribute with these known keys.
    pub(crate) fn read(written: Vec<Setting>, known: &[&str], problems: &mut Problems) -> Self {
        let mut settings = Self::default();
        let mut seen: Vec<Ident> = Vec::new();
        for Setting { key, value } in written {
            if !known.iter().any(|name| key == name) {
                problems.at(&key, unknown(&key, known));
            } else if seen.contains(&key) {
                problems.at(&key, format!("`{key}` is given twice"));
            } else {
                let result = settings.set(&key, value);
                problems.take(result);
                seen.push(key);
            }
        }
        settings
    }

    fn set(&mut self, key: &Ident, value: Value) -> Result<()> {
        let value = match value {
            Value::Path(path) => {
                self.krate = Some(path);
                return Ok(());
            }
            Value::Expression(value) => value,
        };
        match key.to_string().as_str() {
            "group" => self.group = Some(group(&value)?),
            "concurrency" => self.concurrency = Some(concurrency(&value)?),
            "timeout" => self.timeout = Some(timeout(&value)?),
            "order_by" => self.order_by = Some(header(&value)?),
            "partial" => self.partial = Some(truth(&value, "partial")?),
            "queue" => self.queue = Some(queue(&value)?),
            "callbacks_to" => self.callbacks_to = Some(callbacks_to(&value)?),
            "callback_not_allowed" => self.callback_not_allowed = Some(value),
            "reply_to_unit" => self.reply_to_unit = Some(truth(&value, "reply_to_unit")?),
            "classify" => self.classify = Some(value),
            "circuit" => self.circuit = Some(value),
            _ => self.retry = Some(Retry::read(value)?),
        }
        Ok(())
    }
}

fn unknown(key: &Ident, known: &[&str]) -> String {
    match key.to_string().as_str() {
        "topic" | "name" | "prefix" => {
            format!("`{key}` is not written out: the text itself comes first, as in `(\"order.paid\", ..)`")
        }
        "partial" => {
            "`partial` is for a method in an impl block with `#[cap_subscriber(\"prefix\")]`".to_owned()
        }
        "crate" => "`crate` is given once for the whole impl block, in `#[cap_subscriber(..)]`".to_owned(),
        _ => format!("unknown option `{key}`; known are {}", known.join(", ")),
    }
}

fn group(value: &Expr) -> Result<LitStr> {
    let group = text(value, "a group is a string: `group = \"billing\"`")?;
    match check_group(&group.value()) {
        Ok(()) => Ok(group),
        Err(problem) => Err(Error::new(group.span(), format!("the group {problem}"))),
    }
}

fn queue(value: &Expr) -> Result<LitStr> {
    let queue = text(value, "a queue is a string: `queue = \"orders.dead\"`")?;
    match check_group(&queue.value()) {
        Ok(()) => Ok(queue),
        Err(problem) => Err(Error::new(queue.span(), format!("the queue {problem}"))),
    }
}

fn concurrency(value: &Expr) -> Result<u16> {
    let number = match literal(value) {
        Some(Lit::Int(number)) => number.base10_parse().unwrap_or(0),
        _ => 0,
    };
    match number {
        0 => Err(Error::new_spanned(value, "the concurrency is a number from 1 to 65535: `concurrency = 4`")),
        number => Ok(number),
    }
}

fn timeout(value: &Expr) -> Result<Duration> {
    let wanted = "a timeout is a string with units: `timeout = \"30s\"`, `\"1m 30s\"`, `\"250ms\"`";
    let text = text(value, wanted)?;
    match humantime::parse_duration(&text.value()) {
        Ok(Duration::ZERO) => {
            Err(Error::new(text.span(), "the timeout is zero, so every message would time out"))
        }
        Ok(timeout) => Ok(timeout),
        Err(error) => Err(Error::new(text.span(), format!("{wanted}; this one cannot be read: {error}"))),
    }
}

fn header(value: &Expr) -> Result<LitStr> {
    let header = text(value, "`order_by` names a header: `order_by = \"customer\"`")?;
    if header.value().is_empty() {
        return Err(Error::new(header.span(), "`order_by` names a header; this name is empty"));
    }
    Ok(header)
}

/// The topics of an array, each checked as a pattern.
fn callbacks_to(value: &Expr) -> Result<Vec<LitStr>> {
    const WANTED: &str = "the callback topics are an array of strings: `callbacks_to = [\"shop.replies.#\"]`";
    let Expr::Array(array) = value else { return Err(Error::new_spanned(value, WANTED)) };
    let checked = array.elems.iter().map(|element| {
        let pattern = text(element, WANTED)?;
        match check_topic(&pattern.value()) {
            Ok(()) => Ok(pattern),
            Err(problem) => Err(Error::new(pattern.span(), format!("the callback topic {problem}"))),
        }
    });
    checked.collect()
}

fn truth(value: &Expr, key: &str) -> Result<LitBool> {
    match literal(value) {
        Some(Lit::Bool(truth)) => Ok(truth.clone()),
        _ => Err(Error::new_spanned(value, format!("`{key}` is true or false"))),
    }
}
