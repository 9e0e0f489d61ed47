//! Mistakes and extremes of our own side: what cannot be published, what the broker refuses, what is very large, and
//! connection strings that are wrong.

use std::time::Duration;

use cap_core::prelude::*;
use cap_core::{CapBuilder, Failure, PublishError};
use cap_postgres::Postgres;
use cap_tests::{SECRET, Scene, amqp_url, database_url, heard, scene, soon, until};
use tokio::sync::mpsc;

fn telling(builder: CapBuilder) -> (CapBuilder, mpsc::Receiver<Failure>, mpsc::Receiver<u32>) {
    let (fail, failures) = mpsc::channel(16);
    let (tell, told) = mpsc::channel(16);
    let builder = builder
        .on_failed(move |failure| {
            let fail = fail.clone();
            async move { fail.send(failure).await.unwrap() }
        })
        .subscribe("good", move |number: u32| {
            let tell = tell.clone();
            async move { tell.send(number).await }
        });
    (builder, failures, told)
}

#[tokio::test]
async fn what_cannot_be_published_is_an_error_at_once() {
    scene(async |scene| {
        let (builder, _failures, mut told) = telling(scene.builder());
        let cap = scene.start(builder).await;
        let pairs = std::collections::BTreeMap::from([((1, 2), 3)]);
        let error = cap.publish("good", &pairs).await.unwrap_err();
        assert!(matches!(error, PublishError::Payload { .. }), "{error}");
        for topic in ["", " ", "a b", "a..b", "*.a", &"n".repeat(201)] {
            let error = cap.publish(topic, &1).await.unwrap_err();
            assert!(matches!(error, PublishError::Name(_)), "{error}");
            assert!(error.to_string().len() < 400, "{error}");
            let error = cap.publish("good", &1).callback(topic).await.err();
            // No callback at all is what an empty one means to CAP.
            assert!(topic.is_empty() || matches!(error, Some(PublishError::Name(_))), "{topic:?}: {error:?}");
        }
        for header in ["", "cap-msg-name", "cap-senttime", &"h".repeat(256)] {
            let error = cap.publish("good", &1).header(header.to_owned(), "x").await.unwrap_err();
            assert!(matches!(error, PublishError::Header { .. }), "{header}: {error}");
        }
        let small = scene.builder().configure(|options| options.max_message_size = 1000);
        let small = scene.start(small).await;
        let error = small.publish("good", &"x".repeat(1000)).await.unwrap_err();
        assert!(matches!(error, PublishError::TooLarge { .. }), "{error}");
        // In a batch with a bad one, none is stored.
        let error = small.publish_all("good", ["1".to_owned(), "x".repeat(1000)]).await.unwrap_err();
        assert!(matches!(error, PublishError::TooLarge { .. }), "{error}");
        cap.publish("good", &7).await.unwrap();
        assert_eq!(heard(&mut told).await, 7);
    })
    .await;
}

/// Headers do not fit into AMQP's one frame: `publish` refuses the message and says why, nothing of it is stored or
/// told of later, and no other suffers for it.
#[tokio::test]
async fn megabyte_headers_are_refused_and_hold_nobody_up() {
    scene(async |scene| {
        let (builder, mut failures, mut told) = telling(scene.builder());
        let cap = scene.start(builder).await;
        let large = "x".repeat(1 << 20);
        let error = cap.publish("good", &1).header("x", &large).await.unwrap_err();
        let PublishError::Unsendable { reason, .. } = &error else { panic!("{error:?}") };
        assert!(reason.contains("headers") && error.to_string().len() < 1000, "{error}");
        cap.publish("good", &2).await.unwrap();
        assert_eq!(heard(&mut told).await, 2);
        let many = (0..50_000).map(|number| (format!("header-{number}"), String::new()));
        let headers = many.collect::<cap_core::Headers>();
        let error = cap.publish("good", &3).headers(&headers).await.unwrap_err();
        let PublishError::Unsendable { reason, .. } = &error else { panic!("{error:?}") };
        assert!(reason.contains("headers") && error.to_string().len() < 1000, "{error}");
        cap.publish("good", &4).await.unwrap();
        assert_eq!(heard(&mut told).await, 4);
        let stored = cap.messages().published().list().await.unwrap();
        assert_eq!(stored.len(), 2, "only what can be sent is stored");
        assert!(failures.try_recv().is_err());
    })
    .await;
}

