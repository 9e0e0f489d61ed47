//! The engine on the embedded pair: the main job, end to end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cap_core::prelude::*;
use tokio::sync::mpsc;

fn builder() -> cap_core::CapBuilder {
    Cap::builder().handlers(Handlers::none()).storage(MemoryStorage::new()).transport(MemoryTransport::new())
}

#[tokio::test]
async fn published_message_is_handled_and_its_reply_called_back() {
    let (answers, mut heard) = mpsc::channel(8);
    let cap = builder()
        .subscribe("add", async |numbers: Vec<i64>| Reply(numbers.iter().sum::<i64>()))
        .subscribe(Subscribe::to("sum").group("other"), move |sum: i64, headers: CapHeaders| {
            let get = |name| headers.get(name).map(str::to_owned);
            let answer = (sum, get("cap-corr-id"), get("cap-corr-seq"), get("cap-msg-type"));
            let answers = answers.clone();
            async move { answers.send(answer).await }
        })
        .start()
        .await
        .unwrap();
    let id = cap.publish("add", &[1, 2, 3]).callback("sum").await.unwrap();
    let (sum, correlation, sequence, kind) = heard.recv().await.unwrap();
    assert_eq!(sum, 6);
    assert_eq!(correlation.as_deref(), Some(id.as_str()));
    assert_eq!(sequence.as_deref(), Some("1"));
    assert_eq!(kind.as_deref(), Some("Object"));
    cap.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_failing_handler_is_tried_at_once_twice_and_then_later() {
    let (calls, mut called) = mpsc::channel(64);
    let cap = builder()
        .subscribe("work", move |attempt: Attempt| {
            let calls = calls.clone();
            async move {
                calls.send((attempt.0, tokio::time::Instant::now())).await.unwrap();
                if attempt.0 < 5 { Err("not yet") } else { Ok(()) }
            }
        })
        .start()
        .await
        .unwrap();
    let start = tokio::time::Instant::now();
    cap.publish("work", &()).await.unwrap();
    let mut times = Vec::new();
    for attempt in 1..=5 {
        let (number, at) = called.recv().await.unwrap();
        assert_eq!(number, attempt);
        times.push((at - start).as_secs());
    }
    assert_eq!(times, [0, 0, 0, 240, 300]);
    cap.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn fifty_failures_are_the_end_and_one_person_is_told_once() {
    let calls = Arc::new(AtomicU32::new(0));
    let (told, mut failures) = mpsc::channel(8);
    let count = Arc::clone(&calls);
    let cap = builder()
        .on_failed(move |failure| {
            let told = told.clone();
            async move { told.send(failure).await.unwrap() }
        })
        .subscribe("work", move || {
            let call = count.fetch_add(1, Ordering::Relaxed);
            async move { if call < 50 { Err("never") } else { Ok(()) } }
        })
        .start()
        .await
        .unwrap();
    cap.publish("work", &()).await.unwrap();
    let failure = failures.recv().await.unwrap();
    assert_eq!((failure.attempts, failure.error.as_str()), (50, "never"));
    assert_eq!(calls.load(Ordering::Relaxed), 50);
    tokio::time::sleep(Duration::from_secs(86_400)).await;
    assert_eq!(calls.load(Ordering::Relaxed), 50);
    assert!(failures.try_recv().is_err());
    assert_eq!(cap.messages().rerun(&[failure.id]).await.unwrap(), [failure.id]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(calls.load(Ordering::Relaxed), 51);
    cap.shutdown().await.unwrap();
}
