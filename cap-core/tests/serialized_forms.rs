//! What services may pass on as JSON: ids, health, and the operator's numbers. And the payload that is marked as such.
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

mod support;

use std::time::{Duration, UNIX_EPOCH};

use cap_core::monitor::{Count, FailedAttempt, Lag, MessageState};
use cap_core::prelude::*;
use cap_core::storage::{Reason, Side, Status};
use cap_core::{CircuitState, Phase};
use serde_json::json;
use support::on;
use tokio::sync::mpsc;

#[derive(Serialize, Deserialize)]
struct Refund {
    #[serde(with = "cap_core::message_id::serde")]
    of_payment: MessageId,
}

/// A payload with an id as .NET writes it, as a number of 64 bits.
#[tokio::test]
async fn marked_payload_is_decoded_with_ids_from_numbers() {
    let (sender, mut seen) = mpsc::channel(1);
    let handler = move |Payload(refund): Payload<Refund>, id: MessageId| {
        let sender = sender.clone();
        async move { sender.send((refund.of_payment, id)).await.unwrap() }
    };
    let cap = on(&MemoryStorage::new(), &MemoryTransport::new())
        .subscribe("refund.wanted", handler)
        .start()
        .await
        .unwrap();
    let id =
        cap.publish("refund.wanted", &json!({ "of_payment": 7_301_444_403_200_897_024_i64 })).await.unwrap();
    let (of_payment, received) = seen.recv().await.unwrap();
    assert_eq!((of_payment.as_str(), received), ("7301444403200897024", id));
    cap.shutdown().await.unwrap();
}

#[tokio::test]
async fn health_is_serialized_with_text_for_times() {
    let cap = on(&MemoryStorage::new(), &MemoryTransport::new())
        .subscribe("order.placed", |_: u32| async {})
        .start()
        .await
        .unwrap();
    let health = cap.health().await;
    let json = serde_json::to_value(&health).unwrap();
    assert_eq!(json["phase"], "running");
    assert_eq!(json["storage"]["up"], true);
    assert_eq!(json["groups"][0]["topics"], json!(["order.placed"]));
    assert!(json["transport"]["since"].as_str().unwrap().ends_with('Z'), "{json}");
    cap.shutdown().await.unwrap();
}

#[test]
fn states_are_serialized_with_their_stable_names() {
    for reason in Reason::ALL {
        assert_eq!(json!(reason), reason.as_str());
    }
    for state in MessageState::ALL {
        assert_eq!(json!(state), state.as_str());
    }
    assert_eq!(json!([Side::Outbox, Side::Inbox]), json!(["outbox", "inbox"]));
    assert_eq!(json!([Status::Scheduled, Status::Failed]), json!(["scheduled", "failed"]));
    assert_eq!(json!([CircuitState::Probing]), json!(["probing"]));
    assert_eq!(json!(Phase::Stopping), "stopping");
}

#[test]
fn numbers_of_an_operator_are_serialized_by_field() {
    let count = Count::new(Side::Inbox, "stock.v1", Status::Retrying, 3);
    assert_eq!(
        json!(count),
        json!({ "side": "inbox", "group": "stock.v1", "status": "retrying", "count": 3 })
    );
    let lag = Lag::new(Side::Outbox, "", Duration::from_secs(90));
    assert_eq!(json!(lag), json!({ "side": "outbox", "group": "", "oldest": "1m 30s" }));
    let at = UNIX_EPOCH + Duration::from_secs(1);
    let attempt = FailedAttempt::new(1, at, "a", "refused", None);
    assert_eq!(
        json!(attempt),
        json!({ "number": 1, "at": "1970-01-01T00:00:01Z", "node": "a", "error": "refused", "next": null })
    );
}
