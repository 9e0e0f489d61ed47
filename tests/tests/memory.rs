//! How much memory a process takes for large messages. Issue 9, rows 2 and 13.

use std::process::Stdio;

use cap_tests::{Scene, amqp_url, database_url, scene, soon};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

const MB: usize = 1_000_000;

struct Service {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Service {
    fn start(scene: &Scene, receive_bytes: usize) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_counting-service"))
            .env("COUNTING_SCENE", scene.name())
            .env("COUNTING_AMQP", amqp_url())
            .env("COUNTING_DATABASE", database_url())
            .env("COUNTING_BYTES", receive_bytes.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, lines }
    }

    /// The numbers of the next line.
    async fn numbers(&mut self) -> Vec<usize> {
        let line = tokio::time::timeout(std::time::Duration::from_secs(200), self.lines.next_line()).await;
        let line = line.expect("a line in time").unwrap().expect("the service lives");
        line.split(' ').filter_map(|word| word.parse().ok()).collect()
    }

    async fn end(mut self) {
        drop(self.process.stdin.take());
        soon(self.process.wait()).await.unwrap();
    }
}

/// Sends past the bus, one after the other.
async fn send(scene: &Scene, count: usize, size: usize) {
    let foreign = scene.foreign().await;
    let body = vec![b'x'; size];
    for number in 0..count {
        foreign.send_named("large", &format!("large-{number}"), &body).await;
    }
}

/// By how many bytes a process with `receive_bytes` grows at most while it handles so many messages of one size.
async fn growth(scene: &Scene, receive_bytes: usize, count: usize, size: usize) -> usize {
    scene.note_queues(["large"]);
    // It declares the queue, and tells what a process has without a message.
    let mut first = Service::start(scene, receive_bytes);
    let before = first.numbers().await[0];
    first.end().await;
    send(scene, count, size).await;
    let mut service = Service::start(scene, receive_bytes);
    let (mut handled, mut peak) = (0, 0);
    while handled < count {
        // The first line may say that it is ready.
        if let [body, memory] = service.numbers().await[..] {
            assert_eq!(body, size);
            (handled, peak) = (handled + 1, memory);
        }
    }
    service.end().await;
    (peak - before) * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_messages_take_three_times_receive_bytes_and_one() {
    scene(async |scene| {
        let grown = growth(scene, 16 * MB, 12, 8 * MB).await;
        println!("grew by {} MB", grown / MB);
        assert!(grown <= 3 * 16 * MB + 8 * MB, "the process grew by {} MB", grown / MB);
    })
    .await;
}

/// By hand, as the broker has to accept such messages: `CAP_LARGE=14x100 cargo test .. given_by_hand -- --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_size_given_by_hand() {
    let Ok(given) = std::env::var("CAP_LARGE") else { return };
    let (count, size) = given.split_once('x').unwrap();
    let (count, size): (usize, usize) = (count.parse().unwrap(), size.parse().unwrap());
    scene(async |scene| {
        let bytes = 128 * 1024 * 1024;
        let grown = growth(scene, bytes, count, size * MB).await;
        println!("{count} messages of {size} MB: the process grew by {} MB", grown / MB);
        assert!(grown <= 3 * bytes + size * MB, "the process grew by {} MB", grown / MB);
    })
    .await;
}
