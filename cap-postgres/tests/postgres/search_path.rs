//! Issue 9, row 4: what other roles have made in `public` is never run, neither by us nor by who reads our views.

use std::sync::Arc;
use std::time::Duration;

use cap_core::message::{Headers, Message};
use cap_core::monitor::{Among, Change, Monitor as _, Query};
use cap_core::prelude::*;
use cap_core::storage::{
    ClaimRequest, Entry, Expiry, Lease, NewIncoming, NewOutgoing, NodeRequest, Reason, Retention,
    RowCompletion, RowOutcome, Side, Storage as _, Wake, WriteBatch,
};
use cap_postgres::{PgTx, Postgres};
use sqlx::{AssertSqlSafe, PgPool};
use tokio::sync::mpsc::unbounded_channel;
use tokio_util::sync::CancellationToken;

use crate::support::{GROUP, OwnDatabase, delayed, held, held_incoming, incoming, outgoing, owner};

/// A database in which everything in `public` is a trap, and comes before what is PostgreSQL's own.
struct Hostile {
    database: OwnDatabase,
    /// With a path on which no trap is.
    safe: PgPool,
}

impl Hostile {
    async fn new(before: &str) -> Self {
        let database = OwnDatabase::new().await;
        let safe = database.pool_with_path("pg_catalog");
        let sql = [before, include_str!("hostile.sql")].concat();
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&safe).await.unwrap();
        let path = format!("ALTER DATABASE {} SET search_path = public, pg_catalog", database.name);
        sqlx::raw_sql(AssertSqlSafe(path)).execute(&safe).await.unwrap();
        Self { database, safe }
    }

    fn storage(&self) -> Postgres {
        Postgres::new(self.database.pool.clone()).schema("cap").connections(2)
    }

    async fn traps_run(&self) -> i64 {
        let ran = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM public.ran";
        sqlx::query_scalar(ran).fetch_one(&self.safe).await.unwrap()
    }

    /// Reads every column of both views as the superuser that the tests are.
    async fn read_views(&self) -> Vec<String> {
        let mut read = Vec::new();
        for view in ["published", "received"] {
            let view = format!("SELECT \"Content\" FROM cap.{view} ORDER BY \"Id\"");
            let mut connection = self.database.pool.acquire().await.unwrap();
            let all = view.replace("\"Content\"", "*");
            sqlx::raw_sql(AssertSqlSafe(all)).execute(&mut *connection).await.unwrap();
            let contents: Vec<String> =
                sqlx::query_scalar(AssertSqlSafe(view.clone())).fetch_all(&mut *connection).await.unwrap();
            read.extend(contents);
        }
        read
    }
}

/// The schema as versions before had made it.
fn first_version() -> String {
    let script = include_str!("../../src/schema/schema.sql").replace("{schema}", "cap");
    format!("CREATE SCHEMA cap;\n{script}\n")
}

/// A message that takes every way through the functions of the views: letters to be escaped, a header that is replaced,
/// a body that is not JSON.
fn rich(id: i64) -> Arc<Message> {
    let headers: Headers = [
        ("cap-msg-id", id.to_string().as_str()),
        ("cap-msg-name", "order.created"),
        ("cap-msg-type", "Größe<&>\u{1f600}"),
        ("cap-exception", "an older one"),
    ]
    .into_iter()
    .collect();
    Arc::new(Message::new(headers, &b"no JSON"[..]))
}

async fn fill(storage: &Postgres) {
    let batch = WriteBatch {
        outgoing: vec![NewOutgoing { message: rich(1), ..held(1) }, held(2)],
        incoming: vec![NewIncoming { message: rich(1), ..held_incoming(1) }],
        ..WriteBatch::default()
    };
    storage.write(&owner("a"), &batch).await.unwrap();
    let outcome = || RowOutcome::Retry { after: Duration::ZERO, hold: false, error: "broken: <é>".into() };
    let completed = || {
        vec![RowCompletion { lease: Lease { id: 1, epoch: 1 }, outcome: outcome(), publishes: Vec::new() }]
    };
    let batch = WriteBatch {
        completed_outgoing: completed(),
        completed_incoming: completed(),
        ..WriteBatch::default()
    };
    storage.write(&owner("a"), &batch).await.unwrap();
}

#[tokio::test]
async fn views_of_a_schema_from_before_run_nothing_of_others() {
    let hostile = Hostile::new(&first_version()).await;
    let storage = hostile.storage();
    storage.initialize().await.unwrap();
    fill(&storage).await;
    let contents = hostile.read_views().await;
    assert_eq!(contents.len(), 3);
    assert!(contents[0].contains(r"Gr\u00F6\u00DFe\u003C\u0026\u003E\uD83D\uDE00"), "{contents:?}");
    assert!(contents[0].contains(r"broken: \u003C\u00E9\u003E"), "{contents:?}");
    assert_eq!(hostile.traps_run().await, 0);
}

