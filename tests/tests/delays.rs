//! Messages for later: never early, through restarts too, and they can be cancelled.

use std::time::Duration;

use cap_core::prelude::*;
use cap_core::storage::{Reason, Status};
use cap_tests::{heard, scene};
use tokio::sync::mpsc;
use tokio::time::Instant;

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn a_delayed_message_is_not_early_and_holds_no_other_up() {
    scene(async |scene| {
        let (tell, mut told) = mpsc::channel(8);
        let builder = scene.builder().subscribe("report", move |name: String| {
            let tell = tell.clone();
            async move { tell.send((name, Instant::now())).await }
        });
        let cap = scene.start(builder).await;
        let start = Instant::now();
        let delay = Duration::from_millis(700);
        cap.publish("report", "tomorrow").delay(HOUR).await.unwrap();
        cap.publish("report", "later").delay(delay).await.unwrap();
        cap.publish("report", "now").await.unwrap();
        assert_eq!(heard(&mut told).await.0, "now");
        let (name, at) = heard(&mut told).await;
        assert_eq!(name, "later");
        assert!(at - start >= delay, "after {:?}", at - start);
    })
    .await;
}

#[tokio::test]
async fn a_delay_outlives_the_process_that_asked_for_it() {
    scene(async |scene| {
        let (tell, mut told) = mpsc::channel(8);
        let first = scene.start(scene.builder()).await;
        let start = Instant::now();
        let delay = Duration::from_millis(1500);
        first.publish("report", &1).delay(delay).await.unwrap();
        first.shutdown().await.unwrap();
        let second = scene.builder().subscribe("report", move |number: u32| {
            let tell = tell.clone();
            async move { tell.send((number, Instant::now())).await }
        });
        scene.start(second).await;
        let (number, at) = heard(&mut told).await;
        assert_eq!(number, 1);
        assert!(at - start >= delay);
    })
    .await;
}

#[tokio::test]
async fn a_delayed_message_is_called_off_and_yet_sent_by_hand() {
    scene(async |scene| {
        let (tell, mut told) = mpsc::channel(8);
        let builder = scene.builder().subscribe("report", move |number: u32| {
            let tell = tell.clone();
            async move { tell.send(number).await }
        });
        let cap = scene.start(builder).await;
        let published = cap.messages().published();
        let short = Duration::from_millis(300);
        let cancelled = cap.publish("report", &1).delay(short).await.unwrap();
        assert!(cap.cancel(&cancelled).await.unwrap());
        assert!(!cap.cancel(&cancelled).await.unwrap(), "it is cancelled already");
        assert!(!cap.cancel(&MessageId::new("never-was")).await.unwrap());
        let row = published.find(cancelled.as_str()).await.unwrap().remove(0);
        assert_eq!((row.status, row.reason), (Status::Failed, Some(Reason::Cancelled)));
        // Due after the one that was cancelled, which would have come first.
        cap.publish("report", &2).delay(short).await.unwrap();
        assert_eq!(heard(&mut told).await, 2);
        assert_eq!(published.rerun(&[row.id]).await.unwrap(), [row.id]);
        assert_eq!(heard(&mut told).await, 1);
    })
    .await;
}
