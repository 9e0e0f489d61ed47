//! What the log says at starts, at shutdowns, and while an operator is needed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cap_core::memory::MemoryTransport;
use cap_core::prelude::*;
use cap_rabbitmq::Credentials;
use cap_sqlite::Sqlite;
use cap_tests::{Log, Proxy, Scene, amqp_url, heard, scene, until};
use tokio::sync::mpsc;

/// Issue 8, rows B and 15.
#[tokio::test]
async fn clean_starts_and_shutdowns_log_nothing_above_info() {
    scene(async |scene: &Scene| {
        let (log, _guard) = Log::here();
        for round in 0..8_u32 {
            let (tell, mut told) = mpsc::channel(16);
            let builder = scene.builder().subscribe("work", move |number: u32| {
                let tell = tell.clone();
                async move { tell.send(number).await.unwrap() }
            });
            let cap =
                builder.subscribe(Subscribe::to("more").group("other"), async |_: u32| ()).start().await;
            let cap = cap.unwrap();
            scene.note(&cap).await;
            // Every second one is idle until its end.
            if round % 2 == 0 {
                cap.publish("work", &round).await.unwrap();
                assert_eq!(heard(&mut told).await, round);
            }
            cap.shutdown().await.unwrap();
        }
        assert_eq!(log.lines(&[" WARN ", " ERROR "]), [""; 0]);
        assert!(!log.lines(&["connected to RabbitMQ"]).is_empty(), "the log was on");
    })
    .await;
}

/// Issue 8, rows B and 15: on SQLite, over a broker that is in the process and over RabbitMQ.
#[tokio::test]
async fn so_it_is_on_sqlite() {
    scene(async |scene: &Scene| {
        let (log, _guard) = Log::here();
        let folder = std::env::temp_dir().join(format!("{}-quiet", scene.name()));
        std::fs::create_dir(&folder).unwrap();
        for round in 0..8_u32 {
            let builder = Cap::builder().handlers(Handlers::none()).configure(|options| {
                options.group_prefix = Some(scene.name().to_owned());
                "main".clone_into(&mut options.default_group);
            });
            let file = folder.join(format!("{}.db", round % 2));
            let storage = Sqlite::open(file);
            let builder = match round % 2 {
                0 => builder.storage(storage).transport(MemoryTransport::new()),
                _ => builder.storage(storage).transport(scene.transport()),
            };
            let (tell, mut told) = mpsc::channel(16);
            let builder = builder.subscribe("work", move |number: u32| {
                let tell = tell.clone();
                async move { tell.send(number).await.unwrap() }
            });
            let cap = builder.start().await.unwrap();
            scene.note(&cap).await;
            // Every second pair of them is idle until its end.
            if round % 4 < 2 {
                cap.publish("work", &round).await.unwrap();
                assert_eq!(heard(&mut told).await, round);
            }
            cap.shutdown().await.unwrap();
        }
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(log.lines(&[" WARN ", " ERROR "]), [""; 0]);
        assert!(log.lines(&["joined"]).len() == 8, "the log was on");
    })
    .await;
}

/// An outage after the start that needs an operator, and is over as soon as the provider is right.
#[tokio::test]
async fn wrong_credentials_are_an_error_until_they_are_right() {
    scene(async |scene: &Scene| {
        let (log, _guard) = Log::here();
        let network = Proxy::start(&amqp_url()).await;
        let right = Arc::new(AtomicBool::new(true));
        let uri: lapin::uri::AMQPUri = amqp_url().parse().unwrap();
        let (user, asked) = (uri.authority.userinfo, Arc::clone(&right));
        let transport = scene.transport_at(&network.url(&amqp_url())).credentials(move || {
            let password =
                if asked.load(Ordering::Relaxed) { user.password.clone() } else { "wrong".to_owned() };
            let credentials = Credentials::new(&user.username, password);
            async move { Ok(credentials) }
        });
        let (tell, mut told) = mpsc::channel(16);
        let builder = scene.builder_on(scene.storage(), transport).subscribe("work", move |number: u32| {
            let tell = tell.clone();
            async move { tell.send(number).await.unwrap() }
        });
        let cap = scene.start(builder).await;
        right.store(false, Ordering::Relaxed);
        network.close_connections();
        cap.publish("work", &7).await.unwrap();
        let errors = until("the transport and the group saying so, once each", async || {
            let errors = log.lines(&[" ERROR cap_core"]);
            (errors.len() == 2).then_some(errors)
        })
        .await;
        let health = cap.health().await;
        assert!(health.transport.error.is_some_and(|error| error.contains("and its password")));
        assert!(
            errors.iter().all(|line| line.contains("ACCESS_REFUSED") && !line.contains("wrong")),
            "{errors:?}"
        );
        right.store(true, Ordering::Relaxed);
        assert_eq!(heard(&mut told).await, 7);
        until("health", async || cap.health().await.is_healthy().then_some(())).await;
    })
    .await;
}
