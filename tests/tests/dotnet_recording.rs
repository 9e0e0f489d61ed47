//! Messages recorded from a live .NET CAP 10.0.2 (`tests/recordings/dotnet_cap_rabbitmq.json`) through the whole bus: received,
//! stored, handled, edited, run again and answered, on every storage, without the loss of a digit or a header.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use cap_core::CapBuilder;
use cap_core::monitor::Row;
use cap_core::prelude::*;
use cap_core::storage::Status;
use cap_sqlite::Sqlite;
use cap_tests::{Foreign, Scene, Store, heard, scene, until};
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use serde_json::Value;
use tokio::sync::mpsc;

mod types;

const RECORDING: &str = include_str!("../recordings/dotnet_cap_rabbitmq.json");

/// A message as it was on the wire.
struct Recorded {
    topic: String,
    id: String,
    headers: BTreeMap<String, Option<String>>,
    body: String,
}

impl Recorded {
    fn read(message: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let headers = message["headers"].as_object().unwrap();
        Self {
            topic: text(&message["routing_key"]),
            id: text(&message["properties"]["message_id"]),
            headers: headers
                .iter()
                .map(|(name, header)| (name.clone(), header["value"].as_str().map(str::to_owned)))
                .collect(),
            body: text(&message["body"]["text"]),
        }
    }

    fn properties(&self) -> BasicProperties {
        let mut table = FieldTable::default();
        for (name, value) in &self.headers {
            let value =
                value.as_ref().map_or(AMQPValue::Void, |text| AMQPValue::LongString(text.as_str().into()));
            table.insert(name.as_str().into(), value);
        }
        BasicProperties::default()
            .with_message_id(self.id.as_str().into())
            .with_delivery_mode(2)
            .with_headers(table)
    }

    async fn send(&self, foreign: &Foreign) {
        foreign.publish(&self.topic, self.properties(), self.body.as_bytes()).await;
    }
}

fn recording() -> Vec<Recorded> {
    let messages: Value = serde_json::from_str(RECORDING).unwrap();
    let messages: Vec<_> = messages.as_array().unwrap().iter().map(Recorded::read).collect();
    assert_eq!(messages.len(), 24);
    messages
}

fn recorded(topic: &str) -> Recorded {
    recording().into_iter().find(|message| message.topic == topic).unwrap()
}

/// A bus of the scene on a storage of this kind.
fn builder(scene: &Scene, store: Store, folder: &Folder) -> CapBuilder {
    let builder = scene.builder();
    match store {
        Store::Postgres => builder,
        Store::Sqlite => builder.storage(Sqlite::open(folder.0.join("bus.db"))),
        Store::Memory => builder.storage(MemoryStorage::new()),
    }
}

/// A folder for the file of SQLite, which is removed after the test.
struct Folder(std::path::PathBuf);

