//! Re-running, deleting and cancelling messages.

use axum::response::{IntoResponse as _, Redirect, Response};
use cap_core::storage::Status;

use super::preview::{Act, Target, back, wanted};
use crate::data::within;
use crate::request::Problem;
use crate::web::{ActForm, Reader};

/// The most messages that one request acts on.
const MOST_AT_ONCE: usize = 10_000;

pub(super) async fn perform(ActForm { reader, form }: ActForm) -> Result<Response, Problem> {
    let (act, target) = wanted(&form)?;
    let done = act_on(&reader, act, target).await?;
    let back = back(&form);
    let back = without_notice(&back);
    let separator = if back.contains('?') { '&' } else { '?' };
    let to = reader.context.url(&format!("{back}{separator}done={}&count={done}", act.name()));
    Ok(Redirect::to(&to).into_response())
}

/// Does it, and returns how many messages it had an effect on.
pub(crate) async fn act_on(reader: &Reader, act: Act, target: Target) -> Result<u64, Problem> {
    let messages = reader.messages();
    Ok(match target {
        Target::Rows { side, ids, failed } => {
            let messages = messages.side(side);
            let messages = if failed { messages.status(Status::Failed) } else { messages };
            let done = match act {
                Act::Rerun => within(messages.rerun(&ids)).await?,
                Act::Delete => within(messages.delete(&ids)).await?,
                Act::Cancel => within(messages.cancel(&ids)).await?,
            };
            done.len() as u64
        }
        Target::Matching(filter) => {
            let messages = filter.apply(messages).limit(MOST_AT_ONCE);
            match act {
                Act::Rerun => within(messages.rerun_all()).await?,
                Act::Delete => within(messages.delete_all()).await?,
                Act::Cancel => return Err(Problem::bad("delayed messages are cancelled one by one")),
            }
        }
    })
}

/// The page without what it says of an earlier act.
fn without_notice(back: &str) -> String {
    let Some((path, query)) = back.split_once('?') else { return back.to_owned() };
    let kept: Vec<&str> =
        query.split('&').filter(|pair| !pair.starts_with("done=") && !pair.starts_with("count=")).collect();
    if kept.is_empty() { path.to_owned() } else { format!("{path}?{}", kept.join("&")) }
}
