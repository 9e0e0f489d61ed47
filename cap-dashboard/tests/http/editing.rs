//! Editing payloads as text.

use cap_core::storage::{Side, Status};
use cap_dashboard::Masks;
use reqwest::StatusCode;

use crate::support::{ACTOR, UNMASKER, auth, location, parked, site, site_with};

/// What a browser's numbers and floats would change.
const PRECISE: &str = r#"{"amount":79228162514264337593543950335,"small":0.0000000000000000000000000001,"id":9007199254740993,"e":1.50}"#;

/// The text in the field of the page, as a browser has it.
fn field(page: &str) -> String {
    let rest = page.split("<textarea").nth(1).unwrap();
    let text = rest.split_once('>').unwrap().1.split("</textarea>").next().unwrap();
    let text = text.strip_prefix('\n').unwrap();
    text.replace("&#34;", "\"")
        .replace("&#60;", "<")
        .replace("&#62;", ">")
        .replace("&#39;", "'")
        .replace("&#38;", "&")
}

#[tokio::test]
async fn digits_survive_an_edit_next_to_them() {
    let site = site().await;
    site.park([parked(1, "a", PRECISE)]).await;
    let browser = site.log_in("actor", ACTOR).await;
    let page = browser.get("/message/received/1/edit").send().await.unwrap().text().await.unwrap();
    let edited = field(&page).replace("1.50", "\"new\"").replace('\n', "\r\n");
    let response = browser.post("/message/received/1/edit", &[("payload", &edited)]).await;
    assert_eq!(location(&response), "/cap/message/received/1?done=edit&count=1");
    let row = site.row(Side::Inbox, 1).await.unwrap();
    assert_eq!(row.message.body, PRECISE.replace("1.50", "\"new\""), "in the layout of the stored payload");
    assert_eq!(row.status, Status::Scheduled);
    assert!(row.message.headers.get("cap-audit").unwrap().contains("actor edited and re-ran it"));
}

#[tokio::test]
async fn json_stays_json_and_the_text_is_not_lost() {
    let site = site().await;
    site.park([parked(1, "a", "{\"a\":1}")]).await;
    let browser = site.log_in("actor", ACTOR).await;
    let response = browser.post("/message/received/1/edit", &[("payload", "{\"a\":1,</textarea>}")]).await;
    assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(field(&response.text().await.unwrap()), "{\"a\":1,</textarea>}");
    assert_eq!(site.row(Side::Inbox, 1).await.unwrap().message.body, "{\"a\":1}");
}

#[tokio::test]
async fn text_that_is_no_json_keeps_its_line_ends() {
    let site = site().await;
    site.park([parked(1, "a", "one\ntwo"), parked(2, "a", "one\r\ntwo")]).await;
    let browser = site.log_in("actor", ACTOR).await;
    for (path, expected) in [("/message/received/1/edit", "1\n2"), ("/message/received/2/edit", "1\r\n2")] {
        browser.post(path, &[("payload", "1\r\n2")]).await;
        let id = if expected.contains('\r') { 2 } else { 1 };
        assert_eq!(site.row(Side::Inbox, id).await.unwrap().message.body, expected);
    }
}

#[tokio::test]
async fn a_mask_is_never_saved() {
    let site = site_with(auth(), |all| all.masks(Masks::none().field("card"))).await;
    site.park([parked(1, "a", r#"{"card":"4111","n":1}"#)]).await;
    let browser = site.log_in("actor", ACTOR).await;
    assert_eq!(browser.get("/message/received/1/edit").send().await.unwrap().status(), StatusCode::FORBIDDEN);
    let response = browser.post("/message/received/1/edit", &[("payload", r#"{"card":"•••","n":2}"#)]).await;
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    assert_eq!(site.row(Side::Inbox, 1).await.unwrap().message.body, r#"{"card":"4111","n":1}"#);
    let unmasker = site.log_in("unmasker", UNMASKER).await;
    let response =
        unmasker.post("/message/received/1/edit", &[("payload", r#"{"card":"4222","n":1}"#)]).await;
    assert!(location(&response).ends_with("count=1"));
    assert_eq!(site.row(Side::Inbox, 1).await.unwrap().message.body, r#"{"card":"4222","n":1}"#);
}

#[tokio::test]
async fn a_payload_beyond_the_limit_is_rejected() {
    let site = site_with(auth(), |all| all.edit_limit(100)).await;
    site.park([parked(1, "a", "1"), parked(2, "a", format!("\"{}\"", "x".repeat(200)))]).await;
    let browser = site.log_in("actor", ACTOR).await;
    let long = format!("\"{}\"", "x".repeat(100));
    let response = browser.post("/message/received/1/edit", &[("payload", &long)]).await;
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let response = browser.get("/message/received/2/edit").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn the_former_payload_is_in_the_audit_with_masks() {
    let site = site_with(auth(), |all| all.masks(Masks::none().field("card"))).await;
    site.park([parked(1, "a", r#"{"card":"4111","n":1}"#)]).await;
    let unmasker = site.log_in("unmasker", UNMASKER).await;
    unmasker.post("/message/received/1/edit", &[("payload", r#"{"card":"4222","n":2}"#)]).await;
    let audit = site.page(ACTOR, "/audit").await;
    assert!(audit.contains("unmasker") && audit.contains("•••") && !audit.contains("4111"), "{audit}");
    assert!(site.page(UNMASKER, "/audit").await.contains("4111"));
    assert!(!site.page(ACTOR, "/api/v1/audit").await.contains("4111"));
    assert!(site.page(UNMASKER, "/api/v1/audit").await.contains("4111"));
}
