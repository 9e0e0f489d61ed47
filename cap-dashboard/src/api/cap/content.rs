//! `/published/message/{id}` and `/received/message/{id}`: a JSON string that holds the content.

use axum::Json;
use axum::extract::Path;
use cap_core::storage::Side;

use crate::data::within;
use crate::request::Problem;
use crate::web::Reader;

pub(super) async fn published(reader: Reader, Path(id): Path<String>) -> Result<Json<String>, Problem> {
    content(&reader, Side::Outbox, &id).await
}

pub(super) async fn received(reader: Reader, Path(id): Path<String>) -> Result<Json<String>, Problem> {
    content(&reader, Side::Inbox, &id).await
}

async fn content(reader: &Reader, side: Side, id: &str) -> Result<Json<String>, Problem> {
    let id: i64 = id.parse().map_err(|_| Problem::bad(format!("not a row id: {id:?}")))?;
    let row = within(reader.messages().side(side).get(id)).await?.ok_or(Problem::NotFound)?;
    Ok(Json(reader.shown(&row).content()))
}
