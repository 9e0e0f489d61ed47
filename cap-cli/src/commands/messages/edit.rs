//! `cap messages edit`.

use bytes::Bytes;
use clap::Args;
use serde_json::json;
use serde_json::value::RawValue;

use crate::commands::publish::PayloadArgs;
use crate::common::Common;
use crate::failure::Failure;
use crate::output::Output;
use crate::selection::{SideArgs, side_name};
use crate::site::{Settings, confirm, open_operator};

/// Which message, and its new payload.
#[derive(Debug, Args)]
pub(crate) struct EditArgs {
    /// The row id
    id: i64,
    #[command(flatten)]
    side: SideArgs,
    #[command(flatten)]
    payload: PayloadArgs,
    /// Check the payload and change nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(arguments: &EditArgs, common: &Common, output: &Output) -> Result<(), Failure> {
    let (id, side) = (arguments.id, arguments.side.side());
    let body: Bytes = arguments.payload.read().await?;
    let settings = Settings::of(common)?;
    if !arguments.dry_run {
        confirm(&settings, common, "edit a message and run it again")?;
    }
    let operator = open_operator(&settings).await?;
    let messages = operator.messages().side(side).by(common.actor());
    let Some(row) = messages.get(id).await? else {
        return Err(Failure::NotFound(format!(
            "there is no {} message with the row id {id}",
            side_name(side)
        )));
    };
    let is_json = |bytes: &[u8]| serde_json::from_slice::<&RawValue>(bytes).is_ok();
    if is_json(&row.message.body) && !body.is_empty() && !is_json(&body) && !arguments.payload.is_raw() {
        return Err(Failure::Usage(
            "the payload was JSON and the new one is not; nothing was changed. To replace it all the same, add --raw".to_owned(),
        ));
    }
    let bytes = body.len();
    if !arguments.dry_run && !messages.edit_raw_and_rerun(id, body).await? {
        return Err(Failure::Failed(format!(
            "the message {id} is being processed at this moment; nothing was changed"
        )));
    }
    let object =
        json!({ "action": "edit", "id": id.to_string(), "bytes": bytes, "dry_run": arguments.dry_run });
    output.print(&object, || {
        let would = if arguments.dry_run { "would be " } else { "" };
        format!("message {id} {would}edited ({bytes} bytes) and re-run")
    })
}
