//! The bus in the hands of its own handlers, and of the callback that is notified of what failed for good.
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use cap_core::CapBuilder;
use cap_core::prelude::*;
use support::{Log, alone, log};

fn with_bus(noted: Log<u32>) -> CapBuilder {
    alone()
        .configure(|options| options.retry = RetryPolicy::never())
        .subscribe("first", async |n: u32, cap: Cap| {
            cap.publish("second", &n).await.map_err(HandlerError::failed)?;
            Err::<(), _>(HandlerError::failed("after it has published"))
        })
        .subscribe("second", move |n: u32| {
            noted.note(n);
            async {}
        })
}

#[tokio::test(start_paused = true)]
async fn a_handler_may_have_the_bus_as_an_argument() {
    let (noted, mut seen) = log();
    let cap = with_bus(noted).start().await.unwrap();
    cap.publish("first", &7).await.unwrap();
    assert_eq!(seen.next().await, 7, "stored at once, whatever becomes of the handler");
    cap.shutdown().await.unwrap();
    assert_eq!(cap.messages().parked().count().await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn bus_ends_with_its_last_handle_though_handlers_hold_it() {
    let (noted, mut seen) = log();
    let held = Arc::new("held by whatever is left of the bus");
    let left = Arc::downgrade(&held);
    let cap = with_bus(noted)
        .shared_state(held)
        .on_failed(async |failure| drop(failure.bus()))
        .start()
        .await
        .unwrap();
    cap.publish("first", &7).await.unwrap();
    seen.next().await;
    while cap.messages().parked().count().await.unwrap() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    drop(cap);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(left.upgrade().is_none());
}

#[tokio::test(start_paused = true)]
async fn the_callback_may_run_again_what_failed() {
    let (noted, mut seen) = log();
    let cap = alone()
        .subscribe(Subscribe::to("work").retry(RetryPolicy::never()), async |Attempt(attempt): Attempt| {
            if attempt < 3 { Err("not yet") } else { Ok(()) }
        })
        .on_failed(move |failure| {
            let noted = noted.clone();
            async move {
                let cap = failure.bus().unwrap();
                let again = cap.messages().parked().by("the callback").rerun(&[failure.id]).await;
                noted.note((failure.attempts, again.unwrap() == [failure.id]));
            }
        })
        .start()
        .await
        .unwrap();
    cap.publish("work", &()).await.unwrap();
    assert_eq!(seen.take(2).await, [(1, true), (2, true)]);
    cap.shutdown().await.unwrap();
    assert_eq!(cap.messages().parked().count().await.unwrap(), 0);
    seen.assert_empty();
}
