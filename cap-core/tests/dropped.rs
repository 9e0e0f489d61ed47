//! A bus whose last handle is dropped: with a shutdown before it, and without.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use support::alone;
use support::signs::Signs;
use tracing::Level;

const TEXT: &str = "the last handle of the bus was dropped; call shutdown() to drain";

#[tokio::test]
async fn drop_without_shutdown_says_what_was_in_hand() {
    let signs = Signs::default();
    let _log = signs.log();
    let (running, mut runs) = tokio::sync::mpsc::channel(1);
    let cap = alone()
        .subscribe("work", move || {
            let running = running.clone();
            async move {
                running.send(()).await.unwrap();
                std::future::pending::<()>().await;
            }
        })
        .start()
        .await
        .unwrap();
    cap.publish("work", &1).await.unwrap();
    runs.recv().await.unwrap();
    let clone = cap.clone();
    drop(cap);
    assert!(signs.lines(Level::WARN, TEXT).is_empty(), "a handle is left");
    drop(clone);
    let lines = signs.lines(Level::WARN, TEXT);
    assert!(matches!(&*lines, [line] if line.contains("to_handle=1")), "{lines:?}");
}

#[tokio::test]
async fn drop_after_shutdown_is_silent() {
    let signs = Signs::default();
    let _log = signs.log();
    let cap = alone().start().await.unwrap();
    cap.shutdown().await.unwrap();
    drop(cap);
    assert!(signs.lines(Level::WARN, "").is_empty());
}

#[tokio::test]
async fn start_that_fails_is_silent_about_the_handle() {
    let signs = Signs::default();
    let _log = signs.log();
    let started = alone().configure(|options| options.lease = std::time::Duration::ZERO).start().await;
    assert!(started.is_err());
    assert!(signs.lines(Level::WARN, TEXT).is_empty());
}
