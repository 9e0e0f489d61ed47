//! Bad input gets a clear answer and is never a fault of ours.

use reqwest::StatusCode;
use reqwest::header::COOKIE;

use crate::support::{ACTOR, FormOf as _, READER, location, site};

#[tokio::test]
async fn bad_parameters_are_named() {
    let site = site().await;
    for (path, named) in [
        ("/received?per_page=0", "per_page"),
        ("/received?per_page=-1", "per_page"),
        ("/received?per_page=99999999999999999999", "per_page"),
        ("/received?before=x", "before"),
        ("/received?status=x", "status"),
        ("/received?reason=x", "reason"),
        ("/received?since=yesterday", "since"),
        ("/parked?side=x", "side"),
        ("/received?topic=%00", "topic"),
        ("/message/received/x", "row id"),
        ("/message/received/99999999999999999999", "row id"),
    ] {
        let response = site.as_user(READER, path).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{path}");
        assert!(response.text().await.unwrap().contains(named), "{path}");
    }
    let long = "x".repeat(5_000);
    assert_eq!(
        site.as_user(READER, &format!("/received?topic={long}")).await.status(),
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
async fn paths_that_do_not_exist_are_not_found() {
    let site = site().await;
    for path in [
        "/nowhere",
        "/message/other/1",
        "/message/received/7",
        "/assets/../Cargo.toml",
        "/assets/%2e%2e%2fCargo.toml",
        "/assets/..%2f..%2fetc%2fpasswd",
        "/assets/dashboard.css/",
        "/assets/",
        "//published",
        "/message/received/1/../../..",
    ] {
        let status = site.as_user(READER, path).await.status();
        assert!(matches!(status, StatusCode::NOT_FOUND | StatusCode::OK), "{path}: {status}");
        if status == StatusCode::OK {
            assert!(!path.contains("passwd") && !path.contains("Cargo"), "{path}");
        }
    }
}

#[tokio::test]
async fn bad_bodies_are_rejected() {
    let site = site().await;
    let browser = site.log_in("actor", ACTOR).await;
    let post = |kind: &'static str, body: Vec<u8>| {
        site.post("/act").header(COOKIE, &browser.cookie).header("content-type", kind).body(body).send()
    };
    let form = "application/x-www-form-urlencoded";
    assert_eq!(post("application/json", b"{}".to_vec()).await.unwrap().status(), StatusCode::BAD_REQUEST);
    assert_eq!(
        post(form, vec![b'a'; 8 * 1024 * 1024]).await.unwrap().status(),
        StatusCode::PAYLOAD_TOO_LARGE
    );
    assert_eq!(post(form, b"csrf=%ff&do=%00".to_vec()).await.unwrap().status().as_u16() / 100, 4);
    for pairs in [
        &[("do", "x")][..],
        &[("do", "rerun"), ("id", "x")],
        &[("id", "1")],
        &[("do", "rerun"), ("id", "1"), ("side", "x")],
    ] {
        assert_eq!(browser.post("/act", pairs).await.status(), StatusCode::BAD_REQUEST, "{pairs:?}");
    }
    let many: Vec<(&str, &str)> =
        [("do", "rerun")].into_iter().chain((0..1_001).map(|_| ("id", "1"))).collect();
    assert_eq!(browser.post("/act", &many).await.status(), StatusCode::BAD_REQUEST);
    let none = browser.post("/act", &[("do", "rerun"), ("side", "received")]).await;
    assert!(location(&none).ends_with("count=0"), "nothing is selected");
}

#[tokio::test]
async fn methods_that_do_not_exist_are_named() {
    let site = site().await;
    let response = site.post("/published").form_of(&[]).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn preferences_are_checked_and_kept() {
    let site = site().await;
    let set = async |pairs: &[(&str, &str)]| site.post("/preferences").form_of(pairs).send().await.unwrap();
    let response = set(&[("language", "zh"), ("back", "/parked")]).await;
    assert_eq!(
        response.headers()["set-cookie"],
        "cap-language=zh; Path=/cap; Max-Age=31536000; SameSite=Lax"
    );
    for bad in [("language", "x; Path=/"), ("theme", "x")] {
        assert_eq!(set(&[bad]).await.status(), StatusCode::BAD_REQUEST);
    }
    let page = site.get("/login").header(COOKIE, "cap-language=zh; cap-theme=dark").send().await.unwrap();
    let page = page.text().await.unwrap();
    assert!(page.contains("<html lang=\"zh\" data-theme=\"dark\">") && page.contains("登录"));
    let page =
        site.get("/login").header("accept-language", "de, zh-CN;q=0.8, en;q=0.5").send().await.unwrap();
    assert!(page.text().await.unwrap().contains("登录"));
}
