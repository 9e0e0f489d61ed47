//! A service in Python, with pika, as the peer: it writes the two headers that CAP's documentation asks of senders in
//! other languages, and hears the answers.

use cap_core::prelude::*;
use cap_tests::{Scene, heard, python, scene};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::orders::{DeductQty, QtyDeducted};

const SNOWFLAKE: &str = "4901861535869464577";
const GUID: &str = "3f2504e0-4f89-11d3-9a0c-0305e82c3301";

/// The stock service; tells the test what reached it.
async fn stock_service(scene: &Scene) -> (Cap, mpsc::Receiver<(DeductQty, String, usize)>) {
    let (tell, told) = mpsc::channel(8);
    let builder = scene.builder().subscribe(
        "place.order.qty.deducted",
        move |command: DeductQty, id: MessageId, headers: CapHeaders| {
            let tell = tell.clone();
            async move {
                let answer = QtyDeducted { order_id: command.order_id, is_success: command.qty > 0 };
                tell.send((command, id.to_string(), headers.all().len())).await?;
                Ok::<_, mpsc::error::SendError<_>>(Reply(answer))
            }
        },
    );
    (scene.start(builder).await, told)
}

fn request(scene: &Scene, headers: Value) -> Value {
    let mut headers = headers;
    headers["cap-msg-name"] = "place.order.qty.deducted".into();
    json!({
        "exchange": scene.name(),
        "listen": "place.order.mark.status",
        "publish": [{
            "topic": "place.order.qty.deducted",
            "headers": headers,
            "body": r#"{"OrderId": 1234, "Qty": 2, "Unknown": [1, 2]}"#,
        }],
    })
}

/// Just the two headers: the handler runs, and nothing is answered.
async fn two_headers_are_enough(id: &str) {
    scene(async |scene| {
        let (_cap, mut told) = stock_service(scene).await;
        python("peer.py", &request(scene, json!({ "cap-msg-id": id }))).await;
        let (command, message_id, headers) = heard(&mut told).await;
        assert_eq!(command, DeductQty { order_id: 1234, qty: 2 });
        assert_eq!(message_id, id);
        // The two, the group, and who runs it.
        assert_eq!(headers, 4);
    })
    .await;
}

#[tokio::test]
async fn two_headers_are_enough_with_a_snowflake() {
    two_headers_are_enough(SNOWFLAKE).await;
}

#[tokio::test]
async fn two_headers_are_enough_with_a_guid() {
    two_headers_are_enough(GUID).await;
}

/// The sender asks for an answer, and hears it as a .NET service would write it.
async fn the_answer_comes_back(id: &str) {
    scene(async |scene| {
        let (_cap, mut told) = stock_service(scene).await;
        let asked = json!({ "cap-msg-id": id, "cap-callback-name": "place.order.mark.status" });
        let mut request = request(scene, asked);
        request["expect"] = 1.into();
        let answers = python("peer.py", &request).await;
        heard(&mut told).await;
        let [answer] = answers.as_array().unwrap().as_slice() else { panic!("one answer: {answers}") };
        assert_eq!(answer["exchange"], scene.name());
        assert_eq!(answer["routing_key"], "place.order.mark.status");
        assert_eq!(answer["body"], r#"{"OrderId":1234,"IsSuccess":true}"#);
        let headers = &answer["headers"];
        assert_eq!(headers["cap-corr-id"], id);
        assert_eq!(headers["cap-corr-seq"], "1");
        assert_eq!(headers["cap-msg-name"], "place.order.mark.status");
        assert_eq!(headers["cap-msg-type"], "Object");
        let own_id: i64 = headers["cap-msg-id"].as_str().unwrap().parse().unwrap();
        assert!(own_id > 0);
        assert_eq!(answer["properties"], json!({ "message_id": headers["cap-msg-id"], "delivery_mode": 2 }));
    })
    .await;
}

#[tokio::test]
async fn the_answer_to_a_snowflake_comes_back() {
    the_answer_comes_back(SNOWFLAKE).await;
}

#[tokio::test]
async fn the_answer_to_a_guid_comes_back() {
    the_answer_comes_back(GUID).await;
}

/// The handler has nothing to say: an answer with a null value, which is an empty body.
#[tokio::test]
async fn a_handler_without_a_value_answers_with_null() {
    scene(async |scene| {
        let builder = scene.builder().subscribe("place.order.qty.deducted", async |_: DeductQty| ());
        scene.start(builder).await;
        let asked = json!({ "cap-msg-id": GUID, "cap-callback-name": "place.order.mark.status" });
        let mut request = request(scene, asked);
        request["expect"] = 1.into();
        let answers = python("peer.py", &request).await;
        assert_eq!(answers[0]["body"], "");
        assert_eq!(answers[0]["headers"]["cap-corr-id"], GUID);
    })
    .await;
}

/// The other way round: Python is the stock service, and its answer reaches our callback handler.
#[tokio::test]
async fn a_python_service_answers_us() {
    scene(async |scene| {
        let (tell, mut told) = mpsc::channel(8);
        let (ready, mut started) = mpsc::channel(8);
        let builder = scene
            .builder()
            .subscribe("place.order.mark.status", move |status: QtyDeducted, id: MessageId| {
                let tell = tell.clone();
                async move { tell.send((status, id.to_string())).await }
            })
            .subscribe("python.ready", move || {
                let ready = ready.clone();
                async move { ready.send(()).await }
            });
        let cap = scene.start(builder).await;
        let request = json!({
            "exchange": scene.name(),
            "listen": "place.order.qty.deducted",
            "publish": [{
                "topic": "python.ready",
                "headers": { "cap-msg-id": "ready", "cap-msg-name": "python.ready" },
                "body": "",
            }],
            "expect": 1,
            "reply": r#"{"OrderId":7,"IsSuccess":false}"#,
        });
        let publish = async {
            heard(&mut started).await;
            cap.publish("place.order.qty.deducted", &DeductQty { order_id: 7, qty: 1 })
                .callback("place.order.mark.status")
                .header("tenant", "Zürich")
                .await
                .unwrap()
        };
        let (seen, id) = tokio::join!(python("peer.py", &request), publish);
        assert_eq!(seen[0]["body"], r#"{"OrderId":7,"Qty":1}"#);
        assert_eq!(seen[0]["headers"]["tenant"], "Zürich");
        assert_eq!(seen[0]["headers"]["cap-msg-id"], id.as_str());
        let (status, reply_id) = heard(&mut told).await;
        assert_eq!(status, QtyDeducted { order_id: 7, is_success: false });
        assert_eq!(reply_id, format!("reply-to-{id}"));
    })
    .await;
}
