//! A bridge that makes tower's layers usable as [`Layer`]s.

use std::convert::Infallible;
use std::future::poll_fn;
use std::task::{Context, Poll};

use tower_service::Service;

use super::layer::{Layer, Next};
use super::reply::Outcome;
use cap_adapter::BoxFuture;
use cap_adapter::Delivery;

/// Wraps every handler in a tower layer. The inner service is a [`NextService`]. The service that the layer creates takes
/// a [`Delivery`] and returns an [`Outcome`]; it is created anew for each message.
#[derive(Debug, Clone)]
pub struct TowerLayer<L>(pub L);

/// The inside of a tower layer, as a tower service. It is always ready, and a failure is part of the outcome.
#[derive(Debug, Clone)]
pub struct NextService(Next);

impl Service<Delivery> for NextService {
    type Response = Outcome;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Outcome, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, delivery: Delivery) -> Self::Future {
        let run = self.0.clone().run(delivery);
        Box::pin(async move { Ok(run.await) })
    }
}

impl<L, S> Layer for TowerLayer<L>
where
    L: tower_layer::Layer<NextService, Service = S> + Send + Sync + 'static,
    S: Service<Delivery, Response = Outcome> + Send + 'static,
    S::Error: Into<crate::error::BoxError>,
    S::Future: Send,
{
    fn handle(&self, delivery: Delivery, next: Next) -> BoxFuture<'static, Outcome> {
        let mut service = self.0.layer(NextService(next));
        Box::pin(async move {
            let failed = |error: S::Error| cap_adapter::HandlerError::from_any(error.into());
            poll_fn(|cx| service.poll_ready(cx)).await.map_err(failed)?;
            service.call(delivery).await.map_err(failed)?
        })
    }
}
