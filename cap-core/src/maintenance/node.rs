//! This node's place among the others: waits for the store, draws a worker id, keeps it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::error::{StorageError, StorageErrorKind};
use crate::faults::point;
use crate::runtime::backoff::Backoff;
use crate::runtime::context::Context;
use crate::runtime::erased::DynStorage;
use crate::storage::{NodeRequest, SharedKey};

/// How long a worker id stays a node's own when it falls silent: long enough that a paused node seldom loses
/// it, short enough that crashing nodes do not use up the 1024.
const NUMBER_LEASE: Duration = Duration::from_mins(10);
/// One try to reach the store takes no longer.
const LIMIT: Duration = Duration::from_secs(30);

/// How a node of this bus makes itself known, with the worker id that it was configured with.
pub(crate) fn node_request(context: &Context, worker: Option<u16>) -> NodeRequest {
    NodeRequest {
        node: Arc::clone(&context.owner.node),
        worker,
        lease: NUMBER_LEASE,
        succeeded_expire_after: context.options().succeeded_expire_after,
    }
}

/// Brings the bus from starting to running, and keeps its number until everything stops. The groups' names, and what they
/// subscribe to, are checked first. `started` learns of the
/// first error that waiting cannot repair, or of success.
pub(crate) async fn run_node(
    context: Arc<Context>,
    request: NodeRequest,
    names: Vec<String>,
    has_thread: bool,
    started: oneshot::Sender<Result<(), StorageError>>,
) {
    let everything = context.stop.everything.clone();
    let life = async {
        let mut started = Some(started);
        let mut backoff = Backoff::default();
        let number = loop {
            match enter(&context, &request, &names).await {
                Ok(number) => break number,
                Err(error) => {
                    context.storage_health.down(&error);
                    let hopeless = error.kind() == StorageErrorKind::Unusable;
                    if let Some(started) = started.take_if(|_| hopeless) {
                        // Nobody listens when start has given up waiting; health tells it too.
                        let _ = started.send(Err(error));
                    }
                }
            }
            tokio::time::sleep(backoff.next()).await;
        };
        context.composer.ids.set_worker(number);
        context.storage_health.up();
        tracing::info!(node = &*request.node, worker = number, store = context.storage.name(), "joined");
        context.phase.is_up();
        if let Some(started) = started {
            let _ = started.send(Ok(()));
        }
        // A thread that keeps the number may fail to; then this is often enough.
        let pause = if has_thread { NUMBER_LEASE / 3 } else { context.owner.lease / 3 };
        loop {
            tokio::time::sleep(pause).await;
            keep(&context, &*context.storage, &request, LIMIT).await;
        }
    };
    everything.run_until_cancelled(life).await;
}

async fn enter(context: &Context, request: &NodeRequest, names: &[String]) -> Result<u16, StorageError> {
    let entered = async {
        point("schema.before").await;
        context.storage.initialize().await?;
        point("schema.after").await;
        let ours = [&*context.owner.version, &*request.node];
        let names: Vec<&str> = ours.into_iter().chain(names.iter().map(String::as_str)).collect();
        context.storage.check_names(&names).await?;
        let number = context.storage.join(request).await?;
        context.retry_proofs.set(context.storage.shared_key(&fresh_key(context)?).await?);
        Ok(number)
    };
    tokio::time::timeout(LIMIT, entered).await.unwrap_or_else(|_| {
        let text = format!("no answer within {LIMIT:?}");
        Err(StorageError::new(StorageErrorKind::Unavailable, context.storage.name(), text))
    })
}

fn fresh_key(context: &Context) -> Result<SharedKey, StorageError> {
    let mut bytes = [0; SharedKey::LENGTH];
    getrandom::fill(&mut bytes).map_err(|error| {
        let text = "cannot make a key for retries at the broker: the operating system has no random numbers";
        StorageError::new(StorageErrorKind::Unavailable, context.storage.name(), text).with_source(error)
    })?;
    Ok(SharedKey::new(bytes))
}

/// Renews the number; a node that has lost it draws another.
pub(super) async fn keep(
    context: &Context,
    storage: &dyn DynStorage,
    request: &NodeRequest,
    limit: Duration,
) {
    let number = context.composer.ids.worker();
    let renewed = async {
        if storage.keep_alive(request, number).await? {
            return Ok(());
        }
        let drawn = storage.join(request).await?;
        tracing::warn!(lost = number, drawn, "worker id lost: this node did not renew it in time");
        context.composer.ids.set_worker(drawn);
        Ok::<_, StorageError>(())
    };
    match tokio::time::timeout(limit, renewed).await {
        Ok(Ok(())) => context.storage_health.up(),
        Ok(Err(error)) => context.storage_health.down(&error),
        Err(_) => {}
    }
}
