//! The API at CAP's paths, compared with what CAP 10.0.2 answered over the same messages: `tests/recordings`.

use std::sync::Arc;

use cap_core::message::{Headers, Message};
use cap_core::storage::{
    Entry, Identity, Lease, NewIncoming, NewOutgoing, Retention, RowCompletion, RowOutcome, Side, Status,
    WriteBatch,
};
use reqwest::StatusCode;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::store::Store;
use crate::support::{ACTOR, HOUR, READER, Site, auth, parked, site, site_on};

fn recording(name: &str) -> Value {
    let path = format!("{}/tests/recordings/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// A recorded content as we store it: headers, and the value as it was written.
fn stored(content: &str) -> Arc<Message> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Content {
        headers: Headers,
        value: Box<RawValue>,
    }
    let content: Content = serde_json::from_str(content).unwrap();
    Arc::new(Message::new(content.headers, content.value.get().as_bytes().to_vec()))
}

/// A storage with the messages of the recordings, in the same state.
async fn recorded(store: Store) -> Site {
    let site = site_on(store, auth(), |dashboard| dashboard.broker("RabbitMQ")).await;
    let items = |name: &str| recording(name)["items"].as_array().unwrap().clone();
    let id = |item: &Value| item["id"].as_str().unwrap().parse::<i64>().unwrap();
    let message = |item: &Value| stored(item["content"].as_str().unwrap());
    let done = |id, failed: u64| RowCompletion {
        lease: Lease { id, epoch: 1 },
        outcome: if failed > 0 {
            RowOutcome::Retry { after: HOUR, hold: true, error: "not yet".to_owned() }
        } else {
            RowOutcome::Succeeded { retention: Retention::Keep(HOUR * 24), reason: None }
        },
        publishes: Vec::new(),
    };
    let mut batch = WriteBatch::default();
    for item in items("published-delayed") {
        batch.outgoing.push(NewOutgoing {
            id: id(&item),
            message: message(&item),
            delay: Some(HOUR / 6),
            held: false,
        });
    }
    for item in items("published-succeeded") {
        batch.outgoing.push(NewOutgoing { id: id(&item), message: message(&item), delay: None, held: true });
    }
    for item in items("received-succeeded") {
        let group = item["group"].as_str().unwrap().into();
        let (entry, identity) = (Entry::Scheduled { held: true }, Identity::default());
        batch.incoming.push(NewIncoming { id: id(&item), group, message: message(&item), entry, identity });
    }
    site.put(batch).await;
    for item in items("received-succeeded") {
        for _ in 0..item["retries"].as_u64().unwrap() {
            site.put(WriteBatch { completed_incoming: vec![done(id(&item), 1)], ..WriteBatch::default() })
                .await;
        }
    }
    site.put(WriteBatch {
        completed_outgoing: items("published-succeeded").iter().map(|item| done(id(item), 0)).collect(),
        completed_incoming: items("received-succeeded").iter().map(|item| done(id(item), 0)).collect(),
        ..WriteBatch::default()
    })
    .await;
    site
}

async fn ask(site: &Site, path: &str) -> Value {
    let response = site.as_user(READER, &format!("/api{path}")).await;
    assert_eq!(response.status(), StatusCode::OK, "{path}");
    assert_eq!(response.headers()[CONTENT_TYPE], "application/json", "{path}");
    response.json().await.unwrap()
}

/// The same fields in the same order with values of the same types, in all depths.
fn assert_same_shape(ours: &Value, theirs: &Value, place: &str) {
    match (ours, theirs) {
        (Value::Object(ours), Value::Object(theirs)) => {
            let (our_keys, their_keys): (Vec<_>, Vec<_>) = (ours.keys().collect(), theirs.keys().collect());
            assert_eq!(our_keys, their_keys, "{place}");
            for (key, value) in theirs {
                assert_same_shape(&ours[key], value, &format!("{place}.{key}"));
            }
        }
        (Value::Array(ours), Value::Array(theirs)) => {
            for (at, value) in ours.iter().enumerate() {
                if let Some(like) = theirs.get(at).or(theirs.first()) {
                    assert_same_shape(value, like, &format!("{place}[{at}]"));
                }
            }
        }
        _ => {
            let kind = |value: &Value| std::mem::discriminant(value);
            assert_eq!(kind(ours), kind(theirs), "{place}: {ours} for {theirs}");
        }
    }
}

/// `2026-11-26T20:53:04.72494`: no offset, at most seven digits, none of them a zero at the end.
fn assert_is_cap_time(value: &Value) {
    let text = value.as_str().unwrap();
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "1"));
    assert_eq!(seconds.len(), "2026-11-26T20:53:04".len(), "{text}");
    assert!(seconds.chars().enumerate().all(|(at, c)| match at {
        4 | 7 => c == '-',
        10 => c == 'T',
        13 | 16 => c == ':',
        _ => c.is_ascii_digit(),
    }));
    assert!(
        fraction.len() <= 7 && !fraction.ends_with('0') && fraction.bytes().all(|b| b.is_ascii_digit()),
        "{text}"
    );
}

