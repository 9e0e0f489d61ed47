//! What a sender may have this service do, when all that the sender has is the right to write to one topic.

use std::time::Duration;

use cap_core::prelude::*;
use cap_core::storage::Reason;
use cap_tests::{Scene, amqp_user, heard, long_strings, scene};
use lapin::BasicProperties;
use tokio::sync::mpsc;

/// Failures as they are told, and the numbers that a handler of `work` and `secret` saw.
struct Service {
    failures: mpsc::Receiver<Failure>,
    handled: mpsc::Receiver<(String, Option<String>)>,
    cap: Cap,
}

impl Service {
    async fn of(scene: &Scene, configure: impl FnOnce(cap_core::CapBuilder) -> cap_core::CapBuilder) -> Self {
        let ((fail, failures), (tell, handled)) = (mpsc::channel(16), mpsc::channel(16));
        let see = move |Topic(topic): Topic, headers: CapHeaders| {
            let (tell, user) = (tell.clone(), headers.get("cap-verified-user").map(str::to_owned));
            async move { tell.send((topic.to_string(), user)).await.unwrap() }
        };
        let builder = scene
            .builder()
            .on_failed(move |failure| {
                let fail = fail.clone();
                async move { fail.send(failure).await.unwrap() }
            })
            .subscribe("work", see.clone())
            .subscribe("secret", see)
            .subscribe("typed", async |_: u64| ());
        let cap = scene.start(configure(builder)).await;
        Self { failures, handled, cap }
    }

    /// The failure of a message that no handler may see.
    async fn parked(&mut self) -> Failure {
        tokio::select! {
            failure = heard(&mut self.failures) => failure,
            handled = heard(&mut self.handled) => panic!("it was handled: {handled:?}"),
        }
    }

    /// What a handler saw of a message that is not to be parked.
    async fn handled(&mut self) -> (String, Option<String>) {
        tokio::select! {
            handled = heard(&mut self.handled) => handled,
            failure = heard(&mut self.failures) => panic!("it was parked: {}", failure.error),
        }
    }
}

#[tokio::test]
async fn callback_topic_outside_the_list_is_not_published_to() {
    // Issue 9, row 3.
    scene(async |scene| {
        let mut service = Service::of(scene, |builder| builder.callbacks_to(["reply.#"])).await;
        let foreign = scene.foreign().await;
        let (mut bank, mut reply) =
            (foreign.listen("bank.transfer").await, foreign.listen("reply.done").await);
        let named = [("cap-msg-id", "m-1"), ("cap-msg-name", "work"), ("cap-callback-name", "bank.transfer")];
        foreign.send("work", &named, b"{}").await;
        let failure = service.parked().await;
        assert_eq!(failure.reason, Reason::CallbackNotAllowed);
        let row = service.cap.messages().get(failure.id).await.unwrap().unwrap();
        assert_eq!(row.reason, Some(Reason::CallbackNotAllowed));
        // The next is allowed, and its sender is named: by the broker's word, not by the message's.
        let named = [
            ("cap-msg-id", "m-2"),
            ("cap-msg-name", "work"),
            ("cap-callback-name", "reply.done"),
            ("cap-verified-user", "admin"),
            ("cap-request-user", "admin"),
        ];
        let properties =
            BasicProperties::default().with_headers(long_strings(&named)).with_user_id(amqp_user().into());
        foreign.publish("work", properties, b"{}").await;
        assert_eq!(service.handled().await, ("work".to_owned(), Some(amqp_user())));
        let sent = reply.next().await;
        let header = |name: &str| {
            let headers = sent.properties.headers().as_ref().unwrap().inner();
            headers.get(name).and_then(|value| value.as_long_string()).map(ToString::to_string)
        };
        assert_eq!(header("cap-request-name").as_deref(), Some("work"));
        assert_eq!(header("cap-request-user").as_deref(), Some(&*amqp_user()));
        assert_eq!(header("cap-verified-user"), None);
        // Without a verified user none is named, whatever the message says.
        let named = [
            ("cap-msg-id", "m-3"),
            ("cap-msg-name", "work"),
            ("cap-callback-name", "reply.done"),
            ("cap-verified-user", "admin"),
        ];
        foreign.send("work", &named, b"{}").await;
        assert_eq!(service.handled().await, ("work".to_owned(), None));
        let sent = reply.next().await;
        assert!(!sent.properties.headers().as_ref().unwrap().contains_key("cap-request-user"));
        assert!(bank.is_silent());
    })
    .await;
}

