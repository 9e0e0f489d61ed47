//! Calling what fails: retries that the broker keeps, errors by their class, circuits, and what an operator does in the end.
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cap_core::CircuitState;
use cap_core::prelude::*;
use cap_core::storage::Reason;
use support::{Seen, alone, attempts, log, on};
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error("bad request")]
    BadRequest,
    #[error("too many requests")]
    TooMany,
    #[error("no answer")]
    NoAnswer,
}

fn classify(error: HandlerError) -> HandlerError {
    match error.find::<CallError>() {
        Some(CallError::BadRequest) => error.permanently(),
        Some(CallError::TooMany) => error.retry(RetryPolicy::fixed(100 * SECOND, 2)),
        _ => error.outage(),
    }
}

#[tokio::test(start_paused = true)]
async fn the_class_of_an_error_decides_what_follows() {
    let (noted, mut seen) = log();
    let start = Instant::now();
    let cap = alone()
        .classify_errors(classify)
        .configure(|options| options.retry = RetryPolicy::fixed(SECOND, 3))
        .subscribe("call", move |kind: u8, Attempt(attempt): Attempt| {
            noted.note((kind, attempt, start.elapsed().as_secs()));
            async move {
                Err::<(), _>(match kind {
                    0 => CallError::BadRequest,
                    1 => CallError::TooMany,
                    _ => CallError::NoAnswer,
                })
            }
        })
        .start()
        .await
        .unwrap();
    cap.publish_all("call", [0, 1, 2]).await.unwrap();
    let mut all = seen.take(6).await;
    all.sort_unstable();
    assert_eq!(all, [(0, 1, 0), (1, 1, 0), (1, 2, 100), (2, 1, 0), (2, 2, 1), (2, 3, 2)]);
    cap.shutdown().await.unwrap();
    let parked = cap.messages().parked();
    assert_eq!(parked.clone().reason(Reason::Permanent).count().await.unwrap(), 1);
    assert_eq!(parked.reason(Reason::Exhausted).error("no answer").count().await.unwrap(), 1);
    seen.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn open_circuit_counts_no_attempt_and_closes_after_a_probe() {
    const MESSAGES: u32 = 20;
    let (noted, mut seen) = log();
    let up = Arc::new(AtomicBool::new(false));
    let dependency = Arc::clone(&up);
    let breaker = CircuitBreaker::after(3).pause(10 * SECOND).longest(20 * SECOND);
    let subscribe = Subscribe::to("call").retry(RetryPolicy::fixed(SECOND, 5)).circuit(breaker);
    let cap = alone()
        .subscribe(subscribe, move |number: u32, Attempt(attempt): Attempt| {
            let up = dependency.load(Ordering::Relaxed);
            noted.note((number, attempt, up));
            async move { if up { Ok(()) } else { Err("nobody answers") } }
        })
        .start()
        .await
        .unwrap();
    cap.publish_all("call", 0..MESSAGES).await.unwrap();
    tokio::time::sleep(65 * SECOND).await;
    let open = cap.health().await.groups.remove(0).circuits.remove(0);
    assert_eq!(open.state, CircuitState::Open);
    up.store(true, Ordering::Relaxed);
    let mut failed = 0;
    let mut done = Vec::new();
    while done.len() < MESSAGES as usize {
        match seen.next().await {
            (number, _, true) => done.push(number),
            (.., false) => failed += 1,
        }
    }
    // Three that opened it, and the probes at about 10, 30 and 50 seconds.
    assert_eq!(failed, 6);
    done.sort_unstable();
    assert_eq!(done, (0..MESSAGES).collect::<Vec<_>>());
    assert_eq!(cap.health().await.groups.remove(0).circuits.remove(0).state, CircuitState::Closed);
    cap.shutdown().await.unwrap();
    assert_eq!(cap.messages().parked().count().await.unwrap(), 0);
    seen.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn what_fails_while_the_circuit_is_open_is_not_counted() {
    let (noted, mut seen) = log();
    let breaker = CircuitBreaker::after(1).pause(10 * SECOND);
    let subscribe = Subscribe::to("call").retry(RetryPolicy::never()).circuit(breaker).concurrency(2);
    let cap = alone()
        .subscribe(subscribe, move |pause: u64, Attempt(attempt): Attempt| {
            noted.note((pause, attempt));
            async move {
                tokio::time::sleep(Duration::from_secs(pause)).await;
                Err::<(), _>("nobody answers")
            }
        })
        .start()
        .await
        .unwrap();
    // The first to fail opens the circuit and is given up; the other was under way then, and becomes the probe.
    cap.publish_all("call", [1u64, 2]).await.unwrap();
    let mut all = seen.take(3).await;
    all.sort_unstable();
    assert_eq!(all, [(1, 1), (2, 1), (2, 1)]);
    while cap.messages().parked().count().await.unwrap() < 2 {
        tokio::time::sleep(SECOND).await;
    }
    cap.shutdown().await.unwrap();
    seen.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn open_circuit_delays_immediate_attempts() {
    let (noted, mut seen) = log();
    let start = Instant::now();
    let breaker = CircuitBreaker::after(1).pause(10 * SECOND);
    let policy = RetryPolicy::delays([Duration::ZERO, Duration::ZERO]);
    let cap = alone()
        .subscribe(Subscribe::to("call").retry(policy).circuit(breaker), move |Attempt(attempt): Attempt| {
            noted.note((attempt, start.elapsed()));
            async { Err::<(), _>("nobody answers") }
        })
        .start()
        .await
        .unwrap();
    cap.publish("call", &1).await.unwrap();
    assert_eq!(attempts(&mut seen, 3).await, [(1, 0), (2, 10), (3, 30)]);
    cap.shutdown().await.unwrap();
    seen.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn with_outages_only_a_message_of_its_own_fault_opens_nothing() {
    let breaker = CircuitBreaker::after(1).outages_only();
    let (noted, mut seen) = log();
    let cap = alone()
        .subscribe(Subscribe::to("call").retry(RetryPolicy::never()).circuit(breaker), move |number: u32| {
            noted.note(number);
            async move {
                match number {
                    2 => Err::<(), _>(HandlerError::failed("away").outage()),
                    _ => Err(HandlerError::failed("odd")),
                }
            }
        })
        .start()
        .await
        .unwrap();
    for number in 0..3 {
        cap.publish("call", &number).await.unwrap();
        assert_eq!(seen.next().await, number);
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    cap.publish("call", &3).await.unwrap();
    tokio::time::sleep(20 * SECOND).await;
    seen.assert_empty();
    assert_eq!(cap.health().await.groups.remove(0).circuits.remove(0).state, CircuitState::Open);
    assert_eq!(seen.next().await, 3, "the probe");
    cap.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn each_subscription_of_one_function_has_a_circuit_of_its_own() {
    async fn call(fails: bool) -> Result<(), &'static str> {
        if fails { Err("nobody answers") } else { Ok(()) }
    }
    let subscribe = |topic: &str| Subscribe::to(topic).circuit(CircuitBreaker::after(1).pause(60 * SECOND));
    let cap =
        alone().subscribe(subscribe("tax"), call).subscribe(subscribe("post"), call).start().await.unwrap();
    let opened = async || {
        let circuits = cap.health().await.groups.remove(0).circuits;
        let shown = circuits.into_iter().map(|circuit| (circuit.topic, circuit.state, circuit.since));
        shown.collect::<Vec<_>>()
    };
    cap.publish("tax", &true).await.unwrap();
    tokio::time::sleep(SECOND).await;
    let before = opened().await;
    let states: Vec<_> = before.iter().map(|(topic, state, _)| (topic.as_str(), *state)).collect();
    assert_eq!(states, [("post", CircuitState::Closed), ("tax", CircuitState::Open)]);
    cap.publish("post", &false).await.unwrap();
    cap.publish("tax", &true).await.unwrap();
    tokio::time::sleep(SECOND).await;
    assert_eq!(opened().await, before, "neither is shown in the other's place");
    cap.shutdown().await.unwrap();
}

/// Parks messages 0 to 9 with the errors `odd` and `even`.
async fn with_parked(storage: &MemoryStorage) -> (Cap, Seen<(u32, u32)>) {
    let (noted, mut seen) = log();
    let cap = on(storage, &MemoryTransport::new())
        .subscribe(
            Subscribe::to("call").retry(RetryPolicy::never()),
            move |number: u32, Attempt(attempt): Attempt| {
                noted.note((number, attempt));
                async move {
                    match number {
                        100.. => Ok(()),
                        _ if number % 2 == 1 => Err("odd"),
                        _ => Err("even"),
                    }
                }
            },
        )
        .start()
        .await
        .unwrap();
    cap.publish_all("call", 0..10u32).await.unwrap();
    seen.take(10).await;
    while cap.messages().parked().count().await.unwrap() < 10 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    (cap, seen)
}

#[tokio::test(start_paused = true)]
async fn parked_messages_are_found_and_re_run_one_some_or_all() {
    let (cap, mut seen) = with_parked(&MemoryStorage::new()).await;
    let odd = cap.messages().parked().by("alice").error("odd");
    assert_eq!(odd.count().await.unwrap(), 5);
    let rows = odd.clone().limit(2).list().await.unwrap();
    assert_eq!(rows.len(), 2);
    let next = odd.clone().before(rows[1].id).list().await.unwrap();
    assert_eq!(next.len(), 3);
    assert_eq!(odd.rerun(&[rows[0].id, 404]).await.unwrap(), [rows[0].id]);
    assert_eq!(seen.next().await, (9, 2));
    while odd.count().await.unwrap() < 5 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(odd.rerun_all().await.unwrap(), 5);
    let mut again = seen.take(5).await;
    again.sort_unstable();
    assert_eq!(again, [(1, 2), (3, 2), (5, 2), (7, 2), (9, 3)]);
    while cap.messages().parked().count().await.unwrap() < 10 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let row = odd.list().await.unwrap().remove(0);
    assert_eq!((row.attempts, row.reruns), (3, 2), "counted apart");
    let audit = row.message.headers.get("cap-audit").unwrap();
    let lines: Vec<&str> = audit.lines().collect();
    assert_eq!(lines.len(), 2);
    assert!(lines.iter().all(|line| line.ends_with("Z alice re-ran it")), "{audit}");
    assert_eq!(cap.messages().attempts(row.id).await.unwrap().len(), 3);
    cap.shutdown().await.unwrap();
    seen.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn a_parked_message_is_mended_or_deleted() {
    let (cap, mut seen) = with_parked(&MemoryStorage::new()).await;
    let parked = cap.messages().parked().by("bob");
    let id = parked.list().await.unwrap()[0].id;
    assert!(parked.edit_and_rerun(id, &109u32).await.unwrap());
    assert_eq!(seen.next().await, (109, 2));
    let row = cap.messages().get(id).await.unwrap().unwrap();
    assert!(row.message.headers.get("cap-audit").unwrap().ends_with("bob edited and re-ran it"));
    while cap.messages().parked().count().await.unwrap() > 9 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(!parked.edit_and_rerun(id, &1u32).await.unwrap(), "it is parked no more");
    assert_eq!(parked.clone().error("even").delete_all().await.unwrap(), 5);
    assert_eq!(parked.delete(&[id]).await.unwrap(), [0i64; 0], "it is parked no more");
    assert_eq!(parked.count().await.unwrap(), 4);
    cap.shutdown().await.unwrap();
    seen.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn messages_that_could_not_be_published_are_parked_too() {
    let (noted, mut seen) = log();
    let transport = MemoryTransport::new();
    let cap = on(&MemoryStorage::new(), &transport)
        .configure(|options| {
            options.unrouted = cap_core::Unrouted::Fail;
            options.publish_retry = RetryPolicy::never();
        })
        .on_failed(move |failure| {
            noted.note(failure.id);
            async {}
        })
        .start()
        .await
        .unwrap();
    cap.publish("nobody.listens", &1).await.unwrap();
    let id = seen.next().await;
    let published = cap.messages().parked().published().topic("nobody.listens");
    assert_eq!(published.list().await.unwrap()[0].id, id);
    assert_eq!(cap.messages().parked().count().await.unwrap(), 0);
    assert_eq!(published.rerun_all().await.unwrap(), 1);
    assert_eq!(seen.next().await, id, "told again");
    cap.shutdown().await.unwrap();
}

#[tokio::test]
async fn mistakes_in_circuits_and_queues_are_found_at_the_start() {
    let error = alone()
        .subscribe(Subscribe::to("a").circuit(CircuitBreaker::after(0)), async || ())
        .subscribe(Subscribe::to("b").queue("dead").group("g"), async || ())
        .start()
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("0 failures") && error.contains("a group and a queue"), "{error}");
}
