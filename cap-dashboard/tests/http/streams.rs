//! The stream of live numbers.

use reqwest::StatusCode;

use crate::support::{READER, parked, site};

#[tokio::test]
async fn a_stream_sends_the_numbers_at_once() {
    let site = site().await;
    site.park([parked(1, "<b>", "1")]).await;
    let mut response = site.as_user(READER, "/live").await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let first = response.chunk().await.unwrap().unwrap();
    let first = String::from_utf8(first.to_vec()).unwrap();
    assert!(first.contains("event: overview") && first.contains("data-part=\"card-parked\""), "{first}");
}

#[tokio::test]
async fn a_hundred_streams_are_the_most() {
    let site = site().await;
    let mut streams = Vec::new();
    for _ in 0..100 {
        let response = site.as_user(READER, "/live").await;
        assert_eq!(response.status(), StatusCode::OK);
        streams.push(response);
    }
    assert_eq!(site.as_user(READER, "/live").await.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(site.as_user(READER, "/parked").await.status(), StatusCode::OK, "pages are still served");
    streams.clear();
    // The server learns of a closed connection by itself, soon.
    for _ in 0..500 {
        if site.as_user(READER, "/live").await.status() == StatusCode::OK {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("the places of closed streams are not free again");
}
