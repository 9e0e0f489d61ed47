//! Failing handlers: tried again by their policy, given up, told to an operator once, and re-run by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cap_core::prelude::*;
use cap_core::storage::{Reason, Side, Status};
use cap_tests::{heard, scene, until};
use tokio::sync::mpsc;

const SHORT: Duration = Duration::from_millis(50);

#[tokio::test]
async fn handler_that_recovers_replies_once_with_failures_recorded() {
    scene(async |scene| {
        let (tell, mut told) = mpsc::channel(8);
        let builder = scene
            .builder()
            .configure(|options| {
                // Both kinds of pause: none, in this process, and some, through the store.
                options.retry = RetryPolicy::delays([Duration::ZERO, SHORT, SHORT]);
            })
            .subscribe("work", async |attempt: Attempt| match attempt.0 {
                4 => Ok(Reply("done")),
                number => Err(format!("not at attempt {number}")),
            })
            .subscribe("done", move |answer: String| {
                let tell = tell.clone();
                async move { tell.send(answer).await }
            });
        let cap = scene.start(builder).await;
        let id = cap.publish("work", &()).callback("done").await.unwrap();
        assert_eq!(heard(&mut told).await, "done");
        let row = until("success is on record", async || {
            let row = cap.messages().find(id.as_str()).await.unwrap().pop()?;
            (row.status == Status::Succeeded).then_some(row)
        })
        .await;
        assert_eq!(row.attempts, 3);
        let attempts = cap.messages().attempts(row.id).await.unwrap();
        let errors: Vec<&str> = attempts.iter().map(|attempt| attempt.error.as_str()).collect();
        assert_eq!(errors, ["not at attempt 1", "not at attempt 2", "not at attempt 3"]);
        assert_eq!(attempts.iter().map(|attempt| attempt.number).collect::<Vec<_>>(), [1, 2, 3]);
        let replies = cap.messages().published().topic("done");
        assert_eq!(replies.count().await.unwrap(), 1, "one answer for four attempts");
    })
    .await;
}

/// Runs a message again by hand, once the bus has noted that the person was told.
async fn rerun(cap: &Cap, row: i64) {
    until("the row is free", async || (cap.messages().rerun(&[row]).await.unwrap() == [row]).then_some(()))
        .await;
}

#[tokio::test]
async fn a_person_is_told_once_and_runs_it_again() {
    scene(async |scene| {
        let mended = Arc::new(AtomicBool::new(false));
        let works = Arc::clone(&mended);
        let (tell, mut told) = mpsc::channel(8);
        let (fail, mut failures) = mpsc::channel(8);
        let builder = scene
            .builder()
            .configure(|options| options.retry = RetryPolicy::fixed(SHORT, 3))
            .on_failed(move |failure| {
                let fail = fail.clone();
                async move { fail.send(failure).await.unwrap() }
            })
            .subscribe("work", move |number: u32| {
                let works = works.load(Ordering::SeqCst);
                async move { if works { Ok(Reply(number)) } else { Err("the stock is being counted") } }
            })
            .subscribe("done", move |number: u32| {
                let tell = tell.clone();
                async move { tell.send(number).await }
            });
        let cap = scene.start(builder).await;
        let id = cap.publish("work", &42).callback("done").await.unwrap();
        let failure = heard(&mut failures).await;
        assert_eq!(failure.message.id(), Some(id.as_str()));
        assert_eq!((failure.side, failure.attempts), (Side::Inbox, 3));
        assert_eq!(
            (failure.reason, failure.error.as_str()),
            (Reason::Exhausted, "the stock is being counted")
        );
        assert_eq!(*failure.group, *scene.queue("main"));
        let row = cap.messages().get(failure.id).await.unwrap().unwrap();
        assert_eq!((row.status, row.attempts), (Status::Failed, 3));
        assert!(row.expires.is_some());
        // As CAP, which keeps it in the row's headers.
        let exception = row.message.headers.get("cap-exception");
        assert!(exception.is_none_or(|text| text.contains("the stock is being counted")), "{exception:?}");

        mended.store(true, Ordering::SeqCst);
        rerun(&cap, failure.id).await;
        assert_eq!(heard(&mut told).await, 42);
        let row = until("success", async || {
            let row = cap.messages().get(failure.id).await.unwrap()?;
            (row.status == Status::Succeeded).then_some(row)
        })
        .await;
        assert_eq!((row.attempts, row.reruns), (3, 1));
        assert!(failures.try_recv().is_err(), "told once");
    })
    .await;
}

