//! A message and a business row in one transaction: both or neither, in cap's own transaction, in a plain sqlx one, and
//! in a handler's.

use std::time::Duration;

use cap_core::CapBuilder;
use cap_core::prelude::*;
use cap_postgres::PgTx;
use cap_tests::{Network, Proxy, Scene, amqp_url, heard, scene};
use sqlx::{Executor, PgConnection, PgPool};
use tokio::sync::mpsc;

/// A table of orders in the scene's schema, which the application has beside the bus's.
struct Orders {
    table: String,
}

impl Orders {
    async fn create(scene: &Scene) -> Self {
        let table = format!("\"{}\".orders", scene.name());
        let statement = format!("CREATE TABLE {table} (id bigint PRIMARY KEY)");
        scene.pool().execute(sqlx::AssertSqlSafe(statement)).await.unwrap();
        Self { table }
    }

    async fn insert(&self, connection: &mut PgConnection, id: i64) -> Result<(), sqlx::Error> {
        let statement = format!("INSERT INTO {} VALUES ({id})", self.table);
        connection.execute(sqlx::AssertSqlSafe(statement)).await.map(drop)
    }

    async fn all(&self, pool: &PgPool) -> Vec<i64> {
        let statement = format!("SELECT id FROM {} ORDER BY id", self.table);
        sqlx::query_scalar(sqlx::AssertSqlSafe(statement)).fetch_all(pool).await.unwrap()
    }
}

/// A service that tells of each order placed.
fn telling(builder: CapBuilder) -> (CapBuilder, mpsc::Receiver<i64>) {
    let (tell, told) = mpsc::channel(64);
    let builder = builder.subscribe("order.placed", move |order: i64| {
        let tell = tell.clone();
        async move { tell.send(order).await }
    });
    (builder, told)
}

#[tokio::test]
async fn a_cap_transaction_takes_row_and_message_along_or_neither() {
    scene(async |scene| {
        let (builder, mut told) = telling(scene.builder());
        let cap = scene.start(builder).await;
        let orders = Orders::create(scene).await;

        let mut tx = cap_postgres::begin(&cap, scene.pool()).await.unwrap();
        orders.insert(&mut tx, 1).await.unwrap();
        let rolled_back = cap.publish("order.placed", &1).within(&mut tx).await.unwrap();
        tx.rollback().await.unwrap();
        let mut tx = cap_postgres::begin(&cap, scene.pool()).await.unwrap();
        let dropped = cap.publish("order.placed", &2).within(&mut tx).await.unwrap();
        drop(tx);

        let mut tx = cap_postgres::begin(&cap, scene.pool()).await.unwrap();
        orders.insert(&mut tx, 3).await.unwrap();
        let committed = cap.publish("order.placed", &3).within(&mut tx).await.unwrap();
        let published = cap.messages().published();
        assert!(published.find(committed.as_str()).await.unwrap().is_empty(), "not before the commit");
        assert!(told.try_recv().is_err());
        tx.commit().await.unwrap();
        assert_eq!(heard(&mut told).await, 3, "and nothing before it");
        assert_eq!(orders.all(scene.pool()).await, [3]);
        for id in [rolled_back, dropped] {
            assert!(published.find(id.as_str()).await.unwrap().is_empty());
        }
    })
    .await;
}

#[tokio::test]
async fn a_plain_transaction_does_so_too() {
    scene(async |scene| {
        let (builder, mut told) = telling(scene.builder());
        // Nothing but the announcement at the commit brings it on its way in time.
        let builder = builder.configure(|options| options.poll_interval = Duration::from_secs(3600));
        let cap = scene.start(builder).await;
        let orders = Orders::create(scene).await;

        let mut tx = scene.pool().begin().await.unwrap();
        orders.insert(&mut tx, 1).await.unwrap();
        let rolled_back = cap.publish("order.placed", &1).within(&mut tx).await.unwrap();
        tx.rollback().await.unwrap();

        let mut tx = scene.pool().begin().await.unwrap();
        orders.insert(&mut tx, 2).await.unwrap();
        cap.publish("order.placed", &2).within(&mut tx).await.unwrap();
        cap.publish_all("order.placed", [3, 4]).within(&mut tx).await.unwrap();
        assert!(told.try_recv().is_err());
        tx.commit().await.unwrap();
        let mut all = [heard(&mut told).await, heard(&mut told).await, heard(&mut told).await];
        all.sort_unstable();
        assert_eq!(all, [2, 3, 4]);
        assert_eq!(orders.all(scene.pool()).await, [2]);
        assert!(cap.messages().published().find(rolled_back.as_str()).await.unwrap().is_empty());
    })
    .await;
}

