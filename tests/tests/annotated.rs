//! Annotated handlers, functions and methods, found at link time: the main job as a service writes it.

use std::sync::Mutex;

use cap_core::prelude::*;
use cap_core::{Delivery, HandlerError, Next, Outcome, layer_fn};
use cap_postgres::PgTx;
use cap_tests::{heard, scene};
use tokio::sync::mpsc;

use crate::orders::{DeductQty, QtyDeducted};

/// The stock, shared by all handlers.
struct Stock(Mutex<i32>);

#[derive(Debug, thiserror::Error)]
#[error("only {0} left")]
struct SoldOut(i32);

#[cap_subscribe("annotated.qty.deducted", group = "stock", retry = RetryPolicy::never())]
async fn deduct(command: DeductQty, State(stock): State<Stock>) -> Result<Reply<QtyDeducted>, SoldOut> {
    let mut left = stock.0.lock().unwrap();
    if *left < command.qty {
        return Err(SoldOut(*left));
    }
    *left -= command.qty;
    Ok(Reply(QtyDeducted { order_id: command.order_id, is_success: true }))
}

/// What happened to an order.
type Told = mpsc::Sender<(String, i64)>;

struct OrderHandlers(Told);

#[cap_subscriber("annotated")]
impl OrderHandlers {
    #[cap_subscribe("mark.status")]
    async fn mark(&self, status: QtyDeducted, topic: Topic, mut tx: PgTx) -> Result<(), HandlerError> {
        let one: i32 =
            sqlx::query_scalar("SELECT 1").fetch_one(&mut *tx).await.map_err(HandlerError::failed)?;
        assert_eq!(one, 1);
        self.0.send((topic.to_string(), status.order_id)).await.map_err(HandlerError::failed)
    }

    #[cap_subscribe("#", group = "audit")]
    #[cap_subscribe("other.*", group = "audit")]
    async fn audit(&self, topic: Topic, headers: CapHeaders) {
        // Without this, the sender would be answered by each group, as with CAP: by this one with null.
        headers.remove_callback();
        self.0.send((format!("audit {}", &*topic), 0)).await.unwrap();
    }
}

#[tokio::test]
async fn annotated_functions_and_methods_do_the_main_job() {
    scene(async |scene| {
        let (tell, mut told) = mpsc::channel(16);
        let (fail, mut failures) = mpsc::channel(8);
        let (pass, mut passed) = mpsc::channel(16);
        let builder = scene
            .builder()
            .handlers(Handlers::linked().expecting(["annotated.qty.deducted", "annotated.mark.status"]))
            .state(Stock(Mutex::new(5)))
            .state(OrderHandlers(tell))
            .layer(layer_fn(move |delivery: Delivery, next: Next| {
                let pass = pass.clone();
                async move {
                    let group = delivery.group().to_owned();
                    let outcome: Outcome = next.run(delivery).await;
                    pass.send((group, outcome.is_ok())).await.unwrap();
                    outcome
                }
            }))
            .on_failed(move |failure| {
                let fail = fail.clone();
                async move { fail.send(failure.error).await.unwrap() }
            });
        let cap = scene.start(builder).await;
        cap.publish("annotated.qty.deducted", &DeductQty { order_id: 1, qty: 3 })
            .callback("annotated.mark.status")
            .await
            .unwrap();
        let mut all = [heard(&mut told).await, heard(&mut told).await, heard(&mut told).await];
        all.sort();
        let expected = [
            ("annotated.mark.status", 1),
            ("audit annotated.mark.status", 0),
            ("audit annotated.qty.deducted", 0),
        ];
        assert_eq!(all, expected.map(|(topic, order)| (topic.to_owned(), order)));
        cap.publish("annotated.qty.deducted", &DeductQty { order_id: 2, qty: 3 }).await.unwrap();
        assert_eq!(heard(&mut failures).await, "only 2 left");
        let mut outcomes = Vec::new();
        for _ in 0..6 {
            outcomes.push(heard(&mut passed).await);
        }
        outcomes.sort();
        let groups = [
            ("audit", true),
            ("audit", true),
            ("audit", true),
            ("main", true),
            ("stock", false),
            ("stock", true),
        ];
        assert_eq!(outcomes, groups.map(|(group, good)| (scene.queue(group), good)));
    })
    .await;
}

/// The mistakes that a start finds, each with the name of its function.
#[tokio::test]
async fn what_is_missing_at_the_start_is_named() {
    scene(async |scene| {
        let builder = scene.builder().handlers(Handlers::linked().expecting(["nobody.takes.this"]));
        let error = builder.start().await.unwrap_err().to_string();
        for part in ["deduct", "State<Stock>", "OrderHandlers"] {
            assert!(error.contains(part), "{error}");
        }
        let builder = scene
            .builder()
            .subscribe("a", async || ())
            .handlers(Handlers::none().expecting(["nobody.takes.this"]));
        let error = builder.start().await.unwrap_err().to_string();
        assert!(error.contains("nobody.takes.this"), "{error}");
        let none = scene.builder().handlers(Handlers::listed([]));
        let error = none.start().await.unwrap_err().to_string();
        assert!(error.contains("link_handlers"), "{error}");
    })
    .await;
}
