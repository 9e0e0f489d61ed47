//! The tax office: an HTTP service of somebody else, with its moods.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use tokio::net::TcpSocket;
use tokio::task::JoinSet;

use super::BoxResult;
use super::call::{Invoice, Receipt};

/// What the branches know in common.
#[derive(Debug, Clone, Default)]
pub(crate) struct Books(Arc<Mutex<Entries>>);

#[derive(Debug, Default)]
struct Entries {
    /// How often each call was made, by its key.
    calls: HashMap<String, u32>,
    /// The receipts given out, by the key of the call.
    receipts: HashMap<String, String>,
}

impl Books {
    /// How many receipts were given out.
    pub(crate) fn receipts(&self) -> usize {
        self.lock().receipts.len()
    }

    fn note_call(&self, key: &str) -> u32 {
        let mut entries = self.lock();
        let calls = entries.calls.entry(key.to_owned()).or_default();
        *calls += 1;
        *calls
    }

    /// The same receipt, however often the same call is made.
    fn receipt(&self, key: &str) -> Receipt {
        let mut entries = self.lock();
        let next = format!("R-{}", entries.receipts.len() + 1);
        Receipt { receipt: entries.receipts.entry(key.to_owned()).or_insert(next).clone() }
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One branch. It closes when it is dropped.
pub(crate) struct Office {
    address: SocketAddr,
    /// There while it is closed: the address is taken, and connections are refused.
    closed: Option<TcpSocket>,
    books: Books,
    server: JoinSet<std::io::Result<()>>,
}

impl Office {
    pub(crate) fn open(books: &Books) -> BoxResult<Self> {
        let mut office = Self::closed(books)?;
        office.repair()?;
        Ok(office)
    }

    pub(crate) fn closed(books: &Books) -> BoxResult<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let address = socket.local_addr()?;
        Ok(Self { address, closed: Some(socket), books: books.clone(), server: JoinSet::new() })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn repair(&mut self) -> BoxResult<()> {
        if let Some(socket) = self.closed.take() {
            let listener = socket.listen(64)?;
            let router = Router::new().route("/invoices", post(receive)).with_state(self.books.clone());
            self.server.spawn(async move { axum::serve(listener, router).await });
        }
        Ok(())
    }
}

async fn receive(State(books): State<Books>, headers: HeaderMap, Json(invoice): Json<Invoice>) -> Response {
    let Some(key) = headers.get("idempotency-key").and_then(|key| key.to_str().ok()) else {
        return (StatusCode::BAD_REQUEST, "a call without a key").into_response();
    };
    match (invoice.number, books.note_call(key)) {
        _ if invoice.amount < 0 => (StatusCode::BAD_REQUEST, "a negative amount").into_response(),
        (2, 1..=2) => (StatusCode::INTERNAL_SERVER_ERROR, "out of paper").into_response(),
        (3, 1) => {
            // It has done its work, and nobody learns of it.
            books.receipt(key);
            tokio::time::sleep(Duration::from_secs(60)).await;
            StatusCode::GATEWAY_TIMEOUT.into_response()
        }
        (4, 1) => (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "2")], "busy").into_response(),
        _ => Json(books.receipt(key)).into_response(),
    }
}
