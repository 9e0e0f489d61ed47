//! What is masked is masked wherever it would be shown.

use cap_dashboard::Masks;
use reqwest::StatusCode;

use crate::support::{ACTOR, UNMASKER, auth, parked, site_with};

#[tokio::test]
async fn masked_parts_are_shown_to_those_with_the_right() {
    let masks = Masks::none().field("card").header("cap-msg-name").payloads_of("salary.#").unwrap().errors();
    let site = site_with(auth(), |all| all.masks(masks)).await;
    let secret = "4111-secret";
    let hidden = [
        parked(1, "order", format!(r#"{{"card":{{"number":"{secret}"}},"n":1}}"#)),
        parked(2, "salary.paid", format!("\"{secret}\"")),
        parked(3, "order", format!("no json {secret}")),
        parked(4, "order", [secret.as_bytes(), &[0xff]].concat()),
    ];
    site.park(hidden).await;
    for id in 1..=4 {
        let page = site.page(ACTOR, &format!("/message/received/{id}")).await;
        assert!(!page.contains(secret), "{id}");
        assert!(!page.contains(&format!("row {id} failed")), "the error of {id}");
        let file = site.as_user(ACTOR, &format!("/message/received/{id}/payload")).await;
        let is_hidden =
            file.status() == StatusCode::FORBIDDEN || !file.text().await.unwrap().contains(secret);
        assert!(is_hidden, "the file of {id}");
    }
    assert!(!site.page(ACTOR, "/parked").await.contains("row 1 failed"));
    for id in 1..=3 {
        let page = site.page(UNMASKER, &format!("/message/received/{id}")).await;
        assert!(page.contains(secret) && page.contains(&format!("row {id} failed")), "{id}");
    }
}