impl Folder {
    fn of(scene: &Scene) -> Self {
        let folder = std::env::temp_dir().join(scene.name());
        std::fs::create_dir(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left is in the folder for temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What a handler got: the id, the headers and the body.
type Handled = (String, BTreeMap<String, Option<String>>, Vec<u8>);

fn all_headers(headers: &cap_core::Headers) -> BTreeMap<String, Option<String>> {
    headers.iter().map(|(name, value)| (name.to_owned(), value.map(str::to_owned))).collect()
}

/// The handler of every recorded topic reports what it gets.
fn report(tell: mpsc::Sender<Handled>) -> impl Fn(Delivery) -> std::future::Ready<()> + Clone {
    move |delivery| {
        let message = delivery.message();
        let handled =
            (message.id().unwrap().to_owned(), all_headers(&message.headers), message.body.to_vec());
        tell.try_send(handled).unwrap();
        std::future::ready(())
    }
}

/// Everything that was recorded is handled once, as it was sent.
async fn each_is_handled(told: &mut mpsc::Receiver<Handled>, recording: &HashMap<String, Recorded>) {
    let mut seen = BTreeSet::new();
    while seen.len() < recording.len() {
        let (id, headers, body) = heard(told).await;
        let message = &recording[&id];
        assert_eq!(body, message.body.as_bytes(), "{} is handled", message.topic);
        assert_kept(&headers, message);
        assert!(seen.insert(id), "{} is handled twice", message.topic);
    }
}

/// Every header is there with its value, null included, and beside them only those of the receiving side.
fn assert_kept(headers: &BTreeMap<String, Option<String>>, message: &Recorded) {
    let mut rest = headers.clone();
    for (name, value) in &message.headers {
        assert_eq!(rest.remove(name).as_ref(), Some(value), "{name} of {}", message.topic);
    }
    // The bus writes the first three, a quorum queue the last.
    for added in ["cap-msg-group", "cap-exec-instance-id", "cap-audit", "x-delivery-count"] {
        rest.remove(added);
    }
    assert_eq!(rest, BTreeMap::new(), "{}", message.topic);
}

/// The rows of the inbox, when all of them have succeeded.
async fn succeeded(cap: &Cap, count: usize) -> Vec<Row> {
    until("every message succeeding", async || {
        let rows = cap.messages().received().limit(100).list().await.unwrap();
        for row in &rows {
            assert_eq!(row.last_error, None, "{}", row.name);
        }
        let done = rows.len() == count && rows.iter().all(|row| row.status == Status::Succeeded);
        done.then_some(rows)
    })
    .await
}

async fn is_kept_through_the_bus(store: Store) {
    scene(async |scene| {
        let folder = Folder::of(scene);
        let (tell, mut told) = mpsc::channel(64);
        let cap = builder(scene, store, &folder)
            .configure(|options| options.reply_to_unit = false)
            .subscribe("interop.#", report(tell));
        let cap = scene.start(cap).await;
        let foreign = scene.foreign().await;
        let recording: HashMap<_, _> =
            recording().into_iter().map(|message| (message.id.clone(), message)).collect();
        for message in recording.values() {
            message.send(&foreign).await;
        }
        each_is_handled(&mut told, &recording).await;

        let rows = succeeded(&cap, recording.len()).await;
        for row in &rows {
            let message = &recording[row.message.id().unwrap()];
            assert_eq!(row.message.body, message.body.as_bytes(), "{} is stored", message.topic);
            assert_kept(&all_headers(&row.message.headers), message);
        }
        let ids: Vec<_> = rows.iter().map(|row| row.id).collect();
        assert_eq!(cap.messages().received().rerun(&ids).await.unwrap().len(), ids.len());
        each_is_handled(&mut told, &recording).await;

        succeeded(&cap, recording.len()).await;
        for row in &rows {
            let body = row.message.body.clone();
            assert!(cap.messages().received().edit_raw_and_rerun(row.id, body).await.unwrap());
        }
        each_is_handled(&mut told, &recording).await;
        drop(folder);
    })
    .await;
}

mod every_digit_and_header {
    use super::*;

    #[tokio::test]
    async fn is_kept_in_postgres() {
        is_kept_through_the_bus(Store::Postgres).await;
    }

    #[tokio::test]
    async fn is_kept_in_sqlite() {
        is_kept_through_the_bus(Store::Sqlite).await;
    }

    #[tokio::test]
    async fn is_kept_in_memory() {
        is_kept_through_the_bus(Store::Memory).await;
    }
}

mod wire {
    use super::*;

    fn headers_of(delivery: &lapin::message::Delivery) -> BTreeMap<String, Option<String>> {
        let table = delivery.properties.headers().as_ref().unwrap().inner();
        let text = |value: &AMQPValue| match value {
            AMQPValue::LongString(text) => Some(text.to_string()),
            AMQPValue::Void => None,
            other => panic!("CAP sends long strings and nulls only, not {other:?}"),
        };
        table.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
    }

    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Order {
        id: i32,
        text: &'static str,
        amount: f64,
        when: &'static str,
        flag: bool,
        tags: [&'static str; 2],
        maybe: Option<i32>,
    }

    /// The message recorded as `interop.wire.order`, but for its id and its time.
    #[tokio::test]
    async fn published_order_equals_the_recording() {
        scene(async |scene| {
            let expected = recorded("interop.wire.order");
            let cap = scene.start(scene.builder().subscribe("something.else", async || ())).await;
            let foreign = scene.foreign().await;
            let mut listener = foreign.listen(&expected.topic).await;
            let text = "Grüße <b>&\"'+ 🦀 7";
            let order = Order {
                id: 7,
                text,
                amount: 19.5,
                when: "2026-11-26T12:34:56Z",
                flag: false,
                tags: ["a", "ü"],
                maybe: None,
            };
            cap.publish(&*expected.topic, &order).message_id(&*expected.id).await.unwrap();
            let sent = listener.next().await;
            let mut headers = headers_of(&sent);
            headers.insert("cap-senttime".to_owned(), expected.headers["cap-senttime"].clone());
            assert_eq!(headers, expected.headers);
            assert_eq!(sent.properties.message_id().as_ref().unwrap().as_str(), expected.id);
            assert_eq!(*sent.properties.delivery_mode(), Some(2));
            // The two serializers escape other characters; what a reader gets is the same.
            let [ours, theirs] = [&sent.data[..], expected.body.as_bytes()]
                .map(|body| serde_json::from_slice::<Value>(body).unwrap());
            assert_eq!(ours, theirs);
        })
        .await;
    }

    /// `interop.wire.callback` asks for a reply; `interop.rs.answer` is the recorded reply of a .NET service.
    #[tokio::test]
    async fn reply_to_dotnet_equals_a_recorded_reply() {
        scene(async |scene| {
            let request = recorded("interop.wire.callback");
            let theirs = recorded("interop.rs.answer");
            let handler = async |headers: CapHeaders| {
                headers.add_response_header("x-net", "yes");
                Reply(serde_json::json!({ "OrderId": 9, "IsSuccess": true }))
            };
            scene.start(scene.builder().subscribe(&*request.topic, handler)).await;
            let foreign = scene.foreign().await;
            let mut listener = foreign.listen("interop.net.answer").await;
            request.send(&foreign).await;
            let reply = headers_of(&listener.next().await);
            assert_eq!(reply["cap-corr-id"].as_deref(), Some(&*request.id));
            for same in ["cap-corr-seq", "cap-msg-type", "x-net"] {
                assert_eq!(reply[same], theirs.headers[same], "{same}");
            }
            assert_eq!(reply["cap-msg-name"].as_deref(), Some("interop.net.answer"));
            let ours: Vec<_> = reply.into_keys().filter(|name| !theirs.headers.contains_key(name)).collect();
            assert_eq!(ours, ["cap-request-name"], "beside .NET's headers");
        })
        .await;
    }
}
