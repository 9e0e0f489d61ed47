//! Our own API, and its description.

use cap_core::storage::{Side, Status};
use cap_dashboard::Masks;
use reqwest::StatusCode;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use serde_json::{Value, json};

use crate::store::Store;
use crate::support::{ACTOR, READER, Site, auth, parked, site, site_on, site_with};

async fn get(site: &Site, path: &str) -> Value {
    serde_json::from_str(&site.page(READER, &format!("/api/v1{path}")).await).unwrap()
}

async fn send(site: &Site, method: &str, path: &str, body: &Value) -> (StatusCode, Value) {
    let url = format!("{}/api/v1{path}", site.url);
    let request =
        site.client.request(method.parse().unwrap(), url).header(AUTHORIZATION, format!("Bearer {ACTOR}"));
    let response =
        request.header(CONTENT_TYPE, "application/json").body(body.to_string()).send().await.unwrap();
    (response.status(), response.json().await.unwrap())
}

async fn lists_go_by_key(store: Store) {
    let site = site_on(store, auth(), |all| all).await;
    site.park((1..=5).map(|id| parked(id, "a", "1"))).await;
    let (mut seen, mut path) = (Vec::new(), "/messages/received?per_page=2".to_owned());
    loop {
        let page = get(&site, &path).await;
        seen.extend(
            page["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()),
        );
        // What comes meanwhile does not move the later pages.
        site.park([parked(10 + i64::try_from(seen.len()).unwrap(), "a", "1")]).await;
        match page["next"].as_str() {
            Some(next) => path = format!("/messages/received?per_page=2&before={next}"),
            None => break,
        }
    }
    assert_eq!(seen, ["5", "4", "3", "2", "1"]);
}

async fn a_message_is_read_and_edited_as_text(store: Store) {
    let site = site_on(store, auth(), |all| all).await;
    let precise = r#"{"amount":79228162514264337593543950335,"id":9007199254740993}"#;
    site.park([parked(1, "a", precise)]).await;
    let message = get(&site, "/messages/received/1").await;
    assert_eq!((&message["payload"], &message["payload_kind"]), (&json!(precise), &json!("json")));
    assert_eq!((&message["status"], &message["reason"]), (&json!("failed"), &json!("permanent")));
    let edited = precise.replace("9007199254740993", "9007199254740995");
    let (status, done) =
        send(&site, "PUT", "/messages/received/1/payload", &json!({ "payload": edited })).await;
    assert_eq!((status, done), (StatusCode::OK, json!({ "count": 1, "ids": ["1"] })));
    let row = site.row(Side::Inbox, 1).await.unwrap();
    assert_eq!((row.message.body.clone(), row.status), (edited.into(), Status::Scheduled));
}

#[tokio::test]
async fn in_memory_lists_go_by_key() {
    lists_go_by_key(Store::memory()).await;
}

#[tokio::test]
async fn on_postgres_lists_go_by_key() {
    lists_go_by_key(Store::postgres()).await;
}

#[tokio::test]
async fn in_memory_a_message_is_edited_as_text() {
    a_message_is_read_and_edited_as_text(Store::memory()).await;
}

#[tokio::test]
async fn on_postgres_a_message_is_edited_as_text() {
    a_message_is_read_and_edited_as_text(Store::postgres()).await;
}

#[tokio::test]
async fn acts_say_what_they_have_done() {
    let site = site().await;
    site.park([parked(1, "a", "1"), parked(2, "a", "1")]).await;
    site.delay(3).await;
    let (_, done) = send(&site, "POST", "/messages/received/rerun", &json!({ "ids": ["1", "7"] })).await;
    assert_eq!(done, json!({ "count": 1, "ids": ["1"] }));
    let (_, again) = send(&site, "POST", "/messages/received/rerun", &json!({ "ids": ["1"] })).await;
    assert_eq!(again["count"], 0, "it is not failed any more");
    let (_, done) = send(&site, "POST", "/messages/received/delete", &json!({ "ids": ["2"] })).await;
    assert_eq!(done["count"], 1);
    let (_, done) = send(&site, "POST", "/messages/published/cancel", &json!({ "ids": ["3"] })).await;
    assert_eq!(done["count"], 1);
    let audit = get(&site, "/audit").await;
    let acts: Vec<_> = audit.as_array().unwrap().iter().map(|act| act["what"].as_str().unwrap()).collect();
    assert_eq!(acts, ["cancel", "delete", "rerun"]);
    assert_eq!(audit[0]["who"], "actor");
}

#[tokio::test]
async fn masks_hide_and_protect_what_they_cover() {
    let site = site_with(auth(), |all| all.masks(Masks::none().field("card"))).await;
    site.park([parked(1, "a", r#"{"card":"4111","n":1}"#)]).await;
    let message = get(&site, "/messages/received/1").await;
    assert_eq!(
        (&message["payload"], &message["is_masked"]),
        (&json!(r#"{"card":"•••","n":1}"#), &json!(true))
    );
    let (status, _) = send(&site, "PUT", "/messages/received/1/payload", &json!({ "payload": "{}" })).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let page = site.page(READER, "/api/received/failed?content=4111").await;
    assert!(page.contains("\"items\":[]"), "a search finds only what is shown: {page}");
    assert!(!site.page(READER, "/api/received/failed").await.contains("4111"));
    assert!(!site.page(READER, "/api/received/message/1").await.contains("4111"));
}

#[tokio::test]
async fn bad_bodies_get_a_clear_error() {
    let site = site().await;
    site.park([parked(1, "a", "{}")]).await;
    for body in
        [json!([]), json!({}), json!({ "ids": [1] }), json!({ "ids": ["x"] }), json!({ "ids": [], "x": 1 })]
    {
        let (status, error) = send(&site, "POST", "/messages/received/rerun", &body).await;
        assert_eq!(
            (status, &error["error"]["code"]),
            (StatusCode::BAD_REQUEST, &json!("bad-request")),
            "{body}"
        );
    }
    let (status, _) = send(&site, "PUT", "/messages/received/1/payload", &json!({ "payload": "{" })).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let (status, _) = send(&site, "POST", "/messages/elsewhere/rerun", &json!({ "ids": [] })).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

/// Follows the description: each path answers, and each answer has the fields that the description says.
#[tokio::test]
async fn the_description_is_what_the_api_does() {
    let site = site().await;
    site.park([parked(1, "a", "1")]).await;
    let description = get(&site, "/openapi.json").await;
    assert_eq!(description["servers"][0]["url"], "/cap/api/v1");
    let paths = description["paths"].as_object().unwrap();
    assert_eq!(paths.len(), 9, "a route without a description, or the other way round: {:?}", paths.keys());
    for (path, methods) in paths {
        let path = path.replace("{side}", "received").replace("{id}", "1");
        if let Some(read) = methods.get("get") {
            let answer = get(&site, &path).await;
            let schema = &read["responses"]["200"]["content"]["application/json"]["schema"];
            assert_fits(&description, schema, &answer, &path);
        }
        for method in ["post", "put"] {
            if let Some(act) = methods.get(method) {
                assert!(act["requestBody"].is_object(), "{path}");
                let (status, _) = send(&site, &method.to_uppercase(), &path, &json!({})).await;
                assert_eq!(status, StatusCode::BAD_REQUEST, "{path}");
            }
        }
    }
}

fn assert_fits(description: &Value, schema: &Value, value: &Value, place: &str) {
    if let Some(name) = schema["$ref"].as_str() {
        let schema = description.pointer(name.trim_start_matches('#')).unwrap_or_else(|| panic!("{name}"));
        return assert_fits(description, schema, value, place);
    }
    if let Some(parts) = schema["allOf"].as_array() {
        return parts.iter().for_each(|part| assert_fits(description, part, value, place));
    }
    if let Some(kinds) = schema["oneOf"].as_array() {
        let is_null = |kind: &Value| kind["type"] == "null";
        if !(value.is_null() && kinds.iter().any(is_null)) {
            let kind = kinds.iter().find(|kind| !is_null(kind)).unwrap();
            assert_fits(description, kind, value, place);
        }
        return;
    }
    let own = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let allowed = &schema["type"];
    let is_allowed =
        allowed == own || allowed.as_array().is_some_and(|all| all.iter().any(|kind| kind == own));
    assert!(is_allowed, "{place}: {own} instead of {allowed}");
    if let Some(items) = value.as_array() {
        for item in items {
            assert_fits(description, &schema["items"], item, place);
        }
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        assert!(value.get(name.as_str().unwrap()).is_some(), "{place}: no {name}");
    }
    for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
        if let Some(value) = value.get(name) {
            assert_fits(description, schema, value, &format!("{place}.{name}"));
        }
    }
}
