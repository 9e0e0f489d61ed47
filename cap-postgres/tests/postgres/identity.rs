//! Two messages under one id, next to nodes that know nothing of it. Issue 9, row 1.

use std::sync::Arc;

use cap_core::message::Message;
use cap_core::storage::{Digest, Identity, NewIncoming, Storage as _, Stored};

use crate::support::{Database, incoming};

/// As a node of 1.0 inserts a message, column by column.
const OLD_INSERT: &str = "
INSERT INTO {s}.inbox (id, version, name, group_name, message_id, headers, body, added)
VALUES (1, 'v1', 'order.created', 'billing.v1', 'm',
    '{\"cap-msg-id\":\"m\",\"cap-msg-name\":\"order.created\"}', '1', statement_timestamp())
ON CONFLICT (message_id, group_name) DO NOTHING";

fn says(id: i64, body: &str) -> NewIncoming {
    let headers = [("cap-msg-id", "m"), ("cap-msg-name", "order.created")].into_iter().collect();
    NewIncoming {
        message: Arc::new(Message::new(headers, body.to_owned())),
        identity: Identity::new(Digest::of("order.created", body.as_bytes(), None)),
        ..incoming(id)
    }
}

#[tokio::test]
async fn older_schema_gets_the_digest_column() {
    let database = Database::empty();
    let first = include_str!("../../src/schema/schema.sql").replace("{schema}", "{s}");
    database.execute(&format!("CREATE SCHEMA {{s}}; {first}")).await;
    database.execute(OLD_INSERT).await;
    database.storage.initialize().await.unwrap();
    for body in ["1", "2"] {
        assert_eq!(database.receive(vec![says(2, body)]).await.incoming, [Stored::Duplicate]);
    }
}

#[tokio::test]
async fn a_node_of_before_works_on_the_same_schema() {
    let database = Database::new().await;
    database.execute(OLD_INSERT).await;
    assert_eq!(database.receive(vec![says(2, "2")]).await.incoming, [Stored::Duplicate]);
    database.execute("DELETE FROM {s}.inbox").await;
    assert_eq!(database.receive(vec![says(3, "3")]).await.incoming, [Stored::New]);
    database.execute(OLD_INSERT).await;
    assert_eq!(database.count("SELECT count(*) FROM {s}.inbox").await, 1, "known there as well");
    assert_eq!(database.receive(vec![says(4, "3")]).await.incoming, [Stored::Duplicate]);
    assert_eq!(database.receive(vec![says(5, "4")]).await.incoming, [Stored::Conflict]);
    let kept = "SELECT encode(digest, 'hex') FROM {s}.inbox WHERE id = 3";
    let digest = format!("Digest({})", database.text(kept).await);
    assert_eq!(digest, format!("{:?}", Digest::of("order.created", b"3", None)));
}
