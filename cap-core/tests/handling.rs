//! What handlers are given, how they fail, and what runs around them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cap_core::memory::MemoryTransport;
use cap_core::prelude::*;
use cap_core::storage::{Reason, Status};
use cap_core::{Headers, layer_fn};
use support::{alone, log, on};
use tokio::sync::Notify;
use tokio::time::Instant;

#[tokio::test]
async fn arguments_come_in_any_order() {
    struct Tag(&'static str);
    let (noted, mut seen) = log();
    let handler = move |State(tag): State<Tag>,
                        Topic(topic): Topic,
                        value: u32,
                        headers: CapHeaders,
                        id: MessageId,
                        Attempt(attempt): Attempt,
                        RawBody(body): RawBody,
                        cancelled: Cancelled| {
        noted.note((tag.0, topic.to_string(), value, attempt, body, cancelled.is_cancelled()));
        assert_eq!(headers.get("cap-msg-id"), Some(id.as_str()));
        assert!(headers.get("cap-exec-instance-id").is_some());
        assert_eq!(headers.get("cap-msg-group"), Some("test.v1"));
        async {}
    };
    let cap = alone().state(Tag("shared")).subscribe("a.*", handler).start().await.unwrap();
    cap.publish("a.b", &7).await.unwrap();
    assert_eq!(seen.next().await, ("shared", "a.b".to_owned(), 7, 1, "7".into(), false));
    cap.shutdown().await.unwrap();
}

#[tokio::test]
async fn the_answer_can_be_steered() {
    let (noted, mut seen) = log();
    let cap = alone()
        .subscribe("ask", |how: String, headers: CapHeaders| async move {
            match how.as_str() {
                "rewrite" => headers.rewrite_callback("answer.other"),
                "remove" => headers.remove_callback(),
                "chain" => headers.add_response_header("cap-callback-name", "answer.chained"),
                _ => headers.add_response_header("extra", "yes"),
            }
            headers.add_response_header("cap-corr-id", "cannot be overridden");
        })
        .subscribe("answer.*", move |Topic(topic): Topic, headers: CapHeaders, RawBody(body): RawBody| {
            let get = |name| headers.get(name).map(str::to_owned);
            noted.note((
                topic.to_string(),
                get("extra"),
                get("cap-corr-seq"),
                get("cap-corr-id"),
                body.len(),
            ));
            async {}
        })
        .start()
        .await
        .unwrap();
    let ask = async |how: &str| cap.publish("ask", how).callback("answer.first").await.unwrap().to_string();
    let id = ask("remove").await;
    let row = cap.messages().published().find(&id).await.unwrap();
    assert_eq!(row.len(), 1);
    let id = ask("add").await;
    assert_eq!(
        seen.next().await,
        ("answer.first".into(), Some("yes".into()), Some("1".into()), Some(id), 0),
        "a handler without a return value answers null"
    );
    ask("rewrite").await;
    assert_eq!(seen.next().await.0, "answer.other");
    ask("chain").await;
    let (first, chained) = (seen.next().await, seen.next().await);
    assert_eq!((first.0.as_str(), first.2.as_deref()), ("answer.first", Some("1")));
    assert_eq!((chained.0.as_str(), chained.2.as_deref()), ("answer.chained", Some("2")));
    cap.shutdown().await.unwrap();
    seen.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn panics_timeouts_and_errors_are_failures_with_their_text() {
    let (noted, mut seen) = log();
    let cap = alone()
        .configure(|options| options.retry = RetryPolicy::never())
        .on_failed(move |failure| {
            noted.note((failure.reason, failure.error));
            async {}
        })
        .subscribe(Subscribe::to("work").timeout(Duration::from_secs(2)), async |what: String| {
            match what.as_str() {
                "panic" => panic!("out of cheese"),
                "hang" => std::future::pending::<Result<(), HandlerError>>().await,
                "permanent" => Err(HandlerError::permanent("no such order")),
                _ => Err(HandlerError::failed("plain")),
            }
        })
        .start()
        .await
        .unwrap();
    for (payload, reason, text) in [
        (serde_json::json!("panic"), Reason::Exhausted, "the handler panicked: out of cheese"),
        (serde_json::json!("hang"), Reason::Exhausted, "the handler took longer than 2s"),
        (serde_json::json!("permanent"), Reason::Permanent, "no such order"),
        (serde_json::json!("else"), Reason::Exhausted, "plain"),
        (serde_json::json!(5), Reason::Undecodable, "the body cannot be decoded as String: invalid type"),
        (
            serde_json::json!(null),
            Reason::Undecodable,
            "the body is empty (null); the handler expects String",
        ),
    ] {
        cap.publish("work", &payload).await.unwrap();
        let (got, error) = seen.next().await;
        assert_eq!(got, reason, "{error}");
        assert!(error.starts_with(text), "{error}");
    }
    cap.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_was_called_off_is_not_counted() {
    let (noted, mut seen) = log();
    let cap = alone()
        .subscribe("work", move |Attempt(attempt): Attempt| {
            noted.note(attempt);
            let calls = noted.clone();
            async move {
                let _ = calls;
                Err::<(), _>(HandlerError::cancelled())
            }
        })
        .start()
        .await
        .unwrap();
    let id = cap.publish("work", &()).await.unwrap();
    assert_eq!(seen.take(3).await, [1, 1, 1]);
    let row = cap.messages().find(id.as_str()).await.unwrap().remove(0);
    assert_eq!(row.attempts, 0);
    cap.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_handlers_own_pause_goes_before_the_policy() {
    let (noted, mut seen) = log();
    let cap = alone()
        .subscribe("work", move |Attempt(attempt): Attempt| {
            noted.note(Instant::now());
            async move {
                let error = HandlerError::failed("busy").retry_after(Duration::from_secs(17));
                if attempt == 1 { Err(error) } else { Ok(()) }
            }
        })
        .start()
        .await
        .unwrap();
    cap.publish("work", &()).await.unwrap();
    let times = seen.take(2).await;
    assert_eq!((times[1] - times[0]).as_secs(), 17);
    cap.shutdown().await.unwrap();
}

#[tokio::test]
async fn layers_wrap_handlers_from_the_outside_in() {
    let (noted, mut seen) = log();
    let layer = |name: &'static str| {
        let noted = noted.clone();
        layer_fn(move |delivery, next| {
            let noted = noted.clone();
            async move {
                noted.note(format!("{name} before"));
                let outcome = next.run(delivery).await;
                noted.note(format!("{name} after: {}", if outcome.is_ok() { "done" } else { "failed" }));
                outcome
            }
        })
    };
    let inner = noted.clone();
    let cap = alone()
        .layer(layer("outer"))
        .layer(layer("inner"))
        .layer(layer_fn(async |delivery, next| {
            // A layer may answer instead of the handler, or turn an error into success.
            if delivery.topic() == "skip" { Ok(None) } else { next.run(delivery).await }
        }))
        .subscribe("run", move || {
            inner.note("handler".to_owned());
            async {}
        })
        .subscribe("skip", async || -> () { panic!("never called") })
        .start()
        .await
        .unwrap();
    cap.publish("run", &()).await.unwrap();
    let expected = ["outer before", "inner before", "handler", "inner after: done", "outer after: done"];
    assert_eq!(seen.take(5).await, expected);
    cap.publish("skip", &()).await.unwrap();
    assert_eq!(seen.take(4).await[3], "outer after: done");
    cap.shutdown().await.unwrap();
    seen.assert_empty();
}

/// Runs jobs that each wait to be let go, and reports how many ran at once at most.
async fn most_at_once(concurrency: u16, order_by: Option<&str>, keys: &[&str]) -> (usize, Vec<u32>) {
    let running = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let (noted, mut seen) = log();
    let mut subscribe = Subscribe::to("work").concurrency(concurrency);
    if let Some(header) = order_by {
        subscribe = subscribe.order_by(header);
    }
    let peak = Arc::clone(&most);
    let handler = move |n: u32| {
        let (running, most, noted) = (Arc::clone(&running), Arc::clone(&peak), noted.clone());
        async move {
            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            // Later messages would overtake earlier ones if they could.
            tokio::time::sleep(Duration::from_millis(u64::from(100 - n))).await;
            running.fetch_sub(1, Ordering::SeqCst);
            noted.note(n);
        }
    };
    let cap = alone().subscribe(subscribe, handler).start().await.unwrap();
    for (n, key) in (0u32..).zip(keys) {
        cap.publish("work", &n).header("key", *key).await.unwrap();
    }
    let order = seen.take(keys.len()).await;
    cap.shutdown().await.unwrap();
    (most.load(Ordering::SeqCst), order)
}

#[tokio::test(start_paused = true)]
async fn concurrency_is_a_limit_and_one_keeps_the_order() {
    let keys = ["k"; 12];
    assert_eq!(most_at_once(1, None, &keys).await, (1, (0..12).collect()));
    let (most, order) = most_at_once(4, None, &keys).await;
    assert_eq!(most, 4);
    assert_ne!(order, (0..12).collect::<Vec<_>>(), "the test could not tell order from chance");
}

#[tokio::test(start_paused = true)]
async fn order_by_keeps_the_order_of_each_key() {
    let keys = ["a", "b", "a", "a", "b", "c", "c", "a"];
    let (most, order) = most_at_once(8, Some("key"), &keys).await;
    assert_eq!(most, 3, "keys run beside each other, messages of one key do not");
    for key in ["a", "b", "c"] {
        let of_key: Vec<u32> = order.iter().copied().filter(|n| keys[*n as usize] == key).collect();
        assert!(of_key.is_sorted(), "{key}: {of_key:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_slow_message_and_one_poisoned_one_hold_up_nobody() {
    let (noted, mut seen) = log();
    let release = Arc::new(Notify::new());
    let wait = Arc::clone(&release);
    let cap = alone()
        .subscribe(Subscribe::to("work").concurrency(2), move |what: String| {
            let (noted, wait) = (noted.clone(), Arc::clone(&wait));
            async move {
                match what.as_str() {
                    "slow" => wait.notified().await,
                    "poison" => return Err("never works"),
                    _ => {}
                }
                noted.note(what);
                Ok(())
            }
        })
        .start()
        .await
        .unwrap();
    for what in ["slow", "poison", "one", "two", "three"] {
        cap.publish("work", what).await.unwrap();
    }
    assert_eq!(seen.take(3).await, ["one", "two", "three"]);
    release.notify_one();
    assert_eq!(seen.next().await, "slow");
    cap.shutdown().await.unwrap();
}

#[tokio::test]
async fn prefixes_and_version_stand_where_cap_puts_them() {
    let transport = MemoryTransport::new();
    let storage = MemoryStorage::new();
    let (noted, mut seen) = log();
    let cap = on(&storage, &transport)
        .configure(|options| {
            options.topic_prefix = Some("shop".into());
            options.group_prefix = Some("eu".into());
            options.version = "v2".into();
        })
        .subscribe(Subscribe::to("ask").group("stock"), async || Reply(1))
        .subscribe("answer", move |headers: CapHeaders, Topic(topic): Topic| {
            noted.note((topic.to_string(), headers.get("cap-msg-group").map(str::to_owned)));
            async {}
        })
        .start()
        .await
        .unwrap();
    cap.publish("ask", &()).callback("answer").await.unwrap();
    assert_eq!(seen.next().await, ("shop.answer".into(), Some("eu.test.v2".into())));
    let health = cap.health().await;
    assert_eq!(
        health.groups.iter().map(|group| group.group.as_str()).collect::<Vec<_>>(),
        ["eu.stock.v2", "eu.test.v2"]
    );
    assert!(health.is_healthy(), "{health:?}");
    cap.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn deliveries_without_a_handler_are_parked_and_can_be_rerun() {
    let (transport, storage) = (MemoryTransport::new(), MemoryStorage::new());
    let (noted, mut seen) = log();
    let (parked, mut failures) = log();
    let build = || {
        let (noted, parked) = (noted.clone(), parked.clone());
        on(&storage, &transport)
            .on_failed(move |failure| {
                parked.note((failure.reason, failure.id, failure.error));
                async {}
            })
            .subscribe("known.*", move |value: u32| {
                noted.note(value);
                async {}
            })
    };
    let cap = build().start().await.unwrap();
    let send = async |key: &str, headers: Headers, body: &'static str| {
        transport.publish_raw(key, headers, Headers::new(), body).await.unwrap();
    };
    let headers = |id: &str, name: &str| -> Headers {
        [("cap-msg-id", id), ("cap-msg-name", name), ("keep", "me")].into_iter().collect()
    };
    send("known.a", Headers::new(), "1").await;
    let (reason, id, error) = failures.next().await;
    assert_eq!(reason, Reason::MissingHeaders);
    assert!(error.contains("no cap-msg-id and no cap-msg-name") && error.contains("known.a"), "{error}");
    let row = cap.messages().get(id).await.unwrap().unwrap();
    assert_eq!((row.status, &row.message.body[..]), (Status::Failed, &b"1"[..]));

    send("known.a", headers("2", "unknown"), "2").await;
    let (reason, no_handler, _) = failures.next().await;
    assert_eq!(reason, Reason::NoSubscriber);

    send("known.a", headers("3", "known.a"), "not json").await;
    let (reason, undecodable, _) = failures.next().await;
    assert_eq!(reason, Reason::Undecodable);
    let row = cap.messages().get(undecodable).await.unwrap().unwrap();
    assert_eq!((&row.message.body[..], row.message.headers.get("keep")), (&b"not json"[..], Some("me")));

    send("known.a", headers("4", "a topic with blanks"), "4").await;
    assert_eq!(failures.next().await.0, Reason::MissingHeaders);
    send("known.a", headers(&"5".repeat(1000), "known.a"), "5").await;
    assert_eq!(failures.next().await.0, Reason::MissingHeaders);

    send("known.a", headers("6", "known.a"), "6").await;
    assert_eq!(seen.next().await, 6, "none of them held up the queue");
    cap.shutdown().await.unwrap();

    // A later version of the service has a handler for the topic: the parked message is run again.
    let mended = noted.clone();
    let cap = build()
        .subscribe("unknown", move |value: u32| {
            mended.note(value * 100);
            async {}
        })
        .start()
        .await
        .unwrap();
    assert_eq!(cap.messages().rerun(&[no_handler]).await.unwrap(), [no_handler]);
    assert_eq!(seen.next().await, 200);
    cap.shutdown().await.unwrap();
    failures.assert_empty();
}