async fn lists_are_those_of_the_recordings(store: Store) {
    let site = recorded(store).await;
    for (path, name) in [
        ("/published/Delayed?perPage=20", "published-delayed"),
        ("/published/succeeded?perPage=2&currentPage=1", "published-succeeded"),
        ("/received/SUCCEEDED?perPage=2&currentPage=1", "received-succeeded"),
    ] {
        let (ours, theirs) = (ask(&site, path).await, recording(name));
        assert_same_shape(&ours, &theirs, name);
        assert_eq!(ours["pageSize"], theirs["pageSize"], "{name}");
        assert_eq!((&ours["totals"], &ours["pageIndex"]), (&json!(2), &json!(0)), "{name}");
        let (ours, theirs) = (ours["items"].as_array().unwrap(), theirs["items"].as_array().unwrap());
        assert_eq!(ours.len(), theirs.len(), "{name}");
        for (our, their) in ours.iter().zip(theirs) {
            for field in ["id", "version", "group", "name", "retries", "statusName"] {
                assert_eq!(our[field], their[field], "{name}: {field}");
            }
            for field in ["added", "expiresAt"] {
                assert_is_cap_time(&our[field]);
                assert_is_cap_time(&their[field]);
            }
            let content = |item: &Value| stored(item["content"].as_str().unwrap());
            let (our, their) = (content(our), content(their));
            // An error is added to the stored headers by CAP only; ours is beside them.
            let names = |message: &Message| {
                let all =
                    message.headers.iter().map(|(name, value)| (name.to_owned(), value.map(str::to_owned)));
                all.filter(|(name, _)| name != "cap-exception").collect::<Vec<_>>()
            };
            assert_eq!(names(&our), names(&their), "{name}: headers in their order");
            assert_eq!(our.body, their.body, "{name}: the value as it was written");
        }
    }
}

async fn details_are_a_string_that_holds_the_content(store: Store) {
    let site = recorded(store).await;
    let path = format!("{}/tests/recordings/message.txt", env!("CARGO_MANIFEST_DIR"));
    let recorded = std::fs::read_to_string(path).unwrap();
    let theirs: String = serde_json::from_str(recorded.lines().next().unwrap()).unwrap();
    let ours = ask(&site, "/published/message/11083426445160454").await;
    assert_eq!(stored(ours.as_str().unwrap()), stored(&theirs));
    let missing = site.as_user(READER, "/api/published/message/1").await;
    assert_eq!(missing.status(), StatusCode::NOT_FOUND);
}

async fn numbers_have_the_shapes_of_the_recordings(store: Store) {
    let site = recorded(store).await;
    // The recorded ids are of another time than now.
    site.park([parked(cap_core::message::IdGenerator::new(1).next_id(), "a", "1")]).await;
    for (path, name) in [("/meta", "meta"), ("/stats", "stats"), ("/metrics-history", "metrics-history")] {
        assert_same_shape(&ask(&site, path).await, &recording(name), name);
    }
    assert_eq!(ask(&site, "/meta").await["broker"], recording("meta")["broker"]);
    assert_eq!(ask(&site, "/meta").await["cap"]["name"], "CAP");
    let stats = ask(&site, "/stats").await;
    assert_eq!((&stats["publishedSucceeded"], &stats["receivedSucceeded"]), (&json!(2), &json!(2)));
    assert_eq!((&stats["publishedDelayed"], &stats["publishedFailed"]), (&json!(2), &json!(0)));
    let history = ask(&site, "/metrics-history").await;
    let hours: Vec<u64> =
        history["dayHour"].as_array().unwrap().iter().map(|hour| hour.as_u64().unwrap()).collect();
    assert!(hours.len() == 24 && hours.windows(2).all(|pair| pair[1] - pair[0] == 3600), "{hours:?}");
    assert_eq!(history["subscribeFailed"][23], 1);
    for (path, name) in [("/nodes", "nodes"), ("/list-ns", "list-ns")] {
        assert_eq!(ask(&site, path).await, recording(name));
    }
}

