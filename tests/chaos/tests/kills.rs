//! A node is killed at each named point of a message's path; another one carries on, and nothing is lost or doubled.

use std::time::Duration;

use cap_chaos::{Arena, POINTS, amqp_url, database_url};
use futures_util::future::join_all;

/// A point is reached within a second or two, on a busy machine later.
const REACHED: Duration = Duration::from_secs(30);

/// So long nothing gets done only where nothing will.
const QUIET: Duration = Duration::from_secs(30);

/// How the victim gets to its point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// It publishes and handles.
    Both,
    /// It publishes only.
    Publishes,
    /// It handles what another has published before it.
    Handles,
}

async fn arena(seed: u64) -> Arena {
    Arena::new(seed, &amqp_url(), &database_url()).await
}

/// Kills a node at a point, has another one carry on, and judges.
async fn dies_at(role: Role, point: &str, count: u64) {
    let seed = fastrand::u64(..1_000_000);
    let what = format!("{role:?} dies at {point}:{count}, seed {seed}");
    let short_memory = point.starts_with("collect");
    let arena = arena(seed).await.with(|settings| {
        if short_memory {
            settings.keep = Duration::from_secs(2);
        }
    });
    arena.play(async |arena| dies_in(arena, role, point, count, &what).await).await;
}

async fn dies_in(arena: &Arena, role: Role, point: &str, count: u64, what: &str) {
    let mut nodes = Vec::new();
    if role != Role::Both {
        // What no queue wants is gone. A life before these declares the queues.
        let mut first = arena.node().await;
        assert!(first.says("ready", REACHED).await, "{what}: the first node does not start");
        // On a busy machine a bus is ready without its broker, which it waits for.
        arena.queues_are_consumed(REACHED).await;
        first.end().await;
    }
    if role == Role::Handles {
        let mut publisher = arena.node_with(|settings| settings.handles = false, &[]).await;
        // Only some of them fail, and only some of those wait at the broker.
        publisher.publish(if point.starts_with("delay") { 120 } else { 30 }).await;
        publisher.has_published().await;
        nodes.push(publisher);
    }
    let handles = role != Role::Publishes;
    let mut victim = arena.node_stopping_at(point, count, |settings| settings.handles = handles).await;
    if role != Role::Handles {
        victim.publish(40).await;
    }
    let reached = victim.says("stopped at", REACHED).await;
    arena.kill(victim).await;
    assert!(reached, "{what}: the point was not reached");
    let mut heir = arena.node().await;
    heir.publish(10).await;
    heir.has_published().await;
    nodes.push(heir);
    arena.close(nodes, QUIET).await.assert_clean(what);
}

async fn all(cases: &[(Role, &str, u64)]) {
    join_all(cases.iter().map(|(role, point, count)| dies_at(*role, point, *count))).await;
}

#[tokio::test]
async fn while_it_starts() {
    all(&[
        (Role::Both, "schema.before", 1),
        (Role::Both, "schema.after", 1),
        (Role::Handles, "schema.before", 1),
        (Role::Both, "claim.before", 1),
        (Role::Both, "claim.after", 2),
    ])
    .await;
}

#[tokio::test]
async fn while_it_publishes() {
    all(&[
        (Role::Publishes, "insert.before", 3),
        (Role::Publishes, "insert.after", 3),
        (Role::Publishes, "within.before", 5),
        (Role::Publishes, "within.after", 5),
        (Role::Publishes, "commit.before", 4),
        (Role::Publishes, "commit.after", 4),
    ])
    .await;
}

#[tokio::test]
async fn while_it_sends() {
    all(&[
        (Role::Publishes, "send.before", 2),
        (Role::Publishes, "send.after", 2),
        (Role::Publishes, "mark.before", 2),
        (Role::Publishes, "mark.after", 2),
        (Role::Both, "send.after", 9),
        (Role::Both, "mark.before", 9),
    ])
    .await;
}

#[tokio::test]
async fn while_it_receives() {
    all(&[
        (Role::Handles, "receive.after", 1),
        (Role::Handles, "insert.before", 1),
        (Role::Handles, "insert.after", 1),
        (Role::Handles, "acknowledge.before", 1),
        (Role::Handles, "acknowledge.after", 1),
        (Role::Both, "receive.after", 7),
    ])
    .await;
}

#[tokio::test]
async fn while_it_handles() {
    all(&[
        (Role::Handles, "handler.before", 5),
        (Role::Handles, "handler.after", 5),
        (Role::Handles, "complete.before", 3),
        (Role::Handles, "complete.after", 3),
        (Role::Handles, "handler-commit.before", 3),
        (Role::Handles, "handler-commit.after", 3),
    ])
    .await;
}

#[tokio::test]
async fn while_it_has_the_broker_keep_a_retry() {
    all(&[
        (Role::Handles, "delay.before", 1),
        (Role::Handles, "delay.before", 3),
        (Role::Handles, "delay.after", 1),
        (Role::Handles, "delay.after", 3),
    ])
    .await;
}

#[tokio::test]
async fn while_it_marks_what_is_handled() {
    all(&[
        (Role::Handles, "mark.before", 2),
        (Role::Handles, "mark.after", 2),
        (Role::Both, "handler.after", 20),
        (Role::Both, "handler-commit.after", 9),
    ])
    .await;
}

#[tokio::test]
async fn while_it_keeps_house() {
    all(&[
        (Role::Both, "renew.before", 1),
        (Role::Both, "renew.after", 1),
        (Role::Both, "claim.before", 5),
        (Role::Both, "claim.after", 5),
        (Role::Both, "collect.before", 2),
        (Role::Both, "collect.after", 2),
        (Role::Both, "collect.after", 8),
    ])
    .await;
}

/// One dies, and the one that carries on dies too; each at any point, or soon after where it does not get there.
#[tokio::test]
async fn and_its_heir_too() {
    let seed = fastrand::u64(..1_000_000);
    join_all((seed..seed + 4).map(two_die)).await;
}

async fn two_die(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let deaths = [(); 2].map(|()| (POINTS[random.usize(..POINTS.len())], random.u64(1..8)));
    let what = format!("deaths at {deaths:?}, seed {seed}");
    let story = async |arena: &Arena| {
        for (point, count) in deaths {
            let mut victim = arena.node_stopping_at(point, count, |_| {}).await;
            victim.publish(25).await;
            let _ = victim.says("stopped at", Duration::from_secs(4)).await;
            arena.kill(victim).await;
        }
        let mut last = arena.node().await;
        last.publish(5).await;
        last.has_published().await;
        arena.close(vec![last], QUIET).await.assert_clean(&what);
    };
    arena(seed).await.play(story).await;
}

/// A point without a test is one nobody dies at.
#[test]
fn every_point_has_its_test() {
    let own = include_str!("kills.rs");
    for point in POINTS {
        assert!(own.contains(&format!("\"{point}\"")), "{point}");
    }
}
