//! The end of a bus: what runs may finish, what does not is not lost, and nothing new is taken.

use std::sync::Arc;
use std::time::Duration;

use cap_core::PublishError;
use cap_core::prelude::*;
use cap_core::storage::Status;
use cap_tests::{heard, scene, soon, until};
use tokio::sync::{Notify, mpsc};

#[tokio::test]
async fn a_running_handler_finishes_and_its_answer_is_stored() {
    scene(async |scene| {
        let finish = Arc::new(Notify::new());
        let (begin, mut running) = mpsc::channel(8);
        let wait = Arc::clone(&finish);
        let builder = scene.builder().subscribe("work", move |number: u32| {
            let (begin, wait) = (begin.clone(), Arc::clone(&wait));
            async move {
                begin.send(number).await.unwrap();
                wait.notified().await;
                Reply(number)
            }
        });
        let cap = scene.start(builder).await;
        let mut answers = scene.foreign().await.listen("done").await;
        let id = cap.publish("work", &7).callback("done").await.unwrap();
        let second = cap.publish("work", &8).callback("done").await.unwrap();
        let first = heard(&mut running).await;
        let shutdown = cap.shutdown();
        let publish_and_finish = async {
            let error = until("the bus is closing", async || cap.publish("work", &9).await.err()).await;
            assert!(matches!(error, PublishError::ShutDown { .. }), "{error}");
            finish.notify_one();
        };
        let (ended, ()) = soon(async { tokio::join!(shutdown, publish_and_finish) }).await;
        ended.unwrap();
        assert!(running.try_recv().is_err(), "the second message is not begun any more");

        assert_eq!(answers.next().await.data, first.to_string().into_bytes());

        let next = scene.start(scene.builder().subscribe("work", async |number: u32| Reply(number))).await;
        assert_eq!(answers.next().await.data, (15 - first).to_string().into_bytes());
        for id in [id, second] {
            let row = until("success", async || {
                let row = next.messages().find(id.as_str()).await.unwrap().pop()?;
                (row.status == Status::Succeeded).then_some(row)
            })
            .await;
            assert_eq!(row.attempts, 0);
        }
    })
    .await;
}

#[tokio::test]
async fn a_handler_that_does_not_end_is_done_again_elsewhere() {
    scene(async |scene| {
        let (begin, mut running) = mpsc::channel(8);
        let builder = scene
            .builder()
            .configure(|options| {
                options.shutdown_timeout = Duration::from_millis(200);
                options.lease = Duration::from_secs(600);
            })
            .subscribe("work", move |_: u32| {
                let begin = begin.clone();
                async move {
                    begin.send(()).await.unwrap();
                    std::future::pending::<()>().await;
                }
            });
        let cap = scene.start(builder).await;
        cap.publish("work", &7).await.unwrap();
        heard(&mut running).await;
        let error = soon(cap.shutdown()).await.unwrap_err().to_string();
        assert!(error.contains("messages being handled"), "{error}");

        let (tell, mut told) = mpsc::channel(8);
        let next = scene.builder().subscribe("work", move |number: u32, attempt: Attempt| {
            let tell = tell.clone();
            async move { tell.send((number, attempt.0)).await }
        });
        scene.start(next).await;
        // Given back by the shutdown: nobody waits for the lease to run out.
        assert_eq!(heard(&mut told).await, (7, 1));
    })
    .await;
}

/// A handler that listens stops at once, and no attempt is counted.
#[tokio::test]
async fn a_handler_that_is_called_off_counts_no_attempt() {
    scene(async |scene| {
        let (begin, mut running) = mpsc::channel(8);
        let builder = scene.builder().subscribe("work", move |_: u32, cancelled: Cancelled| {
            let begin = begin.clone();
            async move {
                begin.send(()).await.unwrap();
                cancelled.cancelled().await;
                Err::<(), _>(HandlerError::cancelled())
            }
        });
        let cap = scene.start(builder).await;
        let id = cap.publish("work", &7).await.unwrap();
        heard(&mut running).await;
        soon(cap.shutdown()).await.unwrap();
        let (tell, mut told) = mpsc::channel(8);
        let next = scene.builder().subscribe("work", move |number: u32, attempt: Attempt| {
            let tell = tell.clone();
            async move { tell.send((number, attempt.0)).await }
        });
        let next = scene.start(next).await;
        assert_eq!(heard(&mut told).await, (7, 1));
        let row = next.messages().find(id.as_str()).await.unwrap().remove(0);
        assert!(next.messages().attempts(row.id).await.unwrap().is_empty());
    })
    .await;
}

/// Many messages under way at the moment of the end: each is handled once, before or after it.
#[tokio::test]
async fn nothing_is_lost_or_doubled_in_the_middle_of_the_work() {
    scene(async |scene| {
        const ALL: u32 = 500;
        let (tell, mut told) = mpsc::channel(usize::try_from(2 * ALL).unwrap());
        let subscribe = |builder: cap_core::CapBuilder| {
            let tell = tell.clone();
            builder.subscribe("work", move |number: u32| {
                let tell = tell.clone();
                async move { tell.send(number).await }
            })
        };
        let first = scene.start(subscribe(scene.builder())).await;
        first.publish_all("work", 0..ALL).await.unwrap();
        let mut all = vec![heard(&mut told).await];
        soon(first.shutdown()).await.unwrap();
        scene.start(subscribe(scene.builder())).await;
        while all.len() < usize::try_from(ALL).unwrap() {
            all.push(heard(&mut told).await);
        }
        all.sort_unstable();
        assert_eq!(all, (0..ALL).collect::<Vec<_>>());
    })
    .await;
}