/// The business row fails: so does the message, although publishing it had worked.
#[tokio::test]
async fn a_transaction_that_failed_publishes_nothing() {
    scene(async |scene| {
        let (builder, mut told) = telling(scene.builder());
        let cap = scene.start(builder).await;
        let orders = Orders::create(scene).await;
        let mut tx = cap_postgres::begin(&cap, scene.pool()).await.unwrap();
        orders.insert(&mut tx, 1).await.unwrap();
        cap.publish("order.placed", &1).within(&mut tx).await.unwrap();
        orders.insert(&mut tx, 1).await.unwrap_err();
        tx.commit().await.unwrap_err();
        cap.publish("order.placed", &2).await.unwrap();
        assert_eq!(heard(&mut told).await, 2);
        assert!(orders.all(scene.pool()).await.is_empty());
    })
    .await;
}

/// A commit does not wait for the broker, and what was committed while it was away leaves when it is back.
#[tokio::test]
async fn a_commit_does_not_wait_for_the_broker() {
    scene(async |scene| {
        let network = Proxy::start_down(&amqp_url()).await;
        let transport = scene.transport_at(&network.url(&cap_tests::amqp_url()));
        let (builder, mut told) = telling(scene.builder_on(scene.storage(), transport));
        let builder = builder.configure(|options| options.start_timeout = Duration::from_millis(200));
        let cap = scene.start(builder).await;
        let mut tx = cap_postgres::begin(&cap, scene.pool()).await.unwrap();
        cap.publish("order.placed", &1).within(&mut tx).await.unwrap();
        tx.commit().await.unwrap();
        let mut tx = scene.pool().begin().await.unwrap();
        cap.publish("order.placed", &2).delay(Duration::from_millis(1)).within(&mut tx).await.unwrap();
        tx.commit().await.unwrap();
        assert!(!cap.health().await.transport.up);
        network.set(Network::Up);
        let mut both = [heard(&mut told).await, heard(&mut told).await];
        both.sort_unstable();
        assert_eq!(both, [1, 2]);
    })
    .await;
}

/// The handler's row, the mark on its message and its answer happen together: what a failed attempt did is undone.
#[tokio::test]
async fn a_handlers_transaction_happens_once() {
    scene(async |scene| {
        let orders = std::sync::Arc::new(tokio::sync::OnceCell::new());
        let book = std::sync::Arc::clone(&orders);
        let (builder, mut told) = telling(scene.builder());
        let builder = builder.subscribe("order.wanted", move |order: i64, attempt: Attempt, mut tx: PgTx| {
            let book = std::sync::Arc::clone(&book);
            async move {
                let orders: &Orders = book.get().unwrap();
                orders.insert(&mut tx, order).await?;
                if attempt.0 < 3 {
                    return Err("after the row was written".into());
                }
                Ok::<_, cap_core::BoxError>(Reply(order))
            }
        });
        let cap = scene.start(builder).await;
        assert!(orders.set(Orders::create(scene).await).is_ok());
        let foreign = scene.foreign().await;
        let headers = [
            ("cap-msg-id", "wanted"),
            ("cap-msg-name", "order.wanted"),
            ("cap-callback-name", "order.placed"),
        ];
        // The second delivery changes nothing.
        foreign.send("order.wanted", &headers, b"7").await;
        foreign.send("order.wanted", &headers, b"7").await;
        assert_eq!(heard(&mut told).await, 7);
        assert_eq!(orders.get().unwrap().all(scene.pool()).await, [7]);
        let row = cap.messages().find("wanted").await.unwrap().remove(0);
        assert_eq!(row.attempts, 2);
        cap.shutdown().await.unwrap();
        assert!(told.try_recv().is_err(), "one answer");
    })
    .await;
}
