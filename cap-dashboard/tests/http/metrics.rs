//! Metrics for Prometheus: who gets them, and what is in them.

use axum::Router;
use axum::http::HeaderMap;
use cap_dashboard::{Auth, Dashboard, Rights, SetupError};
use reqwest::StatusCode;

use crate::store::Store;
use crate::support::{READER, auth, key, parked, serve, site, site_with};

const SCRAPER: &str = "the-secret-of-the-scraper";

fn is_text_format(headers: &HeaderMap) -> bool {
    headers["content-type"].to_str().unwrap().starts_with("text/plain; version=0.0.4")
}

#[tokio::test]
async fn what_waits_in_the_storage_is_shown() {
    let site = site().await;
    site.park([parked(1, "order.placed", "1"), parked(2, "order.placed", "2")]).await;
    let response = site.as_user(READER, "/metrics").await;
    assert!(response.status() == StatusCode::OK && is_text_format(response.headers()));
    let text = response.text().await.unwrap();
    for line in [
        "# TYPE cap_backlog gauge",
        "cap_backlog{side=\"outbox\",group=\"\"} 0",
        "cap_parked_messages{side=\"inbox\",group=\"stock.v1\"} 2",
        "cap_lag_seconds{side=\"outbox\",group=\"\"} 0",
        "cap_storage_up 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in {text}");
    }
}

#[tokio::test]
async fn strangers_get_no_metrics() {
    let site = site_with(auth().metrics_token(SCRAPER), |all| all).await;
    assert_eq!(site.get("/metrics").send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(site.as_user("wrong", "/metrics").await.status(), StatusCode::UNAUTHORIZED);
    let in_url = site.get(&format!("/metrics?token={SCRAPER}")).send().await.unwrap();
    assert_eq!(in_url.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn the_token_for_metrics_opens_nothing_else() {
    for auth in [auth(), Auth::own_layer(key()), Auth::loopback(Rights::read())] {
        let site = site_with(auth.metrics_token(SCRAPER), |all| all).await;
        // More often than a wrong token may be tried.
        for _ in 0..15 {
            assert_eq!(site.as_user(SCRAPER, "/metrics").await.status(), StatusCode::OK);
        }
    }
    let site = site_with(auth().metrics_token(SCRAPER), |all| all).await;
    for path in ["", "/parked", "/api/v1/messages", "/api/stats"] {
        let status = site.as_user(SCRAPER, path).await.status();
        assert!(!status.is_success(), "{path}: {status}");
    }
    let ready = site.as_user(SCRAPER, "/health/ready").await.text().await.unwrap();
    assert_eq!(ready, r#"{"status":"ready"}"#, "no reasons");
}

#[tokio::test]
async fn guesses_of_the_metrics_token_are_limited() {
    for auth in [auth(), Auth::own_layer(key())] {
        let site = site_with(auth.metrics_token(SCRAPER), |all| all).await;
        for guess in 0..9 {
            let status = site.as_user(&format!("guess-number-{guess}"), "/metrics").await.status();
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{guess}");
        }
        assert!(!site.as_user("the-last-guess", "/metrics").await.status().is_success());
        assert_eq!(site.as_user(SCRAPER, "/metrics").await.status(), StatusCode::TOO_MANY_REQUESTS);
    }
}

#[tokio::test]
async fn a_short_metrics_token_is_rejected() {
    let store = Store::memory();
    let built = Dashboard::new(store.operator().await).router(auth().metrics_token("short"));
    assert!(matches!(built, Err(SetupError::ShortToken { name, .. }) if name == "metrics"));
}

#[tokio::test]
async fn metrics_of_the_application_are_added_once() {
    let store = Store::memory();
    let recorded = "# TYPE cap_sent_total counter\ncap_sent_total{topic=\"a\"} 5\n\
                    # TYPE cap_backlog gauge\ncap_backlog{side=\"outbox\",group=\"\"} 7";
    let dashboard = Dashboard::new(store.operator().await).metrics(|| recorded.to_owned());
    let router = Router::new().nest("/cap", dashboard.router(auth()).unwrap());
    let text = serve(router, store).await.page(READER, "/metrics").await;
    assert!(text.contains("cap_sent_total{topic=\"a\"} 5\n") && text.contains("cap_storage_up 1"), "{text}");
    assert_eq!(text.matches("# TYPE cap_backlog").count(), 1, "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("cap_backlog")).count(), 1, "{text}");
}
