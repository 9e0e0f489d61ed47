//! Private servers that are stopped, killed, emptied and starved under load.

use std::time::Duration;

use cap_chaos::{Arena, Fault, Scenario, Servers};

const SOON: Duration = Duration::from_secs(60);
/// So long nothing gets done only where nothing will.
const QUIET: Duration = Duration::from_secs(30);

async fn play(servers: &mut Servers, faults: &[Fault]) {
    let seed = fastrand::u64(..1_000_000);
    let scenario = Scenario { seed, nodes: 2, messages: 40, faults: faults.to_vec() };
    let outcome = scenario.play(servers).await;
    outcome.outcome.assert_clean(&format!("{scenario:?}"));
}

/// One test for all that is done to a broker, as a private one takes long to boot.
#[tokio::test]
async fn a_broker_that_is_harmed() {
    let mut servers = Servers::default();
    if !servers.start_broker().await {
        return;
    }
    play(&mut servers, &Fault::BROKER).await;
    queues_that_are_deleted(&servers).await;
    restarted_while_retries_wait(&mut servers).await;
    servers.stop().await;
}

/// What is in a queue goes with it, so nothing is: but the consumers come back, and no handler runs again.
async fn queues_that_are_deleted(servers: &Servers) {
    let seed = fastrand::u64(..1_000_000);
    let arena = servers.arena(seed).await.strict();
    arena.play(async |arena| delete_queues(arena, seed).await).await;
}

async fn delete_queues(arena: &Arena, seed: u64) {
    let mut node = arena.node().await;
    for _ in 0..2 {
        node.publish(20).await;
        node.has_published().await;
        arena.quiet(QUIET).await;
        arena.delete_queues().await;
        arena.queues_are_consumed(SOON).await;
    }
    node.publish(20).await;
    node.has_published().await;
    arena.close(vec![node], QUIET).await.assert_clean(&format!("queues deleted, seed {seed}"));
}

/// Retries that wait at the broker survive its restart.
async fn restarted_while_retries_wait(servers: &mut Servers) {
    let seed = fastrand::u64(..1_000_000);
    let pause = Duration::from_secs(6);
    let arena = servers.arena(seed).await.strict().with(|settings| settings.retry_pause = pause);
    let story = async |arena: &Arena| {
        let mut node = arena.node().await;
        node.publish(40).await;
        node.has_published().await;
        arena.retries_wait(3, SOON).await;
        servers.restart_broker().await;
        arena
            .close(vec![node], 2 * QUIET)
            .await
            .assert_clean(&format!("restarted while retries wait, seed {seed}"));
    };
    arena.play(story).await;
}

#[tokio::test]
async fn a_database_that_is_harmed() {
    let mut servers = Servers::default();
    if !servers.start_database().await {
        return;
    }
    play(&mut servers, &Fault::DATABASE[..4]).await;
    play(&mut servers, &Fault::DATABASE[4..]).await;
    if servers.faults().contains(&Fault::FullDisk) {
        play(&mut servers, &[Fault::FullDisk; 3]).await;
    }
    servers.stop().await;
}
