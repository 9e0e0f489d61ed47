//! Broker or database away, at the start or later: work waits and goes on by itself, and nothing is lost.

use std::time::Duration;

use cap_core::prelude::*;
use cap_core::{CapBuilder, Phase};
use cap_postgres::Postgres;
use cap_tests::{Network, Proxy, Scene, amqp_url, database_url, heard, scene, until};
use tokio::sync::mpsc;

fn hearing(builder: CapBuilder) -> (CapBuilder, mpsc::Receiver<u32>) {
    let (tell, told) = mpsc::channel(64);
    let builder = builder.configure(|options| options.start_timeout = Duration::from_millis(300)).subscribe(
        "work",
        move |number: u32| {
            let tell = tell.clone();
            async move { tell.send(number).await }
        },
    );
    (builder, told)
}

async fn healthy(cap: &Cap) {
    until("the bus is well", async || cap.health().await.is_healthy().then_some(())).await;
}

#[tokio::test]
async fn a_broker_that_comes_late_is_waited_for() {
    scene(async |scene| {
        let network = Proxy::start_down(&amqp_url()).await;
        let transport = scene.transport_at(&network.url(&amqp_url()));
        let (builder, mut told) = hearing(scene.builder_on(scene.storage(), transport));
        let cap = scene.start(builder).await;
        cap.publish("work", &1).await.unwrap();
        let health = cap.health().await;
        assert!(health.storage.up && !health.is_healthy());
        assert!(!health.groups[0].consumer.up);
        assert!(health.groups[0].consumer.error.is_some());
        network.set(Network::Up);
        assert_eq!(heard(&mut told).await, 1);
        healthy(&cap).await;
    })
    .await;
}

#[tokio::test]
async fn a_dead_letter_queue_that_is_not_there_yet_holds_up_nothing() {
    scene(async |scene| {
        let (builder, mut told) = hearing(scene.builder());
        let dead = scene.queue("dead");
        let builder = builder.subscribe(Subscribe::to("#").queue(&dead), async || ());
        let cap = scene.start(builder).await;
        cap.publish("work", &1).await.unwrap();
        assert_eq!(heard(&mut told).await, 1);
        let groups = cap.health().await.groups;
        let consumer = &groups.iter().find(|group| group.group == dead).unwrap().consumer;
        assert!(!consumer.up && consumer.error.as_ref().unwrap().contains(&dead), "{consumer:?}");
    })
    .await;
}

#[tokio::test]
async fn a_broker_that_goes_away_and_comes_back() {
    scene(async |scene| {
        let network = Proxy::start_down(&amqp_url()).await;
        network.set(Network::Up);
        let transport = scene.transport_at(&network.url(&amqp_url()));
        let (builder, mut told) = hearing(scene.builder_on(scene.storage(), transport));
        let cap = scene.start(builder).await;
        for round in 0..3 {
            cap.publish("work", &(2 * round)).await.unwrap();
            assert_eq!(heard(&mut told).await, 2 * round);
            network.set(Network::Down);
            cap.publish("work", &(2 * round + 1)).await.unwrap();
            until("the bus has noticed", async || (!cap.health().await.is_healthy()).then_some(())).await;
            network.set(Network::Up);
            assert_eq!(heard(&mut told).await, 2 * round + 1);
        }
        healthy(&cap).await;
    })
    .await;
}

#[tokio::test]
async fn a_database_that_comes_late_is_waited_for() {
    scene(async |scene| {
        let network = Proxy::start_down(&database_url()).await;
        let storage = Postgres::connect_lazy(&network.url(&database_url())).unwrap().schema(scene.name());
        let (builder, mut told) = hearing(scene.builder_on(storage, scene.transport()));
        let cap = scene.start(builder).await;
        let health = cap.health().await;
        assert_eq!(health.phase, Phase::Starting);
        assert!(!health.storage.up && health.storage.error.is_some());
        // Waits for the database, and is none the worse for it.
        let (published, ()) =
            tokio::join!(cap.publish("work", &1).into_future(), async { network.set(Network::Up) });
        published.unwrap();
        assert_eq!(heard(&mut told).await, 1);
        healthy(&cap).await;
    })
    .await;
}

#[tokio::test]
async fn a_database_that_goes_away_and_comes_back() {
    scene(async |scene| {
        let network = Proxy::start_down(&database_url()).await;
        network.set(Network::Up);
        let storage = Postgres::connect_lazy(&network.url(&database_url())).unwrap().schema(scene.name());
        let (builder, mut told) = hearing(scene.builder_on(storage, scene.transport()));
        let cap = scene.start(builder).await;
        let foreign = scene.foreign().await;
        for round in 0..2 {
            cap.publish("work", &(3 * round)).await.unwrap();
            assert_eq!(heard(&mut told).await, 3 * round);
            network.set(Network::Down);
            // What is received meanwhile stays with the broker, and is stored later; what is published waits.
            let number = 3 * round + 1;
            foreign.send_named("work", &format!("round-{round}"), number.to_string().as_bytes()).await;
            let publish = cap.publish("work", &(3 * round + 2)).into_future();
            let mend = async {
                until("the bus has noticed", async || (!cap.health().await.storage.up).then_some(())).await;
                network.set(Network::Up);
            };
            let (published, ()) = tokio::join!(publish, mend);
            published.unwrap();
            let mut after = [heard(&mut told).await, heard(&mut told).await];
            after.sort_unstable();
            assert_eq!(after, [number, 3 * round + 2]);
        }
        healthy(&cap).await;
    })
    .await;
}

/// Publishing in vain ends with an error that says what is wrong, and names no password.
#[tokio::test]
async fn publishing_without_a_database_ends_with_an_error() {
    scene(async |scene: &Scene| {
        let network = Proxy::start_down(&database_url()).await;
        let storage = Postgres::connect_lazy(&network.url(&database_url())).unwrap().schema(scene.name());
        let builder = scene.builder_on(storage, scene.transport()).configure(|options| {
            options.start_timeout = Duration::from_millis(100);
            options.publish_timeout = Duration::from_millis(100);
        });
        let cap = scene.start(builder).await;
        let error = cap.publish("work", &1).await.unwrap_err().to_string();
        assert!(error.contains("work"), "{error}");
    })
    .await;
}
