//! The story of an order over RabbitMQ and PostgreSQL, between two services that share nothing but the broker.
//!
//! The order service stores an order and the command to deduct stock in one transaction. The stock service deducts
//! through `PgTx`, so that the deduction, the mark on the message and the answer are one transaction. The answer
//! marks the order. One order fails twice first; one cannot succeed until an operator helps; one is rolled back, and
//! nobody ever learns of it.
//!
//! Run it with `cargo run -p orders`. It uses the servers that `AMQP_URL` and `DATABASE_URL` name, by default
//! those on this machine, and ends by itself, with exit code 0 if the story happened. Ctrl-C and SIGTERM end it
//! early, in order. Each service has a schema of its own, made anew by each run and left there to be looked at.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it tells a story")]

use std::error::Error;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cap_bus::prelude::*;
use sqlx::{Executor, PgPool};
use tokio::sync::{mpsc, watch};

type BoxResult<T> = Result<T, Box<dyn Error + Send + Sync>>;

#[derive(Debug, Serialize, Deserialize)]
struct DeductQty {
    order_id: i64,
    product: String,
    qty: i32,
}

#[derive(Debug, Serialize, Deserialize)]
struct QtyDeducted {
    order_id: i64,
    is_success: bool,
}

/// The stock service's shelf for order 2 jams twice.
#[derive(Default)]
struct Shelf {
    jams: AtomicU32,
}

#[derive(Debug, thiserror::Error)]
enum StockError {
    #[error("the shelf is jammed")]
    Jammed,
    #[error("the stock cannot be reached")]
    Database(#[from] sqlx::Error),
}

/// The stock service: its effect, its mark and its answer are one transaction.
#[cap_subscribe("place.order.qty.deducted", group = "example.stock")]
async fn deduct(
    command: DeductQty,
    mut tx: PgTx,
    Attempt(attempt): Attempt,
    State(shelf): State<Shelf>,
) -> Result<Reply<QtyDeducted>, HandlerError> {
    let DeductQty { order_id, product, qty } = command;
    say("stock", &format!("deduct {qty} {product} for order {order_id}, attempt {attempt}"));
    let deducted =
        sqlx::query("UPDATE stock_service.stock SET left_over = left_over - $1 WHERE product = $2")
            .bind(qty)
            .bind(&product)
            .execute(&mut *tx)
            .await
            .map_err(|error| HandlerError::failed(StockError::from(error)))?;
    if deducted.rows_affected() == 0 {
        say("stock", "  failed for good: nobody knows that product. No retry can repair that");
        return Err(HandlerError::permanent(format!("there is no product {product:?}")));
    }
    if order_id == 2 && shelf.jams.fetch_add(1, Ordering::Relaxed) < 2 {
        say("stock", "  failed: the shelf is jammed. What was deducted is rolled back, and cap tries again");
        return Err(HandlerError::failed(StockError::Jammed));
    }
    say("stock", "  deducted");
    Ok(Reply(QtyDeducted { order_id, is_success: true }))
}

/// The order service's own: how many orders are marked.
struct Marked(watch::Sender<usize>);

/// The order service again: the callback.
#[cap_subscribe("place.order.mark.status", group = "example.orders")]
async fn mark_status(
    result: QtyDeducted,
    mut tx: PgTx,
    State(marked): State<Marked>,
) -> Result<(), sqlx::Error> {
    let status = if result.is_success { "succeeded" } else { "failed" };
    sqlx::query("UPDATE order_service.orders SET status = $1 WHERE id = $2")
        .bind(status)
        .bind(result.order_id)
        .execute(&mut *tx)
        .await?;
    say("orders", &format!("order {} is marked {status}", result.order_id));
    marked.0.send_modify(|count| *count += 1);
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "off".into()),
        )
        .init();
    match tokio::time::timeout(Duration::from_secs(60), story()).await {
        Ok(Ok(())) => {
            println!("\nThe story happened as told. What cap wrote is there to be looked at:");
            println!(
                "  SELECT * FROM stock_service_cap.received;   SELECT * FROM order_service_cap.published;"
            );
            ExitCode::SUCCESS
        }
        Ok(Err(error)) => {
            eprintln!("\nThe story went wrong: {error}");
            ExitCode::FAILURE
        }
        Err(_) => {
            eprintln!(
                "\nThe story did not come to its end within a minute. With RUST_LOG=warn cap says why."
            );
            ExitCode::FAILURE
        }
    }
}

async fn story() -> BoxResult<()> {
    let database = std::env::var("DATABASE_URL")
        .unwrap_or_else(|_| "postgres://postgres@127.0.0.1:5432/postgres".to_owned());
    let broker = std::env::var("AMQP_URL").unwrap_or_else(|_| "amqp://guest:guest@127.0.0.1:5672".to_owned());
    let pool = PgPool::connect(&database).await.map_err(|error| {
        format!("PostgreSQL cannot be reached ({error}); set DATABASE_URL, or start one on 127.0.0.1:5432")
    })?;
    make_tables(&pool).await?;

    let (marked, mut orders_marked) = watch::channel(0);
    let (told, mut failures) = mpsc::channel(1);
    let stock = stock_service(&pool, &broker, told).await?;
    let orders = order_service(&pool, &broker, marked).await?;

    let told = tokio::select! {
        told = chapters(&orders, &stock, &pool, &mut orders_marked, &mut failures) => told,
        () = asked_to_stop() => Err("it was asked to stop".into()),
    };
    // Whatever happened, both services end in order: what they were doing is finished or released.
    orders.shutdown().await?;
    stock.shutdown().await?;
    told
}

