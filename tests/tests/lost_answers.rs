//! Calls to the database whose answers are lost: what they have stored goes on at once, and waits for no lease
//! (issue 8, row 12).

use std::time::Duration;

use cap_core::prelude::*;
use cap_postgres::Postgres;
use cap_tests::{Network, Proxy, Scene, database_url, heard, scene, until};
use sqlx::{AssertSqlSafe, Executor};
use tokio::sync::mpsc;

/// Makes the server take a second to insert a message of this topic: as it is inserted, or as that is committed.
async fn slow(scene: &Scene, table: &str, topic: &str, at_commit: bool) {
    let schema = scene.name();
    let kind = if at_commit {
        "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON {t} DEFERRABLE INITIALLY DEFERRED"
    } else {
        "CREATE TRIGGER slow AFTER INSERT ON {t}"
    };
    let kind = kind.replace("{t}", &format!("\"{schema}\".{table}"));
    let sql = format!(
        "CREATE OR REPLACE FUNCTION \"{schema}\".slow() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN PERFORM pg_sleep(1), '{schema}'; RETURN NULL; END $$;
         {kind} FOR EACH ROW WHEN (NEW.name = '{topic}') EXECUTE FUNCTION \"{schema}\".slow()"
    );
    scene.pool().execute(AssertSqlSafe(sql)).await.unwrap();
}

/// Cuts the network while the server is at it, so that nobody learns of its success.
async fn cut_meanwhile(scene: &Scene, network: &Proxy) {
    let query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND pid IN (
        SELECT pid FROM pg_locks AS l JOIN pg_class AS c ON c.oid = l.relation
        JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND l.granted)";
    until("the server is at it", async || {
        let count: i64 = sqlx::query_scalar(query).bind(scene.name()).fetch_one(scene.pool()).await.unwrap();
        (count > 0).then_some(())
    })
    .await;
    network.break_connections().await;
}

/// A bus that reaches its database through a network, and what its handlers have seen. Its leases and polls take too
/// long to be of any help.
async fn through(scene: &Scene, network: &Proxy) -> (Cap, Postgres, mpsc::Receiver<u32>) {
    let storage = Postgres::connect_lazy(&network.url(&database_url())).unwrap().schema(scene.name());
    let (tell, told) = mpsc::channel(64);
    let builder = scene.builder_on(storage.clone(), scene.transport()).configure(|options| {
        options.lease = Duration::from_secs(3600);
        options.poll_interval = Duration::from_secs(3600);
    });
    let builder = builder
        .subscribe("work", move |number: u32| {
            let tell = tell.clone();
            async move { tell.send(number).await }
        })
        .subscribe("ask", async |number: u32, publisher: Publisher| {
            publisher.publish("work", &number).await.map(drop)
        });
    (scene.start(builder).await, storage, told)
}

async fn network() -> Proxy {
    let network = Proxy::start_down(&database_url()).await;
    network.set(Network::Up);
    network
}

#[tokio::test]
async fn received_message_is_handled() {
    scene(async |scene| {
        let network = network().await;
        let (cap, _, mut told) = through(scene, &network).await;
        slow(scene, "inbox", "work", false).await;
        scene.foreign().await.send_named("work", "one", b"1").await;
        cut_meanwhile(scene, &network).await;
        assert_eq!(heard(&mut told).await, 1);
        let row = cap.messages().find("one").await.unwrap().remove(0);
        assert_eq!(row.attempts, 0);
        cap.shutdown().await.unwrap();
        assert!(told.try_recv().is_err(), "once");
    })
    .await;
}

#[tokio::test]
async fn published_message_leaves() {
    scene(async |scene| {
        let network = network().await;
        let (cap, _, mut told) = through(scene, &network).await;
        slow(scene, "outbox", "work", false).await;
        let publish = cap.publish("work", &1).into_future();
        let (published, ()) = tokio::join!(publish, cut_meanwhile(scene, &network));
        published.unwrap();
        assert_eq!(heard(&mut told).await, 1);
        // Together with the success of a handler, in one call.
        scene.foreign().await.send_named("ask", "two", b"2").await;
        cut_meanwhile(scene, &network).await;
        assert_eq!(heard(&mut told).await, 2);
        cap.shutdown().await.unwrap();
        assert!(told.try_recv().is_err(), "once");
    })
    .await;
}

#[tokio::test]
async fn unanswered_commit_leaves() {
    scene(async |scene| {
        let network = network().await;
        let (cap, storage, mut told) = through(scene, &network).await;
        slow(scene, "outbox", "work", true).await;
        let mut tx = cap_postgres::begin(&cap, storage.pool()).await.unwrap();
        cap.publish("work", &1).within(&mut tx).await.unwrap();
        let (committed, ()) = tokio::join!(tx.commit(), cut_meanwhile(scene, &network));
        committed.unwrap_err();
        assert_eq!(heard(&mut told).await, 1);
        cap.shutdown().await.unwrap();
        assert!(told.try_recv().is_err(), "once");
    })
    .await;
}
