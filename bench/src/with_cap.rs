//! The whole path through cap.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cap_core::prelude::*;
use cap_postgres::Postgres;
use cap_rabbitmq::RabbitMq;
use sqlx::postgres::PgPoolOptions;
use tokio::sync::Notify;

use crate::{Arguments, BoxResult, unique};

/// Publishes and handles every message, each in a transaction of its own or alone.
pub(crate) async fn run(arguments: &Arguments, within: bool) -> BoxResult<Duration> {
    let callers = u32::try_from(arguments.callers)?;
    let pool = PgPoolOptions::new().max_connections(callers.min(32)).connect(&arguments.database_url).await?;
    let (schema, exchange) = (unique("cap_bench"), unique("cap-bench"));
    let handled = Arc::new(AtomicUsize::new(0));
    let done = Arc::new(Notify::new());
    let (count, finished, total) = (Arc::clone(&handled), Arc::clone(&done), arguments.messages);
    let cap = Cap::builder()
        .storage(Postgres::new(pool.clone()).schema(&schema))
        .transport(RabbitMq::new(&arguments.amqp_url).exchange(&exchange))
        .handlers(Handlers::none())
        .configure(|options| options.default_group.clone_from(&exchange))
        .subscribe("bench", move |_: String| {
            if count.fetch_add(1, Ordering::Relaxed) + 1 == total {
                finished.notify_one();
            }
            async {}
        })
        .start()
        .await?;
    sqlx::query(sqlx::AssertSqlSafe(format!("CREATE TABLE {schema}.business (id bigint PRIMARY KEY)")))
        .execute(&pool)
        .await?;
    let payload: Arc<str> = "x".repeat(arguments.size).into();
    let insert = format!("INSERT INTO {schema}.business VALUES ($1)");
    let next = Arc::new(AtomicUsize::new(0));
    let start = Instant::now();
    let mut publishers = tokio::task::JoinSet::new();
    for _ in 0..arguments.callers {
        let (cap, pool, payload, next, insert) =
            (cap.clone(), pool.clone(), Arc::clone(&payload), Arc::clone(&next), insert.clone());
        publishers.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= total {
                    return BoxResult::Ok(());
                }
                if within {
                    let mut tx = cap_postgres::begin(&cap, &pool).await?;
                    sqlx::query(sqlx::AssertSqlSafe(insert.clone()))
                        .bind(i64::try_from(number)?)
                        .execute(&mut *tx)
                        .await?;
                    cap.publish("bench", &*payload).within(&mut tx).await?;
                    tx.commit().await?;
                } else {
                    cap.publish("bench", &*payload).await?;
                }
            }
        });
    }
    while let Some(publisher) = publishers.join_next().await {
        publisher??;
    }
    tokio::time::timeout(Duration::from_secs(120), done.notified()).await?;
    let took = start.elapsed();
    cap.shutdown().await?;
    sqlx::query(sqlx::AssertSqlSafe(format!("DROP SCHEMA {schema} CASCADE"))).execute(&pool).await?;
    crate::by_hand::delete(&arguments.amqp_url, &format!("{exchange}.v1"), &exchange).await?;
    Ok(took)
}
