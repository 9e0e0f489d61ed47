//! What the attributes write: the constants, their registration, and handlers that run.

/// The macros cannot ask the core, so they have the rules for names a second time.
#[path = "../../cap-macros/src/names.rs"]
mod names;
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cap_core::message::{TopicPattern, validate_group};
use cap_core::prelude::*;
use cap_core::{NextAttempt, StartError, Submission, Subscription};
use proptest::prelude::*;
use support::{Log, Seen, alone, log};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Order {
    id: u64,
}

/// Said nothing but a topic.
#[cap_subscribe("macros.plain")]
async fn plain(order: Order) -> Reply<u64> {
    Reply(order.id + 1)
}

#[cap_subscribe(
    "macros.*.all",
    group = "everything",
    concurrency = 7,
    timeout = "1m 30s 5ms",
    retry = RetryPolicy::fixed(Duration::from_secs(2), attempts()),
    order_by = "customer"
)]
async fn all(_order: Order) {}

fn attempts() -> u32 {
    3
}

#[cap_subscribe("macros.one")]
#[cap_core::cap_subscribe("macros.two", group = "second")]
async fn several(_order: Order) {}

mod inner {
    #[cap_core::cap_subscribe("macros.raw")]
    pub(crate) async fn r#move() {}
}

struct Handlers {
    sum: AtomicU64,
    noted: Log<String>,
}

#[cap_subscriber("macros.orders", group = "orders")]
impl Handlers {
    #[cap_subscribe("paid")]
    async fn paid(&self, order: Order) -> Reply<u64> {
        Reply(self.sum.fetch_add(order.id, Ordering::Relaxed) + order.id)
    }

    #[cap_subscribe("all.#", group = "audit")]
    #[cap_subscribe("macros.whole", partial = false)]
    async fn audit(&self, Topic(topic): Topic) {
        self.noted.note(topic.to_string());
    }

    fn sum(&self) -> u64 {
        self.sum.load(Ordering::Relaxed)
    }
}

struct Stock;

#[cap_subscribe("macros.stock")]
async fn stock(_order: Order, _stock: State<Stock>) {}

struct Bare;

#[cap_subscriber]
impl Bare {
    #[cap_subscribe("macros.bare")]
    async fn bare(&self) {}
}

#[cap_subscribe("dead.paid")]
#[cap_subscribe("dead.paid", queue = "orders.dead")]
async fn revived() {}

struct Dead;

#[cap_subscriber("dead", group = "shop")]
impl Dead {
    #[cap_subscribe("sent")]
    #[cap_subscribe("sent", queue = "orders.dead")]
    async fn sent(&self) {}
}

fn handlers() -> (Handlers, Seen<String>) {
    let (noted, seen) = log();
    (Handlers { sum: AtomicU64::default(), noted }, seen)
}

fn topics(subscriptions: &[Subscription]) -> Vec<&'static str> {
    subscriptions.iter().map(|subscription| subscription.topic).collect()
}

#[test]
fn an_attribute_with_a_topic_leaves_the_rest_to_the_bus() {
    let [subscription] = plain::SUBSCRIPTIONS else { panic!("one subscription") };
    assert_eq!(subscription.topic, "macros.plain");
    assert_eq!(subscription.function, "macros::plain");
    assert_eq!(subscription.package, "cap-core");
    let options = &subscription.options;
    assert!(options.group.is_none() && options.concurrency.is_none() && options.timeout.is_none());
    assert!(options.retry.is_none() && options.order_by.is_none());
}

#[test]
fn every_option_arrives() {
    let [subscription] = all::SUBSCRIPTIONS else { panic!("one subscription") };
    assert_eq!(subscription.topic, "macros.*.all");
    let options = &subscription.options;
    assert_eq!(options.group, Some("everything"));
    assert_eq!(options.concurrency, Some(7));
    assert_eq!(options.timeout, Some(Duration::from_millis(90_005)));
    assert_eq!(options.order_by, Some("customer"));
    let policy = options.retry.map(|policy| policy()).unwrap();
    assert_eq!(policy.next(2, 0.0), NextAttempt::After(Duration::from_secs(2)));
    assert_eq!(policy.next(3, 0.0), NextAttempt::GiveUp);
}

