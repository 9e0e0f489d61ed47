//! What cap costs on the application's connections: plans, notifications, round trips. Counted, so that noise moves
//! nothing.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cap_core::prelude::*;
use cap_core::storage::Status;
use cap_postgres::{PgTx, Postgres};
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions, PgSslMode};
use sqlx::{Connection as _, PgConnection, PgPool};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::support::{Database, OwnDatabase, url};

/// A pool of one connection, as an application makes it.
async fn one_connection() -> PgPool {
    PgPoolOptions::new().max_connections(1).connect(&url()).await.unwrap()
}

/// Custom and generic plans of each statement on the outbox that this connection has prepared.
async fn plans(connection: &mut PgConnection) -> Vec<(i64, i64)> {
    let query = "SELECT custom_plans, generic_plans FROM pg_prepared_statements
        WHERE statement LIKE '%INSERT INTO%outbox_state%' ORDER BY prepare_time";
    sqlx::query_as(query).persistent(false).fetch_all(connection).await.unwrap()
}

/// PostgreSQL plans a statement five times before it may keep a plan, and keeps it without a setting of ours.
#[tokio::test]
async fn insert_is_planned_five_times_on_a_plain_connection() {
    let database = Database::new().await;
    let cap = database.bus().start().await.unwrap();
    let pool = one_connection().await;
    for number in 0..30 {
        let mut tx = pool.begin().await.unwrap();
        cap.publish("number", &number).within(&mut tx).await.unwrap();
        tx.commit().await.unwrap();
    }
    let mut connection = pool.acquire().await.unwrap();
    assert_eq!(plans(&mut connection).await, [(5, 25)]);
    // The transaction that knows the bus takes the same statement, and an id of the application's another one.
    drop(connection);
    for number in 0..30 {
        let mut tx = cap_postgres::begin(&cap, &pool).await.unwrap();
        cap.publish("number", &number).within(&mut tx).await.unwrap();
        let own = format!("{}-{number}", database.schema);
        cap.publish("number", &number).message_id(own).within(&mut tx).await.unwrap();
        tx.commit().await.unwrap();
    }
    let mut connection = pool.acquire().await.unwrap();
    assert_eq!(plans(&mut connection).await, [(5, 55), (5, 25)]);
    cap.shutdown().await.unwrap();
}

/// The ids of other messages are looked at only where one may be meant.
#[tokio::test]
async fn single_rows_know_duplicates_as_many_do() {
    let database = Database::new().await;
    let cap = database.bus().start().await.unwrap();
    let mut connection = PgConnection::connect(&url()).await.unwrap();
    let first = cap.publish("number", &1).within(&mut connection).await.unwrap();
    for taken in [first.as_str(), "own"] {
        let publish = || cap.publish("number", &2).message_id(taken);
        if taken == "own" {
            publish().within(&mut connection).await.unwrap();
        }
        let error = publish().within(&mut connection).await.unwrap_err();
        assert!(matches!(error, PublishError::DuplicateId { .. }), "{taken}: {error}");
    }
    assert_eq!(database.count("SELECT count(*) FROM {s}.outbox").await, 2);
    cap.shutdown().await.unwrap();
}

async fn chain(number: i64, cap: Cap, publisher: Publisher, mut tx: PgTx) -> Result<(), PublishError> {
    if number > 0 {
        publisher.publish("chain", &-number).await?;
        publisher.publish("later", &number).delay(Duration::from_secs(3600)).await?;
        cap.publish("chain", &-number).within(&mut tx).await?;
        cap.publish("later", &number).delay(Duration::from_secs(3600)).within(&mut tx).await?;
    }
    Ok(())
}

