//! What `start` returns while the broker or the database refuses, is missing, or comes late.

use std::time::Duration;

use cap_core::error::StartError;
use cap_core::prelude::*;
use cap_core::{CapBuilder, Phase};
use cap_postgres::Postgres;
use cap_rabbitmq::RabbitMq;
use cap_tests::{Log, Network, Proxy, Scene, amqp_url, database_url, scene, until};
use lapin::uri::AMQPUri;

/// Longer than any test: a start that waits for it fails.
const LONG: Duration = Duration::from_hours(1);

fn patient(builder: CapBuilder) -> CapBuilder {
    builder.configure(|options| options.start_timeout = LONG).subscribe("work", async |_: u32| ())
}

/// The address of the broker with another password or another virtual host.
fn url_with(password: Option<&str>, vhost: Option<&str>) -> String {
    let uri: AMQPUri = amqp_url().parse().unwrap();
    let user = &uri.authority.userinfo;
    let password = password.unwrap_or(&user.password);
    let vhost = vhost.unwrap_or(&uri.vhost).replace('/', "%2f");
    format!("amqp://{}:{password}@{}:{}/{vhost}", user.username, uri.authority.host, uri.authority.port)
}

async fn refused(builder: CapBuilder) -> String {
    match patient(builder).start().await {
        Err(StartError::Transport(error)) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn wrong_broker_password_is_an_error() {
    scene(async |scene: &Scene| {
        let (log, _guard) = Log::here();
        let transport = scene.transport_at(&url_with(Some("s3cret-of-the-tests"), None));
        let error = refused(scene.builder_on(scene.storage(), transport)).await;
        assert!(error.contains("ACCESS_REFUSED") && error.contains("password"), "{error}");
        assert!(!error.contains("s3cret"), "{error}");
        assert_eq!(log.lines(&[" lapin"]), [""; 0], "the error says it");
    })
    .await;
}

#[tokio::test]
async fn missing_vhost_is_an_error() {
    scene(async |scene: &Scene| {
        let transport = scene.transport_at(&url_with(None, Some("no-such-vhost")));
        let error = refused(scene.builder_on(scene.storage(), transport)).await;
        assert!(error.contains("no-such-vhost"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn wrong_broker_password_shows_without_database() {
    scene(async |scene: &Scene| {
        let network = Proxy::start_down(&database_url()).await;
        let storage = Postgres::connect_lazy(&network.url(&database_url())).unwrap().schema(scene.name());
        let transport = scene.transport_at(&url_with(Some("wrong"), None));
        let error = refused(scene.builder_on(storage, transport)).await;
        assert!(error.contains("password"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn service_that_only_publishes_fails_as_well() {
    let transport = RabbitMq::new(url_with(Some("wrong"), None));
    let builder =
        Cap::builder().handlers(Handlers::none()).storage(MemoryStorage::new()).transport(transport);
    let started = builder.configure(|options| options.start_timeout = LONG).start().await;
    assert!(matches!(started, Err(StartError::Transport(_))), "{started:?}");
}

#[tokio::test]
async fn broker_that_comes_late_is_waited_for() {
    scene(async |scene: &Scene| {
        let (log, _guard) = Log::here();
        let network = Proxy::start_down(&amqp_url()).await;
        let transport = scene.transport_at(&network.url(&amqp_url()));
        let start = patient(scene.builder_on(scene.storage(), transport)).start();
        let (started, ()) = tokio::join!(start, async {
            let failed = async || (log.lines(&["unreachable, retrying"]).len() == 2).then_some(());
            until("the probe and the group having failed", failed).await;
            network.set(Network::Up);
        });
        let cap = started.unwrap();
        scene.keep(&cap).await;
        let health = cap.health().await;
        assert!(health.is_healthy(), "{health:?}");
    })
    .await;
}

#[tokio::test]
async fn live_broker_is_up_without_database() {
    scene(async |scene: &Scene| {
        let network = Proxy::start_down(&database_url()).await;
        let storage = Postgres::connect_lazy(&network.url(&database_url())).unwrap().schema(scene.name());
        let builder = scene.builder_on(storage, scene.transport()).subscribe("work", async |_: u32| ());
        let cap =
            builder.configure(|options| options.start_timeout = Duration::from_millis(300)).start().await;
        let cap = cap.unwrap();
        let health = until("the broker being up", async || {
            let health = cap.health().await;
            health.transport.up.then_some(health)
        })
        .await;
        assert_eq!(health.phase, Phase::Starting);
        assert!(!health.storage.up && health.storage.error.is_some(), "{health:?}");
        cap.shutdown().await.unwrap();
    })
    .await;
}
