//! Where replies may be sent, and by whose word. Issue 9, row 3.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what went wrong by failing")]

mod support;

use cap_core::CapBuilder;
use cap_core::prelude::*;
use cap_core::storage::{Reason, Status};
use support::{Log, Seen, alone, log};

/// What the scene's handlers saw.
#[derive(Debug)]
enum Saw {
    Handled,
    /// The topic and the headers of a reply.
    Reply(String, cap_core::Headers),
    Failed(Failure),
}

/// A bus that answers requests to `work.#`, and hears the replies to every other topic.
fn builder() -> (CapBuilder, Log<Saw>, Seen<Saw>) {
    let (noted, seen) = log();
    let (replies, failures) = (noted.clone(), noted.clone());
    let hear = move |Topic(topic): Topic, headers: CapHeaders| {
        replies.note(Saw::Reply(topic.to_string(), headers.all().clone()));
        async {}
    };
    let builder = alone()
        .subscribe(Subscribe::to("reply.#").group("replies"), hear.clone())
        .subscribe(Subscribe::to("bank.#").group("bank"), hear)
        .on_failed(move |failure| {
            failures.note(Saw::Failed(failure));
            async {}
        });
    (builder, noted, seen)
}

fn handler(noted: &Log<Saw>) -> impl Fn() -> std::future::Ready<Reply<u8>> + Clone + Send + Sync + 'static {
    let noted = noted.clone();
    move || {
        noted.note(Saw::Handled);
        std::future::ready(Reply(7))
    }
}

