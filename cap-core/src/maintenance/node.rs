//! Joins the other nodes of the storage: waits for the storage, obtains a worker id, and renews it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::error::{StorageError, StorageErrorKind};
use crate::faults::point;
use crate::runtime::backoff::Backoff;
use crate::runtime::engine::Engine;
use crate::runtime::erased::DynStorage;
use crate::storage::{NodeRequest, SharedKey};

/// How long a worker id stays reserved for a node that no longer renews it: long enough that a paused node seldom loses
/// it, short enough that crashing nodes do not use up all 1024.
const WORKER_ID_LEASE: Duration = Duration::from_mins(10);
/// The timeout of one attempt to join.
const JOIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Creates the request by which this node joins, with the configured worker id, if any.
pub(crate) fn node_request(engine: &Engine, worker: Option<u16>) -> NodeRequest {
    NodeRequest {
        node: Arc::clone(&engine.storage.owner.node),
        worker,
        lease: WORKER_ID_LEASE,
        succeeded_expire_after: engine.options.succeeded_expire_after,
    }
}

/// Takes the bus from starting to running, then renews its worker id until everything stops. The names of the groups and
/// of what they subscribe to are checked first. `started` receives success, or the first error that waiting cannot fix.
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
        let worker = loop {
            match join(&engine, &request, &names).await {
                Ok(worker) => break worker,
                Err(error) => {
                    engine.storage.health.down(&error);
                    let requires_operator = error.kind() == StorageErrorKind::Unusable;
                    if let Some(started) = started.take_if(|_| requires_operator) {
                        // The receiver is gone if the start has timed out. Health reports the error as well.
                        let _ = started.send(Err(error));
                    }
                }
            }
            tokio::time::sleep(backoff.next()).await;
        };
        engine.ids.set_worker(worker);
        engine.storage.health.up();
        tracing::info!(node = &*request.node, worker, store = engine.storage.name(), "joined");
        engine.lifecycle.phase.is_up();
        if let Some(started) = started {
            let _ = started.send(Ok(()));
        }
        // The renewal thread, if there is one, renews the worker id as well. This task then runs only often enough to
        // keep the id if the thread fails to.
        let pause = if has_thread { WORKER_ID_LEASE / 3 } else { engine.storage.owner.lease / 3 };
        loop {
            tokio::time::sleep(pause).await;
            keep(&engine, &**engine.storage.shared(), &request, JOIN_TIMEOUT).await;
        }
    };
    everything.run_until_cancelled(life).await;
}

async fn join(engine: &Engine, request: &NodeRequest, names: &[String]) -> Result<u16, StorageError> {
    let joined = async {
        point("schema.before").await;
        engine.storage.initialize().await?;
        point("schema.after").await;
        let ours = [&*engine.storage.owner.version, &*request.node];
        let names: Vec<&str> = ours.into_iter().chain(names.iter().map(String::as_str)).collect();
        engine.storage.check_names(&names).await?;
        let worker = engine.storage.join(request).await?;
        engine.broker.retry_proofs.set(engine.storage.shared_key(&fresh_key(engine)?).await?);
        Ok(worker)
    };
    tokio::time::timeout(JOIN_TIMEOUT, joined).await.unwrap_or_else(|_| {
        let text = format!("no answer within {JOIN_TIMEOUT:?}");
        Err(engine.storage.unavailable(text))
    })
}

fn fresh_key(engine: &Engine) -> Result<SharedKey, StorageError> {
    let mut bytes = [0; SharedKey::LENGTH];
    getrandom::fill(&mut bytes).map_err(|error| {
        let text =
            "cannot create a key for retries at the broker: the operating system returns no random bytes";
        engine.storage.unavailable(text).with_source(error)
    })?;
    Ok(SharedKey::new(bytes))
}

/// Renews the worker id; if this node has lost it, obtains another one.
pub(super) async fn keep(engine: &Engine, storage: &dyn DynStorage, request: &NodeRequest, limit: Duration) {
    let worker = engine.ids.worker();
    let renewed = async {
        if storage.keep_alive(request, worker).await? {
            return Ok(());
        }
        let drawn = storage.join(request).await?;
        tracing::warn!(lost = worker, drawn, "worker id lost: this node did not renew it in time");
        engine.ids.set_worker(drawn);
        Ok::<_, StorageError>(())
    };
    match tokio::time::timeout(limit, renewed).await {
        Ok(Ok(())) => engine.storage.health.up(),
        Ok(Err(error)) => engine.storage.health.down(&error),
        Err(_) => {}
    }
}