async fn chapters(
    orders: &Cap,
    stock: &Cap,
    pool: &PgPool,
    marked: &mut watch::Receiver<usize>,
    failures: &mut mpsc::Receiver<Failure>,
) -> BoxResult<()> {
    chapter("1. An order is placed, and its answer comes back");
    place(orders, pool, 1, "widget", true).await?;
    marked.wait_for(|marked| *marked == 1).await?;

    chapter("2. An order fails twice and succeeds");
    place(orders, pool, 2, "widget", true).await?;
    marked.wait_for(|marked| *marked == 2).await?;

    chapter("3. An order that cannot succeed is given up, helped, and run again by hand");
    place(orders, pool, 3, "gadget", true).await?;
    let failure = failures.recv().await.ok_or("the stock service ended early")?;
    let message = failure.message.id().unwrap_or("without an id");
    say("operator", &format!("I am told that message {message} failed: {}", failure.error));
    say("operator", "I put gadgets on the shelf, and run the message again");
    sqlx::query("INSERT INTO stock_service.stock VALUES ('gadget', 10)").execute(pool).await?;
    if stock.messages().rerun(&[failure.id]).await? != [failure.id] {
        return Err("the message could not be run again".into());
    }
    marked.wait_for(|marked| *marked == 3).await?;

    chapter("4. An order that is rolled back never happened");
    place(orders, pool, 4, "widget", false).await?;
    place(orders, pool, 5, "widget", true).await?;
    marked.wait_for(|marked| *marked == 4).await?;

    let left: Vec<(String, i32)> =
        sqlx::query_as("SELECT product, left_over FROM stock_service.stock ORDER BY product")
            .fetch_all(pool)
            .await?;
    say("stock", &format!("left on the shelf: {left:?}"));
    let expected = [("gadget".to_owned(), 9), ("widget".to_owned(), 7)];
    if left == expected { Ok(()) } else { Err(format!("the shelf should hold {expected:?}").into()) }
}

/// One transaction: the order, and the command that goes with it.
async fn place(orders: &Cap, pool: &PgPool, order_id: i64, product: &str, commit: bool) -> BoxResult<()> {
    say("orders", &format!("place order {order_id}: one {product}"));
    let mut tx = cap_bus::postgres::begin(orders, pool).await?;
    sqlx::query("INSERT INTO order_service.orders VALUES ($1, $2, 'placed')")
        .bind(order_id)
        .bind(product)
        .execute(&mut *tx)
        .await?;
    let command = DeductQty { order_id, product: product.to_owned(), qty: 1 };
    orders
        .publish("place.order.qty.deducted", &command)
        .callback("place.order.mark.status")
        .within(&mut tx)
        .await?;
    if commit {
        tx.commit().await?;
    } else {
        say("orders", "  on second thoughts: roll back");
        tx.rollback().await?;
    }
    Ok(())
}

async fn stock_service(pool: &PgPool, broker: &str, told: mpsc::Sender<Failure>) -> BoxResult<Cap> {
    let cap = Cap::builder()
        .storage(Postgres::new(pool.clone()).schema("stock_service_cap"))
        .transport(RabbitMq::new(broker).exchange("cap.example.orders"))
        // Two services in one program: each lists its handlers. A service of its own does not need this line.
        .handlers(Handlers::listed([deduct::SUBSCRIPTIONS]))
        .state(Shelf::default())
        .on_failed(move |failure| {
            let told = told.clone();
            async move {
                // Nobody listens when the story has ended early.
                let _ = told.send(failure).await;
            }
        })
        .start()
        .await?;
    Ok(cap)
}

async fn order_service(pool: &PgPool, broker: &str, marked: watch::Sender<usize>) -> BoxResult<Cap> {
    let cap = Cap::builder()
        .storage(Postgres::new(pool.clone()).schema("order_service_cap"))
        .transport(RabbitMq::new(broker).exchange("cap.example.orders"))
        .handlers(Handlers::listed([mark_status::SUBSCRIPTIONS]))
        .state(Marked(marked))
        .start()
        .await?;
    Ok(cap)
}

async fn make_tables(pool: &PgPool) -> BoxResult<()> {
    let mut connection = pool.acquire().await?;
    for statement in [
        "DROP SCHEMA IF EXISTS order_service, stock_service, order_service_cap, stock_service_cap CASCADE",
        "CREATE SCHEMA order_service",
        "CREATE SCHEMA stock_service",
        "CREATE TABLE order_service.orders (id bigint PRIMARY KEY, product text NOT NULL, status text NOT NULL)",
        "CREATE TABLE stock_service.stock (product text PRIMARY KEY, left_over int NOT NULL)",
        "INSERT INTO stock_service.stock VALUES ('widget', 10)",
    ] {
        connection.execute(statement).await?;
    }
    Ok(())
}

/// Waits for Ctrl-C or SIGTERM.
async fn asked_to_stop() {
    let Ok(mut terminate) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

fn chapter(title: &str) {
    println!("\n{title}");
}

fn say(who: &str, what: &str) {
    println!("  {who:>8} | {what}");
}
