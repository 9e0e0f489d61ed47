//! Starts the tasks of a bus.

use std::sync::Arc;

use futures_util::future::{try_join, try_join_all};
use tokio::sync::{mpsc, oneshot};

use super::cap::{Cap, GroupRuntime};
use super::failure::{Failure, OnFailed};
use super::gauges::run_gauges;
use crate::consume::{GroupChannels, GroupInbox, Inbox, run_consumer, run_group};
use crate::error::{StartError, StorageError, TransportError};
use crate::maintenance::{
    Activities, InboxTarget, node_request, run_collector, run_heartbeat, run_inbox_claims, run_node,
    run_outbox_claims, spawn_renewal,
};
use crate::operate::failure_callback::run_failure_callback;
use crate::publish::{InProcess, OwnGroup, run_open_commits, run_relay};
use crate::runtime::byte_budget::ByteBudget;
use crate::runtime::engine::Engine;
use crate::runtime::in_flight::InFlight;
use crate::runtime::notifier::Notifications;
use crate::writer::{InsertItem, OutcomeItem, run_insert_writer, run_outcome_writer};

/// The receiving ends of the queues between the tasks.
pub(super) struct Queues {
    pub(super) inserts: mpsc::Receiver<InsertItem>,
    pub(super) outcomes: mpsc::Receiver<OutcomeItem>,
    pub(super) relay: mpsc::Receiver<InFlight>,
    pub(super) notifications: Notifications,
}

/// Receives the first success of a connection, or the first error that waiting cannot fix.
type Connected = oneshot::Receiver<Result<(), TransportError>>;

/// Starts all tasks of a bus.
pub(super) fn spawn(
    cap: &Cap,
    inbox: &Arc<Inbox>,
    queues: Queues,
    worker: Option<u16>,
    on_failed: Option<OnFailed>,
) -> Started {
    let (engine, outbox, tasks) = (cap.engine(), cap.outbox(), cap.tasks());
    let (node_started, storage_started) = oneshot::channel();
    let request = node_request(engine, worker);
    let activities = activities(cap.groups());
    let has_thread = spawn_renewal(engine, Arc::clone(&activities), &request, &tasks.upkeep);
    let names = names(cap.groups());
    tasks.upkeep.spawn(run_node(Arc::clone(engine), request, names, has_thread, node_started));
    tasks.upkeep.spawn(run_heartbeat(Arc::clone(engine), activities, has_thread));
    tasks.upkeep.spawn(log_repeated_events(Arc::clone(engine)));
    tasks.upkeep.spawn(run_gauges(Arc::clone(engine), cap.groups().to_vec()));
    tasks.upkeep.spawn(listen(Arc::clone(engine)));
    tasks.writers.spawn(run_insert_writer(Arc::clone(engine), queues.inserts));
    tasks.writers.spawn(run_outcome_writer(Arc::clone(engine), queues.outcomes));
    let (mut connected, own) = spawn_groups(cap, inbox);
    let in_process = engine.broker.is_in_process().then(|| InProcess::new(own));
    let (first_probe, probed) = oneshot::channel();
    tasks.relay.spawn(run_open_commits(Arc::clone(outbox)));
    tasks.relay.spawn(run_relay(Arc::clone(outbox), in_process, queues.relay, first_probe));
    if let Some(on_failed) = on_failed {
        let everything = engine.lifecycle.stop.everything.clone();
        let bus = cap.own();
        let callback = move |failed| on_failed.call(Failure::new(failed, bus.clone()));
        let outcomes = outbox.outcomes.clone();
        let calls = run_failure_callback(Arc::clone(engine), outcomes, queues.notifications, callback);
        tasks.relay.spawn(async move { everything.run_until_cancelled(calls).await });
    }
    connected.push(probed);
    tasks.intake.spawn(run_outbox_claims(Arc::clone(outbox)));
    tasks.intake.spawn(run_collector(Arc::clone(engine)));
    tasks.close();
    Started { storage: storage_started, connected }
}

fn activities(groups: &[GroupRuntime]) -> Activities {
    let members = groups.iter().flat_map(|runtime| &runtime.group.members);
    members.map(|member| Arc::clone(&member.activity)).collect()
}

/// The names of the groups, and of the topics that they subscribe to.
fn names(groups: &[GroupRuntime]) -> Vec<String> {
    let of_one = |runtime: &GroupRuntime| {
        let patterns = runtime.group.members.iter().map(|member| member.pattern.as_str().to_owned());
        patterns.chain([runtime.group.name.to_string()]).collect::<Vec<_>>()
    };
    groups.iter().flat_map(of_one).collect()
}

/// Starts the tasks of each group. Returns the receivers of their first connections, and the groups as an in-process
/// transport uses them.
fn spawn_groups(cap: &Cap, inbox: &Arc<Inbox>) -> (Vec<Connected>, Vec<Box<dyn OwnGroup>>) {
    let (engine, tasks) = (cap.engine(), cap.tasks());
    let mut targets = Vec::new();
    let mut connected = Vec::new();
    let mut own = Vec::new();
    let share = engine.options.receive_bytes / cap.groups().len().max(1);
    for GroupRuntime { group, health, gauge } in cap.groups() {
        let (intake, queue) = mpsc::channel(usize::from(engine.options.prefetch));
        let budget = ByteBudget::new(share);
        let (store, to_store) = mpsc::channel(engine.options.batch_size);
        // Each group has a writer of its own, so that rows that it cannot store delay neither other groups nor publishers.
        tasks.writers.spawn(run_insert_writer(Arc::clone(engine), to_store));
        let (first, receiver) = oneshot::channel();
        connected.push(receiver);
        targets.push(InboxTarget {
            group: Arc::clone(&group.name),
            intake: intake.clone(),
            budget: Arc::clone(&budget),
            gauge: Arc::clone(gauge),
        });
        let channels = GroupChannels { store, intake, budget };
        let group_inbox = || GroupInbox::new(Arc::clone(inbox), Arc::clone(group), channels.clone());
        own.push(Box::new(group_inbox()) as Box<dyn OwnGroup>);
        tasks.intake.spawn(run_consumer(group_inbox(), Arc::clone(health), first));
        tasks.work.spawn(run_group(Arc::clone(inbox), Arc::clone(group), queue, Arc::clone(gauge)));
    }
    tasks.intake.spawn(run_inbox_claims(Arc::clone(cap.outbox()), targets));
    (connected, own)
}

/// What [`CapBuilder::start`](crate::CapBuilder::start) waits for.
pub(super) struct Started {
    storage: oneshot::Receiver<Result<(), StorageError>>,
    connected: Vec<Connected>,
}

impl Started {
    /// Waits until the storage and the broker are connected. Storage and broker are waited for at the same time, so that
    /// one that is unreachable does not hide what only an operator can fix about the other.
    pub(super) async fn wait(self) -> Result<(), StartError> {
        let storage = async { self.storage.await.unwrap_or(Ok(())).map_err(StartError::from) };
        let broker = self.connected.into_iter().map(async |connected| {
            // A sender that is gone belongs to a task that has ended with the bus.
            connected.await.unwrap_or(Ok(())).map_err(StartError::from)
        });
        try_join(storage, try_join_all(broker)).await.map(|_| ())
    }
}

async fn listen(engine: Arc<Engine>) {
    if engine.lifecycle.ready().await {
        let cancelled = engine.lifecycle.stop.everything.clone();
        engine.storage.listen(engine.storage.due.wake.clone(), cancelled).await;
    }
}

async fn log_repeated_events(engine: Arc<Engine>) {
    engine.repeated.run(&engine.lifecycle.stop.everything).await;
}
