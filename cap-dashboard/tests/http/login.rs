//! Logging in and out, and guessing.

use cap_dashboard::{AccessToken, Auth, Rights};
use reqwest::StatusCode;
use reqwest::header::SET_COOKIE;

use crate::support::{ACTOR, FormOf as _, READER, key, location, site, site_with};

#[tokio::test]
async fn the_cookie_is_for_this_site_alone() {
    let site = site().await;
    let form = [("name", "actor"), ("token", ACTOR), ("back", "/parked?topic=a")];
    let on = async |host: &str| {
        let response = site.post("/login").header("host", host).form_of(&form).send().await.unwrap();
        assert_eq!(location(&response), "/cap/parked?topic=a");
        response.headers()[SET_COOKIE].to_str().unwrap().to_owned()
    };
    let local = on("localhost:80").await;
    assert!(local.contains("; HttpOnly; SameSite=Strict") && local.contains("; Path=/cap;"), "{local}");
    assert!(local.contains("Max-Age=43200") && !local.contains("Secure"), "{local}");
    assert!(on("cap.example").await.ends_with("; Secure"));
}

#[tokio::test]
async fn back_leads_to_no_other_site() {
    let site = site().await;
    for back in [
        "//evil.example",
        "https://evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "/a\r\nx: y",
        "javascript:1",
    ] {
        let form = [("name", "actor"), ("token", ACTOR), ("back", back)];
        let response = site.post("/login").form_of(&form).send().await.unwrap();
        assert_eq!(location(&response), "/cap", "{back}");
    }
}

#[tokio::test]
async fn a_session_ends_at_the_log_out() {
    let site = site().await;
    let browser = site.log_in("actor", ACTOR).await;
    assert_eq!(browser.post_bare("/logout", &[]).send().await.unwrap().status(), StatusCode::FORBIDDEN);
    assert_eq!(browser.get("/parked").send().await.unwrap().status(), StatusCode::OK);
    let response = browser.post("/logout", &[]).await;
    assert!(response.headers()[SET_COOKIE].to_str().unwrap().contains("Max-Age=0"));
    assert_eq!(
        browser.get("/parked").send().await.unwrap().status(),
        StatusCode::SEE_OTHER,
        "the old cookie"
    );
}

#[tokio::test]
async fn a_session_is_valid_on_every_node_with_the_key() {
    let token = || [AccessToken::new("actor", ACTOR, Rights::read())];
    let (one, other) = (site().await, site_with(Auth::login(key(), token()), |all| all).await);
    let cookie = one.log_in("actor", ACTOR).await.cookie;
    let response = other.get("/parked").header("cookie", &cookie).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let foreign = cap_dashboard::SigningKey::new([8; 32]).unwrap();
    let foreign = site_with(Auth::login(foreign, token()), |all| all).await;
    let response = foreign.get("/parked").header("cookie", &cookie).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn guessing_is_slowed_down() {
    let site = site().await;
    let guess = async |name: &str, token: &str| {
        site.post("/login").form_of(&[("name", name), ("token", token)]).send().await.unwrap()
    };
    assert_eq!(guess("actor", READER).await.status(), StatusCode::UNAUTHORIZED, "the secret of another user");
    for _ in 0..9 {
        assert_eq!(guess("actor", "wrong").await.status(), StatusCode::UNAUTHORIZED);
    }
    let stopped = guess("actor", ACTOR).await;
    assert_eq!(stopped.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(stopped.headers().contains_key("retry-after"));
    assert_eq!(
        site.as_user(ACTOR, "/parked").await.status(),
        StatusCode::TOO_MANY_REQUESTS,
        "bearer tokens too"
    );
}

#[tokio::test]
async fn another_site_can_neither_log_in_nor_act() {
    let site = site().await;
    let browser = site.log_in("actor", ACTOR).await;
    for (name, value) in [("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")] {
        let form = [("name", "actor"), ("token", ACTOR)];
        let login = site.post("/login").header(name, value).form_of(&form).send().await.unwrap();
        assert_eq!(login.status(), StatusCode::FORBIDDEN);
        let form = [("csrf", &*browser.csrf), ("do", "rerun"), ("id", "1")];
        let act = browser.post_bare("/act", &form).header(name, value).send().await.unwrap();
        assert_eq!(act.status(), StatusCode::FORBIDDEN);
    }
}