async fn pages_and_filters_are_caps(store: Store) {
    let site = site_on(store, auth(), |all| all).await;
    site.park((1..=5).map(|id| parked(id, if id == 3 { "b" } else { "a" }, format!("{{\"n\":{id}}}")))).await;
    let ids = async |query: &str| {
        let page = ask(&site, &format!("/received/failed?{query}")).await;
        let ids: Vec<String> = page["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["id"].as_str().unwrap().to_owned())
            .collect();
        (ids.join(","), page["totals"].as_u64().unwrap())
    };
    assert_eq!(ids("perPage=2").await, ("5,4".to_owned(), 5));
    assert_eq!(ids("perPage=2&currentPage=2").await, ("3,2".to_owned(), 5));
    assert_eq!(ids("perPage=2&currentPage=3").await, ("1".to_owned(), 5));
    assert_eq!(ids("perPage=2&currentPage=4").await, (String::new(), 5));
    assert_eq!(ids("perPage=1000&currentPage=12").await, (String::new(), 5), "beyond row 10,000");
    assert_eq!(ids("currentPage=18446744073709551615&perPage=1000").await, (String::new(), 5));
    assert_eq!(ids("perPage=0").await, (String::new(), 5));
    assert_eq!(ids("name=a&perPage=3").await, ("5,4,2".to_owned(), 4));
    assert_eq!(ids("group=other.v1").await, (String::new(), 0));
    assert_eq!(ids("content=%22n%22%3A4").await, ("4".to_owned(), 1));
    let page = ask(&site, "/received/unknown").await;
    assert_eq!(
        (&page["items"], &page["totals"]),
        (&json!([]), &json!(0)),
        "as CAP answers an unknown status"
    );
}

async fn acts_answer_as_caps_do(store: Store) {
    let site = site_on(store, auth(), |all| all).await;
    site.park([parked(1, "a", "1"), parked(2, "a", "1"), parked(3, "a", "1")]).await;
    let post = async |path: &str, body: &str| {
        let request = site.post(&format!("/api{path}")).header(AUTHORIZATION, format!("Bearer {ACTOR}"));
        request.header(CONTENT_TYPE, "application/json").body(body.to_owned()).send().await.unwrap().status()
    };
    assert_eq!(post("/received/reexecute", "[1, \"2\"]").await, StatusCode::NO_CONTENT);
    for id in [1, 2] {
        assert_eq!(site.row(Side::Inbox, id).await.unwrap().status, Status::Scheduled);
    }
    assert_eq!(post("/received/delete", "[3]").await, StatusCode::NO_CONTENT);
    assert!(site.row(Side::Inbox, 3).await.is_none());
    assert_eq!(post("/published/requeue", "[]").await, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(post("/published/requeue", "[4711]").await, StatusCode::NO_CONTENT, "an unknown id");
    for body in ["", "{}", "1", "[1.5]", "[\"x\"]", "[[1]]", "[99999999999999999999]", "[null]", "[1"] {
        assert_eq!(post("/published/delete", body).await, StatusCode::BAD_REQUEST, "{body}");
    }
}

/// Runs a test on both storages.
macro_rules! on_both {
    ($($test:ident),+ $(,)?) => {
        mod in_memory {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::Store::memory()).await;
            })+
        }
        mod on_postgres {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::Store::postgres()).await;
            })+
        }
    };
}

on_both!(
    lists_are_those_of_the_recordings,
    details_are_a_string_that_holds_the_content,
    numbers_have_the_shapes_of_the_recordings,
    pages_and_filters_are_caps,
    acts_answer_as_caps_do,
);

#[tokio::test]
async fn holes_of_cap_are_closed() {
    let site = site().await;
    for path in ["/meta", "/stats", "/nodes", "/ping?endpoint=http://169.254.169.254/", "/published/failed"] {
        assert_eq!(
            site.get(&format!("/api{path}")).send().await.unwrap().status(),
            StatusCode::UNAUTHORIZED,
            "{path}"
        );
    }
    let ping = site.as_user(READER, "/api/ping?endpoint=http://169.254.169.254/").await;
    assert_eq!(ping.status(), StatusCode::NOT_FOUND, "only nodes of ours are called");
    let response = site
        .get("/api/meta")
        .header(AUTHORIZATION, format!("Bearer {READER}"))
        .header(COOKIE, "cap.node=evil.example; cap.node.ns=x")
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::OK, "no cookie makes us call another host");
    for query in ["currentPage=0", "currentPage=-1", "perPage=-1", "perPage=x", "perPage=1001"] {
        let response = site.as_user(READER, &format!("/api/received/failed?{query}")).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{query}");
        let error: Value = response.json().await.unwrap();
        assert_eq!(error["error"]["code"], "bad-request");
    }
}

#[tokio::test]
async fn a_session_needs_the_form_token() {
    let site = site().await;
    site.park([parked(1, "a", "1")]).await;
    let browser = site.log_in("actor", ACTOR).await;
    let post = |token: Option<&str>| {
        let request = site.post("/api/received/delete").header(COOKIE, &browser.cookie).body("[1]");
        token.into_iter().fold(request, |request, token| request.header("x-csrf-token", token)).send()
    };
    assert_eq!(post(None).await.unwrap().status(), StatusCode::FORBIDDEN);
    assert_eq!(post(Some("forged")).await.unwrap().status(), StatusCode::FORBIDDEN);
    assert!(site.row(Side::Inbox, 1).await.is_some());
    assert_eq!(post(Some(&browser.csrf)).await.unwrap().status(), StatusCode::NO_CONTENT);
}