#[tokio::test]
async fn a_view_that_was_made_among_traps_lets_go_of_them() {
    let hostile = Hostile::new("").await;
    // Made by a version before under PostgreSQL's usual path, on which a trap that fits better comes first.
    let usual = hostile.database.pool_with_path("pg_catalog, public");
    sqlx::raw_sql(AssertSqlSafe(first_version())).execute(&usual).await.unwrap();
    let storage = hostile.storage();
    storage.initialize().await.unwrap();
    fill(&storage).await;
    hostile.read_views().await;
    assert_eq!(hostile.traps_run().await, 0);
}

#[tokio::test]
async fn the_printed_sql_binds_to_nothing_of_others() {
    let hostile = Hostile::new("").await;
    let mut connection = hostile.database.pool.acquire().await.unwrap();
    let sql = Postgres::schema_sql("cap");
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *connection).await.unwrap();
    let path: String = sqlx::query_scalar("SHOW search_path").fetch_one(&mut *connection).await.unwrap();
    assert_eq!(path, "public, pg_catalog", "the session has its own path again");
    drop(connection);
    let storage = hostile.storage();
    storage.initialize().await.unwrap();
    fill(&storage).await;
    hostile.read_views().await;
    assert_eq!(hostile.traps_run().await, 0);
}

/// Every function of ours has a path of its own, those of later versions too.
#[tokio::test]
async fn every_function_has_a_fixed_path() {
    let database = crate::support::Database::new().await;
    let without =
        "SELECT coalesce(string_agg(proname, ' '), '') FROM pg_proc WHERE pronamespace = '{s}'::regnamespace
        AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY(proconfig), false)";
    assert_eq!(database.text(without).await, "");
}

fn completed(id: i64, epoch: i32, outcome: RowOutcome) -> RowCompletion {
    RowCompletion { lease: Lease { id, epoch }, outcome, publishes: vec![outgoing(id + 1000)] }
}

/// Every statement of the storage, on the bus's own connections.
#[tokio::test]
async fn no_statement_of_ours_runs_anything_of_others() {
    let hostile = Hostile::new("").await;
    let storage = hostile.storage();
    storage.initialize().await.unwrap();
    let request = NodeRequest {
        node: "a".into(),
        worker: None,
        lease: Duration::from_secs(30),
        succeeded_expire_after: Duration::from_hours(24),
    };
    let worker = storage.join(&request).await.unwrap();
    storage.join(&NodeRequest { worker: Some(worker), ..request.clone() }).await.unwrap();
    assert!(storage.keep_alive(&request, worker).await.unwrap());
    storage.leave("a", worker).await.unwrap();

    let owner = owner("a");
    let parked = |id| NewIncoming {
        entry: Entry::Parked {
            reason: Reason::Undecodable,
            error: "no JSON".into(),
            keep: Duration::ZERO,
            notify: true,
        },
        ..incoming(id)
    };
    let batch = WriteBatch {
        outgoing: (1..8).map(held).chain([outgoing(20), delayed(21), delayed(22)]).collect(),
        incoming: (1..8).map(held_incoming).chain([incoming(20), parked(21)]).collect(),
        ..WriteBatch::default()
    };
    storage.write(&owner, &batch).await.unwrap();
    // The same rows once more: those that are there already are looked up.
    storage.write(&owner, &batch).await.unwrap();
    let outcomes = || {
        let keep = Duration::from_secs(1);
        [
            RowOutcome::Succeeded { retention: Retention::Forget, reason: None },
            RowOutcome::Succeeded { retention: Retention::Delete, reason: None },
            RowOutcome::Succeeded { retention: Retention::Keep(keep), reason: None },
            RowOutcome::Retry { after: Duration::ZERO, hold: false, error: "e".into() },
            RowOutcome::RetryAtBroker { after: Duration::ZERO, spare: keep, error: "e".into() },
            RowOutcome::Failed {
                reason: Reason::Exhausted,
                error: "e".into(),
                counted: true,
                keep,
                notify: false,
            },
            RowOutcome::Release { after: Duration::ZERO },
        ]
    };
    let all = || (1..).zip(outcomes()).map(|(id, outcome)| completed(id, 1, outcome)).collect::<Vec<_>>();
    let plain = || all().into_iter().map(|one| RowCompletion { publishes: Vec::new(), ..one }).collect();
    let batch =
        WriteBatch { completed_outgoing: plain(), completed_incoming: all(), ..WriteBatch::default() };
    let report = storage.write(&owner, &batch).await.unwrap();
    assert_eq!((report.completed_outgoing, report.completed_incoming), (vec![true; 7], vec![true; 7]));
    assert!(storage.claim_waiting(&owner, &[Lease { id: 5, epoch: 1 }]).await.unwrap()[0].is_some());
    for side in [Side::Outbox, Side::Inbox] {
        let request = ClaimRequest::new(side, vec![GROUP.into()], 100);
        let claimed = storage.claim(&owner, &request).await.unwrap().rows;
        let leases: Vec<Lease> = claimed.iter().map(|row| row.lease).collect();
        assert!(leases.len() > 2, "{side:?}: {leases:?}");
        assert!(storage.renew(&owner, side, &leases).await.unwrap().into_iter().all(|renewed| renewed));
        for status in [None, Some(cap_core::storage::Status::Failed)] {
            let query = Query { status, ..Query::new(side) };
            assert!(!storage.list(&query).await.unwrap().is_empty());
            assert!(!storage.list_ids(&query).await.unwrap().is_empty());
        }
        assert!(storage.get(side, 6).await.unwrap().is_some());
        assert_eq!(storage.find(side, "6").await.unwrap().len(), 1);
        assert_eq!(storage.attempts(side, 6).await.unwrap().len(), 1);
        let change = Change { audit: Some("who".into()), body: Some("{}".into()) };
        assert_eq!(storage.rerun(side, &[6], Among::Failed, &change).await.unwrap(), [6]);
        storage.delete(side, &[6], Among::All).await.unwrap();
        assert_eq!(storage.find(side, "6").await.unwrap().len(), 0);
    }
    assert_eq!(storage.cancel(&[21], Duration::ZERO).await.unwrap(), [21]);
    assert!(!storage.counts().await.unwrap().is_empty());
    let expiry = Expiry { succeeded: Duration::ZERO, limit: 100 };
    let (outbox, inbox) = storage.delete_expired(&expiry).await.unwrap();
    assert!(outbox > 0 && inbox > 0, "{outbox} {inbox}");
    let wake = Wake::default();
    let cancelled = CancellationToken::new();
    let listening = storage.listen(wake.clone(), cancelled.clone());
    let heard = async {
        wake.woken(Side::Inbox).await;
        cancelled.cancel();
    };
    tokio::join!(listening, heard);
    assert_eq!(hostile.traps_run().await, 0);
}