#[track_caller]
fn is_reply(saw: Saw, topic: &str) -> cap_core::Headers {
    match saw {
        Saw::Reply(to, headers) if to == topic => headers,
        other => panic!("no reply to {topic}: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn reply_outside_the_list_is_parked_before_the_handler() {
    let (builder, noted, mut seen) = builder();
    let cap = builder.callbacks_to(["reply.#"]).subscribe("work", handler(&noted)).start().await.unwrap();
    cap.publish("work", &()).callback("bank.transfer").await.unwrap();
    let Saw::Failed(failure) = seen.next().await else { panic!("it was not parked") };
    assert_eq!(failure.reason, Reason::CallbackNotAllowed);
    assert!(failure.error.contains("\"bank.transfer\"") && failure.error.contains("callbacks_to"));
    // A re-run is no way round it.
    assert_eq!(cap.messages().parked().reason(Reason::CallbackNotAllowed).rerun_all().await.unwrap(), 1);
    assert!(matches!(seen.next().await, Saw::Failed(again) if again.reason == Reason::CallbackNotAllowed));
    // What is allowed is handled and answered, and what asks for no reply is handled.
    cap.publish("work", &()).callback("reply.done").await.unwrap();
    assert!(matches!(seen.next().await, Saw::Handled));
    is_reply(seen.next().await, "reply.done");
    cap.publish("work", &()).await.unwrap();
    assert!(matches!(seen.next().await, Saw::Handled));
    cap.shutdown().await.unwrap();
    seen.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn dropped_reply_leaves_the_message_handled() {
    let (builder, noted, mut seen) = builder();
    let builder = builder.callbacks_to(["reply.#"]).configure(|options| {
        options.callback_not_allowed = CallbackNotAllowed::Drop;
    });
    let cap = builder.subscribe("work", handler(&noted)).start().await.unwrap();
    let id = cap.publish("work", &()).callback("bank.transfer").await.unwrap();
    assert!(matches!(seen.next().await, Saw::Handled));
    cap.publish("work", &()).callback("reply.done").await.unwrap();
    assert!(matches!(seen.next().await, Saw::Handled));
    is_reply(seen.next().await, "reply.done");
    let row = cap.messages().find(id.as_str()).await.unwrap().remove(0);
    assert_eq!((row.status, row.reason), (Status::Succeeded, None));
    cap.shutdown().await.unwrap();
    seen.assert_empty();
}

#[cap_subscribe("attribute", callbacks_to = ["bank.ok"], callback_not_allowed = CallbackNotAllowed::Park, reply_to_unit = false)]
async fn attribute(number: u8) -> Reply<u8> {
    Reply(number)
}

#[tokio::test(start_paused = true)]
async fn subscription_has_a_list_of_its_own() {
    let (builder, noted, mut seen) = builder();
    let own = Subscribe::to("own").callbacks_to(["bank.transfer"]);
    let cap = builder
        .callbacks_to(["reply.#"])
        .subscribe(own, handler(&noted))
        .handlers(Handlers::listed([attribute::SUBSCRIPTIONS]))
        .start()
        .await
        .unwrap();
    cap.publish("own", &()).callback("bank.transfer").await.unwrap();
    assert!(matches!(seen.next().await, Saw::Handled));
    is_reply(seen.next().await, "bank.transfer");
    cap.publish("own", &()).callback("reply.done").await.unwrap();
    assert!(matches!(seen.next().await, Saw::Failed(_)));
    cap.publish("attribute", &7).callback("bank.ok").await.unwrap();
    is_reply(seen.next().await, "bank.ok");
    cap.publish("attribute", &7).callback("bank.other").await.unwrap();
    assert!(matches!(seen.next().await, Saw::Failed(_)));
    cap.shutdown().await.unwrap();
    seen.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn list_is_compared_with_the_topic_as_sent() {
    for (dotnet, written, allowed) in
        [(true, "transfer", "bank.transfer"), (false, "bank.transfer", "bank.transfer")]
    {
        let (builder, noted, mut seen) = builder();
        let builder = builder.callbacks_to(["transfer", "reply.#"]).configure(|options| {
            options.topic_prefix = Some("bank".into());
            options.dotnet_callback_prefix = dotnet;
        });
        let cap = builder.subscribe("work", handler(&noted)).start().await.unwrap();
        let published = cap.publish("work", &());
        let published = if dotnet { published.callback(written) } else { published.callback("transfer") };
        published.await.unwrap();
        let Saw::Failed(failure) = seen.next().await else { panic!("{written} was not parked") };
        assert!(failure.error.contains(allowed), "{}", failure.error);
        cap.shutdown().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn unit_is_a_reply_unless_turned_off() {
    for (bus, own, replies) in
        [(true, None, true), (false, None, false), (false, Some(true), true), (true, Some(false), false)]
    {
        let (builder, _, mut seen) = builder();
        let mut subscribe = Subscribe::to("work");
        if let Some(own) = own {
            subscribe = subscribe.reply_to_unit(own);
        }
        let builder = builder.reply_to_unit(bus).subscribe(subscribe, async || ());
        let cap = builder.subscribe("value", async || Reply(())).start().await.unwrap();
        cap.publish("work", &()).callback("reply.unit").await.unwrap();
        if replies {
            is_reply(seen.next().await, "reply.unit");
        }
        // A reply that says nothing is one all the same.
        cap.publish("value", &()).callback("reply.value").await.unwrap();
        is_reply(seen.next().await, "reply.value");
        cap.shutdown().await.unwrap();
        seen.assert_empty();
    }
}

#[tokio::test(start_paused = true)]
async fn reply_names_the_request() {
    let (builder, _, mut seen) = builder();
    let cap = builder
        .subscribe("work", async |headers: CapHeaders| {
            headers.add_response_header("cap-request-name", "made.up");
            headers.add_response_header("cap-request-user", "made-up");
        })
        .start()
        .await
        .unwrap();
    cap.publish("work", &()).callback("reply.done").await.unwrap();
    let headers = is_reply(seen.next().await, "reply.done");
    assert_eq!(headers.get("cap-request-name"), Some("work"));
    assert!(!headers.contains("cap-request-user"), "nobody has verified a user here");
    cap.shutdown().await.unwrap();
}
