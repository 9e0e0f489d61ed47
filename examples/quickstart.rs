//! The story of an order, on nothing but this process: no broker, no database.
//!
//! An order is placed and asks for an answer; the stock service deducts and answers; the answer marks the order. A
//! second order fails twice and succeeds at the third attempt. A third can never succeed: it is given up, an operator
//! is notified, repairs what was wrong, and runs it again by hand.
//!
//! Run it with `cargo run --example quickstart`. It ends by itself, with exit code 0 if the story happened.
//!
//! With `--features sqlite` the messages are in a file, `cap-quickstart.db` in the folder for temporary files or the
//! one that `CAP_QUICKSTART_DB` names, and survive the process. To see that, run it with `CAP_QUICKSTART_STOP=1`: the
//! stock service stops in the middle of the first order. Kill it with `kill -9` and run it again without. The broker is in
//! memory still, but a message counts as sent only when it is in the file for every group that wants it.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it tells a story")]

use std::collections::BTreeSet;
use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use cap_bus::prelude::*;
use cap_bus::storage::{Side, Status};
use tokio::sync::{mpsc, watch};

#[derive(Debug, Serialize, Deserialize)]
struct DeductQty {
    order_id: u32,
    product: String,
    qty: u32,
}

#[derive(Debug, Serialize, Deserialize)]
struct QtyDeducted {
    order_id: u32,
    is_success: bool,
}

/// What the stock service works with. A real one has a database here.
#[derive(Default)]
struct Stock {
    /// The shelf of the sprockets jams twice for each order; this is the attempt that came through.
    sprocket_came_at: AtomicU32,
    /// Nobody has told the stock service what a gadget is, until an operator does.
    knows_gadgets: AtomicBool,
    /// Whether it stops in the middle of its work, to be killed.
    stops: bool,
}

#[derive(Debug, thiserror::Error)]
enum StockError {
    #[error("the shelf is jammed")]
    Jammed,
}

/// The stock service. What it returns goes to the topic that the sender asked for.
#[cap_subscribe("place.order.qty.deducted", group = "stock")]
async fn deduct(
    command: DeductQty,
    Attempt(attempt): Attempt,
    State(stock): State<Stock>,
) -> Result<Reply<QtyDeducted>, HandlerError> {
    say(
        "stock",
        &format!(
            "deduct {} {} for order {}, attempt {attempt}",
            command.qty, command.product, command.order_id
        ),
    );
    if stock.stops {
        say("stock", "  stopped in the middle. Kill this process and run it again");
        std::future::pending::<()>().await;
    }
    if command.product == "sprocket" && attempt < 3 {
        say("stock", "  failed: the shelf is jammed. cap tries again by itself");
        return Err(HandlerError::failed(StockError::Jammed));
    }
    if command.product == "gadget" && !stock.knows_gadgets.load(Ordering::Relaxed) {
        say("stock", "  failed for good: nobody knows a gadget. No retry can repair that");
        return Err(HandlerError::permanent("there is no product \"gadget\""));
    }
    if command.product == "sprocket" {
        stock.sprocket_came_at.store(attempt, Ordering::Relaxed);
    }
    say("stock", "  deducted");
    Ok(Reply(QtyDeducted { order_id: command.order_id, is_success: true }))
}

/// The orders that the order service has marked.
struct Orders(watch::Sender<BTreeSet<u32>>);

/// The order service again: the callback.
#[cap_subscribe("place.order.mark.status", group = "orders")]
async fn mark_status(result: QtyDeducted, headers: CapHeaders, State(orders): State<Orders>) {
    let status = if result.is_success { "succeeded" } else { "failed" };
    say(
        "orders",
        &format!(
            "order {} is marked {status} (answer to message {})",
            result.order_id,
            headers.get("cap-corr-id").unwrap_or("unknown"),
        ),
    );
    orders.0.send_modify(|marked| {
        marked.insert(result.order_id);
    });
}

#[cfg(not(feature = "sqlite"))]
fn storage() -> MemoryStorage {
    MemoryStorage::new()
}

