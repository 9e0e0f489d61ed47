//! A tower layer around a handler, as a layer of ours.
#![cfg(feature = "tower")]

mod support;

use std::task::{Context, Poll};

use cap_core::{Delivery, NextService, TowerLayer};
use support::{alone, log};
use tower_layer::layer_fn;
use tower_service::Service;

#[derive(Clone)]
struct Noting<S>(S, support::Log<&'static str>);

impl<S: Service<Delivery>> Service<Delivery> for Noting<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, delivery: Delivery) -> S::Future {
        self.1.note("before");
        self.0.call(delivery)
    }
}

#[tokio::test]
async fn a_tower_layer_runs_around_the_handler() {
    let (noted, mut seen) = log();
    let inner = noted.clone();
    let cap = alone()
        .layer(TowerLayer(layer_fn(move |next: NextService| Noting(next, noted.clone()))))
        .subscribe("work", move || {
            inner.note("handler");
            async {}
        })
        .start()
        .await
        .unwrap();
    cap.publish("work", &()).await.unwrap();
    assert_eq!(seen.take(2).await, ["before", "handler"]);
    cap.shutdown().await.unwrap();
}
