//! This node's place among the others: waits for the store, draws a worker id, keeps it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::error::{StorageError, StorageErrorKind};
use crate::faults::point;
use crate::runtime::backoff::Backoff;
use crate::runtime::engine::Engine;
use crate::runtime::erased::DynStorage;
use crate::storage::{NodeRequest, SharedKey};

/// How long a worker id stays a node's own when it falls silent: long enough that a paused node seldom loses
/// it, short enough that crashing nodes do not use up the 1024.
const NUMBER_LEASE: Duration = Duration::from_mins(10);
/// One try to reach the store takes no longer.
const LIMIT: Duration = Duration::from_secs(30);

/// How a node of this bus makes itself known, with the worker id that it was configured with.
pub(crate) fn node_request(engine: &Engine, worker: Option<u16>) -> NodeRequest {
    NodeRequest {
        node: Arc::clone(&engine.storage.owner.node),
        worker,
        lease: NUMBER_LEASE,
        succeeded_expire_after: engine.options.succeeded_expire_after,
    }
}

/// Brings the bus from starting to running, and keeps its number until everything stops. The groups' names, and what they
/// subscribe to, are checked first. `started` learns of the
/// first error that waiting cannot repair, or of success.
pub(crate) async fn run_node(
    engine: Arc<Engine>,
    request: NodeRequest,
    names: Vec<String>,
    has_thread: bool,
    started: oneshot::Sender<Result<(), StorageError>>,
) {
    let everything = engine.lifecycle.stop.everything.clone();
    let life = async {
        let mut started = Some(started);
        let mut backoff = Backoff::default();
        let number = loop {
            match enter(&engine, &request, &names).await {
                Ok(number) => break number,
                Err(error) => {
                    engine.storage.health.down(&error);
                    let hopeless = error.kind() == StorageErrorKind::Unusable;
                    if let Some(started) = started.take_if(|_| hopeless) {
                        // Nobody listens when start has given up waiting; health tells it too.
                        let _ = started.send(Err(error));
                    }
                }
            }
            tokio::time::sleep(backoff.next()).await;
        };
        engine.ids.set_worker(number);
        engine.storage.health.up();
        tracing::info!(node = &*request.node, worker = number, store = engine.storage.name(), "joined");
        engine.lifecycle.phase.is_up();
        if let Some(started) = started {
            let _ = started.send(Ok(()));
        }
        // A thread that keeps the number may fail to; then this is often enough.
        let pause = if has_thread { NUMBER_LEASE / 3 } else { engine.storage.owner.lease / 3 };
        loop {
            tokio::time::sleep(pause).await;
            keep(&engine, &**engine.storage.shared(), &request, LIMIT).await;
        }
    };
    everything.run_until_cancelled(life).await;
}

async fn enter(engine: &Engine, request: &NodeRequest, names: &[String]) -> Result<u16, StorageError> {
    let entered = async {
        point("schema.before").await;
        engine.storage.initialize().await?;
        point("schema.after").await;
        let ours = [&*engine.storage.owner.version, &*request.node];
        let names: Vec<&str> = ours.into_iter().chain(names.iter().map(String::as_str)).collect();
        engine.storage.check_names(&names).await?;
        let number = engine.storage.join(request).await?;
        engine.broker.retry_proofs.set(engine.storage.shared_key(&fresh_key(engine)?).await?);
        Ok(number)
    };
    tokio::time::timeout(LIMIT, entered).await.unwrap_or_else(|_| {
        let text = format!("no answer within {LIMIT:?}");
        Err(engine.storage.unavailable(text))
    })
}

fn fresh_key(engine: &Engine) -> Result<SharedKey, StorageError> {
    let mut bytes = [0; SharedKey::LENGTH];
    getrandom::fill(&mut bytes).map_err(|error| {
        let text = "cannot make a key for retries at the broker: the operating system has no random numbers";
        engine.storage.unavailable(text).with_source(error)
    })?;
    Ok(SharedKey::new(bytes))
}

/// Renews the number; a node that has lost it draws another.
pub(super) async fn keep(engine: &Engine, storage: &dyn DynStorage, request: &NodeRequest, limit: Duration) {
    let number = engine.ids.worker();
    let renewed = async {
        if storage.keep_alive(request, number).await? {
            return Ok(());
        }
        let drawn = storage.join(request).await?;
        tracing::warn!(lost = number, drawn, "worker id lost: this node did not renew it in time");
        engine.ids.set_worker(drawn);
        Ok::<_, StorageError>(())
    };
    match tokio::time::timeout(limit, renewed).await {
        Ok(Ok(())) => engine.storage.health.up(),
        Ok(Err(error)) => engine.storage.health.down(&error),
        Err(_) => {}
    }
}