/// One hundred mebibytes from `publish` to the handler, and the answer of as much back, byte for byte.
#[tokio::test]
async fn a_message_of_a_hundred_mebibytes() {
    scene(async |scene| {
        const SIZE: usize = 100 * 1024 * 1024;
        let (builder, mut failures, mut told) = telling(scene.builder());
        let builder = builder.configure(|options| options.publish_retry = RetryPolicy::never());
        let (tell, mut arrived) = mpsc::channel(1);
        let builder = builder.subscribe("large", move |body: RawBody| {
            let tell = tell.clone();
            async move { tell.send(body.0).await }
        });
        let cap = scene.start(builder).await;
        let payload: String = ('a'..='z').cycle().take(SIZE - 2).collect();
        let id = cap.publish("large", &payload).await.unwrap();
        let body = tokio::select! {
            body = heard(&mut arrived) => body,
            // RabbitMQ 4 takes 16 MiB unless it is told otherwise.
            failure = heard(&mut failures) => panic!("set max_message_size on the broker: {}", failure.error),
        };
        assert_eq!(body.len(), SIZE);
        assert!(body[1..SIZE - 1] == *payload.as_bytes(), "byte for byte");
        drop(body);
        cap.publish("good", &1).await.unwrap();
        assert_eq!(heard(&mut told).await, 1);
        until("both sides have succeeded", async || {
            let outbox = cap.messages().published().find(id.as_str()).await.unwrap().pop()?;
            (outbox.status == cap_core::storage::Status::Succeeded).then_some(())
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_schema_may_have_any_name() {
    scene(async |scene| {
        let storage = scene.storage_in("\"; DROP SCHEMA public; -- 'ü");
        let (builder, _failures, mut told) = telling(scene.builder_on(storage, scene.transport()));
        let cap = scene.start(builder).await;
        cap.publish("good", &7).delay(Duration::from_millis(50)).await.unwrap();
        assert_eq!(heard(&mut told).await, 7);
    })
    .await;
}

/// Every error, every health report, every log line, and every debug text.
#[tokio::test]
async fn bad_connection_strings_show_no_password() {
    scene(async |scene| {
        for url in [
            format!("amqp://shop:{SECRET}@rabbit:notaport/orders"),
            format!("amqp://shop:{SECRET}@/orders"),
            format!("amqp:/shop:{SECRET}@rabbit"),
            format!("http://shop:{SECRET}@rabbit"),
            format!("shop:{SECRET}@rabbit"),
            format!("amqp://shop:{SECRET}"),
            format!("amqp://shop:{SECRET}@rabbit?heartbeat=often"),
            SECRET.to_owned(),
            String::new(),
        ] {
            let transport = scene.transport_at(&url);
            let debug = format!("{transport:?}");
            let builder = scene.builder_on(scene.storage(), transport);
            let error = builder.start().await.expect_err(&url);
            for text in [debug, error.to_string(), format!("{error:?}")] {
                assert!(!text.contains(SECRET), "{text}");
            }
            assert!(error.to_string().contains("amqp://"), "says how it should look: {error}");
        }
        for url in [
            format!("postgres://shop:{SECRET}@database:notaport/shop"),
            format!("postgres//shop:{SECRET}@database"),
            format!("mysql://shop:{SECRET}@database/shop"),
            format!("postgres://shop:{SECRET}@database/shop?sslmode=perhaps"),
            SECRET.to_owned(),
            String::new(),
        ] {
            let error = Postgres::connect_lazy(&url).expect_err(&url);
            for text in [error.to_string(), format!("{error:?}")] {
                assert!(!text.contains(SECRET), "{text}");
            }
            assert!(error.to_string().contains("postgres://"), "says how it should look: {error}");
        }
    })
    .await;
}

#[tokio::test]
async fn wrong_passwords_and_unknown_hosts_show_no_password() {
    scene(async |scene| {
        let amqp = with_login(&amqp_url(), "nobody");
        let postgres = with_login(&database_url(), "cap_nobody");
        let nowhere = |scheme: &str| format!("{scheme}://shop:{SECRET}@host.invalid/shop");
        let cases = [
            (None, amqp),
            (None, nowhere("amqp")),
            (None, format!("amqp://shop:{SECRET}@127.0.0.1:9")),
            (Some(postgres), amqp_url()),
            (Some(nowhere("postgres")), amqp_url()),
            (Some(format!("postgres://shop:{SECRET}@127.0.0.1:9/shop")), amqp_url()),
        ];
        let starts = cases.into_iter().map(|(database, broker)| start_in_vain(scene, database, broker));
        futures_util::future::join_all(starts).await;
    })
    .await;
}

/// Starts a bus on servers of which one will not let it in, and looks at everything that it says.
async fn start_in_vain(scene: &Scene, database: Option<String>, broker: String) {
    let storage = match &database {
        Some(url) => Postgres::connect_lazy(url).unwrap().schema(scene.name()),
        None => scene.storage(),
    };
    let debug = format!("{storage:?}");
    let builder = scene
        .builder_on(storage, scene.transport_at(&broker))
        .configure(|options| {
            options.start_timeout = Duration::from_secs(1);
            options.publish_timeout = Duration::from_millis(500);
        })
        .subscribe("work", async || ());
    let said = match soon(builder.start()).await {
        Err(error) => format!("{error} {error:?}"),
        Ok(cap) => {
            let health = cap.health().await;
            assert!(!health.is_healthy());
            let published = soon(cap.publish("work", &()).into_future()).await;
            let said = format!("{health:?} {cap:?} {published:?}");
            soon(cap.shutdown()).await.unwrap();
            said
        }
    };
    for text in [debug, said] {
        assert!(!text.contains(SECRET), "{text}");
    }
}

/// The server of a URL, with a login that it does not know.
fn with_login(url: &str, user: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap();
    let (_, host) = rest.rsplit_once('@').unwrap_or(("", rest));
    format!("{scheme}://{user}:{SECRET}@{host}")
}
