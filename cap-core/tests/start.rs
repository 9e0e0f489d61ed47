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
    check(alone().subscribe_with(group, first).start().await, &["first", "group", "202 characters"]);
}

#[tokio::test]
async fn every_problem_is_told_at_once() {
    let result = alone().subscribe("a b", first).subscribe("c", wants_state).start().await;
    check(result, &["first", "wants_state"]);
}

#[tokio::test]
async fn a_service_without_handlers_must_say_so() {
    check(alone().start().await, &["no handler was found", "link_handlers!", "publish_only"]);
    let result = alone().subscribe("a", first).expect_topics(["a", "b.c"]).start().await;
    check(result, &["\"b.c\"", "link_handlers!"]);
    alone()
        .subscribe("a.*", first)
        .expect_topics(["a.b", "a.*"])
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
async fn a_function_that_registers_itself_and_is_given_too_is_told_so() {
    let result = alone().linked_handlers(true).subscriptions(given_twice::SUBSCRIPTIONS).start().await;
    check(result, &["given_twice", "\"given.twice\"", "test.v1", "twice", ".linked_handlers(false)"]);
}

#[tokio::test]
async fn a_timeout_that_fails_every_message_is_refused() {
    let subscribe = Subscribe::to("a").timeout(std::time::Duration::ZERO);
    check(alone().subscribe_with(subscribe, first).start().await, &["first", "timeout", "every message"]);
}

#[tokio::test]
async fn a_queue_that_is_also_a_groups_own_names_both_functions() {
    let queue = Subscribe::to("b").queue("test.v1");
    let result = alone().subscribe("a", first).subscribe_with(queue, second).start().await;
    check(result, &["second", "\"test.v1\"", "first", "another name"]);
}

#[tokio::test]
async fn storage_and_transport_are_asked_for() {
    check(Cap::builder().transport(MemoryTransport::new()).start().await, &["storage", "MemoryStorage"]);
    check(Cap::builder().storage(MemoryStorage::new()).start().await, &["transport", "MemoryTransport"]);
}

#[tokio::test]
async fn options_out_of_range_are_named() {
    let result = alone().publish_only().configure(|options| options.prefetch = 0).start().await;
    check(result, &["prefetch", "at least 1"]);
    let result = alone().publish_only().configure(|options| options.worker_id = Some(2000)).start().await;
    check(result, &["worker_id", "2000"]);
}

#[tokio::test]
async fn a_worker_number_that_a_live_node_has_is_refused() {
    let (storage, transport) = (MemoryStorage::new(), MemoryTransport::new());
    let node =
        || support::on(&storage, &transport).publish_only().configure(|options| options.worker_id = Some(7));
    let one = node().start().await.unwrap();
    check(node().start().await, &["7"]);
    one.shutdown().await.unwrap();
    node().start().await.unwrap().shutdown().await.unwrap();
}
