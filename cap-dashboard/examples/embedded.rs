//! A dashboard over a bus on the embedded pair, with messages of every kind.
//!
//! Run it with `cargo run -p cap-dashboard --example embedded` and open <http://localhost:8080/cap>. Log in as `alice` with the
//! access token `alice-may-act`, or as `bob` with `bob-may-only-read`.

#![allow(clippy::print_stdout, reason = "it says where to look")]

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use cap_core::prelude::*;
use cap_dashboard::{AccessToken, Auth, Dashboard, Masks, Rights, SigningKey};
use serde_json::{Value, json};

#[derive(Debug, thiserror::Error)]
#[error("connection refused: payments.internal:443 (request {0})")]
struct Refused(u64);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let cap = bus().await?;
    let messages = tokio::spawn(publish(cap.clone()));

    let tokens = [
        AccessToken::new("alice", "alice-may-act", Rights::read().act()),
        AccessToken::new("bob", "bob-may-only-read", Rights::read()),
        AccessToken::new("carol", "carol-may-do-all", Rights::all()),
    ];
    // A real service reads the key and the tokens from its secrets.
    let auth = Auth::login(SigningKey::random()?, tokens);
    let dashboard = Dashboard::of(&cap).masks(Masks::none().field("card.number")).production("Shop EU");
    let app = Router::new().nest("/cap", dashboard.router(auth)?);

    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let listener = tokio::net::TcpListener::bind(&address).await?;
    println!("http://localhost:{}/cap: log in as alice with alice-may-act", listener.local_addr()?.port());
    axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await?;
    messages.await?;
    Ok(())
}

/// The bus of a shop in which some things do not work.
async fn bus() -> Result<Cap, cap_core::error::StartError> {
    let quick = RetryPolicy::fixed(Duration::from_secs(40), 6);
    Cap::builder()
        .storage(MemoryStorage::new())
        .transport(MemoryTransport::new())
        .handlers(Handlers::none())
        .configure(|options| options.retry = quick)
        .subscribe(Subscribe::to("order.placed").group("stock"), async |_: Value| {
            tokio::time::sleep(Duration::from_millis(300)).await;
        })
        .subscribe(Subscribe::to("order.placed").group("invoices"), async |order: Value| match order["order"]
            .as_u64()
        {
            Some(number) if number % 9 == 0 => Err(HandlerError::permanent("the customer has no address")),
            Some(number) if number % 7 == 0 => Err(HandlerError::failed(Refused(number))),
            _ => Ok(()),
        })
        .subscribe(Subscribe::to("order.#").group("audit"), async |_: Topic| {})
        .start()
        .await
}

async fn publish(cap: Cap) {
    for order in 1_u64.. {
        let payload = json!({
            "order": order,
            "customer": { "name": "Ada Lovelace", "city": "London" },
            "items": [{ "sku": "B7-114", "quantity": 2 }, { "sku": "<script>alert(1)</script>", "quantity": 1 }],
            "card": { "number": "4111 1111 1111 1111", "brand": "visa" },
            "gift": order % 3 == 0,
        });
        let mut message = cap.publish("order.placed", &payload);
        if order % 10 == 0 {
            message = message.delay(Duration::from_secs(3_600));
        }
        if message.await.is_err() {
            return;
        }
        let pause = if order < 60 { 5 } else { 700 };
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}
