//! Retries that wait in delay queues of a real RabbitMQ, with their rows in a real PostgreSQL.

use std::collections::BTreeMap;
use std::time::Duration;

use cap_core::prelude::*;
use cap_core::storage::Status;
use cap_postgres::Postgres;
use cap_tests::{Network, Proxy, Scene, amqp_url, database_url, heard, scene, until};
use sqlx::PgPool;
use tokio::sync::mpsc;

/// Long enough to see that something waits, short enough to wait for.
const SHORT: Duration = Duration::from_millis(400);
const LONG: Duration = Duration::from_secs(600);

async fn waiting(cap: &Cap, count: usize) {
    until("the messages wait", async || {
        let rows = cap.messages().status(Status::Retrying).limit(count + 1).list().await.unwrap();
        (rows.len() == count && rows.iter().all(|row| row.owner.is_none())).then_some(())
    })
    .await;
}

fn broker_retry(scene: &Scene, group: &str, delays: &[Duration]) -> RetryPolicy {
    for delay in delays {
        scene.waits_at_broker(group, *delay);
    }
    RetryPolicy::broker(delays.iter().copied())
}

#[tokio::test]
async fn of_two_groups_only_the_failing_one_sees_the_retry() {
    scene(async |scene| {
        let (tell, mut told) = mpsc::channel(16);
        let (fine, failing) = (tell.clone(), tell);
        let policy = broker_retry(scene, "failing", &[SHORT, SHORT]);
        let builder = scene
            .builder()
            .subscribe(Subscribe::to("call").group("fine"), move |attempt: Attempt| {
                let fine = fine.clone();
                async move { fine.send(("fine", attempt.0)).await }
            })
            .subscribe(Subscribe::to("call").group("failing").retry(policy), move |attempt: Attempt| {
                let failing = failing.clone();
                async move {
                    failing.send(("failing", attempt.0)).await.unwrap();
                    if attempt.0 < 3 { Err("nobody answers") } else { Ok(()) }
                }
            });
        let cap = scene.start(builder).await;
        let id = cap.publish("call", &1).await.unwrap();
        let mut all = Vec::new();
        for _ in 0..4 {
            all.push(heard(&mut told).await);
        }
        all.sort_unstable();
        assert_eq!(all, [("failing", 1), ("failing", 2), ("failing", 3), ("fine", 1)]);
        let done = until("the end", async || {
            let rows = cap.messages().find(id.as_str()).await.unwrap();
            rows.iter().all(|row| row.status == Status::Succeeded).then_some(rows)
        })
        .await;
        let failed: BTreeMap<_, _> = done.iter().map(|row| (row.group.to_string(), row.attempts)).collect();
        assert_eq!(failed, [(scene.queue("failing"), 2), (scene.queue("fine"), 0)].into());
        assert!(told.try_recv().is_err(), "nobody saw more");
    })
    .await;
}

#[tokio::test]
async fn a_long_wait_does_not_hold_up_a_short_one() {
    scene(async |scene| {
        let (tell, mut told) = mpsc::channel(16);
        let long = broker_retry(scene, "main", &[LONG]);
        let short = broker_retry(scene, "main", &[SHORT]);
        let builder = scene.builder().subscribe("call", move |wait: String, attempt: Attempt| {
            let tell = tell.clone();
            let long = long.clone();
            let short = short.clone();
            async move {
                tell.send((wait.clone(), attempt.0)).await.unwrap();
                let policy = if wait == "long" { &long } else { &short };
                if attempt.0 == 1 { Err(HandlerError::failed("no").retry(policy.clone())) } else { Ok(()) }
            }
        });
        let cap = scene.start(builder).await;
        cap.publish("call", "long").await.unwrap();
        assert_eq!(heard(&mut told).await, ("long".to_owned(), 1));
        waiting(&cap, 1).await;
        cap.publish("call", "short").await.unwrap();
        assert_eq!(heard(&mut told).await, ("short".to_owned(), 1));
        assert_eq!(heard(&mut told).await, ("short".to_owned(), 2));
    })
    .await;
}

