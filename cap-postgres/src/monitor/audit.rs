//! Records what operators did, and lists it.

use std::time::SystemTime;

use bytes::Bytes;
use cap_adapter::monitor::{Act, NewAct};
use cap_adapter::storage::Side;
use cap_sql::audit::{ids_of_text, ids_to_text};
use cap_sql::columns::{limit_of, micros, side_code};
use cap_sql::templates::Templates;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _, SqlStr};

use crate::database::columns::time_at;
use crate::database::error::Fault;

const RECORD: &str = "
INSERT INTO {schema}.audit (who, what, side, count, ids, former_body) VALUES ($1, $2, $3, $4, $5, $6)";

/// A few at a time, so that no act waits for long.
const DELETE_OLD: &str = "
DELETE FROM {schema}.audit WHERE id IN (
    SELECT a.id FROM {schema}.audit AS a ORDER BY a.id LIMIT 10
) AND at < clock_timestamp() - $1::bigint * interval '1 microsecond'";

const LIST: &str = "
SELECT id, at, who, what, side, count, ids, former_body FROM {schema}.audit
WHERE id < $1 ORDER BY id DESC LIMIT $2";

/// Records acts, and lists them.
#[derive(Debug)]
pub(crate) struct Audit {
    record: SqlStr,
    delete_old: SqlStr,
    list: SqlStr,
}

impl Audit {
    pub(crate) fn prepare(templates: &Templates) -> Self {
        Self {
            record: templates.one(RECORD),
            delete_old: templates.one(DELETE_OLD),
            list: templates.one(LIST),
        }
    }

    pub(crate) async fn record(&self, connection: &mut PgConnection, act: &NewAct) -> Result<(), Fault> {
        sqlx::query(self.record.clone())
            .bind(act.who.replace('\0', " "))
            .bind(act.what.replace('\0', " "))
            .bind(side_code(act.side))
            .bind(i64::try_from(act.count).unwrap_or(i64::MAX))
            .bind(ids_to_text(&act.ids))
            .bind(act.former_body.as_deref())
            .execute(&mut *connection)
            .await?;
        sqlx::query(self.delete_old.clone()).bind(micros(NewAct::KEPT_FOR)).execute(connection).await?;
        Ok(())
    }

    pub(crate) async fn list(
        &self,
        connection: &mut PgConnection,
        before: Option<i64>,
        limit: usize,
    ) -> Result<Vec<Act>, Fault> {
        let query = sqlx::query(self.list.clone()).bind(before.unwrap_or(i64::MAX)).bind(limit_of(limit));
        query.fetch_all(connection).await?.iter().map(act_of).collect()
    }
}

fn act_of(row: &PgRow) -> Result<Act, Fault> {
    let side =
        if row.try_get::<i16, _>("side")? == side_code(Side::Outbox) { Side::Outbox } else { Side::Inbox };
    let who: String = row.try_get("who")?;
    let mut act =
        NewAct::new(who, row.try_get::<String, _>("what")?, side, &ids_of_text(row.try_get("ids")?));
    act.count = u64::try_from(row.try_get::<i64, _>("count")?).unwrap_or_default();
    act.former_body = row.try_get::<Option<&[u8]>, _>("former_body")?.map(Bytes::copy_from_slice);
    let at = time_at(row, "at")?.unwrap_or(SystemTime::UNIX_EPOCH);
    Ok(Act::new(row.try_get("id")?, at, act))
}
