//! `cap publish`: stored in the outbox, sent by a node.

use std::process::Stdio;

use cap_core::prelude::*;
use cap_sqlite::Sqlite;
use serde_json::Value;

use crate::support::{Folder, ended};

#[tokio::test]
async fn a_node_sends_what_is_published() {
    let folder = Folder::with_tables();
    let (handled, mut orders) = tokio::sync::mpsc::channel(1);
    let cap = Cap::builder()
        .storage(Sqlite::open(folder.database()))
        .transport(MemoryTransport::new())
        .handlers(Handlers::none())
        .subscribe(Subscribe::to("order.placed").group("stock"), move |order: Value, headers: CapHeaders| {
            let (handled, tenant) = (handled.clone(), headers.get("tenant").map(str::to_owned));
            async move { handled.send((order, tenant)).await.map_err(HandlerError::failed) }
        })
        .start()
        .await
        .unwrap();
    let arguments = ["publish", "order.placed", "--payload", r#"{"order":7}"#, "-H", "tenant=acme", "--json"];
    let mut command = folder.command(&arguments);
    let command = command.env("CAP_STORAGE", "sqlite:shop.db").stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let done = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap();
    assert_eq!(ended(&done).json()["state"], "sent");
    assert_eq!(orders.recv().await.unwrap(), (serde_json::json!({ "order": 7 }), Some("acme".to_owned())));
    cap.shutdown().await.unwrap();
}

#[test]
fn without_a_node_the_deadline_passes() {
    let folder = Folder::with_tables();
    let publish = |more: &[&str]| folder.on_file(&[&["publish", "a", "--payload", "1"], more].concat());
    publish(&["--wait", "300ms", "--message-id", "m1"]).failed(6, "no node has sent it within 300ms");
    publish(&["--wait", "0s", "--message-id", "m1"]).failed(1, "was published before");
    publish(&["-H", "cap-msg-name=x"]).failed(2, "cannot be set");
    publish(&["-H", "x"]).failed(2, "NAME=VALUE");
    folder.on_file(&["publish", "a.*", "--payload", "1"]).failed(2, "wildcard");
    folder.on_file(&["publish", "a"]).failed(2, "no payload");
    folder
        .on_file(&["publish", "a", "--payload-file", "missing.json"])
        .failed(2, "missing.json cannot be read");
    let list = folder.json(&["messages", "list", "--published"]);
    assert_eq!(list["messages"].as_array().unwrap().len(), 1, "what failed stored nothing");
}
