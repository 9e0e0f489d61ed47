//! The proof that no statement goes through a whole table, whatever SQLite believes about sizes. Tests only.
//!
//! `ANALYZE`, which an application may run at any moment, shows the planner how large the tables are at that moment. Plans that
//! are good for one row must not be made, as the tables grow.

use cap_adapter::storage::Side::{Inbox, Outbox};
use cap_sql::templates::Sides;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Row as _, SqlStr, SqliteConnection};

use crate::database::table_prefix::TablePrefix;
use crate::schema::creation::schema_sql;
use crate::storage::statements::Statements;

const ONE_OF_EACH: &str = "
INSERT INTO cap_outbox (id, version, name, message_id, added, headers, body) VALUES (1, 'v1', 'n', '1', 0, '{}', x'');
INSERT INTO cap_outbox_state (id, version, status, due, expires) VALUES (1, 'v1', 0, 0, 0);
INSERT INTO cap_inbox (id, version, name, group_name, message_id, added, headers, body)
    VALUES (1, 'v1', 'n', 'g', '1', 0, '{}', x'');
INSERT INTO cap_inbox_state (id, version, group_name, status, due, expires) VALUES (1, 'v1', 'g', 0, 0, 0);
INSERT INTO cap_attempts (side, id, number, at, node, error) VALUES (1, 1, 1, 0, 'n', 'e')";

async fn connection() -> SqliteConnection {
    let mut connection = SqliteConnectOptions::new().connect().await.unwrap();
    let schema = AssertSqlSafe(schema_sql(&TablePrefix::new("cap_")));
    sqlx::raw_sql(schema).execute(&mut connection).await.unwrap();
    connection
}

/// Every statement, except those that read a whole small table, and the lists for operators: they go through a table from its
/// end, and stop when the page is full.
fn all() -> Vec<SqlStr> {
    let statements = Statements::prepare(&TablePrefix::new("cap_"));
    let both = |sides: &Sides| [sides.of(Outbox), sides.of(Inbox)];
    let Statements { write, claim_due, crash_marks, find_messages, change_messages, .. } = &statements;
    let (completion, expired) = (&write.completion, &statements.expired_messages);
    let sides = [
        &write.repeated.stored,
        &completion.end,
        &completion.forget,
        &completion.empty,
        &completion.change,
        &completion.record,
        &claim_due.due,
        &claim_due.next_due,
        &claim_due.row.claim,
        &claim_due.row.message,
        &statements.lease_renewal.renew,
        &expired.by_age,
        &expired.by_state,
        &completion.deletion.message,
        &completion.deletion.state,
        &completion.deletion.attempts,
        &find_messages.get,
        &find_messages.find,
        &change_messages.rerun,
        &change_messages.headers,
        &change_messages.change,
        &change_messages.idle,
    ];
    let mut all: Vec<SqlStr> = sides.into_iter().flat_map(both).collect();
    all.extend([
        write.outgoing.message.clone(),
        write.outgoing.state.clone(),
        write.incoming.message.clone(),
        write.incoming.state.clone(),
        write.outgoing.stored.clone(),
        statements.retry_at_broker.waiting.clone(),
        crash_marks.mark_started.clone(),
        claim_due.row.crashes.count.clone(),
        claim_due.row.crashes.record.clone(),
        crash_marks.withdraw.clone(),
        crash_marks.uncount.clone(),
        write.signals.announce.clone(),
        statements.worker_ids.keep_alive.clone(),
        statements.worker_ids.leave.clone(),
        find_messages.attempts.clone(),
        change_messages.cancel.clone(),
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