async fn pay(number: i64, mut tx: PgTx) -> Result<Reply<i64>, sqlx::Error> {
    sqlx::query("INSERT INTO app.ledger VALUES ($1)").bind(number).execute(&mut *tx).await?;
    Ok(Reply(number))
}

/// What runs on the application's connections leaves their path alone, and finds PostgreSQL's own all the same.
#[tokio::test]
async fn nothing_of_others_runs_in_the_applications_transactions() {
    let hostile = Hostile::new("CREATE SCHEMA app; CREATE TABLE app.ledger (number int8 NOT NULL);").await;
    let (tell, mut told) = unbounded_channel();
    let hear = move |number: i64| {
        let _ = tell.send(number);
        async {}
    };
    let cap = Cap::builder()
        .handlers(Handlers::none())
        .storage(hostile.storage())
        .transport(MemoryTransport::new())
        .configure(|options| options.default_group = "test".into())
        .subscribe("pay", pay)
        .subscribe("paid", hear)
        .start()
        .await
        .unwrap();
    let pool = &hostile.database.pool;
    let mut expected = Vec::new();
    for number in 0..2 {
        let mut tx = cap_postgres::begin(&cap, pool).await.unwrap();
        let message = || cap.publish("pay", &number).callback("paid");
        message().within(&mut tx).await.unwrap();
        cap.publish("paid", &(number + 100))
            .message_id(format!("own-{number}"))
            .within(&mut tx)
            .await
            .unwrap();
        let path: String = sqlx::query_scalar("SHOW search_path").fetch_one(&mut *tx).await.unwrap();
        assert_eq!(path, "public, pg_catalog");
        // After a statement that the bus does not know, the commit counts what is stored.
        tx.commit().await.unwrap();
        expected.extend([number, number + 100]);
    }
    let mut plain = pool.begin().await.unwrap();
    cap.publish("paid", &200).within(&mut plain).await.unwrap();
    plain.commit().await.unwrap();
    expected.push(200);
    let mut heard = Vec::new();
    while heard.len() < expected.len() {
        let next = tokio::time::timeout(Duration::from_secs(20), told.recv()).await;
        heard.push(next.expect("a message of the hostile database arrives").unwrap());
    }
    heard.sort_unstable();
    expected.sort_unstable();
    assert_eq!(heard, expected);
    cap.shutdown().await.unwrap();
    assert_eq!(hostile.traps_run().await, 0);
}
