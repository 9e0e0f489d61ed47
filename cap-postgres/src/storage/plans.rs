//! The proof that no statement keeps a plan which was good only for an empty table. Tests only.

use cap_sql::templates::Sides;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqlStr};

use crate::connections::source::Source;
use crate::database::schema_name::SchemaName;
use crate::schema::creation::initialize;
use crate::schema::ownership::Trust;
use crate::storage::statements::Statements;
use crate::test_pool::pool;
use crate::write::completion::ByKind;

const FILL: &str = "
INSERT INTO {schema}.outbox (id, version, name, headers, body)
    SELECT g, 'v1', 'n', '{}', 'x' FROM generate_series(1, 5000) AS g;
INSERT INTO {schema}.outbox_state (id, version, status, due, expires)
    SELECT g, 'v1', 0, now(), now() FROM generate_series(1, 5000) AS g;
INSERT INTO {schema}.inbox (id, version, name, group_name, message_id, headers, body)
    SELECT g, 'v1', 'n', 'g', g::text, '{}', 'x' FROM generate_series(1, 5000) AS g;
INSERT INTO {schema}.inbox_state (id, version, group_name, status, due, expires)
    SELECT g, 'v1', 'g', 0, now(), now() FROM generate_series(1, 5000) AS g;
INSERT INTO {schema}.attempts (side, id, number, node, error)
    SELECT 1, g, 1, 'n', 'e' FROM generate_series(1, 5000) AS g";

/// The plans that statements have on a filled schema, after they were prepared while it was empty.
async fn plans(
    connection: &mut PgConnection,
    of: impl Fn(&Statements) -> Vec<SqlStr>,
) -> Vec<(SqlStr, String)> {
    let name = SchemaName::new(&format!("cap_plans_{:016x}", fastrand::u64(..)));
    let statements = of(&Statements::prepare(&name));
    // Everything happens in a transaction that is never committed, so that nothing is left behind.
    let mut transaction = connection.begin().await.unwrap();
    initialize(&mut transaction, &name, &Trust::default())
        .await
        .map_err(|fault| format!("{fault:?}"))
        .unwrap();
    for (index, text) in statements.iter().enumerate() {
        let prepare = AssertSqlSafe(format!("PREPARE s{index} AS {}", text.as_str()));
        sqlx::raw_sql(prepare).execute(&mut *transaction).await.unwrap();
        explain(&mut transaction, index).await;
    }
    let fill = AssertSqlSafe(FILL.replace("{schema}", name.quoted()));
    sqlx::raw_sql(fill).execute(&mut *transaction).await.unwrap();
    let mut plans = Vec::new();
    for (index, text) in statements.into_iter().enumerate() {
        let plan = explain(&mut transaction, index).await;
        plans.push((text, plan));
    }
    transaction.rollback().await.unwrap();
    plans
}

async fn explain(connection: &mut PgConnection, index: usize) -> String {
    let parameters = "SELECT cardinality(parameter_types) FROM pg_prepared_statements WHERE name = $1";
    let parameters: i32 =
        sqlx::query_scalar(parameters).bind(format!("s{index}")).fetch_one(&mut *connection).await.unwrap();
    let nulls = vec!["NULL"; usize::try_from(parameters).unwrap()].join(", ");
    let call = if nulls.is_empty() { format!("s{index}") } else { format!("s{index}({nulls})") };
    let lines: Vec<String> = sqlx::query_scalar(AssertSqlSafe(format!("EXPLAIN EXECUTE {call}")))
        .persistent(false)
        .fetch_all(connection)
        .await
        .unwrap();
    lines.join("\n")
}

fn both(sides: &Sides) -> [SqlStr; 2] {
    use cap_adapter::storage::Side::{Inbox, Outbox};
    [sides.of(Outbox), sides.of(Inbox)]
}

fn completing(complete: &ByKind) -> Vec<SqlStr> {
    [&complete.forget, &complete.delete, &complete.change].into_iter().flat_map(both).collect()
}

