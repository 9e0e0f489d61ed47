//! The proof that no statement goes through a whole table, whatever SQLite believes about sizes. Tests only.
//!
//! `ANALYZE`, which an application may run at any moment, tells the planner how large the tables are just then. Plans that
//! are good for one row must not be made, as the tables grow.

use cap_adapter::storage::Side::{Inbox, Outbox};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Row as _, SqlStr, SqliteConnection};

use crate::schema::TablePrefix;
use crate::statements::{Sides, Statements};

const ONE_OF_EACH: &str = "
INSERT INTO cap_outbox (id, version, name, message_id, added, headers, body) VALUES (1, 'v1', 'n', '1', 0, '{}', x'');
INSERT INTO cap_outbox_state (id, version, status, due, expires) VALUES (1, 'v1', 0, 0, 0);
INSERT INTO cap_inbox (id, version, name, group_name, message_id, added, headers, body)
    VALUES (1, 'v1', 'n', 'g', '1', 0, '{}', x'');
INSERT INTO cap_inbox_state (id, version, group_name, status, due, expires) VALUES (1, 'v1', 'g', 0, 0, 0);
INSERT INTO cap_attempts (side, id, number, at, node, error) VALUES (1, 1, 1, 0, 'n', 'e')";

async fn connection() -> SqliteConnection {
    let mut connection = SqliteConnectOptions::new().connect().await.unwrap();
    let schema = AssertSqlSafe(TablePrefix::new("cap_").sql());
    sqlx::raw_sql(schema).execute(&mut connection).await.unwrap();
    connection
}

/// Every statement, save those that look at a whole small table, and the lists for people: they go through a table from
/// its end, and stop when the page is full.
fn all() -> Vec<SqlStr> {
    let statements = Statements::new(&TablePrefix::new("cap_"));
    let both = |sides: &Sides| [sides.of(Outbox), sides.of(Inbox)];
    let sides = [
        &statements.held,
        &statements.end,
        &statements.forget,
        &statements.empty,
        &statements.change,
        &statements.record,
        &statements.due,
        &statements.next_due,
        &statements.claim,
        &statements.message,
        &statements.renew,
        &statements.expire_by_age,
        &statements.expire_by_state,
        &statements.delete_message,
        &statements.delete_state,
        &statements.delete_attempts,
        &statements.get,
        &statements.find,
        &statements.rerun,
        &statements.headers,
        &statements.change_message,
        &statements.idle,
    ];
    let mut all: Vec<SqlStr> = sides.into_iter().flat_map(both).collect();
    all.extend([
        statements.insert_outgoing.clone(),
        statements.insert_outgoing_state.clone(),
        statements.insert_incoming.clone(),
        statements.insert_incoming_state.clone(),
        statements.stored.clone(),
        statements.waiting.clone(),
        statements.mark_started.clone(),
        statements.count_crash.clone(),
        statements.record_crash.clone(),
        statements.withdraw_crash.clone(),
        statements.uncount_crash.clone(),
        statements.announce.clone(),
        statements.keep_alive.clone(),
        statements.leave.clone(),
        statements.attempts.clone(),
        statements.cancel.clone(),
    ]);
    all
}

async fn check(connection: &mut SqliteConnection) {
    for text in all() {
        let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {}", text.as_str()));
        let rows = sqlx::query(explain).fetch_all(&mut *connection).await.unwrap();
        let steps: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
        let plan = steps.join("\n");
        for step in steps {
            let is_scan = step.starts_with("SCAN ") && step != "SCAN CONSTANT ROW";
            assert!(!is_scan, "{step} in\n{plan}\nof{}", text.as_str());
        }
        if text.as_str().contains("LIMIT") {
            assert!(
                !plan.contains("TEMP B-TREE"),
                "all is sorted before it is limited in\n{plan}\nof{}",
                text.as_str()
            );
        }
    }
}

#[tokio::test]
async fn everything_is_looked_up_in_indexes() {
    check(&mut connection().await).await;
}

#[tokio::test]
async fn also_after_an_analysis_of_small_tables() {
    let mut connection = connection().await;
    sqlx::raw_sql(ONE_OF_EACH).execute(&mut connection).await.unwrap();
    sqlx::raw_sql("ANALYZE").execute(&mut connection).await.unwrap();
    check(&mut connection).await;
}
