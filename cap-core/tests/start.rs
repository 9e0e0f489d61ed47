//! Mistakes that are found before the first message, each told with the name of what is at fault.
#![allow(clippy::panic, reason = "a test that cannot go on has failed")]

mod support;

use cap_core::StartError;
use cap_core::prelude::*;
use support::alone;

#[track_caller]
fn check(result: Result<Cap, StartError>, expected: &[&str]) {
    let error = match result {
        Ok(_) => panic!("it started; it should have said {expected:?}"),
        Err(error) => error.to_string(),
    };
    for part in expected {
        assert!(error.contains(part), "{error}\n  lacks {part:?}");
    }
}

struct Missing;

async fn wants_state(_: State<Missing>) {}
async fn first() {}
async fn second() {}

#[tokio::test]
async fn a_missing_state_names_the_function_and_the_type() {
    let result = alone().subscribe("a", wants_state).start().await;
    check(result, &["wants_state", "State<Missing>", ".state(..)"]);
}

#[tokio::test]
async fn two_handlers_of_one_topic_in_one_group_are_refused() {
    let result = alone().subscribe("a.b", first).subscribe("a.b", second).start().await;
    check(result, &["first", "second", "\"a.b\"", "test.v1"]);
}

#[tokio::test]
async fn bad_names_are_refused() {
    check(alone().subscribe("a b", first).start().await, &["first", "' '"]);
    check(alone().subscribe("a.b*", first).start().await, &["first", "inside the word"]);
    check(alone().subscribe("", first).start().await, &["first", "empty"]);
}

#[tokio::test]
async fn names_that_only_grow_too_long_with_their_prefix_are_refused() {
    let result = alone()
        .configure(|options| options.topic_prefix = Some("prefix".into()))
        .subscribe("x".repeat(195), first)
        .start()
        .await;
    check(result, &["first", "202 characters"]);
    let group = Subscribe::to("a").group("g".repeat(199));
    check(alone().subscribe(group, first).start().await, &["first", "group", "202 characters"]);
}

#[tokio::test]
async fn every_problem_is_told_at_once() {
    let result = alone().subscribe("a b", first).subscribe("c", wants_state).start().await;
    check(result, &["first", "wants_state"]);
}

#[tokio::test]
async fn a_service_without_handlers_must_say_so() {
    let result = alone().handlers(Handlers::listed([])).start().await;
    check(result, &["no handler was found", "link_handlers!", ".handlers(Handlers::none())"]);
    alone().handlers(Handlers::none()).start().await.unwrap().shutdown().await.unwrap();
    let result =
        alone().subscribe("a", first).handlers(Handlers::none().expecting(["a", "b.c"])).start().await;
    check(result, &["\"b.c\"", "link_handlers!"]);
    alone()
        .subscribe("a.*", first)
        .handlers(Handlers::none().expecting(["a.b", "a.*"]))
        .start()
        .await
        .unwrap()
        .shutdown()
        .await
        .unwrap();
}

#[cap_subscribe("given.twice")]
async fn given_twice() {}

#[tokio::test]
async fn a_handler_that_is_listed_twice_is_refused() {
    let twice = Handlers::listed([given_twice::SUBSCRIPTIONS, given_twice::SUBSCRIPTIONS]);
    let result = alone().handlers(twice).start().await;
    check(result, &["given_twice", "\"given.twice\"", "test.v1", "twice", "Handlers::listed"]);
}

#[tokio::test]
async fn the_last_choice_of_handlers_counts() {
    let cap = alone().handlers(Handlers::listed([given_twice::SUBSCRIPTIONS])).start().await.unwrap();
    assert_eq!(cap.health().await.groups[0].topics, ["given.twice"]);
    cap.shutdown().await.unwrap();
    let linked = alone().handlers(Handlers::linked().expecting(["given.twice"])).start().await.unwrap();
    assert_eq!(linked.health().await.groups.len(), 1);
    linked.shutdown().await.unwrap();
    let none = Handlers::none().expecting(["given.twice"]);
    let result = alone().handlers(Handlers::linked()).handlers(none).start().await;
    check(result, &["\"given.twice\"", "link_handlers!"]);
}

/// As they were, until 0.2.
#[tokio::test]
#[allow(deprecated)]
async fn the_former_names_of_the_builder_do_what_they_did() {
    let builder = || {
        Cap::builder()
            .storage(MemoryStorage::new())
            .transport(MemoryTransport::new())
            .configure(|options| options.default_group = "test".into())
    };
    check(builder().linked_handlers(false).start().await, &["no handler was found"]);
    for quiet in
        [builder().publish_only().linked_handlers(true), builder().linked_handlers(true).publish_only()]
    {
        let cap = quiet.start().await.unwrap();
        assert!(cap.health().await.groups.is_empty());
        cap.shutdown().await.unwrap();
    }
    let listed = builder().linked_handlers(false).subscriptions(given_twice::SUBSCRIPTIONS);
    let cap = listed
        .subscribe_with(Subscribe::to("a").group("other"), wants_state)
        .subscriber(Missing)
        .expect_topics(["a", "given.twice"])
        .start()
        .await
        .unwrap();
    assert_eq!(cap.health().await.groups.len(), 2);
    cap.shutdown().await.unwrap();
    check(builder().subscriptions(given_twice::SUBSCRIPTIONS).start().await, &["given_twice", "twice"]);
    check(
        builder().linked_handlers(false).subscribe("a", first).expect_topics(["b"]).start().await,
        &["\"b\""],
    );
}

#[tokio::test]
async fn a_timeout_that_fails_every_message_is_refused() {
    let subscribe = Subscribe::to("a").timeout(std::time::Duration::ZERO);
    check(alone().subscribe(subscribe, first).start().await, &["first", "timeout", "every message"]);
}

#[tokio::test]
async fn a_queue_that_is_also_a_groups_own_names_both_functions() {
    let queue = Subscribe::to("b").queue("test.v1");
    let result = alone().subscribe("a", first).subscribe(queue, second).start().await;
    check(result, &["second", "\"test.v1\"", "first", "another name"]);
}

#[tokio::test]
async fn storage_and_transport_are_asked_for() {
    check(Cap::builder().transport(MemoryTransport::new()).start().await, &["storage", "MemoryStorage"]);
    check(Cap::builder().storage(MemoryStorage::new()).start().await, &["transport", "MemoryTransport"]);
}

#[tokio::test]
async fn options_out_of_range_are_named() {
    let result = alone().configure(|options| options.prefetch = 0).start().await;
    check(result, &["prefetch", "at least 1"]);
    let result = alone().configure(|options| options.worker_id = Some(2000)).start().await;
    check(result, &["worker_id", "2000"]);
}

#[tokio::test]
async fn a_worker_number_that_a_live_node_has_is_refused() {
    let (storage, transport) = (MemoryStorage::new(), MemoryTransport::new());
    let node = || support::on(&storage, &transport).configure(|options| options.worker_id = Some(7));
    let one = node().start().await.unwrap();
    check(node().start().await, &["7"]);
    one.shutdown().await.unwrap();
    node().start().await.unwrap().shutdown().await.unwrap();
}
