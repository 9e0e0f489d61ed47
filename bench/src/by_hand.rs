//! The whole path as a careful team would write it by hand: insert, publish with its confirm, update; insert, handle,
//! update, acknowledge; one message after the other in each of several tasks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, PgPool};

use crate::{Arguments, BoxResult, unique};

/// The statements of a run, on tables of its own.
struct Statements {
    business: String,
    outbox: String,
    sent: String,
    inbox: String,
    handled: String,
}

/// Publishes and handles every message.
pub(crate) async fn run(arguments: &Arguments) -> BoxResult<Duration> {
    let tasks = u32::try_from(arguments.callers)?;
    // A connection for each task, as the callers of cap have.
    let pool =
        PgPoolOptions::new().max_connections((2 * tasks).min(64)).connect(&arguments.database_url).await?;
    let (schema, queue) = (unique("hand_bench"), unique("hand-bench"));
    let statements = Arc::new(tables(&pool, &schema).await?);
    let connection = Connection::connect(&arguments.amqp_url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let mut queue_arguments = FieldTable::default();
    queue_arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    let declare = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.as_str().into(), declare, queue_arguments).await?;

    let next = Arc::new(AtomicUsize::new(0));
    let handled = Arc::new(AtomicUsize::new(0));
    let payload: Arc<[u8]> = "x".repeat(arguments.size).into_bytes().into();
    let start = Instant::now();
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..arguments.callers {
        let publisher = connection.create_channel().await?;
        publisher.confirm_select(ConfirmSelectOptions::default()).await?;
        all.spawn(publish(
            publisher,
            pool.clone(),
            Arc::clone(&statements),
            queue.clone(),
            Arc::clone(&payload),
            Arc::clone(&next),
            arguments.messages,
        ));
        let consumer = connection.create_channel().await?;
        all.spawn(consume(
            consumer,
            pool.clone(),
            Arc::clone(&statements),
            queue.clone(),
            Arc::clone(&handled),
            arguments.messages,
        ));
    }
    // The consumers end when all is handled; each waits for a delivery in between, so only the first to see it counts.
    while handled.load(Ordering::Relaxed) < arguments.messages {
        match all.join_next().await {
            Some(ended) => ended??,
            None => return Err("the hand-written loop ended early".into()),
        }
    }
    let took = start.elapsed();
    all.shutdown().await;
    // A channel that is dropped at the same moment makes closing fail now and then; nothing depends on it.
    drop(connection.close(200, "done".into()).await);
    delete(&arguments.amqp_url, &queue, "").await?;
    sqlx::query(AssertSqlSafe(format!("DROP SCHEMA {schema} CASCADE"))).execute(&pool).await?;
    Ok(took)
}

async fn tables(pool: &PgPool, schema: &str) -> BoxResult<Statements> {
    for statement in [
        format!("CREATE SCHEMA {schema}"),
        format!("CREATE TABLE {schema}.business (id bigint PRIMARY KEY)"),
        format!(
            "CREATE TABLE {schema}.outbox (id bigint PRIMARY KEY, body bytea NOT NULL, status text NOT NULL, added timestamptz NOT NULL DEFAULT now())"
        ),
        format!(
            "CREATE TABLE {schema}.inbox (id bigint PRIMARY KEY, body bytea NOT NULL, status text NOT NULL, added timestamptz NOT NULL DEFAULT now())"
        ),
    ] {
        sqlx::query(AssertSqlSafe(statement)).execute(pool).await?;
    }
    Ok(Statements {
        business: format!("INSERT INTO {schema}.business VALUES ($1)"),
        outbox: format!("INSERT INTO {schema}.outbox (id, body, status) VALUES ($1, $2, 'scheduled')"),
        sent: format!("UPDATE {schema}.outbox SET status = 'sent' WHERE id = $1"),
        inbox: format!(
            "INSERT INTO {schema}.inbox (id, body, status) VALUES ($1, $2, 'received') ON CONFLICT DO NOTHING"
        ),
        handled: format!("UPDATE {schema}.inbox SET status = 'handled' WHERE id = $1"),
    })
}

async fn publish(
    channel: Channel,
    pool: PgPool,
    statements: Arc<Statements>,
    queue: String,
    payload: Arc<[u8]>,
    next: Arc<AtomicUsize>,
    total: usize,
) -> BoxResult<()> {
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= total {
            return Ok(());
        }
        let id = i64::try_from(number)?;
        let mut tx = pool.begin().await?;
        sqlx::query(AssertSqlSafe(statements.business.clone())).bind(id).execute(&mut *tx).await?;
        sqlx::query(AssertSqlSafe(statements.outbox.clone()))
            .bind(id)
            .bind(&*payload)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        let properties =
            BasicProperties::default().with_delivery_mode(2).with_message_id(id.to_string().into());
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        channel.basic_publish("".into(), queue.as_str().into(), options, &payload, properties).await?.await?;
        sqlx::query(AssertSqlSafe(statements.sent.clone())).bind(id).execute(&pool).await?;
    }
}

async fn consume(
    channel: Channel,
    pool: PgPool,
    statements: Arc<Statements>,
    queue: String,
    handled: Arc<AtomicUsize>,
    total: usize,
) -> BoxResult<()> {
    channel.basic_qos(16, BasicQosOptions::default()).await?;
    let options = BasicConsumeOptions::default();
    let mut consumer =
        channel.basic_consume(queue.as_str().into(), "".into(), options, FieldTable::default()).await?;
    while let Some(delivery) = consumer.next().await {
        let delivery = delivery?;
        let id: i64 = delivery.properties.message_id().as_ref().ok_or("no id")?.as_str().parse()?;
        sqlx::query(AssertSqlSafe(statements.inbox.clone()))
            .bind(id)
            .bind(&delivery.data)
            .execute(&pool)
            .await?;
        // The handler does nothing, as cap's does.
        sqlx::query(AssertSqlSafe(statements.handled.clone())).bind(id).execute(&pool).await?;
        delivery.ack(BasicAckOptions::default()).await?;
        if handled.fetch_add(1, Ordering::Relaxed) + 1 >= total {
            return Ok(());
        }
    }
    Ok(())
}

/// Removes a queue and, where it has a name, an exchange.
pub(crate) async fn delete(url: &str, queue: &str, exchange: &str) -> BoxResult<()> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await?;
    if !exchange.is_empty() {
        channel.exchange_delete(exchange.into(), lapin::options::ExchangeDeleteOptions::default()).await?;
    }
    // A channel that is dropped at the same moment makes closing fail now and then; nothing depends on it.
    drop(connection.close(200, "done".into()).await);
    Ok(())
}
