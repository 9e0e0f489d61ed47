//! Calls to an interface of somebody else that fails in every way it can, and what is done about each.
//!
//! A billing service sends invoices to a tax office, over HTTP. The office answers at once, or after two errors; it
//! answers too late; it is busy and says when to come again; it refuses an invoice; and its northern branch is closed.
//! Failed calls wait in RabbitMQ's delay queues and are made again by whichever of two nodes gets them. Two invoices end
//! with an operator: one is corrected, one only has to be sent again once the branch has opened. At the end the history of
//! each is printed, as cap keeps it.
//!
//! Run it with `cargo run -p compensation`. It uses the servers that `AMQP_URL` and `DATABASE_URL` name, by
//! default those on this machine, and ends by itself after about ten seconds, with exit code 0 if the story happened.
//! Ctrl-C and SIGTERM end it early, in order. Its queues and schemas are its own, and are removed at the end.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it tells a story")]

mod call;
mod office;
mod place;
mod timeline;

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use cap_bus::prelude::*;
use cap_bus::storage::Reason;
use tokio::sync::mpsc;

use self::call::{Branch, Invoice, Offices, send_invoice};
use self::office::{Books, Office};
use self::place::Place;
use self::timeline::{Expected, History};

pub(crate) type BoxResult<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// What is wanted, and what is to come of it: the errors one after the other, and who helps.
const STORY: [Expected; 6] = [
    Expected { title: "sent at once", errors: &[], pauses: &[], helper: None },
    Expected {
        title: "two errors, then accepted",
        errors: &["500 Internal Server Error", "500 Internal Server Error"],
        pauses: &[1, 2],
        helper: None,
    },
    Expected { title: "answered too late once", errors: &["timed out"], pauses: &[1], helper: None },
    Expected {
        title: "told to come again in two seconds",
        errors: &["429 Too Many Requests"],
        pauses: &[2],
        helper: None,
    },
    Expected {
        title: "refused, corrected by an operator",
        errors: &["400 Bad Request"],
        pauses: &[],
        helper: Some("bob edited and re-ran it"),
    },
    Expected {
        title: "nobody there, sent again by an operator",
        errors: &["the office cannot be reached"; 4],
        pauses: &[1, 2, 4],
        helper: Some("alice re-ran it"),
    },
];

#[tokio::main]
pub(crate) async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "off".into()),
        )
        .init();
    match story().await {
        Ok(()) => {
            println!("\nThe story happened as told.");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("\nThe story went wrong: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn story() -> BoxResult<()> {
    let place = Place::find().await?;
    let told = match place.make().await {
        Ok(()) => in_this_place(&place).await,
        Err(error) => Err(error),
    };
    let waited_in = place.delay_queues().await;
    // Whatever happened, nothing is left behind.
    place.remove().await?;
    told?;
    let waited_in = waited_in?;
    chapter("Where the calls waited, in RabbitMQ");
    for queue in &waited_in {
        println!("    {queue}");
    }
    // Only a broker that keeps the retries has such queues.
    if waited_in.len() == 3 { Ok(()) } else { Err("there should be a delay queue for each pause".into()) }
}

async fn in_this_place(place: &Place) -> BoxResult<()> {
    let (told, failures) = mpsc::channel(8);
    let (sent, results) = mpsc::channel(8);
    let books = Books::default();
    let main = Office::open(&books)?;
    let north = Office::closed(&books)?;
    let offices = Offices::new(main.address(), north.address(), sent)?;
    let one = node("billing-1", place, &offices, &told).await?;
    let two = node("billing-2", place, &offices, &told).await?;

    let ended = tokio::select! {
        ended = tokio::time::timeout(Duration::from_secs(50), calls(&one, north, failures, results)) => {
            ended.unwrap_or_else(|_| Err("it did not come to its end within fifty seconds".into()))
        }
        () = asked_to_stop() => Err("it was asked to stop".into()),
    };
    // Whatever happened, both nodes end in order: what they were doing is finished or released.
    one.shutdown().await?;
    two.shutdown().await?;
    let ids = ended?;

    chapter("What is on record, as cap gives it back");
    let mut problems = Vec::new();
    for ((number, id), expected) in (1..).zip(&ids).zip(&STORY) {
        let history = History::read(&one, &place.pool, number, id).await?;
        history.print(number, expected.title);
        problems.extend(history.problem(expected).map(|problem| format!("invoice {number}: {problem}")));
    }
    if books.receipts() != STORY.len() {
        problems.push(format!("the office has issued {} receipts", books.receipts()));
    }
    if problems.is_empty() { Ok(()) } else { Err(problems.join("; ").into()) }
}

/// Until every invoice is sent.
async fn calls(
    cap: &Cap,
    mut north: Office,
    mut failures: mpsc::Receiver<Failure>,
    mut results: mpsc::Receiver<u32>,
) -> BoxResult<Vec<MessageId>> {
    chapter("Six invoices are wanted, and the office is what it is");
    let mut ids = Vec::new();
    for (number, amount) in (1..).zip([120, 80, 45, 300, -60, 75]) {
        let branch = if number == 6 { Branch::North } else { Branch::Main };
        ids.push(cap.publish("invoice.wanted", &Invoice { number, branch, amount }).await?);
    }
    let mut left = ids.len();
    while left > 0 {
        tokio::select! {
            Some(number) = results.recv() => {
                say("billing", &format!("invoice {number} is sent"));
                left -= 1;
            }
            Some(failure) = failures.recv() => help(cap, &mut north, failure).await?,
            else => return Err("the billing service ended early".into()),
        }
    }
    Ok(ids)
}

/// What people do about a message that failed for good.
async fn help(cap: &Cap, north: &mut Office, failure: Failure) -> BoxResult<()> {
    let invoice: Invoice = serde_json::from_slice(&failure.message.body)?;
    chapter(&format!("Invoice {} needs an operator: {}", invoice.number, failure.error));
    let parked = cap.messages().parked().topic("invoice.wanted");
    let row = failure.id;
    if failure.reason == Reason::Permanent {
        say("bob", "The amount has the wrong sign. I correct it, and have the invoice sent again");
        let corrected = Invoice { amount: invoice.amount.abs(), ..invoice };
        let parked = parked.by("bob");
        done_by_hand(parked.edit_and_rerun(row, &corrected).await?)
    } else {
        say("alice", "The northern branch is closed. I have it opened, and send again all that failed there");
        north.repair()?;
        let parked = parked.by("alice").reason(Reason::Exhausted).error("the office cannot be reached");
        done_by_hand(parked.rerun_all().await? > 0)
    }
}

fn done_by_hand(done: bool) -> BoxResult<()> {
    if done { Ok(()) } else { Err("the message could not be run again".into()) }
}

/// One of the billing service's two nodes. They share a database and a queue.
async fn node(name: &str, place: &Place, offices: &Offices, told: &mpsc::Sender<Failure>) -> BoxResult<Cap> {
    let told = told.clone();
    let cap = Cap::builder()
        .configure(|options| {
            name.clone_into(&mut options.node_name);
            // A retry that a broker in trouble loses comes this much later, and the story does not wait long.
            options.lease = Duration::from_secs(10);
            options.version.clone_from(&place.version);
        })
        .storage(Postgres::new(place.pool.clone()).schema(&place.cap_schema))
        .transport(RabbitMq::new(&place.broker).exchange(place::EXCHANGE))
        .handlers(Handlers::listed([send_invoice::SUBSCRIPTIONS]))
        .state(offices.clone())
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

pub(crate) fn say(who: &str, what: &str) {
    println!("  {who:>9} | {what}");
}
