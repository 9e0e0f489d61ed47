//! The kit, used as the author of a service uses it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::similar_names, missing_docs)]

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cap_core::prelude::*;
use cap_core::storage::Reason;
use cap_core::{CapBuilder, RetryPolicy, Subscribe};
use cap_test::{HandlerCall, TestBus};
use futures_util::FutureExt;
use serde_json::json;

fn service() -> CapBuilder {
    Cap::builder().handlers(Handlers::none())
}

/// A bus whose handler of `charge` fails its first calls, and the number of its calls.
async fn failing(times: u32) -> (Arc<AtomicU32>, TestBus) {
    let calls = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&calls);
    let handler = move |order: u64| {
        let fails = counted.fetch_add(1, Ordering::SeqCst) < times;
        async move { if fails { Err("not yet") } else { Ok(Reply(order)) } }
    };
    (calls, TestBus::start(service().subscribe("charge", handler)).await)
}

/// The text of the panic of a test that must fail.
async fn failure(test: impl Future<Output = ()>) -> String {
    let panic = AssertUnwindSafe(test).catch_unwind().await.expect_err("the test must fail");
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap().to_owned()
}

mod records {
    use super::*;

    #[tokio::test]
    async fn reply_is_found_with_its_payload() {
        let add = async |numbers: Vec<i64>| Reply(numbers.iter().sum::<i64>());
        let bus = TestBus::start(service().subscribe("add", add)).await;
        bus.publish("add", &[1, 2, 3]).callback("added").await.unwrap();
        assert_eq!(bus.published("added").one::<i64>().await.payload, 6);
        assert_eq!(bus.handled("add").count().await, 1);
    }

    #[tokio::test]
    async fn topic_and_group_are_found_without_prefixes() {
        let prefixed = service().configure(|options| {
            options.topic_prefix = Some("shop".to_owned());
            options.group_prefix = Some("eu".to_owned());
        });
        let handler = async |_: u64| {};
        let bus = TestBus::start(prefixed.subscribe(Subscribe::to("mail").group("post"), handler)).await;
        bus.publish("mail", &1).await.unwrap();
        assert_eq!(bus.handled("mail").in_group("post").one::<u64>().await.topic, "shop.mail");
        assert_eq!(bus.handled("shop.mail").in_group("eu.post.v1").count().await, 1);
        assert_eq!(bus.handled("mail").in_group("other").count().await, 0);
    }

    #[tokio::test]
    async fn part_of_a_payload_selects() {
        let bus = TestBus::start(service()).await;
        for order in 1..=3 {
            bus.publish("placed", &json!({ "order": order, "lines": [{ "product": "tea" }] })).await.unwrap();
        }
        let second = bus.published("placed").matching(json!({ "order": 2 })).one::<serde_json::Value>().await;
        assert_eq!(second.payload["lines"][0]["product"], "tea");
        assert_eq!(bus.published("placed").matching(json!({ "order": 4 })).count().await, 0);
    }

    #[tokio::test]
    async fn one_of_two_fails_with_their_story() {
        let text = failure(async {
            let bus = TestBus::start(service()).await;
            bus.publish("placed", &1).await.unwrap();
            bus.publish("placed", &2).await.unwrap();
            bus.published("placed").one::<u64>().await;
        })
        .await;
        assert!(text.contains("2 messages were published to placed, expected 1"), "{text}");
        assert!(text.contains("published placed (message id"), "{text}");
    }
}

mod time {
    use super::*;

    #[tokio::test]
    async fn retries_follow_the_clock() {
        let (calls, bus) = failing(4).await;
        bus.publish("charge", &7_u64).callback("charged").await.unwrap();
        bus.settled().await;
        assert_eq!(calls.load(Ordering::SeqCst), 3, "three attempts at once");
        bus.advance(Duration::from_mins(3)).await;
        assert_eq!(calls.load(Ordering::SeqCst), 3, "the next is due after four minutes");
        bus.advance(Duration::from_mins(1)).await;
        assert_eq!(calls.load(Ordering::SeqCst), 4);
        bus.advance(Duration::from_mins(1)).await;
        assert_eq!(bus.handled("charge").one::<u64>().await.failed_attempts, 4);
        assert_eq!(bus.published("charged").count().await, 1);
    }