#[test]
fn each_attribute_is_a_subscription_of_the_same_function() {
    assert_eq!(topics(several::SUBSCRIPTIONS), ["macros.one", "macros.two"]);
    assert!(several::SUBSCRIPTIONS.iter().all(|subscription| subscription.function == "macros::several"));
    assert_eq!(several::SUBSCRIPTIONS[0].options.group, None);
    assert_eq!(several::SUBSCRIPTIONS[1].options.group, Some("second"));
    assert_eq!(inner::r#move::SUBSCRIPTIONS[0].function, "macros::inner::move");
}

#[test]
fn methods_take_prefix_and_group_of_their_block() {
    let said: Vec<_> =
        Handlers::SUBSCRIPTIONS.iter().map(|s| (s.topic, s.options.group, s.function)).collect();
    assert_eq!(
        said,
        [
            ("macros.orders.paid", Some("orders"), "macros::Handlers::paid"),
            ("macros.orders.all.#", Some("audit"), "macros::Handlers::audit"),
            ("macros.whole", Some("orders"), "macros::Handlers::audit"),
        ]
    );
    assert_eq!(topics(Bare::SUBSCRIPTIONS), ["macros.bare"]);
    assert_eq!(Bare::SUBSCRIPTIONS[0].options.group, None);
}

#[tokio::test]
async fn a_queue_stands_in_the_place_of_a_group() {
    let said = |subscriptions: &[Subscription]| {
        let said = |s: &Subscription| (s.topic, s.options.group, s.options.queue);
        subscriptions.iter().map(said).collect::<Vec<_>>()
    };
    assert_eq!(
        said(revived::SUBSCRIPTIONS),
        [("dead.paid", None, None), ("dead.paid", None, Some("orders.dead"))]
    );
    assert_eq!(
        said(Dead::SUBSCRIPTIONS),
        [("dead.sent", Some("shop"), None), ("dead.sent", None, Some("orders.dead"))]
    );
    let builder =
        support::alone().handlers(cap_core::Handlers::listed([revived::SUBSCRIPTIONS, Dead::SUBSCRIPTIONS]));
    builder.state(Dead).start().await.unwrap().shutdown().await.unwrap();
    revived().await;
    Dead.sent().await;
}

#[test]
fn everything_registers_itself() {
    let mut linked: Vec<_> = cap_core::__private::inventory::iter::<Submission>
        .into_iter()
        .flat_map(|submission| topics(submission.0))
        .filter(|topic| topic.starts_with("macros."))
        .collect();
    linked.sort_unstable();
    assert_eq!(
        linked,
        [
            "macros.*.all",
            "macros.bare",
            "macros.one",
            "macros.orders.all.#",
            "macros.orders.paid",
            "macros.plain",
            "macros.raw",
            "macros.stock",
            "macros.two",
            "macros.whole",
        ]
    );
}

#[tokio::test]
async fn annotated_functions_are_still_functions() {
    assert_eq!(plain(Order { id: 6 }).await, Reply(7));
    let (handlers, _) = handlers();
    assert_eq!(handlers.paid(Order { id: 6 }).await, Reply(6));
    assert_eq!(handlers.sum(), 6);
    all(Order { id: 1 }).await;
    several(Order { id: 1 }).await;
    inner::r#move().await;
    Bare.bare().await;
}

#[tokio::test]
async fn handlers_run_and_answer() {
    let (answers, mut answered) = log();
    let (handlers, mut seen) = handlers();
    let cap = alone()
        .handlers(cap_core::Handlers::listed([plain::SUBSCRIPTIONS, Handlers::SUBSCRIPTIONS]))
        .state(handlers)
        .subscribe("answers", move |answer: u64| {
            answers.note(answer);
            async {}
        })
        .start()
        .await
        .unwrap();
    for (topic, id) in [("macros.plain", 41), ("macros.orders.paid", 5), ("macros.orders.paid", 6)] {
        cap.publish(topic, &Order { id }).callback("answers").await.unwrap();
    }
    let mut all = answered.take(3).await;
    all.sort_unstable();
    assert!(all == [5, 11, 42] || all == [6, 11, 42], "{all:?}");
    cap.publish("macros.orders.all.last", &()).await.unwrap();
    assert_eq!(seen.next().await, "macros.orders.all.last");
    cap.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_a_handler_cannot_be_given_stops_the_start() {
    let start = |cap: cap_core::CapBuilder| async { cap.start().await.map(drop).unwrap_err() };
    let error: StartError = start(alone().handlers(cap_core::Handlers::listed([stock::SUBSCRIPTIONS]))).await;
    assert!(error.to_string().contains("stock needs State<Stock>"), "{error}");
    let error = start(alone().handlers(cap_core::Handlers::listed([Bare::SUBSCRIPTIONS]))).await;
    assert!(error.to_string().contains("Bare::bare is a method of Bare"), "{error}");
    let shared = alone().state(Arc::new(Bare)).handlers(cap_core::Handlers::listed([Bare::SUBSCRIPTIONS]));
    let error = start(shared).await;
    assert!(error.to_string().contains("an Arc<Bare>: give it with .shared_state(..)"), "{error}");
    let needs_number = async |State(_): State<u64>| ();
    let error = start(alone().state(Arc::new(7_u64)).subscribe("number", needs_number)).await;
    assert!(error.to_string().contains("an Arc<u64>: give it with .shared_state(..)"), "{error}");
}

/// Both have the same rules, and the same words for what breaks them.
#[track_caller]
fn check_agreement(name: &str) {
    let topic = names::check_topic(name).map_err(|problem| format!("topic {name:?} {problem}"));
    assert_eq!(topic, TopicPattern::parse(name).map(drop).map_err(|error| error.to_string()));
    let group = names::check_group(name).map_err(|problem| format!("group {name:?} {problem}"));
    assert_eq!(group, validate_group(name).map_err(|error| error.to_string()));
}

#[test]
fn macros_and_core_agree_on_names_at_the_limits() {
    for name in ["", ".", "a.", "a b", "a\u{7}", "*", "#.a", "a*", "a.##", "ä.ö"] {
        check_agreement(name);
    }
    for (letter, most) in [("x", 200), ("ä", 127)] {
        check_agreement(&letter.repeat(most));
        // Of a longer name the core shows no more than its beginning.
        let longer = letter.repeat(most + 1);
        assert!(names::check_topic(&longer).is_err() && TopicPattern::parse(&longer).is_err());
        assert!(names::check_group(&longer).is_err() && validate_group(&longer).is_err());
    }
}

proptest! {
    #[test]
    fn macros_and_core_agree_on_names(name in "[a-b.*# \u{e4}\n]{0,8}") {
        check_agreement(&name);
    }
}
