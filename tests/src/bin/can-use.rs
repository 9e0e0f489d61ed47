//! Whether the tests can use a server: logs in at the address in `CAP_TEST_URL` and makes what the tests make there.
//! Ends with 0 if that worked. Otherwise says why on the standard error, without the address, for it may hold a
//! password.

#![allow(clippy::print_stderr, reason = "its words are for the script that runs it")]

use std::process::ExitCode;
use std::time::Duration;

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{ConnectionProperties, ExchangeKind};
use sqlx::{Connection, Executor, PgConnection};

/// A server on this machine answers at once; one far away may take a moment.
const LIMIT: Duration = Duration::from_secs(10);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let url = std::env::var("CAP_TEST_URL").unwrap_or_default();
    let outcome = match url.split_once("://").map(|(scheme, _)| scheme) {
        Some("amqp" | "amqps") => tokio::time::timeout(LIMIT, use_rabbitmq(&url)).await,
        Some("postgres" | "postgresql") => tokio::time::timeout(LIMIT, use_postgres(&url)).await,
        _ => Ok(Err("CAP_TEST_URL is neither an amqp:// nor a postgres:// address".to_owned())),
    };
    match outcome {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(reason)) => fail(&reason),
        Err(_) => fail(&format!("the server did not answer within {LIMIT:?}")),
    }
}

fn fail(reason: &str) -> ExitCode {
    eprintln!("{reason}");
    ExitCode::FAILURE
}

/// Declares an exchange and a queue of the connection's own, which the broker drops with it.
async fn use_rabbitmq(url: &str) -> Result<(), String> {
    let say = |error: lapin::Error| error.to_string();
    let connection = lapin::Connection::connect(url, ConnectionProperties::default()).await.map_err(say)?;
    let channel = connection.create_channel().await.map_err(say)?;
    let exchange = format!("cap-can-use-{}", std::process::id());
    let options = ExchangeDeclareOptions { auto_delete: true, ..ExchangeDeclareOptions::default() };
    channel
        .exchange_declare(exchange.as_str().into(), ExchangeKind::Topic, options, FieldTable::default())
        .await
        .map_err(say)?;
    let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    let queue = channel.queue_declare("".into(), options, FieldTable::default()).await.map_err(say)?;
    let options = QueueBindOptions::default();
    channel
        .queue_bind(
            queue.name().clone(),
            exchange.as_str().into(),
            "#".into(),
            options,
            FieldTable::default(),
        )
        .await
        .map_err(say)?;
    connection.close(200, "done".into()).await.map_err(say)
}

/// Creates a schema in a transaction that is not committed.
async fn use_postgres(url: &str) -> Result<(), String> {
    let say = |error: sqlx::Error| error.to_string();
    let mut connection = PgConnection::connect(url).await.map_err(say)?;
    let mut transaction = connection.begin().await.map_err(say)?;
    transaction.execute("CREATE SCHEMA cap_can_use").await.map_err(say)?;
    transaction.rollback().await.map_err(say)?;
    connection.close().await.map_err(say)
}