#[tokio::test]
async fn an_error_that_no_retry_can_mend_ends_at_once() {
    scene(async |scene| {
        let (fail, mut failures) = mpsc::channel(8);
        let builder = scene
            .builder()
            .on_failed(move |failure| {
                let fail = fail.clone();
                async move { fail.send(failure).await.unwrap() }
            })
            .subscribe("work", async || {
                Err::<(), _>(HandlerError::permanent("a payment cannot be negative"))
            });
        let cap = scene.start(builder).await;
        cap.publish("work", &()).await.unwrap();
        let failure = heard(&mut failures).await;
        assert_eq!((failure.reason, failure.attempts), (Reason::Permanent, 1));
    })
    .await;
}

/// A message whose handler panics or hangs is an ordinary failure, and the next message is none the worse.
#[tokio::test]
async fn panics_and_time_outs_are_failures_like_others() {
    scene(async |scene| {
        let (tell, mut told) = mpsc::channel(8);
        let (fail, mut failures) = mpsc::channel(8);
        let builder = scene
            .builder()
            .configure(|options| options.retry = RetryPolicy::never())
            .on_failed(move |failure| {
                let fail = fail.clone();
                async move { fail.send(failure).await.unwrap() }
            })
            .subscribe(Subscribe::to("work").timeout(SHORT), move |kind: String| {
                let tell = tell.clone();
                async move {
                    match kind.as_str() {
                        "panic" => panic!("out of stock"),
                        "hang" => std::future::pending().await,
                        _ => tell.send(kind).await,
                    }
                }
            });
        let cap = scene.start(builder).await;
        for kind in ["panic", "hang", "good"] {
            cap.publish("work", kind).await.unwrap();
        }
        let failure = heard(&mut failures).await;
        assert!(failure.error.contains("out of stock"), "{}", failure.error);
        let failure = heard(&mut failures).await;
        assert_eq!(failure.reason, Reason::Exhausted);
        assert!(failure.error.contains("50ms"), "{}", failure.error);
        assert_eq!(heard(&mut told).await, "good");
    })
    .await;
}

/// A message that waits for its next attempt holds nobody up.
#[tokio::test]
async fn a_failing_message_does_not_stand_in_the_way() {
    scene(async |scene| {
        let (tell, mut told) = mpsc::channel(64);
        let builder = scene
            .builder()
            .configure(|options| options.retry = RetryPolicy::fixed(Duration::from_secs(3600), 2))
            .subscribe("work", move |number: u32| {
                let tell = tell.clone();
                async move {
                    if number.is_multiple_of(2) {
                        return Err("poisoned".into());
                    }
                    tell.send(number).await.map_err(cap_core::BoxError::from)
                }
            });
        let cap = scene.start(builder).await;
        cap.publish_all("work", 0..40).await.unwrap();
        // Their order is not what this is about: over a quorum queue one may be delivered again, later.
        let mut good = Vec::new();
        while good.len() < 20 {
            good.push(heard(&mut told).await);
        }
        good.sort_unstable();
        assert_eq!(good, (1..40).step_by(2).collect::<Vec<_>>());
        let waiting = cap.messages().status(Status::Retrying);
        until("all failures are on record", async || (waiting.count().await.unwrap() == 20).then_some(()))
            .await;
    })
    .await;
}
