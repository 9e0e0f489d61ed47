//! Who is let in, and what everyone gets.

use axum::{Extension, Router};
use cap_core::Operator;
use cap_core::memory::MemoryStorage;
use cap_dashboard::{AccessToken, Auth, Dashboard, Rights, SetupError, SigningKey, User};
use reqwest::StatusCode;

use crate::store::Store;
use crate::support::{ACTOR, FormOf as _, READER, auth, key, location, serve, site, site_with};

/// Every page that shows something.
const PAGES: [&str; 13] = [
    "",
    "/published",
    "/received",
    "/delayed",
    "/parked",
    "/search?q=1",
    "/subscriptions",
    "/audit",
    "/live",
    "/message/received/1",
    "/message/received/1/payload",
    "/message/received/1/edit",
    "/failures",
];

#[tokio::test]
async fn without_credentials_nothing_is_shown() {
    let site = site().await;
    for page in PAGES {
        let response = site.get(page).send().await.unwrap();
        let is_hidden =
            response.status() == StatusCode::SEE_OTHER && location(&response).starts_with("/cap/login?back=");
        assert!(is_hidden || response.status() == StatusCode::NOT_FOUND, "{page}: {}", response.status());
    }
    for path in ["/api/stats", "/api/published/succeeded", "/api/v1/messages", "/api/nodes"] {
        let status = site.get(path).send().await.unwrap().status();
        assert!(matches!(status, StatusCode::UNAUTHORIZED | StatusCode::NOT_FOUND), "{path}: {status}");
    }
    for path in ["/preview", "/act", "/message/received/1/edit"] {
        let response = site.post(path).form_of(&[("do", "rerun"), ("id", "1")]).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::SEE_OTHER, "{path}");
    }
}

#[tokio::test]
async fn a_wrong_or_misplaced_token_is_rejected() {
    let site = site_with(Auth::tokens([AccessToken::new("a", READER, Rights::read())]), |all| all).await;
    assert_eq!(site.as_user("wrong", "/parked").await.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(site.as_user(READER, "/parked").await.status(), StatusCode::OK);
    for query in ["?access_token=", "?token=", "?authorization=Bearer%20"] {
        let response = site.get(&format!("/parked{query}{READER}")).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "a token in the URL");
    }
    assert_eq!(site.get("/login").send().await.unwrap().status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn reading_does_not_include_acting() {
    let site = site().await;
    let reader = site.log_in("reader", READER).await;
    for path in ["/act", "/preview", "/message/received/1/edit"] {
        assert_eq!(reader.post(path, &[("do", "rerun"), ("id", "1")]).await.status(), StatusCode::FORBIDDEN);
    }
    assert_eq!(reader.get("/message/received/1/edit").send().await.unwrap().status(), StatusCode::FORBIDDEN);
    assert!(!reader.get("/parked").send().await.unwrap().text().await.unwrap().contains("value=\"rerun\""));
}

#[tokio::test]
async fn every_response_has_the_security_headers() {
    let site = site().await;
    for path in ["/login", "/assets/dashboard.css", "/nowhere", "/health", "/api/nowhere", "/parked"] {
        let response = site.get(path).send().await.unwrap();
        let header =
            |name: &str| response.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
        let policy = header("content-security-policy");
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{path}");
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(header("referrer-policy"), "no-referrer", "{path}");
        assert_eq!(header("x-content-type-options"), "nosniff", "{path}");
    }
    let page = site.page(ACTOR, "/parked").await;
    assert!(!page.contains(" style=") && !page.contains("onclick") && !page.contains("<script>"));
}

#[tokio::test]
async fn loopback_rejects_other_names_and_proxies() {
    let site = site_with(Auth::loopback(Rights::all()), |all| all).await;
    assert_eq!(site.get("/parked").send().await.unwrap().status(), StatusCode::OK);
    for (name, value) in [
        ("host", "evil.example"),
        ("host", "localhost.evil.example:80"),
        ("x-forwarded-for", "10.0.0.1"),
        ("forwarded", "for=10.0.0.1"),
        ("via", "1.1 proxy"),
    ] {
        let response = site.get("/parked").header(name, value).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::FORBIDDEN, "{name}: {value}");
    }
}

#[tokio::test]
async fn loopback_rejects_all_without_knowing_who_connects() {
    let operator = Operator::open(MemoryStorage::new()).await.unwrap();
    let router = Dashboard::new(operator).router(Auth::loopback(Rights::all())).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/parked", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let response = reqwest::get(url).await.unwrap();
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    assert!(response.text().await.unwrap().contains("into_make_service_with_connect_info"));
}

#[tokio::test]
async fn anonymous_acts_still_need_the_form_token() {
    let site = site_with(Auth::allow_anonymous(Rights::all()), |all| all).await;
    assert_eq!(site.get("/parked").send().await.unwrap().status(), StatusCode::OK);
    let forged = site.post("/act").form_of(&[("do", "delete"), ("id", "1")]).send().await.unwrap();
    assert_eq!(forged.status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn an_own_layer_lets_in_whom_it_names() {
    for (user, expected) in
        [(Some(User::new("ida", Rights::read())), StatusCode::OK), (None, StatusCode::UNAUTHORIZED)]
    {
        let store = Store::memory();
        let router = Dashboard::new(store.operator().await).router(Auth::own_layer(key())).unwrap();
        let router = match user {
            Some(user) => router.layer(Extension(user)),
            None => router,
        };
        let site = serve(Router::new().nest("/cap", router), store).await;
        assert_eq!(site.get("/parked").send().await.unwrap().status(), expected);
    }
}

#[tokio::test]
async fn unsafe_settings_are_rejected() {
    let operator = Operator::open(MemoryStorage::new()).await.unwrap();
    let build = |auth| Dashboard::new(operator.clone()).router(auth).err();
    let token = |name: &str, secret: &str| AccessToken::new(name, secret, Rights::read());
    assert_eq!(build(Auth::tokens([])), Some(SetupError::NoTokens));
    assert!(matches!(build(Auth::tokens([token("a", "short")])), Some(SetupError::ShortToken { .. })));
    let twice = [token("a", READER), token("a", ACTOR)];
    assert!(matches!(build(Auth::login(key(), twice)), Some(SetupError::TwoTokens { .. })));
    assert!(matches!(SigningKey::new("short"), Err(SetupError::ShortKey { .. })));
    let error = build(Auth::tokens([token("a", "s3cret")])).unwrap();
    assert!(!error.to_string().contains("s3cret") && !format!("{:?}", auth()).contains(READER));
    for path in ["cap", "//evil.example", "/a\"b"] {
        let rejected = Dashboard::new(operator.clone()).public_path(path).router(auth());
        assert!(matches!(rejected, Err(SetupError::PublicPath(_))), "{path}");
    }
}

#[tokio::test]
async fn health_says_no_reasons_to_strangers() {
    let site = site().await;
    assert_eq!(site.get("/health").send().await.unwrap().text().await.unwrap(), "OK");
    assert_eq!(site.get("/health/live").send().await.unwrap().text().await.unwrap(), "OK");
    let ready = site.get("/health/ready").send().await.unwrap();
    assert_eq!(ready.status(), StatusCode::OK);
    assert_eq!(ready.text().await.unwrap(), r#"{"status":"ready"}"#);
    assert!(site.page(READER, "/health/ready").await.contains("\"down\":[]"));
}