#[tokio::test]
async fn a_retry_that_the_broker_loses_comes_from_the_database() {
    scene(async |scene| {
        let (tell, mut told) = mpsc::channel(16);
        let policy = broker_retry(scene, "main", &[SHORT]);
        let builder = scene.builder().configure(|options| options.lease = Duration::from_secs(1)).subscribe(
            Subscribe::to("call").retry(policy),
            move |headers: CapHeaders, attempt: Attempt| {
                let tell = tell.clone();
                async move {
                    let name = headers.get("cap-retry").map(str::to_owned);
                    tell.send((attempt.0, name)).await.unwrap();
                    if attempt.0 == 1 { Err("no") } else { Ok(()) }
                }
            },
        );
        let cap = scene.start(builder).await;
        let foreign = scene.foreign().await;
        // Whatever is in the delay queue is taken out of it as long as the test runs.
        let queue = scene.delay_queue("main", SHORT);
        let id = cap.publish("call", &1).await.unwrap();
        assert_eq!(heard(&mut told).await, (1, None));
        let purged = until("the copy is thrown away", async || {
            let purged = foreign.purge(&queue).await;
            (purged > 0).then_some(purged)
        })
        .await;
        assert_eq!(purged, 1);
        assert_eq!(heard(&mut told).await, (2, None), "the row becomes due by itself");
        let row = until("success", async || {
            let row = cap.messages().find(id.as_str()).await.unwrap().pop()?;
            (row.status == Status::Succeeded).then_some(row)
        })
        .await;
        assert_eq!(row.attempts, 1);
    })
    .await;
}

#[tokio::test]
async fn database_is_not_queried_while_messages_wait_at_the_broker() {
    const MESSAGES: usize = 1000;
    const WAIT: Duration = Duration::from_secs(12);
    scene(async |scene| {
        let network = Proxy::start_down(&database_url()).await;
        network.set(Network::Up);
        let pool = PgPool::connect(&network.url(&database_url())).await.unwrap();
        let storage = Postgres::new(pool).schema(scene.name());
        let (tell, mut told) = mpsc::channel(MESSAGES);
        let policy = broker_retry(scene, "main", &[WAIT]);
        let subscribe = Subscribe::to("call").retry(policy).concurrency(64);
        let builder = scene.builder_on(storage, scene.transport_at(&amqp_url())).subscribe(
            subscribe,
            move |attempt: Attempt| {
                let tell = tell.clone();
                async move {
                    if attempt.0 == 1 {
                        return Err("no");
                    }
                    tell.send(()).await.unwrap();
                    Ok(())
                }
            },
        );
        let cap = scene.start(builder).await;
        cap.publish_all("call", 0..MESSAGES).await.unwrap();
        let aside = PgPool::connect(&database_url()).await.unwrap();
        let table = format!("SELECT count(*) FROM \"{}\".inbox_state WHERE status = 2", scene.name());
        until("all of them wait", async || {
            let count: i64 =
                sqlx::query_scalar(sqlx::AssertSqlSafe(table.clone())).fetch_one(&aside).await.unwrap();
            (count == i64::try_from(MESSAGES).unwrap()).then_some(())
        })
        .await;
        aside.close().await;
        let before = network.client_writes();
        heard(&mut told).await;
        let spoken = network.client_writes() - before;
        // Leases, this node's number, a look for what others left: for a thousand messages as for none. The claim
        // that brought the first one back is in it, too.
        assert!(spoken < 60, "{spoken} times while {MESSAGES} messages waited");
        for _ in 1..MESSAGES {
            heard(&mut told).await;
        }
        until("all of them are done", async || {
            let rows = cap.messages().status(Status::Retrying).list().await.unwrap();
            rows.is_empty().then_some(())
        })
        .await;
        assert_eq!(cap.messages().parked().count().await.unwrap(), 0);
    })
    .await;
}

#[tokio::test]
async fn a_message_delayed_at_the_broker_reaches_every_group() {
    scene(async |scene| {
        let (tell, mut told) = mpsc::channel(16);
        let (one, two) = (tell.clone(), tell);
        let builder = scene
            .builder()
            .subscribe(Subscribe::to("later.#").group("one"), move |topic: Topic| {
                let one = one.clone();
                async move { one.send(("one", topic.to_string())).await }
            })
            .subscribe(Subscribe::to("later.today").group("two"), move |topic: Topic| {
                let two = two.clone();
                async move { two.send(("two", topic.to_string())).await }
            });
        let cap = scene.start(builder).await;
        scene.publishes_at_broker(SHORT);
        let id = cap.publish("later.today", &1).delay_at_broker(SHORT).await.unwrap();
        let row = until("it is sent", async || {
            let row = cap.messages().published().find(id.as_str()).await.unwrap().pop()?;
            (row.status == Status::Succeeded).then_some(row)
        })
        .await;
        assert_eq!(row.message.headers.get("cap-broker-delay"), Some("400"));
        let mut all = [heard(&mut told).await, heard(&mut told).await];
        all.sort();
        assert_eq!(all, [("one", "later.today".to_owned()), ("two", "later.today".to_owned())]);
    })
    .await;
}
