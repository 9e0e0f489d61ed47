//! `cap tail` and `cap topology` on a real RabbitMQ, each with an exchange of its own.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use cap_core::prelude::*;
use cap_rabbitmq::RabbitMq;
use serde_json::Value;

use crate::support::{Folder, amqp_url, ended};

#[tokio::test]
async fn tail_copies_messages_and_topology_compares() {
    let (folder, exchange) = (Folder::new(), format!("cli.{:08x}", fastrand::u32(..)));
    let run = |arguments: &[&str]| {
        let mut command = folder.command(arguments);
        ended(&command.env("CAP_BROKER", amqp_url()).env("CAP_EXCHANGE", &exchange).output().unwrap())
    };
    run(&["tail", "order.#", "-n", "1"]).failed(1, "does not exist in this vhost");
    run(&["topology"]).failed(4, "does not exist");
    let (handled, mut orders) = tokio::sync::mpsc::channel(1);
    let group = format!("{exchange}.stock");
    let cap = Cap::builder()
        .storage(MemoryStorage::new())
        .transport(RabbitMq::new(amqp_url()).exchange(&exchange))
        .handlers(Handlers::none())
        .subscribe(Subscribe::to("order.placed").group(&group), move |order: Value| {
            let handled = handled.clone();
            async move { handled.send(order).await.map_err(HandlerError::failed) }
        })
        .start()
        .await
        .unwrap();
    cap.publish("order.placed", &1).await.unwrap();
    assert_eq!(orders.recv().await.unwrap(), 1, "the queue of the group is declared");

    let mut command = folder.command(&["tail", "order.#", "-n", "1"]);
    command.env("CAP_BROKER", amqp_url()).env("CAP_EXCHANGE", &exchange);
    let mut tail = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut notes = BufReader::new(tail.stderr.take().unwrap());
    let mut note = String::new();
    notes.read_line(&mut note).unwrap();
    assert!(note.contains("following order.#"), "{note}");
    cap.publish("order.placed", &2).await.unwrap();
    let tail = tokio::task::spawn_blocking(move || tail.wait_with_output().unwrap()).await.unwrap();
    let shown = String::from_utf8(tail.stdout).unwrap();
    assert!(shown.contains(" order.placed ") && shown.trim_end().ends_with(" 2"), "{shown}");
    assert_eq!(orders.recv().await.unwrap(), 2, "the group got it, too");

    let queue = format!("{group}.v1");
    let topology = run(&["topology", "--group", &queue, "--json"]).json();
    assert_eq!(topology["exchange"]["state"], "as-expected");
    assert_eq!(topology["queues"][0]["state"], "as-expected");
    assert_eq!(topology["queues"][0]["consumers"], 1);
    run(&["topology", "--group", "nobody.v1"]).failed(4, "nobody.v1 does not exist");
    cap.shutdown().await.unwrap();
    remove(&exchange, &queue).await;
}

async fn remove(exchange: &str, queue: &str) {
    let connection =
        lapin::Connection::connect(&amqp_url(), lapin::ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.queue_delete(queue.into(), lapin::options::QueueDeleteOptions::default()).await.unwrap();
    channel.exchange_delete(exchange.into(), lapin::options::ExchangeDeleteOptions::default()).await.unwrap();
}

#[test]
fn a_login_that_is_refused_shows_no_password() {
    let folder = Folder::new();
    let url = amqp_url().replace("guest:guest@", "guest:wr0ng@");
    let ended = folder.run(&["topology", "--broker", &url]);
    ended.failed(1, "user \"guest\" and its password");
    assert!(!ended.err.contains("wr0ng"), "{ended:?}");
    folder.run(&["topology"]).failed(2, "no broker is named");
    folder.run(&["tail", "a..b", "--broker", &url]).failed(2, "a..b");
}
