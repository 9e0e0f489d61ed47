//! Starts the tasks of a bus.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::bus::{Cap, GroupRuntime};
use crate::consume::{Consumption, GroupChannels, IncomingHook, run_consumer, run_group};
use crate::error::{StartError, StorageError, TransportError, TransportErrorKind};
use crate::handlers::Layer;
use crate::maintenance::{
    InboxTarget, node_request, run_collector, run_heartbeat, run_inbox_claims, run_node, run_outbox_claims,
    spawn_renewal,
};
use crate::operate::failure_callback::{Notices, OnFailed, tell};
use crate::publish::{InProcess, RelayItem, run_open_commits, run_relay};
use crate::runtime::byte_budget::Room;
use crate::runtime::context::Context;
use crate::runtime::repeated_events::run_repeats;
use crate::writer::{InsertItem, OutcomeItem, run_insert_writer, run_outcome_writer};

/// The ends of the queues that the tasks read; the context has the others.
pub(crate) struct Queues {
    pub(crate) store: mpsc::Receiver<InsertItem>,
    pub(crate) complete: mpsc::Receiver<OutcomeItem>,
    pub(crate) relay: mpsc::Receiver<RelayItem>,
    pub(crate) notices: Notices,
}

/// Starts everything that runs from the start to the end of a bus.
pub(crate) fn spawn(
    cap: &Cap,
    queues: Queues,
    worker: Option<u16>,
    hook: &IncomingHook,
    layers: &Arc<[Arc<dyn Layer>]>,
    on_failed: Option<OnFailed>,
) -> Started {
    let (context, tasks) = (cap.context(), cap.tasks());
    let (node_started, storage_started) = oneshot::channel();
    let request = node_request(context, worker);
    let has_thread = spawn_renewal(context, &request, &tasks.upkeep);
    let names = names(cap.groups());
    tasks.upkeep.spawn(run_node(Arc::clone(context), request, names, has_thread, node_started));
    tasks.upkeep.spawn(run_heartbeat(Arc::clone(context), has_thread));
    tasks.upkeep.spawn(run_repeats(Arc::clone(context)));
    tasks.upkeep.spawn(listen(Arc::clone(context)));
    tasks.lanes.spawn(run_insert_writer(Arc::clone(context), queues.store));
    tasks.lanes.spawn(run_outcome_writer(Arc::clone(context), queues.complete));
    let (mut connected, own) = spawn_groups(cap, hook, layers);
    let in_process = context.transport.is_in_process().then(|| InProcess::new(own));
    let (first_probe, probed) = oneshot::channel();
    tasks.relay.spawn(run_open_commits(Arc::clone(context)));
    tasks.relay.spawn(run_relay(Arc::clone(context), in_process, queues.relay, first_probe));
    if let Some(on_failed) = on_failed {
        let everything = context.stop.everything.clone();
        let telling = tell(Arc::clone(context), queues.notices, on_failed);
        tasks.relay.spawn(async move { everything.run_until_cancelled(telling).await });
    }
    connected.push(probed);
    tasks.intake.spawn(run_outbox_claims(Arc::clone(context)));
    tasks.intake.spawn(run_collector(Arc::clone(context)));
    tasks.close();
    Started { storage: storage_started, connected }
}

/// The names of groups and of the topics that they subscribe to.
fn names(groups: &[GroupRuntime]) -> Vec<String> {
    let of_one = |runtime: &GroupRuntime| {
        let patterns = runtime.group.members.iter().map(|member| member.pattern.as_str().to_owned());
        patterns.chain([runtime.group.name.to_string()]).collect::<Vec<_>>()
    };
    groups.iter().flat_map(of_one).collect()
}

/// Starts what each group has of its own. Gives back who learns of the first connection of each, and the ways into their
/// inboxes.
fn spawn_groups(
    cap: &Cap,
    hook: &IncomingHook,
    layers: &Arc<[Arc<dyn Layer>]>,
) -> (Vec<oneshot::Receiver<Result<(), TransportError>>>, Vec<Consumption>) {
    let (context, tasks) = (cap.context(), cap.tasks());
    let mut targets = Vec::new();
    let mut connected = Vec::new();
    let mut own = Vec::new();
    let share = context.options().receive_bytes / cap.groups().len().max(1);
    for GroupRuntime { group, health, gauge } in cap.groups() {
        let (intake, queue) = mpsc::channel(usize::from(context.options().prefetch));
        let room = Room::new(share);
        let (store, to_store) = mpsc::channel(context.options().batch_size);
        // A writer of its own, so that what one group cannot store delays no other, nor those who publish.
        tasks.lanes.spawn(run_insert_writer(Arc::clone(context), to_store));
        let (first, receiver) = oneshot::channel();
        connected.push(receiver);
        targets.push(InboxTarget {
            group: Arc::clone(&group.name),
            intake: intake.clone(),
            room: Arc::clone(&room),
            gauge: Arc::clone(gauge),
        });
        let channels = GroupChannels { store, intake, room };
        own.push(Consumption::new(Arc::clone(context), Arc::clone(group), hook.clone(), channels.clone()));
        tasks.intake.spawn(run_consumer(
            Arc::clone(context),
            Arc::clone(group),
            hook.clone(),
            Arc::clone(health),
            channels,
            first,
        ));
        tasks.work.spawn(run_group(
            Arc::clone(context),
            Arc::clone(group),
            Arc::clone(layers),
            hook.clone(),
            queue,
            Arc::clone(gauge),
        ));
    }
    tasks.intake.spawn(run_inbox_claims(Arc::clone(context), targets));
    (connected, own)
}

/// What start waits for.
pub(crate) struct Started {
    storage: oneshot::Receiver<Result<(), StorageError>>,
    connected: Vec<oneshot::Receiver<Result<(), TransportError>>>,
}

impl Started {
    pub(crate) async fn wait(self) -> Result<(), StartError> {
        if let Ok(result) = self.storage.await {
            result?;
        }
        for connected in self.connected {
            match connected.await {
                Ok(Err(error)) if error.kind() == TransportErrorKind::Unusable => return Err(error.into()),
                // What is away or refused is in the log and in health, and is tried again.
                _ => {}
            }
        }
        Ok(())
    }
}

async fn listen(context: Arc<Context>) {
    if context.ready().await {
        let cancelled = context.stop.everything.clone();
        context.storage.listen(context.due.wake.clone(), cancelled).await;
    }
}
