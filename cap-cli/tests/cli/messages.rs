//! Stored messages: found, shown, run again, edited, deleted, cancelled.

use cap_core::prelude::*;
use cap_sqlite::Sqlite;
use serde_json::Value;

use crate::support::Folder;

/// Parks messages of the topic `order.placed`, one for each payload, with a node that then ends.
async fn park(folder: &Folder, payloads: &[Value]) {
    let (done, mut failed) = tokio::sync::mpsc::channel(16);
    let cap = Cap::builder()
        .storage(Sqlite::open(folder.database()))
        .transport(MemoryTransport::new())
        .handlers(Handlers::none())
        .subscribe(Subscribe::to("order.placed").group("stock"), async |order: Value| {
            Err::<(), _>(HandlerError::permanent(format!("no shelf for order {}", order["order"])))
        })
        .on_failed(move |failure| {
            let done = done.clone();
            async move {
                let _ = done.send(failure.side).await;
            }
        })
        .start()
        .await
        .unwrap();
    for payload in payloads {
        cap.publish("order.placed", payload).await.unwrap();
    }
    for _ in payloads {
        failed.recv().await.unwrap();
    }
    cap.shutdown().await.unwrap();
}

#[tokio::test]
async fn parked_ones_are_found_grouped_and_run_again() {
    let folder = Folder::with_tables();
    park(&folder, &[serde_json::json!({ "order": 71 }), serde_json::json!({ "order": 72 })]).await;
    let failures = folder.json(&["failures"]);
    assert_eq!(failures["failures"].as_array().unwrap().len(), 1, "{failures}");
    assert_eq!(failures["failures"][0]["count"], 2);
    assert_eq!(failures["failures"][0]["error"], "no shelf for order #");
    let list = folder.json(&["messages", "list", "--status", "parked", "--limit", "1"]);
    let (id, next) = (list["messages"][0]["id"].as_str().unwrap(), list["next_before"].as_str().unwrap());
    assert_eq!(list["messages"][0]["reason"], "permanent");
    let second = folder.json(&["messages", "list", "--status", "parked", "--before", next]);
    assert_eq!(second["messages"].as_array().unwrap().len(), 1);
    let shown = folder.json(&["messages", "show", id]);
    assert_eq!(shown["messages"][0]["payload"], r#"{"order":72}"#);
    assert_eq!(shown["messages"][0]["failed_attempts"][0]["number"], 1);
    folder.on_file(&["health", "--max-failed", "1"]).failed(4, "2 messages, more than 1");
    assert_eq!(folder.on_file(&["health", "--max-failed", "2"]).code, 0);
    let metrics = folder.on_file(&["metrics"]).out;
    assert!(metrics.contains("cap_parked_messages{side=\"inbox\",group=\"stock.v1\"} 2\n"), "{metrics}");
    assert_eq!(folder.json(&["metrics"])["metrics"][0]["labels"]["side"], "outbox");
    let all = ["messages", "rerun", "--all", "--status", "parked"];
    assert_eq!(folder.json(&[&all[..], &["--dry-run"]].concat())["matched"], 2);
    assert_eq!(folder.json(&all)["done"], 2);
    assert_eq!(folder.json(&all)["matched"], 0, "they are parked no more");
    let audit = folder.json(&["messages", "show", id]);
    let audit = audit["messages"][0]["headers"]["cap-audit"].as_str().unwrap();
    assert!(audit.contains("alice (cap) re-ran it"), "{audit}");
}

#[tokio::test]
async fn story_has_everything_of_a_correlation_id() {
    let folder = Folder::with_tables();
    park(&folder, &[serde_json::json!({ "order": 1 })]).await;
    let list = folder.json(&["messages", "list", "--published"]);
    let id = list["messages"][0]["message_id"].as_str().unwrap();
    let story = folder.json(&["story", id]);
    let whats: Vec<&str> =
        story["events"].as_array().unwrap().iter().map(|event| event["what"].as_str().unwrap()).collect();
    assert_eq!(whats.len(), 3, "{story}");
    assert!(["published", "received", "attempt failed"].iter().all(|what| whats.contains(what)), "{whats:?}");
    folder.on_file(&["story", "unknown"]).failed(3, "no message of the correlation id");
}

#[tokio::test]
async fn payload_is_edited_as_text() {
    let folder = Folder::with_tables();
    park(&folder, &[serde_json::json!({ "order": 1 })]).await;
    let list = folder.json(&["messages", "list"]);
    let id = list["messages"][0]["id"].as_str().unwrap().to_owned();
    let exact = r#"{"order":9007199254740993,"price":1234567890123456789.0123456789}"#;
    folder.on_file(&["messages", "edit", &id]).failed(2, "no payload");
    folder.on_file(&["messages", "edit", &id, "--payload", "{"]).failed(2, "the payload is not JSON");
    folder
        .on_file(&["messages", "edit", "7", "--payload", "1"])
        .failed(3, "no received message with the row id 7");
    assert_eq!(folder.on_file(&["messages", "edit", &id, "--payload", exact]).code, 0);
    assert_eq!(folder.json(&["messages", "show", &id])["messages"][0]["payload"], exact);
    folder.on_file(&["messages", "show", "x"]).failed(2, "not a row id");
    folder
        .on_file(&["messages", "show", "x", "--message-id"])
        .failed(3, "no received message with the message id x");
}

#[test]
fn delayed_ones_are_cancelled_and_deleted() {
    let folder = Folder::with_tables();
    let publish = ["publish", "later", "--payload", "1", "--delay", "1h"];
    assert_eq!(folder.json(&publish)["state"], "delayed");
    assert_eq!(folder.json(&publish)["state"], "delayed");
    let list = folder.json(&["messages", "list", "--published", "--status", "delayed"]);
    let id = list["messages"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(folder.json(&["messages", "cancel", &id])["done"], 1);
    folder.on_file(&["messages", "cancel", &id]).failed(3, "1 of 1 messages were not cancelled");
    assert_eq!(folder.json(&["messages", "cancel", "--all"])["done"], 1);
    folder.on_file(&["messages", "delete", "--all", "--published"]).failed(2, "--all without a filter");
    folder.on_file(&["messages", "delete"]).failed(2, "required");
    assert_eq!(folder.json(&["messages", "delete", "--published", &id])["done"], 1);
    let all = ["messages", "delete", "--all", "--published", "--status", "cancelled"];
    assert_eq!(folder.json(&all)["done"], 1);
}