/// A transaction that announces something holds a lock of the whole server over its commit.
#[tokio::test]
async fn nothing_is_announced_within_transactions_of_the_application() {
    let database = Database::new().await;
    // Other pools than ours: one of the application, one of this test.
    let options = url().parse::<PgConnectOptions>().unwrap().application_name(&database.schema);
    let pool = PgPoolOptions::new().max_connections(3).connect_with(options).await.unwrap();
    let channel = database.storage.notification_channel().to_owned();
    let storage = Postgres::new(pool.clone()).schema(&database.schema);
    let handled = Arc::new(Semaphore::new(0));
    let done = Arc::clone(&handled);
    let count = move |_: i64| {
        done.add_permits(1);
        async {}
    };
    let cap = database
        .bus()
        .storage(storage)
        .subscribe("chain", chain)
        .subscribe(Subscribe::to("chain").group("count"), count);
    let cap = cap.start().await.unwrap();
    let mut listener = PgListener::connect_with(&database.pool).await.unwrap();
    listener.listen(&channel).await.unwrap();
    let later = || cap.publish("later", &1_i64).delay(Duration::from_secs(3600));
    for _ in 0..10 {
        let mut tx = pool.begin().await.unwrap();
        cap.publish("chain", &1_i64).within(&mut tx).await.unwrap();
        cap.publish_all("chain", [1_i64, 2]).within(&mut tx).await.unwrap();
        later().within(&mut tx).await.unwrap();
        tx.commit().await.unwrap();
        let mut tx = cap_postgres::begin(&cap, &pool).await.unwrap();
        cap.publish("chain", &1_i64).within(&mut tx).await.unwrap();
        later().within(&mut tx).await.unwrap();
        tx.commit().await.unwrap();
    }
    // Each of 40 has made two more.
    let all = tokio::time::timeout(Duration::from_secs(30), handled.acquire_many(120)).await;
    all.unwrap().unwrap().forget();
    let pids = "SELECT pid FROM pg_stat_activity WHERE application_name = $1";
    let applications: Vec<i32> =
        sqlx::query_scalar(pids).bind(&database.schema).fetch_all(&database.pool).await.unwrap();
    assert!(!applications.is_empty());
    // Other nodes learn of what is delayed, from a connection of the bus.
    let first = tokio::time::timeout(Duration::from_secs(20), listener.recv()).await.unwrap().unwrap();
    let mut heard = vec![first];
    sqlx::query("SELECT pg_notify($1, 'end')").bind(&channel).execute(&database.pool).await.unwrap();
    while heard.last().unwrap().payload() != "end" {
        heard.push(listener.recv().await.unwrap());
    }
    for notification in &heard {
        let pid = i32::try_from(notification.process_id()).unwrap();
        assert!(!applications.contains(&pid), "{notification:?}");
    }
    cap.shutdown().await.unwrap();
}

/// What a client of this name asks of the server, in order, as a way between the two sees it: simple queries by their
/// first word, the execution of a statement, its preparation, and empty round trips.
async fn trace(options: PgConnectOptions, of: &str) -> (PgConnectOptions, Arc<Mutex<Vec<String>>>) {
    let name = of.as_bytes().to_vec();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let through = options.clone().host("127.0.0.1").port(listener.local_addr().unwrap().port());
    let traced = Arc::new(Mutex::new(Vec::new()));
    let trace = Arc::clone(&traced);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect((options.get_host(), options.get_port())).await.unwrap();
            let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
                (client.into_split(), server.into_split());
            tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
            let (trace, name) = (Arc::clone(&trace), name.clone());
            tokio::spawn(async move {
                // The first message has no kind. It names the application.
                let (mut is_first, mut is_traced, mut since_sync) = (true, false, String::new());
                loop {
                    let kind = if is_first { b'!' } else { from_client.read_u8().await? };
                    let length = from_client.read_u32().await?;
                    let mut body = vec![0; usize::try_from(length).unwrap() - 4];
                    from_client.read_exact(&mut body).await?;
                    is_traced |= is_first && body.windows(name.len()).any(|part| part == name);
                    since_sync.push(char::from(kind));
                    let what = match kind {
                        b'Q' => {
                            String::from_utf8_lossy(&body).split([' ', ';', '\0']).next().map(str::to_owned)
                        }
                        b'S' if since_sync.contains('E') => Some("execute".to_owned()),
                        b'S' if since_sync.contains('P') => Some("prepare".to_owned()),
                        b'S' => Some("ping".to_owned()),
                        _ => None,
                    };
                    if let Some(what) = what {
                        since_sync.clear();
                        if is_traced {
                            trace.lock().unwrap().push(what);
                        }
                    }
                    if !is_first {
                        to_server.write_u8(kind).await?;
                    }
                    is_first = false;
                    to_server.write_u32(length).await?;
                    to_server.write_all(&body).await?;
                }
                #[allow(unreachable_code, reason = "says of which type the errors are")]
                std::io::Result::Ok(())
            });
        }
    });
    (through.ssl_mode(PgSslMode::Disable).application_name(of), traced)
}

async fn effect(_: i64, mut tx: PgTx) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT 1").execute(&mut *tx).await.map(|_| ())
}

async fn effect_and_publish(_: i64, publisher: Publisher, mut tx: PgTx) -> Result<(), cap_core::BoxError> {
    sqlx::query("SELECT 1").execute(&mut *tx).await?;
    publisher.publish("next", &1).await?;
    Ok(())
}