/// The statements that the bus runs all the time.
fn hot(statements: &Statements) -> Vec<SqlStr> {
    let Statements { write, find_messages, change_messages, .. } = statements;
    let mut all = vec![write.outgoing.many.clone(), write.incoming.insert.clone()];
    let one = &write.outgoing.one;
    all.extend([one.generated_id.clone(), one.own_id.clone(), write.incoming.one.statement.clone()]);
    all.extend([write.forget_both.statement.clone()]);
    all.extend(completing(&write.completion.many));
    let sides = [
        &statements.claim_due.claim,
        &write.completion.end_orphans,
        &statements.claim_due.rows.messages,
        &statements.lease_renewal.renew,
        &write.repeated.stored,
        &statements.expired_messages.by_state,
        &statements.expired_messages.by_age,
        &statements.expired_messages.delete,
        &find_messages.list.messages,
        &find_messages.list.states,
        &find_messages.list_ids.messages,
        &find_messages.list_ids.states,
        &statements.searching.messages,
        &statements.searching.states,
        &find_messages.get,
        &find_messages.find,
        &change_messages.lock_messages,
        &change_messages.rerun,
        &change_messages.headers,
        &change_messages.change,
        &change_messages.delete,
        &statements.bounded_counting.few,
        &statements.bounded_counting.many,
        &statements.lags.oldest,
    ];
    all.extend(sides.into_iter().flat_map(both));
    let crash_marks = &statements.crash_marks;
    all.extend([statements.commit_lookup.look_for.clone(), crash_marks.mark_started.clone()]);
    all.extend([crash_marks.withdraw_crashes.clone(), statements.retry_at_broker.claim.clone()]);
    all.extend([change_messages.cancel.clone(), find_messages.attempts.clone()]);
    let duplicates = &write.duplicates;
    all.extend([duplicates.holders.clone(), duplicates.lock_holder.clone(), duplicates.set_aside.clone()]);
    all
}

/// The statements that run on connections of the application.
fn within(statements: &Statements) -> Vec<SqlStr> {
    let insert = &statements.write.outgoing;
    let mut all = vec![insert.many.clone(), insert.one.generated_id.clone(), insert.one.own_id.clone()];
    all.extend(completing(&statements.write.completion.one));
    all
}

#[track_caller]
fn assert_looked_up(plans: &[(SqlStr, String)]) {
    for (text, plan) in plans {
        for bad in ["Seq Scan on", "Bitmap Heap Scan", "Merge Join"] {
            assert!(!plan.contains(bad), "{bad} in\n{plan}\nof\n{}", text.as_str());
        }
    }
}

#[tokio::test]
async fn our_connections_look_everything_up_in_indexes() {
    let source = Source { application: pool(), direct: None, provider: None };
    let mut connection = source.connect().await.map_err(|fault| format!("{fault:?}")).unwrap();
    let plans = plans(&mut connection, hot).await;
    assert_looked_up(&plans);
    let mut bounded = 0;
    for (text, plan) in &plans {
        if text.as_str().contains("SKIP LOCKED") && text.as_str().contains("candidates") {
            assert!(plan.contains("_state_due on"), "a claim goes by the due time, not\n{plan}");
        }
        if text.as_str().contains("m.id >= $12") {
            let ranges: Vec<&str> = plan.lines().filter(|line| line.contains("Index Cond")).collect();
            assert!(
                ranges.iter().any(|range| range.contains("id < $1)") && range.contains("id >= $12)")),
                "a list goes through no more rows than its times allow, not\n{plan}"
            );
            bounded += 1;
        }
        if text.as_str().contains("FULL JOIN") {
            assert!(plan.contains("Hash Full Join"), "a loop over all pairs in\n{plan}");
        }
    }
    assert_eq!(bounded, 4, "two kinds of list for each side");
}

#[tokio::test]
async fn on_an_ordinary_connection_they_would_not_be() {
    let pool = pool();
    let mut connection = pool.acquire().await.unwrap();
    let plans = plans(&mut connection, hot).await;
    assert!(
        plans.iter().any(|(_, plan)| plan.contains("Seq Scan on")),
        "then the settings could go: {plans:?}"
    );
}

#[tokio::test]
async fn what_runs_on_the_applications_connections_needs_no_settings() {
    let pool = pool();
    let mut connection = pool.acquire().await.unwrap();
    sqlx::raw_sql("SET plan_cache_mode = force_generic_plan").execute(&mut *connection).await.unwrap();
    assert_looked_up(&plans(&mut connection, within).await);
}
