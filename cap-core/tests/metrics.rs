//! What a bus counts and measures, by topic and group.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::time::Duration;

use cap_core::error::StorageErrorKind;
use cap_core::prelude::*;
use cap_core::{CircuitBreaker, metric_names};
use support::signs::Signs;
use support::store::{ALL, Shaky};
use support::{Seen, alone, log};

const SECOND: Duration = Duration::from_secs(1);

/// A bus with a subscription to a pattern, whose handler takes two seconds and fails for the number 0.
async fn started() -> (Cap, Seen<u32>) {
    let (noted, seen) = log();
    let work = Subscribe::to("work.*").retry(RetryPolicy::fixed(SECOND, 1));
    let bus = alone().subscribe(work, move |number: u32| {
        let noted = noted.clone();
        async move {
            tokio::time::sleep(2 * SECOND).await;
            noted.note(number);
            if number == 0 { Err(HandlerError::permanent("zero")) } else { Ok(()) }
        }
    });
    (bus.start().await.unwrap(), seen)
}

#[tokio::test(start_paused = true)]
async fn counters_have_topic_and_group() {
    let signs = Signs::default();
    let _counted = signs.count();
    let (cap, mut seen) = started().await;
    for (topic, number) in [("work.a", 1_u32), ("work.a", 2), ("work.b", 0), ("nobody", 3)] {
        cap.publish(topic, &number).await.unwrap();
    }
    seen.take(3).await;
    cap.shutdown().await.unwrap();
    for (topic, count) in [("work.a", 2), ("work.b", 1), ("nobody", 1)] {
        let label = format!("topic={topic}");
        assert_eq!(signs.labelled("cap_published_total", &label), count, "{topic}");
        assert_eq!(signs.labelled("cap_sent_total", &label), count, "{topic}");
    }
    assert_eq!(signs.labelled("cap_unrouted_total", "topic=nobody"), 1);
    let by_pattern = "topic=work.*,group=test.v1";
    assert_eq!(signs.labelled("cap_handled_total", by_pattern), 2);
    assert_eq!(signs.labelled("cap_handler_failed_total", by_pattern), 1);
    assert_eq!(signs.labelled("cap_parked_total", by_pattern), 1);
    assert_eq!(signs.labelled("cap_received_total", "group=test.v1"), 3);
}

#[tokio::test(start_paused = true)]
async fn durations_are_measured_for_each_attempt() {
    let signs = Signs::default();
    let _counted = signs.count();
    let (cap, mut seen) = started().await;
    cap.publish("work.a", &1_u32).await.unwrap();
    cap.publish("work.a", &0_u32).await.unwrap();
    cap.publish("work.a", &2_u32).message_id("of-a-foreign-system").await.unwrap();
    seen.take(3).await;
    cap.shutdown().await.unwrap();
    let by_pattern = "topic=work.*,group=test.v1";
    let took = signs.histogram("cap_handle_duration_seconds", by_pattern);
    assert!(took.len() == 3 && took.iter().all(|took| (2.0..2.1).contains(took)), "{took:?}");
    let since = signs.histogram("cap_publish_to_handled_seconds", by_pattern);
    assert_eq!(since.len(), 1, "neither the failed one nor the one with an id of its own: {since:?}");
    let sizes = signs.histogram("cap_batch_size", "operation=send");
    assert!((sizes.iter().sum::<f64>() - 3.0).abs() < 0.1, "{sizes:?}");
    assert_eq!(signs.histogram("cap_send_duration_seconds", "").len(), sizes.len());
}

#[tokio::test(start_paused = true)]
async fn gauges_say_what_waits_and_what_runs() {
    let signs = Signs::default();
    let _counted = signs.count();
    let (noted, mut seen) = log();
    let work = Subscribe::to("work").circuit(CircuitBreaker::after(1)).concurrency(1);
    let bus =
        alone().configure(|options| options.poll_interval = SECOND).subscribe(work, move |number: u32| {
            let noted = noted.clone();
            async move {
                noted.note(number);
                if number == 0 {
                    return Err(HandlerError::permanent("zero"));
                }
                std::future::pending::<()>().await;
                Ok(())
            }
        });
    let cap = bus.start().await.unwrap();
    tokio::time::sleep(SECOND * 3 / 2).await;
    assert_eq!(signs.gauge("cap_running_handlers", "group=test.v1"), Some(0.0));
    assert_eq!(signs.gauge("cap_backlog", "side=outbox,group="), Some(0.0));
    assert_eq!(signs.gauge("cap_broker_up", ""), Some(1.0));
    assert_eq!(signs.gauge("cap_storage_up", ""), Some(1.0));
    assert_eq!(signs.gauge("cap_consumer_up", "group=test.v1"), Some(1.0));
    let circuit = "topic=work,group=test.v1";
    assert_eq!(signs.gauge("cap_circuit_state", circuit), Some(0.0));
    cap.publish("work", &1_u32).await.unwrap();
    cap.publish("work", &2_u32).await.unwrap();
    assert_eq!(seen.next().await, 1);
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(signs.gauge("cap_running_handlers", "group=test.v1"), Some(1.0));
    assert_eq!(signs.gauge("cap_backlog", "side=inbox,group=test.v1"), Some(2.0));
    let _ = cap.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn every_metric_that_is_made_is_listed() {
    let signs = Signs::default();
    let _counted = signs.count();
    let (cap, mut seen) = started().await;
    cap.publish("work.a", &1_u32).await.unwrap();
    seen.next().await;
    tokio::time::sleep(60 * SECOND).await;
    cap.shutdown().await.unwrap();
    let made = signs.made();
    assert!(made.len() > 15, "{made:?}");
    for (name, labels) in made {
        let metric = metric_names::ALL.iter().find(|metric| metric.name == name);
        let metric = metric.unwrap_or_else(|| panic!("{name} is not listed"));
        assert!(labels.iter().all(|label| metric.labels.contains(&label.as_str())), "{name}: {labels:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn gauges_go_on_while_the_storage_is_down() {
    let signs = Signs::default();
    let _counted = signs.count();
    let storage = Shaky::default();
    storage.fail(&ALL, StorageErrorKind::Unavailable);
    let cap = alone().storage(storage).start().await.unwrap();
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!(signs.gauge("cap_storage_up", ""), Some(0.0));
    assert_eq!(signs.gauge("cap_broker_up", ""), Some(1.0), "set again after the first probe");
    cap.shutdown().await.unwrap();
}