/// A pool as sqlx makes it, of one connection, so that the order is always the same. What is asked as a connection goes
/// back to the pool nobody waits for.
#[tokio::test]
async fn round_trips_of_a_handlers_transaction() {
    let database = Database::new().await;
    let (options, traced) = trace(url().parse().unwrap(), &database.schema).await;
    let pool = PgPoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
    let storage = Postgres::new(pool.clone()).schema(&database.schema);
    let cap = database
        .bus()
        .storage(storage)
        .configure(|options| options.group_concurrency = 1)
        .subscribe("effect", effect)
        .subscribe("publish", effect_and_publish)
        .start()
        .await
        .unwrap();
    let taken = || std::mem::take(&mut *traced.lock().unwrap());
    // The connection was opened without a transaction.
    taken();
    for (topic, expected) in [
        ("effect", "ping BEGIN execute SET COMMIT ping"),
        ("publish", "ping BEGIN execute SET execute SET COMMIT ping"),
    ] {
        for round in 0..3 {
            cap.publish(topic, &1_i64).await.unwrap();
            let back = async {
                while traced.lock().unwrap().iter().filter(|what| *what == "ping").count() < 2 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(20), back).await.unwrap();
            let trace = taken().join(" ");
            // Statements are prepared in the first round.
            assert!(round == 0 || trace == expected, "{topic}, round {round}: {trace}");
        }
    }
    cap.shutdown().await.unwrap();
}

/// What a transaction of the application's costs that publishes: one round trip for each `within`, and one for a batch of any
/// size and any topics. What is asked as a connection goes back to the pool nobody waits for.
#[tokio::test]
async fn round_trips_of_the_applications_transaction() {
    let database = Database::new().await;
    let (options, traced) = trace(url().parse().unwrap(), &database.schema).await;
    let pool = PgPoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
    let cap = database.bus().start().await.unwrap();
    traced.lock().unwrap().clear();
    let batch = || {
        let mut batch = cap.batch();
        batch.extend((0..5).map(|number| cap.publish(format!("topic.{number}"), &number)));
        batch
    };
    for (what, expected) in [
        ("plain", "ping BEGIN execute execute COMMIT ping"),
        ("known", "ping BEGIN execute execute COMMIT ping"),
        ("batch", "ping BEGIN execute execute COMMIT ping"),
        ("plain batch", "ping BEGIN execute execute COMMIT ping"),
        // A statement after the last message may have undone a savepoint: the messages are counted.
        ("statement afterwards", "ping BEGIN execute execute SELECT COMMIT ping"),
    ] {
        for round in 0..3 {
            let effect = sqlx::query("SELECT 1");
            if what.starts_with("plain") {
                let mut tx = pool.begin().await.unwrap();
                effect.execute(&mut *tx).await.unwrap();
                if what == "plain" {
                    cap.publish("topic", &1).within(&mut tx).await.unwrap();
                } else {
                    assert_eq!(batch().within(&mut tx).await.unwrap().len(), 5);
                }
                tx.commit().await.unwrap();
            } else {
                let mut tx = cap_postgres::begin(&cap, &pool).await.unwrap();
                if what == "statement afterwards" {
                    cap.publish("topic", &1).within(&mut tx).await.unwrap();
                    effect.execute(&mut *tx).await.unwrap();
                } else {
                    effect.execute(&mut *tx).await.unwrap();
                    if what == "known" {
                        cap.publish("topic", &1).within(&mut tx).await.unwrap();
                    } else {
                        assert_eq!(batch().within(&mut tx).await.unwrap().len(), 5);
                    }
                }
                tx.commit().await.unwrap();
            }
            let back = async {
                while traced.lock().unwrap().iter().filter(|what| *what == "ping").count() < 2 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(20), back).await.unwrap();
            let trace = std::mem::take(&mut *traced.lock().unwrap()).join(" ");
            // Statements are prepared in the first round.
            assert!(round == 0 || trace == expected, "{what}, round {round}: {trace}");
        }
    }
    assert_eq!(database.count("SELECT count(*) FROM {s}.outbox").await, 3 * (1 + 1 + 5 + 5 + 1));
    cap.shutdown().await.unwrap();
}

/// Where the right that everybody has by default was taken away, it is done without, in two more round trips.
#[tokio::test]
async fn handlers_need_no_right_to_call_functions() {
    let database = OwnDatabase::new().await;
    let (app, pool) = database.role("app").await;
    database.execute(Postgres::schema_sql("cap")).await;
    database
        .execute(format!(
            "REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA cap FROM public; GRANT USAGE ON SCHEMA cap TO {app};
             GRANT ALL ON ALL TABLES IN SCHEMA cap TO {app}"
        ))
        .await;
    let cap = Cap::builder()
        .handlers(Handlers::none())
        .storage(Postgres::new(pool))
        .transport(MemoryTransport::new())
        .configure(|options| options.default_group = "test".into())
        .subscribe("effect", effect)
        .start()
        .await
        .unwrap();
    for _ in 0..2 {
        let id = cap.publish("effect", &1_i64).await.unwrap();
        let row = async {
            loop {
                let rows = cap.messages().find(id.as_str()).await.unwrap();
                if let Some(row) = rows.into_iter().find(|row| row.status == Status::Succeeded) {
                    return row;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let row = tokio::time::timeout(Duration::from_secs(20), row).await.unwrap();
        assert_eq!(row.attempts, 0);
    }
    cap.shutdown().await.unwrap();
}
