//! Nothing of a message is ever rendered as HTML.

use std::sync::Arc;

use cap_core::message::Message;
use cap_core::storage::Entry;

use crate::support::{READER, message, parked, site};

const SCRIPT: &str = "<script>alert(1)</script>";
const BREAKING: &str = "\"><img src=x onerror=alert(1)>'`";

#[tokio::test]
async fn scripts_in_messages_are_text() {
    let site = site().await;
    let mut all = Vec::new();
    for (id, hostile) in [(1, SCRIPT), (2, BREAKING)] {
        let mut one = parked(
            id,
            hostile,
            format!("{{\"{}\":\"{}\"}}", hostile.replace('"', "'"), hostile.replace('"', "'")),
        );
        let plain = message(id, hostile, one.message.body.to_vec());
        let mut headers = plain.headers.clone();
        headers.insert("cap-msg-id", format!("{hostile}{id}"));
        headers.insert("cap-corr-id", hostile);
        headers.insert(hostile, hostile);
        one.message = Arc::new(Message::new(headers, plain.body.clone()));
        one.group = format!("{hostile}.v1").into();
        if let Entry::Parked { error, .. } = &mut one.entry {
            hostile.clone_into(error);
        }
        all.push(one);
    }
    all.push(parked(3, "plain", SCRIPT));
    site.park(all).await;
    for path in [
        "",
        "/received",
        "/parked",
        "/message/received/1",
        "/message/received/2",
        "/message/received/3",
        "/search?q=%3Cscript%3Ealert(1)%3C/script%3E",
        "/received?topic=%22%3E%3Cscript%3Ealert(1)%3C/script%3E",
        "/parked?error=%3Cscript%3Ealert(1)%3C%2Fscript%3E",
    ] {
        let page = site.page(READER, path).await;
        assert!(!page.contains(SCRIPT) && !page.contains("<img src=x"), "{path}");
        assert!(!page.contains(BREAKING), "{path}");
    }
    let page = site.page(READER, "/message/received/1").await;
    assert!(page.contains("&#60;script&#62;alert(1)&#60;/script&#62;"), "it is shown as text");
}

#[tokio::test]
async fn a_downloaded_payload_is_no_page() {
    let site = site().await;
    site.park([parked(1, "a", SCRIPT)]).await;
    let response = site.as_user(READER, "/message/received/1/payload").await;
    assert_eq!(response.headers()["content-type"], "application/octet-stream");
    assert!(response.headers()["content-disposition"].to_str().unwrap().starts_with("attachment"));
    assert_eq!(response.text().await.unwrap(), SCRIPT);
}
