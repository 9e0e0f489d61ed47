//! Records what operators did, and lists it.

use bytes::Bytes;
use cap_adapter::monitor::{Act, NewAct};
use cap_adapter::storage::Side;
use cap_sql::audit::{ids_of_text, ids_to_text};
use cap_sql::columns::{limit_of, micros, side_code, time_of};
use cap_sql::templates::Templates;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqlStr, SqliteConnection};

use crate::connections::session::begin;
use crate::database::error::Fault;

const RECORD: &str = "
INSERT INTO {prefix}audit (at, who, what, side, count, ids, former_body) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";

/// A few at a time, so that no act waits for long.
const DELETE_OLD: &str = "
DELETE FROM {prefix}audit WHERE id IN (SELECT a.id FROM {prefix}audit AS a ORDER BY a.id LIMIT 10) AND at < ?1";

const LIST: &str = "
SELECT id, at, who, what, side, count, ids, former_body FROM {prefix}audit
WHERE id < ?1 ORDER BY id DESC LIMIT ?2";

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

    pub(crate) async fn record(&self, connection: &mut SqliteConnection, act: &NewAct) -> Result<(), Fault> {
        let (mut transaction, now) = begin(connection).await?;
        sqlx::query(self.record.clone())
            .bind(now)
            .bind(&act.who)
            .bind(&act.what)
            .bind(side_code(act.side))
            .bind(i64::try_from(act.count).unwrap_or(i64::MAX))
            .bind(ids_to_text(&act.ids))
            .bind(act.former_body.as_deref())
            .execute(&mut *transaction)
            .await?;
        let oldest = now.saturating_sub(micros(NewAct::KEPT_FOR));
        sqlx::query(self.delete_old.clone()).bind(oldest).execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(())
    }

    pub(crate) async fn list(
        &self,
        connection: &mut SqliteConnection,
        before: Option<i64>,
        limit: usize,
    ) -> Result<Vec<Act>, Fault> {
        let query = sqlx::query(self.list.clone()).bind(before.unwrap_or(i64::MAX)).bind(limit_of(limit));
        query.fetch_all(connection).await?.iter().map(act_of).collect()
    }
}

fn act_of(row: &SqliteRow) -> Result<Act, Fault> {
    let side =
        if row.try_get::<i16, _>("side")? == side_code(Side::Outbox) { Side::Outbox } else { Side::Inbox };
    let who: String = row.try_get("who")?;
    let mut act =
        NewAct::new(who, row.try_get::<String, _>("what")?, side, &ids_of_text(row.try_get("ids")?));
    act.count = u64::try_from(row.try_get::<i64, _>("count")?).unwrap_or_default();
    act.former_body = row.try_get::<Option<Vec<u8>>, _>("former_body")?.map(Bytes::from);
    Ok(Act::new(row.try_get("id")?, time_of(row.try_get("at")?), act))
}
