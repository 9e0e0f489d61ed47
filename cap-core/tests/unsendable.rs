//! Messages that the transport can never send: refused by `publish`, or parked at the first attempt. Issue 8, row 14.

mod support;

use std::sync::Arc;
use std::time::Duration;

use cap_core::BoxFuture;
use cap_core::Failure;
use cap_core::error::{TransportError, TransportErrorKind};
use cap_core::memory::MemoryConsumer;
use cap_core::message::Message;
use cap_core::prelude::*;
use cap_core::storage::{Reason, Side, Status};
use cap_core::transport::{BrokerDelay, Delayed, GroupSpec, Sent, Transport, TransportContext};
use support::{alone, log};

/// Never takes what has a header `known`, and says so beforehand; nor `unknown`, of which it learns when it sends.
struct Picky(MemoryTransport);

fn invalid(what: &str) -> TransportError {
    TransportError::new(TransportErrorKind::Invalid, "picky", format!("header {what:?} is not to be had"))
}

impl Transport for Picky {
    type Consumer = MemoryConsumer;

    fn name(&self) -> &'static str {
        "picky"
    }

    fn start(&self, context: &TransportContext) -> Result<(), TransportError> {
        self.0.start(context)
    }

    fn check_message(&self, message: &Message) -> Result<(), TransportError> {
        if message.headers.contains("known") { Err(invalid("known")) } else { Ok(()) }
    }

    async fn send(&self, messages: &[Arc<Message>]) -> Vec<Result<Sent, TransportError>> {
        let mut answers = self.0.send(messages).await;
        for (message, answer) in messages.iter().zip(&mut answers) {
            if message.headers.contains("unknown") {
                *answer = Err(invalid("unknown"));
            }
        }
        answers
    }

    fn broker_delay(&self) -> Option<&dyn BrokerDelay> {
        Some(self)
    }

    async fn consume(&self, spec: &GroupSpec) -> Result<MemoryConsumer, TransportError> {
        self.0.consume(spec).await
    }

    async fn close(&self) {
        self.0.close().await;
    }
}

impl BrokerDelay for Picky {
    fn delay<'a>(&'a self, messages: &'a [Delayed]) -> BoxFuture<'a, Vec<Result<(), TransportError>>> {
        Box::pin(async move { messages.iter().map(|_| Err(invalid("unknown"))).collect() })
    }
}

#[track_caller]
fn assert_unsendable(error: &PublishError) {
    assert!(matches!(error, PublishError::Unsendable { topic, .. } if topic == "done"), "{error:?}");
    let text = error.to_string();
    assert_eq!(text, "a message to \"done\" can never be sent: header \"known\" is not to be had");
}

#[tokio::test(start_paused = true)]
async fn known_beforehand_is_refused_by_publish() {
    let (noted, mut seen) = log();
    let cap = alone()
        .transport(Picky(MemoryTransport::new()))
        .subscribe("work", move |_: u32, publisher: Publisher| {
            let noted = noted.clone();
            async move {
                let error = publisher.publish("done", &1).header("known", "x").await.unwrap_err();
                noted.note(error);
            }
        })
        .start()
        .await
        .unwrap();
    assert_unsendable(&cap.publish("done", &1).header("known", "x").await.unwrap_err());
    assert_unsendable(&cap.publish_all("done", [1, 2]).header("known", "x").await.unwrap_err());
    let delayed = cap.publish("done", &1).header("known", "x").delay_at_broker(Duration::from_secs(1)).await;
    assert_unsendable(&delayed.unwrap_err());
    cap.publish("work", &1).await.unwrap();
    assert_unsendable(&seen.next().await);
    let stored = cap.messages().published().list().await.unwrap();
    assert_eq!(stored.len(), 1, "only the one to work was stored");
    cap.shutdown().await.unwrap();
}

/// No attempt of the handler can repair the headers that it gives its reply.
#[tokio::test(start_paused = true)]
async fn a_reply_with_such_a_header_parks_the_request_at_once() {
    let (noted, mut seen) = log();
    let cap = alone()
        .transport(Picky(MemoryTransport::new()))
        .subscribe("work", async |_: u32, headers: CapHeaders| {
            headers.add_response_header("known", "x");
            Reply(7)
        })
        .on_failed(move |failure: Failure| {
            noted.note((failure.side, failure.reason, failure.attempts, failure.error));
            async {}
        })
        .start()
        .await
        .unwrap();
    cap.publish("work", &1).callback("done").await.unwrap();
    let (side, reason, attempts, error) = seen.next().await;
    assert_eq!((side, reason, attempts), (Side::Inbox, Reason::Permanent, 1));
    assert!(error.contains("header \"known\" is not to be had"), "{error}");
    cap.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn found_while_sending_is_parked_at_the_first_attempt() {
    for at_broker in [false, true] {
        let (noted, mut seen) = log();
        let cap = alone()
            .transport(Picky(MemoryTransport::new()))
            .configure(|options| options.publish_retry = RetryPolicy::fixed(Duration::from_secs(10), 50))
            .on_failed(move |failure: Failure| {
                noted.note((failure.side, failure.reason, failure.attempts));
                async {}
            })
            .start()
            .await
            .unwrap();
        let publish = cap.publish("done", &1).header("unknown", "x");
        let publish = if at_broker { publish.delay_at_broker(Duration::from_secs(600)) } else { publish };
        let id = publish.await.unwrap();
        assert_eq!(seen.next().await, (Side::Outbox, Reason::Permanent, 1));
        let row = &cap.messages().published().find(id.as_str()).await.unwrap()[0];
        assert_eq!((row.status, row.reason), (Status::Failed, Some(Reason::Permanent)));
        cap.shutdown().await.unwrap();
    }
}