#[cfg(feature = "sqlite")]
fn storage() -> cap_bus::sqlite::Sqlite {
    let path = match std::env::var_os("CAP_QUICKSTART_DB") {
        Some(path) => path.into(),
        None => std::env::temp_dir().join("cap-quickstart.db"),
    };
    println!("The messages are in {}.", path.display());
    cap_bus::sqlite::Sqlite::open(path)
}

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn main() -> ExitCode {
    match tokio::time::timeout(Duration::from_secs(20), story()).await {
        Ok(Ok(())) => {
            println!("\nThe story happened as told.");
            ExitCode::SUCCESS
        }
        Ok(Err(error)) => {
            eprintln!("\nThe story went wrong: {error}");
            ExitCode::FAILURE
        }
        Err(_) => {
            eprintln!("\nThe story did not come to its end within 20 seconds.");
            ExitCode::FAILURE
        }
    }
}

async fn story() -> Result<(), Box<dyn Error>> {
    let (marked, mut marked_orders) = watch::channel(BTreeSet::new());
    let (told, mut failures) = mpsc::channel(1);
    let stops = std::env::var_os("CAP_QUICKSTART_STOP").is_some();
    let stock = Arc::new(Stock { stops, ..Stock::default() });
    let cap = Cap::builder()
        .storage(storage())
        .transport(MemoryTransport::new())
        .shared_state(Arc::clone(&stock))
        .state(Orders(marked))
        .on_failed(move |failure| {
            let told = told.clone();
            async move {
                let _ = told.send(failure).await;
            }
        })
        // So that what a killed run was at work on is taken up again soon.
        .configure(|options| options.lease = Duration::from_secs(2))
        .start()
        .await?;
    let (first, undone) = look_back(&cap).await?;
    let (second, third) = (first + 1, first + 2);
    if undone > 0 {
        chapter("0. What the last run left undone is done");
        while look_back(&cap).await?.1 > 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    chapter("1. An order is placed, and its answer comes back");
    place(&cap, first, "widget").await?;
    wait_for(&mut marked_orders, first).await?;

    chapter("2. An order fails twice and succeeds");
    place(&cap, second, "sprocket").await?;
    wait_for(&mut marked_orders, second).await?;

    chapter("3. An order that cannot succeed is given up, repaired, and run again by hand");
    place(&cap, third, "gadget").await?;
    // A killed run may have left a failure to an operator, too.
    while !marked_orders.borrow().contains(&third) {
        tokio::select! {
            failure = failures.recv() => mend(&cap, &stock, failure.ok_or("the bus ended early")?).await?,
            done = wait_for(&mut marked_orders, third) => done?,
        }
    }

    cap.shutdown().await?;
    if stock.sprocket_came_at.load(Ordering::Relaxed) != 3 {
        return Err("the second order did not take three attempts".into());
    }
    Ok(())
}

/// The number of the next order, and how many messages of an earlier run are not done.
async fn look_back(cap: &Cap) -> Result<(u32, usize), Box<dyn Error>> {
    #[derive(Deserialize)]
    struct About {
        order_id: u32,
    }
    let (mut last, mut undone) = (0, 0);
    for side in [Side::Outbox, Side::Inbox] {
        for row in cap.messages().side(side).limit(usize::MAX).list().await? {
            let about: About = serde_json::from_slice(&row.message.body)?;
            last = last.max(about.order_id);
            undone += usize::from(matches!(row.status, Status::Scheduled | Status::Retrying));
        }
    }
    Ok((last + 1, undone))
}

async fn mend(cap: &Cap, stock: &Stock, failure: Failure) -> Result<(), Box<dyn Error>> {
    say(
        "operator",
        &format!(
            "I am told that message {} to {} failed after {} attempt: {}",
            failure.message.id().unwrap_or("without an id"),
            failure.group,
            failure.attempts,
            failure.error,
        ),
    );
    say("operator", "I teach the stock service what a gadget is, and run the message again");
    stock.knows_gadgets.store(true, Ordering::Relaxed);
    let rerun = cap.messages().rerun(&[failure.id]).await?;
    if rerun != [failure.id] {
        return Err("the message could not be run again".into());
    }
    Ok(())
}

async fn place(cap: &Cap, order_id: u32, product: &str) -> Result<(), PublishError> {
    say("orders", &format!("place order {order_id}: one {product}"));
    let command = DeductQty { order_id, product: product.to_owned(), qty: 1 };
    cap.publish("place.order.qty.deducted", &command).callback("place.order.mark.status").await?;
    Ok(())
}

async fn wait_for(marked: &mut watch::Receiver<BTreeSet<u32>>, order: u32) -> Result<(), Box<dyn Error>> {
    marked.wait_for(|marked| marked.contains(&order)).await?;
    Ok(())
}

fn chapter(title: &str) {
    println!("\n{title}");
}

fn say(who: &str, what: &str) {
    println!("  {who:>8} | {what}");
}
