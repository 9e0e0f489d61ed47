//! `cap publish`: through the outbox, as a service does.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use cap_core::Operator;
use cap_core::monitor::Row;
use cap_core::storage::{Reason, Status};
use clap::Args;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep};

use crate::common::Common;
use crate::failure::Failure;
use crate::output::Output;
use crate::site::{Settings, confirm, open_operator};

/// How often the storage is asked whether a node has sent the message.
const ASKED_EVERY: Duration = Duration::from_millis(200);

/// A payload, from one of several places.
#[derive(Debug, Clone, Args)]
pub(crate) struct PayloadArgs {
    /// The payload, as JSON
    #[arg(long, value_name = "JSON", conflicts_with = "payload_file")]
    payload: Option<String>,
    /// A file with the payload, or - for standard input
    #[arg(long, value_name = "FILE")]
    payload_file: Option<PathBuf>,
    /// The payload need not be JSON
    #[arg(long)]
    raw: bool,
}

impl PayloadArgs {
    pub(crate) fn is_raw(&self) -> bool {
        self.raw
    }

    /// Reads the payload, unchanged: no number in it is read as one.
    pub(crate) async fn read(&self) -> Result<Bytes, Failure> {
        let body: Bytes = match (&self.payload, &self.payload_file) {
            (Some(text), _) => text.clone().into(),
            (None, Some(path)) => {
                let (shown, path) = (path.display().to_string(), path.clone());
                // Reading a file or a terminal blocks its thread.
                let read = tokio::task::spawn_blocking(move || {
                    if path.as_os_str() == "-" {
                        let mut bytes = Vec::new();
                        std::io::Read::read_to_end(&mut std::io::stdin().lock(), &mut bytes).map(|_| bytes)
                    } else {
                        std::fs::read(path)
                    }
                });
                let read = read
                    .await
                    .map_err(|_| Failure::Failed("reading the payload was interrupted".to_owned()))?;
                let failed =
                    |error| Failure::Usage(format!("the payload in {shown} cannot be read: {error}"));
                read.map_err(failed)?.into()
            }
            (None, None) => {
                return Err(Failure::Usage("no payload: use --payload or --payload-file".to_owned()));
            }
        };
        if !self.raw && !body.is_empty() {
            serde_json::from_slice::<&RawValue>(&body).map_err(|error| {
                Failure::Usage(format!("the payload is not JSON: {error}; for other bytes add --raw"))
            })?;
        }
        Ok(body)
    }
}

/// What to publish.
#[derive(Debug, Args)]
pub(crate) struct PublishArgs {
    /// The topic, in full
    topic: String,
    #[command(flatten)]
    payload: PayloadArgs,
    /// A header; may be repeated
    #[arg(long = "header", short = 'H', value_name = "NAME=VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// The topic for the reply
    #[arg(long, value_name = "TOPIC")]
    callback: Option<String>,
    /// Publish later: 5m. It is not waited for
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    delay: Option<Duration>,
    /// The message id [default: generated]
    #[arg(long, value_name = "ID")]
    message_id: Option<String>,
    /// How long to wait until a node has sent it; 0s to wait for nothing
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    wait: Duration,
    /// Check the message and store nothing
    #[arg(long)]
    dry_run: bool,
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("a header is NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

pub(super) async fn run(arguments: &PublishArgs, common: &Common, output: &Output) -> Result<(), Failure> {
    let body = arguments.payload.read().await?;
    let settings = Settings::of(common)?;
    if !arguments.dry_run {
        confirm(&settings, common, &format!("publish to {:?}", arguments.topic))?;
    }
    let operator = open_operator(&settings).await?;
    let mut message = operator.publish(&arguments.topic, body);
    for (name, value) in &arguments.headers {
        message = message.header(name.clone(), value);
    }
    if let Some(callback) = &arguments.callback {
        message = message.callback(callback);
    }
    if let Some(delay) = arguments.delay {
        message = message.delay(delay);
    }
    if let Some(id) = &arguments.message_id {
        message = message.message_id(id);
    }
    let shape = |id: Option<&str>, state: &str| json!({ "action": "publish", "topic": arguments.topic, "message_id": id, "state": state, "dry_run": arguments.dry_run });
    if arguments.dry_run {
        message.check()?;
        return output.print(&shape(None, "checked"), || format!("would publish to {}", arguments.topic));
    }
    let id = message.store().await?;
    let waits = arguments.delay.is_none() && !arguments.wait.is_zero();
    if !waits {
        let state = if arguments.delay.is_some() { "delayed" } else { "stored" };
        return output.print(&shape(Some(id.as_str()), state), || format!("{state}: message {id}"));
    }
    output.note(&format!("stored: message {id}; waiting for a node to send it"));
    let sent = wait(&operator, id.as_str(), arguments.wait).await;
    let state = match &sent {
        Ok(state) => state,
        Err(Failure::Deadline(_)) => "stored",
        Err(_) => "failed",
    };
    output.print(&shape(Some(id.as_str()), state), || format!("{state}: message {id}"))?;
    sent.map(drop)
}

/// Waits until a node has sent the message.
async fn wait(operator: &Operator, id: &str, limit: Duration) -> Result<&'static str, Failure> {
    let deadline = Instant::now() + limit;
    loop {
        // Once it is sent, the row may have been deleted already.
        let rows = operator.messages().published().find(id).await?;
        match rows.first() {
            None => return Ok("sent"),
            Some(row) if row.status == Status::Succeeded => return routed(row),
            Some(row) if row.status == Status::Failed => {
                let error = row.last_error.as_deref().unwrap_or("no error is recorded");
                return Err(Failure::Failed(format!(
                    "message {id} could not be sent and is parked: {error}"
                )));
            }
            Some(_) if Instant::now() >= deadline => {
                return Err(Failure::Deadline(format!(
                    "message {id} is stored, and no node has sent it within {}: a node of this version that shares the \
                     storage sends it when it runs",
                    humantime::format_duration(limit)
                )));
            }
            Some(_) => sleep(ASKED_EVERY.min(deadline.saturating_duration_since(Instant::now()))).await,
        }
    }
}

fn routed(row: &Row) -> Result<&'static str, Failure> {
    if row.reason == Some(Reason::Unrouted) {
        return Err(Failure::Failed(
            "the broker accepted the message, and no queue is bound for its topic".to_owned(),
        ));
    }
    Ok("sent")
}
