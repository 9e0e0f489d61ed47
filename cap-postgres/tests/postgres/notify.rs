//! Who is woken, and by what.

use std::time::Duration;

use cap_core::monitor::{Among, Change, Monitor as _};
use cap_core::storage::{Retention, RowOutcome, Side, Storage as _, Wake, WriteBatch};
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgListener, PgSslMode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::{Database, delayed, first_lease, held, held_incoming, incoming, outgoing, url};

/// What is announced while something is done: a mark of our own shows where it ends.
async fn heard(database: &Database, listener: &mut PgListener, channel: &str) -> String {
    sqlx::query("SELECT pg_notify($1, 'end')").bind(channel).execute(&database.pool).await.unwrap();
    let mut words = Vec::new();
    loop {
        let word = listener.recv().await.unwrap().payload().to_owned();
        if word == "end" {
            return words.join(" ");
        }
        words.push(word);
    }
}

#[tokio::test]
async fn only_what_others_may_take_is_announced() {
    let database = Database::new().await;
    let channel = database.storage.notification_channel().to_owned();
    let mut listener = PgListener::connect_with(&database.pool).await.unwrap();
    listener.listen(&channel).await.unwrap();

    database.publish(vec![held(1), held(2)]).await;
    database.receive(vec![held_incoming(1), held_incoming(2), held_incoming(3)]).await;
    let done = RowOutcome::Succeeded { retention: Retention::Forget, reason: None };
    assert!(database.complete(Side::Inbox, first_lease(1), done).await);
    assert_eq!(heard(&database, &mut listener, &channel).await, "", "the usual way is silent");

    database.publish(vec![outgoing(3)]).await;
    assert_eq!(heard(&database, &mut listener, &channel).await, "outbox");
    database.publish(vec![delayed(4)]).await;
    assert_eq!(heard(&database, &mut listener, &channel).await, "outbox");
    database
        .write(WriteBatch { incoming: vec![incoming(4)], outgoing: vec![held(5)], ..WriteBatch::default() })
        .await;
    assert_eq!(heard(&database, &mut listener, &channel).await, "inbox");
    let retry = |hold| RowOutcome::Retry { after: Duration::from_secs(60), hold, error: "x".to_owned() };
    assert!(database.complete(Side::Inbox, first_lease(2), retry(true)).await);
    assert_eq!(heard(&database, &mut listener, &channel).await, "");
    assert!(database.complete(Side::Inbox, first_lease(2), retry(false)).await);
    assert_eq!(heard(&database, &mut listener, &channel).await, "inbox");
    let minute = Duration::from_secs(60);
    let kept = RowOutcome::RetryAtBroker { after: minute, spare: minute, error: "x".to_owned() };
    assert!(database.complete(Side::Inbox, first_lease(3), kept).await);
    assert_eq!(heard(&database, &mut listener, &channel).await, "", "the broker will say when it is due");
    let release = RowOutcome::Release { after: Duration::ZERO };
    assert!(database.complete(Side::Outbox, first_lease(1), release).await);
    assert_eq!(heard(&database, &mut listener, &channel).await, "outbox");
    database.storage.rerun(Side::Inbox, &[1], Among::All, &Change::default()).await.unwrap();
    assert_eq!(heard(&database, &mut listener, &channel).await, "inbox");
}

struct Listening {
    wake: Wake,
    cancelled: CancellationToken,
    task: JoinHandle<()>,
}

impl Listening {
    fn start(database: &Database) -> Self {
        let (wake, cancelled) = (Wake::default(), CancellationToken::new());
        let (storage, his_wake, his_cancelled) = (database.storage.clone(), wake.clone(), cancelled.clone());
        let task = tokio::spawn(async move { storage.listen(his_wake, his_cancelled).await });
        Self { wake, cancelled, task }
    }

    async fn both_woken(&self) {
        for side in [Side::Outbox, Side::Inbox] {
            self.woken(side).await;
        }
    }

    async fn woken(&self, side: Side) {
        tokio::time::timeout(Duration::from_secs(20), self.wake.woken(side)).await.unwrap();
    }

    async fn stop(self) {
        self.cancelled.cancel();
        tokio::time::timeout(Duration::from_secs(10), self.task).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_listener_wakes_for_others_and_after_each_loss() {
    let database = Database::new().await;
    let listening = Listening::start(&database);
    listening.both_woken().await;
    database.publish(vec![outgoing(1)]).await;
    listening.woken(Side::Outbox).await;
    database.receive(vec![incoming(1)]).await;
    listening.woken(Side::Inbox).await;
    let kill = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE 'LISTEN \"{}\"'",
        database.storage.notification_channel()
    );
    assert_eq!(database.count(&kill).await, 1);
    listening.both_woken().await;
    database.publish(vec![outgoing(2)]).await;
    listening.woken(Side::Outbox).await;
    listening.stop().await;
}

#[tokio::test]
async fn a_listener_without_a_server_can_still_be_stopped() {
    let storage = cap_postgres::Postgres::connect_lazy("postgres://postgres@127.0.0.1:1/none").unwrap();
    let cancelled = CancellationToken::new();
    let task = tokio::spawn({
        let cancelled = cancelled.clone();
        async move { storage.listen(Wake::default(), cancelled).await }
    });
    tokio::task::yield_now().await;
    cancelled.cancel();
    tokio::time::timeout(Duration::from_secs(2), task).await.unwrap().unwrap();
}

/// A network to the server on which the first to listen never gets an answer, nor an end.
async fn network_that_loses_one() -> PgConnectOptions {
    let options: PgConnectOptions = url().parse().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let through = options.clone().host("127.0.0.1").port(listener.local_addr().unwrap().port());
    // In clear words, which can be understood on the way.
    let through = through.ssl_mode(PgSslMode::Disable);
    let server = (options.get_host().to_owned(), options.get_port());
    tokio::spawn(async move {
        let mut lost = Vec::new();
        while let Ok((mut client, _)) = listener.accept().await {
            let mut server = TcpStream::connect(&server).await.unwrap();
            if !lost.is_empty() {
                tokio::spawn(async move { copy_bidirectional(&mut client, &mut server).await });
                continue;
            }
            let mut words = [0; 4096];
            loop {
                tokio::select! {
                    Ok(()) = server.readable() => {
                        let Ok(count) = server.try_read(&mut words) else { continue };
                        client.write_all(&words[..count]).await.unwrap();
                    }
                    count = client.read(&mut words) => {
                        let said = &words[..count.unwrap()];
                        if said.windows(6).any(|word| word == b"LISTEN") {
                            break;
                        }
                        server.write_all(said).await.unwrap();
                    }
                }
            }
            lost.push((client, server));
        }
    });
    through
}

#[tokio::test]
async fn listener_without_a_reply_reconnects() {
    let pool = PgPool::connect_lazy_with(network_that_loses_one().await);
    let listening = Listening::start(&Database::on(pool));
    listening.both_woken().await;
    listening.stop().await;
}
