//! Every storage with every broker, shut down in order and killed: nothing that was stored is lost. Issue 8, rows A, B and
//! 15.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use cap_core::Cap;
use cap_core::prelude::*;
use cap_core::storage::{Side, Status};
use cap_tests::{Broker, GROUPS, Pair, Place, Scene, Store, scene, until};

/// The test that is the life of a process to be killed.
const LIFE: &str = "pairs::a_life_to_be_killed";

/// Plays a story in a scene, with a folder that is gone afterwards.
async fn in_place(story: impl AsyncFnOnce(&Scene, &Place)) {
    scene(async |scene| {
        let folder = std::env::temp_dir().join(scene.name());
        std::fs::create_dir(&folder).unwrap();
        let place =
            Place { name: scene.name().to_owned(), folder: folder.clone(), memory: MemoryStorage::new() };
        let folder = Folder(folder);
        story(scene, &place).await;
        drop(folder);
    })
    .await;
}

struct Folder(std::path::PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left is in the folder for temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Waits until every group has handled what was published, and gives back how often.
async fn all_handled(place: &Place) -> HashMap<(String, u64), usize> {
    until("every group handling every message", async || {
        let (handled, published) = place.read_notes();
        let has = |group: &str, n| handled.contains_key(&(group.to_owned(), n));
        published.iter().all(|n| GROUPS.iter().all(|group| has(group, *n))).then_some(handled)
    })
    .await
}

/// Nothing waits any more, and nothing has failed.
async fn all_succeeded(cap: &Cap) {
    for side in [Side::Outbox, Side::Inbox] {
        until("every row succeeding", async || {
            let rows = cap.messages().side(side).limit(10_000).list().await.unwrap();
            assert!(rows.iter().all(|row| row.attempts == 0), "nothing has failed");
            rows.iter().all(|row| row.status == Status::Succeeded).then_some(())
        })
        .await;
    }
}

/// What counts as sent over a broker in memory is in the inbox of every group.
async fn sent_is_stored(cap: &Cap) {
    let list = async |side| cap.messages().side(side).limit(10_000).list().await.unwrap();
    let mut groups: HashMap<String, usize> = HashMap::new();
    for stored in list(Side::Inbox).await {
        *groups.entry(stored.message.id().unwrap().to_owned()).or_default() += 1;
    }
    for row in list(Side::Outbox).await.iter().filter(|row| row.status == Status::Succeeded) {
        let wanted = if row.message.name() == Some("work") { 2 } else { 1 };
        assert_eq!(groups.get(row.message.id().unwrap()), Some(&wanted), "{row:?}");
    }
}

/// Shuts down with hundreds of messages under way, several times, and handles each once.
async fn shut_down_in_order(pair: Pair) {
    in_place(async |scene, place| {
        for round in 0..3 {
            let cap = place.builder(pair).start().await.unwrap();
            scene.note(&cap).await;
            let numbers = round * 300..(round + 1) * 300;
            cap.publish_all("work", numbers.clone()).await.unwrap();
            place.notes().published(numbers);
            cap.shutdown().await.unwrap();
            if pair.1 == Broker::Memory {
                sent_is_stored(&cap).await;
            }
        }
        let cap = place.builder(pair).start().await.unwrap();
        let handled = all_handled(place).await;
        assert_eq!(handled.len(), 3 * 900);
        assert!(handled.values().all(|times| *times == 1), "{handled:?}");
        all_succeeded(&cap).await;
        cap.shutdown().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_order_memory_and_memory() {
    shut_down_in_order(Pair(Store::Memory, Broker::Memory)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_order_memory_and_rabbitmq() {
    shut_down_in_order(Pair(Store::Memory, Broker::RabbitMq)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_order_sqlite_and_memory() {
    shut_down_in_order(Pair(Store::Sqlite, Broker::Memory)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_order_sqlite_and_rabbitmq() {
    shut_down_in_order(Pair(Store::Sqlite, Broker::RabbitMq)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_order_postgres_and_memory() {
    shut_down_in_order(Pair(Store::Postgres, Broker::Memory)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_order_postgres_and_rabbitmq() {
    shut_down_in_order(Pair(Store::Postgres, Broker::RabbitMq)).await;
}

/// Kills a service four times while it publishes and handles; its fifth life handles what the others have stored.
async fn killed(pair: Pair) {
    in_place(async |scene, place| {
        let queues = place.builder(pair).start().await.unwrap();
        scene.note(&queues).await;
        queues.shutdown().await.unwrap();
        for life in 1..=4 {
            let place = place.clone();
            tokio::task::spawn_blocking(move || live_and_die(pair, &place, life)).await.unwrap();
        }
        let cap = place.builder(pair).start().await.unwrap();
        cap.publish_all("work", 0..10).await.unwrap();
        place.notes().published(0..10);
        all_handled(place).await;
        all_succeeded(&cap).await;
        cap.shutdown().await.unwrap();
        let (_, published) = place.read_notes();
        assert!(published.len() > 10 + 4 * 20, "{} messages", published.len());
    })
    .await;
}

/// Starts the service as a process of its own, and kills it after a few batches.
fn live_and_die(pair: Pair, place: &Place, life: u64) {
    let mut process = Process(
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", LIFE])
            .env("CAP_PAIR", format!("{pair:?}"))
            .env("CAP_PAIR_NAME", &place.name)
            .env("CAP_PAIR_FOLDER", &place.folder)
            .env("CAP_PAIR_LIFE", life.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let told = BufReader::new(process.0.stdout.take().unwrap());
    let batches = fastrand::usize(2..20);
    let published = told.lines().map(Result::unwrap).filter(|line| line == "published").take(batches).count();
    process.0.kill().unwrap();
    assert_eq!(published, batches, "life {life} of {pair:?} ended before it was killed");
}

/// A process that does not outlive the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended; either way it is waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// By itself it does nothing; [`live_and_die`] starts it in a process of its own.
#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::print_stdout, reason = "it is what the parent waits for")]
async fn a_life_to_be_killed() {
    let variable = |name: &str| std::env::var(format!("CAP_PAIR{name}"));
    let Ok(pair) = variable("") else { return };
    let pair = Pair::named(&pair).unwrap();
    let (name, folder) = (variable("_NAME").unwrap(), variable("_FOLDER").unwrap().into());
    let life: u64 = variable("_LIFE").unwrap().parse().unwrap();
    let place = Place { name, folder, memory: MemoryStorage::new() };
    let cap = place.builder(pair).start().await.unwrap();
    let notes = place.notes();
    // More than the parent waits for; should it die, this ends by itself.
    for batch in 0..2000 {
        let first = life * 1_000_000 + batch * 10;
        cap.publish_all("work", first..first + 10).await.unwrap();
        notes.published(first..first + 10);
        println!("published");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_sqlite_and_memory() {
    killed(Pair(Store::Sqlite, Broker::Memory)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_sqlite_and_rabbitmq() {
    killed(Pair(Store::Sqlite, Broker::RabbitMq)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_postgres_and_memory() {
    killed(Pair(Store::Postgres, Broker::Memory)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_postgres_and_rabbitmq() {
    killed(Pair(Store::Postgres, Broker::RabbitMq)).await;
}
