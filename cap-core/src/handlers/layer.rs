//! Layers: middleware that runs around every handler.

use std::fmt;
use std::sync::Arc;

use super::handler::ErasedHandler;
use super::reply::Outcome;
use cap_adapter::BoxFuture;
use cap_adapter::Delivery;

/// Middleware that runs around every handler: before it, after it, and on its errors. CAP calls it a subscribe filter.
///
/// The layer added first is the outermost. A layer can inspect the delivery, skip [`Next::run`], and change the outcome.
/// Arguments are extracted inside the innermost layer, so that layers also see an undecodable payload as an error. Each
/// layer costs one allocation per message; without layers there is none.
pub trait Layer: Send + Sync + 'static {
    /// Handles a delivery, usually by calling [`Next::run`].
    fn handle(&self, delivery: Delivery, next: Next) -> BoxFuture<'static, Outcome>;
}

/// The inside of a layer: the next layer, or the handler.
#[derive(Clone)]
pub struct Next {
    layers: Arc<[Arc<dyn Layer>]>,
    index: usize,
    handler: ErasedHandler,
}

impl Next {
    pub(crate) fn new(layers: Arc<[Arc<dyn Layer>]>, handler: ErasedHandler) -> Self {
        Self { layers, index: 0, handler }
    }

    /// Runs the next layer, or the handler.
    #[must_use = "nothing runs until it is awaited"]
    pub fn run(mut self, delivery: Delivery) -> BoxFuture<'static, Outcome> {
        match self.layers.get(self.index).cloned() {
            Some(layer) => {
                self.index += 1;
                layer.handle(delivery, self)
            }
            None => self.handler.call(delivery),
        }
    }
}

impl fmt::Debug for Next {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Next({} more layers)", self.layers.len() - self.index)
    }
}

/// Creates a layer from a closure.
///
/// ```
/// use cap_core::prelude::*;
/// use cap_core::layer_fn;
///
/// let builder = Cap::builder().layer(layer_fn(|delivery, next| async move {
///     let topic = delivery.topic().to_owned();
///     let outcome = next.run(delivery).await;
///     println!("{topic}: {}", if outcome.is_ok() { "done" } else { "failed" });
///     outcome
/// }));
/// ```
pub fn layer_fn<F, Fut>(function: F) -> impl Layer
where
    F: Fn(Delivery, Next) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Outcome> + Send + 'static,
{
    LayerFn(function)
}

struct LayerFn<F>(F);

impl<F, Fut> Layer for LayerFn<F>
where
    F: Fn(Delivery, Next) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Outcome> + Send + 'static,
{
    fn handle(&self, delivery: Delivery, next: Next) -> BoxFuture<'static, Outcome> {
        Box::pin((self.0)(delivery, next))
    }
}
