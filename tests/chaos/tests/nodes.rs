//! Several nodes at once: paused past their leases, rolled, killed in pairs, shut down in the middle of work, with the
//! clock turned, and on networks that misbehave.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use cap_chaos::{Arena, Fault, Node, Scenario, Servers, amqp_url, database_url};
use tokio::time::{Instant, sleep};

const SOON: Duration = Duration::from_secs(30);
/// So long nothing gets done only where nothing will.
const QUIET: Duration = Duration::from_secs(30);

async fn play(what: &str, nodes: usize, faults: &[Fault]) {
    let seed = fastrand::u64(..1_000_000);
    let scenario = Scenario { seed, nodes, messages: 40, faults: faults.to_vec() };
    let outcome = scenario.play(&mut Servers::default()).await;
    outcome.outcome.assert_clean(&format!("{what}, {scenario:?}"));
    assert_eq!(outcome.injected.values().sum::<usize>(), faults.len());
}

async fn arena(seed: u64) -> Arena {
    Arena::new(seed, &amqp_url(), &database_url()).await
}

/// A node stands still with work in its hands, past its lease, while another takes that over; then it goes on, and cannot
/// complete what the other has.
#[tokio::test]
async fn a_node_that_is_paused_past_its_lease() {
    let seed = fastrand::u64(..1_000_000);
    let story = async |arena: &Arena| {
        let mut paused = arena.node().await;
        assert!(paused.says("ready", SOON).await);
        paused.publish(80).await;
        let held = pause_with_work(arena, &paused).await;
        let mut other = arena.node().await;
        other.publish(10).await;
        other.has_published().await;
        until("the other has taken all over", async || arena.held_by(&paused).await.is_disjoint(&held)).await;
        paused.resume();
        paused.has_published().await;
        let outcome = arena.close(vec![paused, other], QUIET).await;
        outcome.assert_clean(&format!("paused, seed {seed}"));
    };
    arena(seed).await.play(story).await;
}

/// Pauses a node at a moment at which it holds messages, which are given back, and is not in the middle of a
/// transaction about them: those only the server's time limit takes from it, after a minute.
async fn pause_with_work(arena: &Arena, node: &Node) -> BTreeSet<i64> {
    let mut held = BTreeSet::new();
    until("it has work in its hands", async || {
        node.pause();
        held = arena.held_by(node).await;
        let paused = !held.is_empty() && arena.can_be_taken_over(node, &held).await;
        if !paused {
            node.resume();
        }
        paused
    })
    .await;
    held
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !is_so().await {
        assert!(Instant::now() < deadline, "{what}: not within {SOON:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn six_nodes_race() {
    play("six nodes", 6, &[Fault::Pause, Fault::Kill]).await;
}

#[tokio::test]
async fn rolling_restarts_under_load() {
    play("rolling", 2, &[Fault::Roll, Fault::Roll]).await;
}

#[tokio::test]
async fn nodes_die_in_random_pairs() {
    play("pairs", 2, &[Fault::KillAtPoint, Fault::KillAtPoint, Fault::Kill]).await;
}

#[tokio::test]
async fn a_network_to_the_broker_that_misbehaves() {
    let faults =
        [Fault::CutBroker, Fault::TornBroker, Fault::DeafBroker, Fault::BrokerUnheard, Fault::SlowBroker];
    play("network to the broker", 2, &faults).await;
}

#[tokio::test]
async fn a_network_to_the_database_that_misbehaves() {
    let faults = [
        Fault::CutDatabase,
        Fault::TornDatabase,
        Fault::DeafDatabase,
        Fault::DatabaseUnheard,
        Fault::SlowDatabase,
    ];
    play("network to the database", 2, &faults).await;
}

/// Nodes are told to end at odd moments, with slow handlers that they have no patience for.
#[tokio::test]
async fn shutdown_at_any_moment() {
    let seed = fastrand::u64(..1_000_000);
    let arena = arena(seed).await.with(|settings| settings.patience = Duration::from_millis(100));
    let story = async |arena: &Arena| {
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..4 {
            let mut node = arena.node().await;
            assert!(node.says("ready", SOON).await);
            node.publish(30).await;
            sleep(Duration::from_millis(random.u64(0..600))).await;
            node.end().await;
        }
        let mut last = arena.node().await;
        last.publish(5).await;
        last.has_published().await;
        let outcome = arena.close(vec![last], QUIET).await;
        outcome.assert_clean(&format!("shutdown at any moment, seed {seed}"));
    };
    arena.play(story).await;
}

/// The store's clock decides: a node whose own is turned by an hour, either way, neither hastens nor loses anything.
#[tokio::test]
async fn a_clock_that_is_turned() {
    const LIBRARY: [&str; 2] = [
        "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
        "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    ];
    let Some(library) = LIBRARY.into_iter().find(|path| Path::new(path).exists()) else {
        complain("LEFT OUT: no libfaketime (Debian: apt-get install libfaketime)");
        return;
    };
    let seed = fastrand::u64(..1_000_000);
    let time = std::env::temp_dir().join(format!("cap-chaos-clock-{seed}-{}", std::process::id()));
    let turn = |clock: &str| std::fs::write(&time, clock).unwrap();
    let environment = [
        ("LD_PRELOAD", library),
        ("FAKETIME_TIMESTAMP_FILE", time.to_str().unwrap()),
        ("FAKETIME_NO_CACHE", "1"),
        // Timers run on the clock that nobody can turn.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];
    let story = async |arena: &Arena| {
        turn("+0");
        let mut turned = arena.node_with(|_| {}, &environment).await;
        let mut other = arena.node().await;
        for clock in ["+3600", "-3600", "+0"] {
            turn(clock);
            turned.publish(20).await;
            other.publish(20).await;
            turned.has_published().await;
            other.has_published().await;
        }
        let outcome = arena.close(vec![turned, other], QUIET).await;
        outcome.assert_clean(&format!("a clock that is turned, seed {seed}"));
    };
    arena(seed).await.play(story).await;
    let _ = std::fs::remove_file(&time);
}

#[allow(clippy::print_stderr, reason = "a test that is left out says so")]
fn complain(line: &str) {
    eprintln!("{line}");
}
