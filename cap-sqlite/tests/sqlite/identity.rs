//! Two messages under one id, next to processes that know nothing of it. Issue 9, row 1.

use std::sync::Arc;

use cap_core::message::Message;
use cap_core::storage::{Digest, Identity, NewIncoming, Storage as _, Stored};

use crate::support::{Database, incoming};

/// As a process of 1.0 inserts a message, column by column.
const OLD_INSERT: &str = r#"
INSERT INTO cap_inbox (id, version, name, message_id, added, headers, body, group_name)
VALUES (1, 'v1', 'order.created', 'm', 1, '{"cap-msg-id":"m","cap-msg-name":"order.created"}', x'31', 'billing.v1')
ON CONFLICT (message_id, group_name) DO NOTHING"#;

fn says(id: i64, body: &str) -> NewIncoming {
    let headers = [("cap-msg-id", "m"), ("cap-msg-name", "order.created")].into_iter().collect();
    NewIncoming {
        message: Arc::new(Message::new(headers, body.to_owned())),
        identity: Identity::new(Digest::of("order.created", body.as_bytes(), None)),
        ..incoming(id)
    }
}

#[tokio::test]
async fn older_tables_get_the_digest_column() {
    let database = Database::empty();
    database.execute(&include_str!("../../src/schema/schema.sql").replace("{prefix}", "cap_")).await;
    database.execute(OLD_INSERT).await;
    database.storage.initialize().await.unwrap();
    for body in ["1", "2"] {
        assert_eq!(database.receive(vec![says(2, body)]).await.incoming, [Stored::Duplicate]);
    }
}

#[tokio::test]
async fn a_process_of_before_works_on_the_same_tables() {
    let database = Database::new().await;
    assert_eq!(database.receive(vec![says(3, "3")]).await.incoming, [Stored::New]);
    database.execute(OLD_INSERT).await;
    assert_eq!(database.count("SELECT count(*) FROM cap_inbox").await, 1, "known there as well");
    assert_eq!(database.receive(vec![says(4, "3")]).await.incoming, [Stored::Duplicate]);
    assert_eq!(database.receive(vec![says(5, "4")]).await.incoming, [Stored::Conflict]);
}
