//! The billing service: the call, what its errors mean, and the handler that makes it.

use std::net::SocketAddr;
use std::time::Duration;

use cap_bus::prelude::*;
use reqwest::StatusCode;
use reqwest::header::RETRY_AFTER;
use tokio::sync::mpsc;

use super::{BoxResult, say};

/// The office answers within this time, or counts as silent. The handler's transaction is open as long.
const PATIENCE: Duration = Duration::from_millis(500);

/// The payload.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Invoice {
    pub(crate) number: u32,
    pub(crate) branch: Branch,
    pub(crate) amount: i64,
}

/// Which of the tax office's branches an invoice goes to.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Branch {
    Main,
    North,
}

/// What the office gives for an invoice.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Receipt {
    pub(crate) receipt: String,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("the office did not answer in time: the call timed out")]
    TooLate,
    #[error("the office cannot be reached")]
    NotReached(#[source] reqwest::Error),
    #[error("the office answered {status}: {text}")]
    Answered { status: StatusCode, text: String, come_again: Option<Duration> },
    #[error("the receipt cannot be stored")]
    Database(#[from] sqlx::Error),
}

impl From<reqwest::Error> for CallError {
    fn from(error: reqwest::Error) -> Self {
        // Errors are stored and shown, and an address may hold what is nobody's business.
        if error.is_timeout() { Self::TooLate } else { Self::NotReached(error.without_url()) }
    }
}

/// Which errors cannot be repaired by waiting, and which say themselves how long to wait. All others are retried by the
/// handler's policy.
fn classify(error: HandlerError) -> HandlerError {
    match error.find::<CallError>() {
        Some(CallError::Answered { come_again: Some(pause), .. }) => {
            let pause = *pause;
            error.retry_after(pause)
        }
        Some(CallError::Answered { status, .. }) if status.is_client_error() => error.permanently(),
        // The message has no part in it. A circuit breaker would count it.
        Some(CallError::NotReached(_)) => error.outage(),
        _ => error,
    }
}

/// Sends an invoice. The receipt, and the mark that the message is handled, are one transaction.
///
/// The call itself is no part of it: should this process die between the call and the commit, the call is made again.
/// The office knows it by its key then, and gives the same receipt.
#[cap_subscribe(
    "invoice.wanted",
    group = "example.compensation",
    concurrency = 4,
    retry = broker("1s, 2s, 4s"),
    classify = classify
)]
pub(crate) async fn send_invoice(
    invoice: Invoice,
    id: MessageId,
    Attempt(attempt): Attempt,
    State(offices): State<Offices>,
    mut tx: PgTx,
) -> Result<(), CallError> {
    let receipt = offices.send(&invoice, id.as_str()).await.inspect_err(|error| {
        say("billing", &format!("invoice {}, attempt {attempt}: {error}", invoice.number));
    })?;
    sqlx::query("INSERT INTO receipts (invoice, receipt, attempt) VALUES ($1, $2, $3)")
        .bind(i64::from(invoice.number))
        .bind(receipt)
        .bind(i64::from(attempt))
        .execute(&mut *tx)
        .await?;
    // Nobody listens when the story has ended early.
    let _ = offices.sent.send(invoice.number).await;
    Ok(())
}

/// The way to the tax office.
#[derive(Debug, Clone)]
pub(crate) struct Offices {
    client: reqwest::Client,
    main: SocketAddr,
    north: SocketAddr,
    sent: mpsc::Sender<u32>,
}

impl Offices {
    pub(crate) fn new(main: SocketAddr, north: SocketAddr, sent: mpsc::Sender<u32>) -> BoxResult<Self> {
        let client = reqwest::Client::builder().timeout(PATIENCE).no_proxy().build()?;
        Ok(Self { client, main, north, sent })
    }

    async fn send(&self, invoice: &Invoice, key: &str) -> Result<String, CallError> {
        let address = match invoice.branch {
            Branch::Main => self.main,
            Branch::North => self.north,
        };
        let request = self.client.post(format!("http://{address}/invoices")).header("idempotency-key", key);
        let answer = request.json(invoice).send().await?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer.json::<Receipt>().await?.receipt);
        }
        // It may be a date instead; the policy decides then.
        let seconds = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let come_again = seconds.map(Duration::from_secs);
        Err(CallError::Answered { status, text: answer.text().await?, come_again })
    }
}