#[tokio::test]
async fn baggage_of_a_sender_does_not_keep_a_handler_from_publishing() {
    // Issue 9, row 8: what it is copied into did not fit a frame, and was refused after the handler had committed.
    scene(async |scene| {
        let mut service = Service::of(scene, |builder| {
            builder.subscribe("relayed", async |publisher: Publisher| -> Result<Reply<u64>, HandlerError> {
                publisher.publish("event", &1).await.map_err(HandlerError::permanent)?;
                Ok(Reply(2))
            })
        })
        .await;
        let foreign = scene.foreign().await;
        let (mut events, mut replies) = (foreign.listen("event").await, foreign.listen("reply.done").await);
        let member = |number: usize| format!("key{number:04}={}", "v".repeat(1000));
        let baggage = (0..126).map(member).collect::<Vec<_>>().join(",");
        let state = (0..40).map(|number| format!("vendor{number:02}=value")).collect::<Vec<_>>().join(",");
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let headers = [
            ("cap-msg-id", "m-1"),
            ("cap-msg-name", "relayed"),
            ("cap-callback-name", "reply.done"),
            ("traceparent", trace),
            ("tracestate", &*state),
            ("baggage", &*baggage),
        ];
        assert!(baggage.len() > 127_000);
        foreign.send("relayed", &headers, b"{}").await;
        for listener in [&mut events, &mut replies] {
            let sent = tokio::select! {
                sent = listener.next() => sent,
                failure = heard(&mut service.failures) => panic!("it was not published: {}", failure.error),
            };
            let headers = sent.properties.headers().as_ref().unwrap().inner();
            let header = |name: &str| headers[name].as_long_string().unwrap().to_string();
            assert_eq!(header("traceparent"), trace);
            assert_eq!(header("baggage"), (0..8).map(member).collect::<Vec<_>>().join(","));
            let copied = header("tracestate");
            assert!(copied.split(',').count() == 32 && state.starts_with(&copied), "{copied}");
        }
        assert!(service.failures.try_recv().is_err());
    })
    .await;
}

#[tokio::test]
async fn name_that_is_not_the_routing_key_is_parked() {
    // Issue 9, row 7: the broker lets the sender write to `work` only.
    scene(async |scene| {
        let mut service = Service::of(scene, |builder| builder).await;
        let foreign = scene.foreign().await;
        foreign.send("work", &[("cap-msg-id", "m-1"), ("cap-msg-name", "secret")], b"{}").await;
        let failure = service.parked().await;
        assert_eq!(failure.reason, Reason::NameMismatch);
        assert!(
            failure.error.contains("\"secret\"") && failure.error.contains("\"work\""),
            "{}",
            failure.error
        );
        // An operator who has looked at it may have it handled.
        assert_eq!(service.cap.messages().parked().rerun(&[failure.id]).await.unwrap(), [failure.id]);
        assert_eq!(service.handled().await.0, "secret");
        // One that an operator has moved to the queue itself is taken by its name.
        let headers = long_strings(&[("cap-msg-id", "m-2"), ("cap-msg-name", "secret")]);
        let properties = BasicProperties::default().with_headers(headers);
        foreign.publish_to_queue(&service.cap.health().await.groups[0].group, properties, b"{}").await;
        assert_eq!(service.handled().await.0, "secret");
        foreign.send_named("secret", "m-3", b"{}").await;
        assert_eq!(service.handled().await.0, "secret");
    })
    .await;
}

