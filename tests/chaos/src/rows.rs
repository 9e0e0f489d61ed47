//! What the database says: the application's rows, and where each message stands.

use std::collections::BTreeSet;

use cap_ledger::{Entry, Event, Final};
use sqlx::{AssertSqlSafe, Executor, PgPool, Row};

use crate::job::{FOLLOW, Job, ONCE, PLAIN};

/// The application's tables, and how to clear all away.
pub(crate) async fn create_shop(pool: &PgPool, scene: &str) {
    let statements = format!(
        r#"CREATE SCHEMA "{scene}_shop";
        CREATE TABLE "{scene}_shop".booked (key text PRIMARY KEY);
        CREATE TABLE "{scene}_shop".effects (key text NOT NULL, node text NOT NULL, attempt integer NOT NULL, at bigint NOT NULL);
        CREATE TABLE "{scene}_shop".counters (id integer PRIMARY KEY, number bigint NOT NULL);
        INSERT INTO "{scene}_shop".counters VALUES (0, 0), (1, 0), (2, 0);"#
    );
    pool.execute(AssertSqlSafe(statements)).await.expect("the application's tables can be made");
}

pub(crate) async fn drop_all(pool: &PgPool, scene: &str) -> Result<(), sqlx::Error> {
    for schema in [scene.to_owned(), format!("{scene}_shop")] {
        pool.execute(AssertSqlSafe(format!("DROP SCHEMA IF EXISTS \"{schema}\" CASCADE"))).await?;
    }
    Ok(())
}

/// The messages in the inbox that a node holds a lease on.
pub(crate) async fn held(pool: &PgPool, scene: &str, node: &str) -> Result<BTreeSet<i64>, sqlx::Error> {
    owned(pool, scene, node, "").await
}

/// Those of them that no open transaction has locked.
pub(crate) async fn unlocked(pool: &PgPool, scene: &str, node: &str) -> Result<BTreeSet<i64>, sqlx::Error> {
    owned(pool, scene, node, "FOR UPDATE SKIP LOCKED").await
}

async fn owned(pool: &PgPool, scene: &str, node: &str, locking: &str) -> Result<BTreeSet<i64>, sqlx::Error> {
    let statement = format!("SELECT id FROM \"{scene}\".inbox_state WHERE owner = $1 {locking}");
    let ids: Vec<i64> = sqlx::query_scalar(AssertSqlSafe(statement)).bind(node).fetch_all(pool).await?;
    Ok(ids.into_iter().collect())
}

/// What the rows say at one moment.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    /// Messages whose transaction was committed.
    pub(crate) booked: BTreeSet<String>,
    /// Effects, and where each message stands.
    pub(crate) entries: Vec<Entry>,
    /// How many messages wait for something, answers and echoes too.
    pub(crate) unfinished: usize,
    /// Failures that no test means to happen.
    pub(crate) strange: Vec<String>,
}

impl Rows {
    pub(crate) async fn read(pool: &PgPool, scene: &str) -> Result<Self, sqlx::Error> {
        let mut rows = Self::default();
        // One moment for all of it.
        let mut tx = pool.begin().await?;
        tx.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        let booked: Vec<String> =
            sqlx::query_scalar(AssertSqlSafe(format!("SELECT key FROM \"{scene}_shop\".booked")))
                .fetch_all(&mut *tx)
                .await?;
        rows.booked = booked.into_iter().collect();
        let effects = format!("SELECT key, node, attempt, at FROM \"{scene}_shop\".effects");
        for row in sqlx::query(AssertSqlSafe(effects)).fetch_all(&mut *tx).await? {
            let (key, node): (String, String) = (row.try_get(0)?, row.try_get(1)?);
            let attempt: i32 = row.try_get(2)?;
            let at: i64 = row.try_get(3)?;
            let event = Event::effect(&key, ONCE, &node, attempt.unsigned_abs());
            rows.entries.push(Entry { at: at.unsigned_abs(), event });
        }
        let known: bool = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL")
            .bind(format!("\"{scene}\".inbox_state"))
            .fetch_one(&mut *tx)
            .await?;
        if known {
            for (side, group) in [("outbox", "''"), ("inbox", "m.group_name")] {
                let statement = format!(
                    "SELECT m.name, {group}::text, m.body, s.status::integer, s.reason, s.due IS NOT NULL, s.last_error \
                     FROM \"{scene}\".{side} m LEFT JOIN \"{scene}\".{side}_state s ON s.id = m.id"
                );
                for row in sqlx::query(AssertSqlSafe(statement)).fetch_all(&mut *tx).await? {
                    rows.stands(&row)?;
                }
            }
        }
        Ok(rows)
    }

    fn stands(&mut self, row: &sqlx::postgres::PgRow) -> Result<(), sqlx::Error> {
        let (topic, group): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let body: Vec<u8> = row.try_get(2)?;
        let (status, reason): (Option<i32>, Option<String>) = (row.try_get(3)?, row.try_get(4)?);
        let due: bool = row.try_get(5)?;
        let error: Option<String> = row.try_get(6)?;
        let state = match (status, reason.as_deref()) {
            (Some(0..=2), _) => Final::Unfinished,
            (Some(3), Some("cancelled")) => Final::CalledOff,
            (Some(3), _) if due => Final::Unfinished,
            (Some(3), Some("exhausted")) => Final::Exhausted,
            (Some(3), _) => Final::Failed,
            _ => Final::Succeeded,
        };
        if state == Final::Unfinished {
            self.unfinished += 1;
        }
        let known = [ONCE, PLAIN, FOLLOW].into_iter().find(|known| group.ends_with(&format!(".{known}.v1")));
        let job = serde_json::from_slice::<Job>(&body).ok();
        let meant = job.as_ref().is_some_and(|job| {
            state == Final::CalledOff || (Job::may_give_up(&job.key) && !group.is_empty())
        });
        if status == Some(3) && !meant {
            let error = error.unwrap_or_default();
            self.strange.push(format!("{topic} in {group:?} failed for good ({reason:?}): {error}"));
        }
        if let Some(job) = job {
            let group = known.unwrap_or_default().to_owned();
            let event = Event::Stands { message: job.key, group, state };
            self.entries.push(Entry { at: u64::MAX, event });
        }
        Ok(())
    }
}
