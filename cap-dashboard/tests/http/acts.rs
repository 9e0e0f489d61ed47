//! Re-running, deleting and cancelling, with a preview and a record of who did it.

use cap_core::storage::{Side, Status};
use reqwest::StatusCode;

use crate::support::{ACTOR, READER, Site, location, parked, site, value_of};

async fn status(site: &Site, id: i64) -> Option<Status> {
    site.row(Side::Inbox, id).await.map(|row| row.status)
}

#[tokio::test]
async fn an_act_without_the_form_token_does_nothing() {
    let site = site().await;
    site.park([parked(1, "a", "1")]).await;
    let browser = site.log_in("actor", ACTOR).await;
    let other = site.log_in("reader", READER).await;
    for token in ["", "forged", &other.csrf] {
        let form = [("csrf", token), ("do", "delete"), ("id", "1"), ("side", "received")];
        let response = browser.post_bare("/act", &form).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::FORBIDDEN, "{token}");
    }
    assert_eq!(status(&site, 1).await, Some(Status::Failed));
}

#[tokio::test]
async fn selected_messages_are_rerun_and_recorded() {
    let site = site().await;
    site.park((1..=3).map(|id| parked(id, "a", "1"))).await;
    let browser = site.log_in("actor", ACTOR).await;
    let form = [
        ("do", "rerun"),
        ("id", "1"),
        ("id", "2"),
        ("side", "received"),
        ("status", "parked"),
        ("back", "/parked?group=g"),
    ];
    let preview = browser.post("/preview", &form).await.text().await.unwrap();
    assert!(
        preview.contains("row 1 failed")
            && preview.contains("row 2 failed")
            && !preview.contains("row 3 failed")
    );
    assert_eq!(status(&site, 1).await, Some(Status::Failed), "a preview changes nothing");
    let response = browser.post("/act", &form).await;
    assert_eq!(location(&response), "/cap/parked?group=g&done=rerun&count=2");
    assert_eq!(status(&site, 1).await, Some(Status::Scheduled));
    assert_eq!(status(&site, 3).await, Some(Status::Failed));
    let row = site.row(Side::Inbox, 1).await.unwrap();
    assert!(row.message.headers.get("cap-audit").unwrap().contains(" actor re-ran it"));
    let again = browser.post("/act", &form).await;
    assert!(location(&again).ends_with("done=rerun&count=0"), "somebody else was faster");
    let audit = site.page(READER, "/audit").await;
    assert!(audit.contains("actor") && audit.contains("/cap/message/received/1"));
}

#[tokio::test]
async fn all_that_match_are_those_of_the_preview() {
    let site = site().await;
    site.park((1..=4).map(|id| parked(id, if id < 4 { "a" } else { "b" }, "1"))).await;
    let browser = site.log_in("actor", ACTOR).await;
    let form = [("do", "rerun-all"), ("side", "received"), ("status", "parked"), ("topic", "a")];
    let preview = browser.post("/preview", &form).await.text().await.unwrap();
    assert!(preview.contains("(3)"), "{preview}");
    let until = value_of(&preview, "until");
    site.park([parked(5, "a", "1")]).await;
    let form = [&form[..], &[("until", until.as_str())]].concat();
    assert!(location(&browser.post("/act", &form).await).ends_with("count=3"));
    assert_eq!(status(&site, 5).await, Some(Status::Failed), "it came after the preview");
    assert_eq!(status(&site, 4).await, Some(Status::Failed), "another topic");
}

#[tokio::test]
async fn an_act_on_all_needs_a_narrower_selection() {
    let site = site().await;
    let browser = site.log_in("actor", ACTOR).await;
    let response = browser.post("/act", &[("do", "delete-all"), ("side", "received")]).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn delayed_messages_are_cancelled() {
    let site = site().await;
    site.delay(9).await;
    let browser = site.log_in("actor", ACTOR).await;
    assert!(browser.get("/delayed").send().await.unwrap().text().await.unwrap().contains("order.later"));
    let form =
        [("do", "cancel"), ("id", "9"), ("side", "published"), ("status", "delayed"), ("back", "/delayed")];
    assert!(location(&browser.post("/act", &form).await).ends_with("done=cancel&count=1"));
    assert_eq!(site.row(Side::Outbox, 9).await.unwrap().status, Status::Failed);
}

#[tokio::test]
async fn deleted_messages_are_gone() {
    let site = site().await;
    site.park([parked(1, "a", "1")]).await;
    let browser = site.log_in("actor", ACTOR).await;
    let form = [("do", "delete"), ("id", "1"), ("side", "received"), ("status", "parked")];
    assert_eq!(location(&browser.post("/act", &form).await), "/cap?done=delete&count=1");
    assert!(status(&site, 1).await.is_none());
    assert_eq!(browser.get("/message/received/1").send().await.unwrap().status(), StatusCode::NOT_FOUND);
}