#[tokio::test]
async fn name_is_taken_where_the_service_says_so() {
    // Issue 9, row 7: the option, and a name that the hook has given.
    for by_option in [true, false] {
        scene(async |scene| {
            let mut service = Service::of(scene, |builder| {
                if by_option {
                    builder.configure(|options| options.match_routing_key = false)
                } else {
                    builder.map_incoming(|_| Some([("cap-msg-name", "secret")].into_iter().collect()))
                }
            })
            .await;
            let foreign = scene.foreign().await;
            let name = if by_option { "secret" } else { "work" };
            foreign.send("work", &[("cap-msg-id", "m-1"), ("cap-msg-name", name)], b"{}").await;
            assert_eq!(service.handled().await.0, "secret");
        })
        .await;
    }
}

#[tokio::test]
async fn forged_properties_stay_headers_of_nobody() {
    // Issue 9, row 9: what the hook sees on receipt and at a re-run, and what the handler does.
    scene(async |scene| {
        let (tell, mut seen) = mpsc::channel(16);
        let mut service = Service::of(scene, |builder| {
            builder.map_incoming(move |delivery| {
                let user = delivery.properties.get("user-id").map(str::to_owned);
                let forged = delivery
                    .headers
                    .iter()
                    .any(|(name, _)| name.starts_with("cap-property-") || name == "cap-delivery");
                tell.try_send((user, forged)).unwrap();
                // The hook is repaired between the two.
                let id = delivery.redelivered.then_some(("cap-msg-id", "m-1"));
                Some(id.into_iter().chain([("cap-msg-name", "work")]).collect())
            })
        })
        .await;
        let foreign = scene.foreign().await;
        let forged = [
            ("cap-property-user-id", "admin"),
            ("cap-routing-key", "secret"),
            ("cap-delivery", r#"{"routing_key":"secret","properties":{"user-id":"admin"}}"#),
        ];
        foreign.send("work", &forged, b"{}").await;
        let failure = service.parked().await;
        assert_eq!(failure.reason, Reason::MissingHeaders);
        assert_eq!(heard(&mut seen).await, (None, false));
        assert!(service.cap.messages().parked().edit_raw_and_rerun(failure.id, &b"[]"[..]).await.unwrap());
        assert_eq!(heard(&mut seen).await, (None, false));
        assert_eq!(service.handled().await, ("work".to_owned(), None));
    })
    .await;
}

#[tokio::test]
async fn errors_quote_no_body_and_no_escape_sequence() {
    // Issue 9, rows 5 and 12.
    scene(async |scene| {
        let mut service = Service::of(scene, |builder| {
            builder.subscribe("fails", async || {
                let forged = "\u{1b}[2J\u{1b}]0;owned\u{7}\r\n2026 ERROR forged";
                Err::<(), _>(HandlerError::permanent(forged.to_owned() + &"x".repeat(3_000_000)))
            })
        })
        .await;
        let foreign = scene.foreign().await;
        foreign.send_named("fails", "m-0", b"{}").await;
        let body = serde_json::to_vec(&format!("4111 1111 1111 1111{}", "7".repeat(2_000_000))).unwrap();
        foreign.send_named("typed", "m-1", &body).await;
        let name = "\u{1b}[2J\u{1b}]0;owned\u{7}";
        foreign.send("work", &[("cap-msg-id", "m-2"), ("cap-msg-name", name)], b"{}").await;
        for _ in 0..3 {
            let failure = heard(&mut service.failures).await;
            let row = service.cap.messages().get(failure.id).await.unwrap().unwrap();
            let attempts = service.cap.messages().attempts(failure.id).await.unwrap();
            let stored = attempts.into_iter().map(|attempt| attempt.error).chain(row.last_error);
            for text in stored.chain([failure.error]) {
                assert!(text.len() <= 4096 && !text.contains("4111"), "{text}");
                assert!(!text.contains(char::is_control), "{text:?}");
            }
        }
        tokio::time::timeout(Duration::from_secs(30), service.cap.health()).await.unwrap();
    })
    .await;
}