    #[tokio::test]
    async fn delayed_message_is_sent_when_it_is_due() {
        let bus = TestBus::start(service().subscribe("remind", async |_: u64| {})).await;
        bus.publish("remind", &1).delay(Duration::from_hours(1)).await.unwrap();
        bus.advance(Duration::from_mins(59)).await;
        assert_eq!(bus.handled("remind").count().await, 0);
        assert!(bus.story().await.contains("delayed, due in"), "{}", bus.story().await);
        bus.settled_within(Duration::from_mins(2)).await;
        assert_eq!(bus.handled("remind").count().await, 1);
    }

    #[tokio::test]
    async fn time_passes_while_a_handler_runs() {
        let limited = Subscribe::to("slow").timeout(Duration::from_millis(50)).retry(RetryPolicy::never());
        let bus =
            TestBus::start(service().subscribe(limited, async |_: u64| std::future::pending::<()>().await))
                .await;
        bus.publish("slow", &1).await.unwrap();
        let parked = bus.parked("slow").one::<u64>().await;
        assert!(parked.last_error.unwrap().contains("took longer than 50ms"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn multi_thread_runtime_settles_too() {
        let bus = TestBus::start(service().subscribe("greet", async |_: String| {})).await;
        bus.publish("greet", "hello").await.unwrap();
        assert_eq!(bus.handled("greet").count().await, 1);
    }
}

mod expectations {
    use super::*;

    #[tokio::test]
    async fn unexpected_park_fails_the_test() {
        let text = failure(async {
            let never = Subscribe::to("charge").retry(RetryPolicy::never());
            let handler = async |_: u64| Err::<(), _>("no money");
            let bus = TestBus::start(service().subscribe(never, handler)).await;
            bus.publish("charge", &1).await.unwrap();
            bus.settled().await;
        })
        .await;
        assert!(text.contains("a message was parked; if the test expects that"), "{text}");
        assert!(text.contains("last error: no money"), "{text}");
    }

    #[tokio::test]
    async fn expected_park_is_a_record() {
        let bus = TestBus::start(service().subscribe("charge", async |_: u64| {})).await;
        bus.publish("charge", "not a number").await.unwrap();
        let parked = bus.parked("charge").one::<String>().await;
        assert_eq!(parked.reason, Some(Reason::Undecodable));
    }

    #[tokio::test]
    async fn unexpected_panic_fails_the_test() {
        let test = |expected: bool| async move {
            let calls = Arc::new(AtomicU32::new(0));
            let handler = move |_: u64| {
                let first = calls.fetch_add(1, Ordering::SeqCst) == 0;
                async move { assert!(!first, "the first call") }
            };
            let bus = TestBus::start(service().subscribe("charge", handler)).await;
            if expected {
                bus.expect_panics("charge");
            }
            bus.publish("charge", &1).await.unwrap();
            assert_eq!(bus.handled("charge").one::<u64>().await.failed_attempts, 1);
        };
        test(true).await;
        let text = failure(test(false)).await;
        assert!(text.contains("the handler of charge panicked") && text.contains("the first call"), "{text}");
    }

    #[tokio::test]
    async fn handler_that_hangs_is_named() {
        let text = failure(async {
            let hangs = async |_: u64| std::future::pending::<()>().await;
            let bus = TestBus::start(service().subscribe("hang", hangs)).await;
            bus.patience(Duration::from_millis(200));
            bus.publish("hang", &1).await.unwrap();
            bus.settled().await;
        })
        .await;
        assert!(text.contains("the bus has not settled within 200ms"), "{text}");
        assert!(text.contains("a handler of hang is running"), "{text}");
    }
}

mod faults {
    use super::*;

    #[tokio::test]
    async fn failing_send_is_repeated() {
        let (calls, bus) = failing(0).await;
        bus.faults().fail_sends(1);
        bus.publish("charge", &1_u64).await.unwrap();
        bus.settled_within(Duration::from_mins(1)).await;
        assert_eq!(calls.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn lost_confirm_and_duplicate_are_handled_once() {
        let (calls, bus) = failing(0).await;
        bus.faults().lose_confirms(1);
        bus.publish("charge", &1_u64).await.unwrap();
        bus.settled_within(Duration::from_mins(1)).await;
        bus.faults().deliver_twice(1);
        bus.publish("charge", &2_u64).await.unwrap();
        bus.settled().await;
        assert_eq!(calls.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn lost_answer_of_the_storage_changes_nothing() {
        let (calls, bus) = failing(0).await;
        bus.faults().lose_answers(1);
        bus.publish("charge", &1_u64).await.unwrap();
        bus.settled_within(Duration::from_mins(1)).await;
        bus.faults().fail_writes(1);
        bus.publish("charge", &2_u64).await.unwrap();
        bus.settled_within(Duration::from_mins(1)).await;
        assert_eq!(calls.load(Ordering::SeqCst), 2);
        assert_eq!(bus.published("charge").count().await, 2);
    }

    #[tokio::test]
    async fn lost_lease_runs_the_handler_again() {
        let (calls, bus) = failing(0).await;
        bus.faults().lose_leases(1);
        bus.publish("charge", &1_u64).callback("charged").await.unwrap();
        bus.settled_within(Duration::from_mins(1)).await;
        assert_eq!(calls.load(Ordering::SeqCst), 2);
        assert_eq!(bus.published("charged").count().await, 1, "one outcome counts");
    }

    #[tokio::test]
    async fn outage_of_the_broker_delays_a_message() {
        let (calls, bus) = failing(0).await;
        bus.set_broker_available(false);
        bus.publish("charge", &1_u64).await.unwrap();
        assert_eq!(calls.load(Ordering::SeqCst), 0);
        bus.set_broker_available(true);
        bus.settled_within(Duration::from_mins(1)).await;
        assert_eq!(calls.load(Ordering::SeqCst), 1);
    }
}

mod several {
    use super::*;

    #[tokio::test]
    async fn two_services_settle_together() {
        let stock = service().subscribe("order.placed", async |order: u64| Reply(order));
        let stock = TestBus::start(stock).await;
        let orders = stock.join(service().subscribe("order.reserved", async |_: u64| {})).await;
        orders.publish("order.placed", &7_u64).callback("order.reserved").await.unwrap();
        orders.settled().await;
        assert_eq!(stock.handled("order.placed").count().await, 1);
        assert_eq!(orders.handled("order.reserved").one::<u64>().await.payload, 7);
    }

    #[tokio::test]
    async fn foreign_message_needs_two_headers() {
        let bus = TestBus::start(service().subscribe("order.placed", async |_: u64| {})).await;
        let headers = [("cap-msg-id", "a-1"), ("cap-msg-name", "order.placed")].into_iter().collect();
        bus.deliver("order.placed", headers, "7").await;
        assert_eq!(bus.handled("order.placed").one::<u64>().await.message_id, "a-1");
    }
}

mod handler_call {
    use super::*;

    #[tokio::test]
    async fn handler_sees_headers_state_and_attempt() {
        let handler =
            async |order: u64, headers: CapHeaders, Attempt(attempt): Attempt, factor: State<u64>| {
                let tenant = headers.get("tenant").unwrap_or_default().to_owned();
                Reply(format!("{} {tenant} {attempt}", order * *factor))
            };
        let call = HandlerCall::of(handler).state(3_u64).header("tenant", "blue").attempt(5);
        assert_eq!(call.call(&7_u64).await.reply::<String>(), "21 blue 5");
    }

    #[tokio::test]
    async fn failed_handler_publishes_nothing() {
        let handler = async |order: u64, publisher: Publisher| -> Result<(), String> {
            publisher.publish("invoice", &order).await.map_err(|error| error.to_string())?;
            Err("no paper".to_owned())
        };
        let handled = HandlerCall::of(handler).call(&7_u64).await;
        assert!(!handled.is_success());
        assert!(handled.error().contains("no paper"));
        assert!(handled.published::<u64>("invoice").await.is_empty());
    }
}
