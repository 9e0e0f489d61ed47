//! `requeue`, `reexecute` and `delete`: an array of row ids, and 204.

use axum::http::StatusCode;
use cap_core::storage::Side;
use serde::Deserialize;

use crate::data::within;
use crate::request::Problem;
use crate::web::ActJson;

/// The most messages that one request names.
const MOST_IDS: usize = 10_000;

/// A row id, as a number or as a text: CAP's front end sends both.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Id {
    Number(i64),
    Text(String),
}

type Ids = ActJson<Vec<Id>>;

pub(super) async fn requeue(ids: Ids) -> Result<StatusCode, Problem> {
    act(ids, Side::Outbox, "rerun").await
}

pub(super) async fn reexecute(ids: Ids) -> Result<StatusCode, Problem> {
    act(ids, Side::Inbox, "rerun").await
}

pub(super) async fn delete_published(ids: Ids) -> Result<StatusCode, Problem> {
    act(ids, Side::Outbox, "delete").await
}

pub(super) async fn delete_received(ids: Ids) -> Result<StatusCode, Problem> {
    act(ids, Side::Inbox, "delete").await
}

async fn act(ActJson { reader, body }: Ids, side: Side, what: &'static str) -> Result<StatusCode, Problem> {
    let ids: Vec<i64> = body.iter().map(Id::parse).collect::<Result<_, _>>()?;
    if ids.is_empty() {
        return Err(Problem::Rejected("no message is named".to_owned()));
    }
    if ids.len() > MOST_IDS {
        return Err(Problem::bad(format!("at most {MOST_IDS} messages can be named at once")));
    }
    let messages = reader.messages().side(side);
    match what {
        "delete" => within(messages.delete(&ids)).await?,
        _ => within(messages.rerun(&ids)).await?,
    };
    Ok(StatusCode::NO_CONTENT)
}

impl Id {
    fn parse(&self) -> Result<i64, Problem> {
        match self {
            Self::Number(id) => Ok(*id),
            Self::Text(id) => id.parse().map_err(|_| Problem::bad(format!("not a row id: {id:?}"))),
        }
    }
}
