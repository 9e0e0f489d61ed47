//! Retries and delays that wait at the broker, and what becomes of them when it keeps badly.
#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use cap_core::error::{TransportError, TransportErrorKind};
use cap_core::memory::MemoryConsumer;
use cap_core::prelude::*;
use cap_core::storage::Status;
use cap_core::transport::{BrokerDelay, Delayed, Destination, GroupSpec, Sent, Transport, TransportContext};
use cap_core::{BoxFuture, CapBuilder, Message};
use support::{Log, alone, attempts, log};
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);
const LEASE: Duration = Duration::from_secs(30);

/// What a broker does with the messages that it is to keep.
#[derive(Clone, Copy, PartialEq)]
enum Keeps {
    /// Takes them and loses them.
    Nothing,
    /// Brings each twice.
    Twice,
    /// Says that it cannot be reached.
    Away,
    /// Will not keep any.
    Refuses,
    /// Loses them, and has said that retries are not for it.
    Shared,
    /// Brings a copy of each to another group, and much too early.
    Elsewhere,
}

/// A broker that keeps badly.
struct Careless(MemoryTransport, Keeps);

impl Transport for Careless {
    type Consumer = MemoryConsumer;

    fn name(&self) -> &'static str {
        "careless"
    }

    fn start(&self, context: &TransportContext) -> Result<(), TransportError> {
        self.0.start(context)
    }

    async fn send(&self, messages: &[Arc<Message>]) -> Vec<Result<Sent, TransportError>> {
        self.0.send(messages).await
    }

    fn broker_delay(&self) -> Option<&dyn BrokerDelay> {
        Some(self)
    }

    async fn consume(&self, spec: &GroupSpec) -> Result<MemoryConsumer, TransportError> {
        self.0.consume(spec).await
    }

    async fn close(&self) {}
}

impl BrokerDelay for Careless {
    fn delay<'a>(&'a self, messages: &'a [Delayed]) -> BoxFuture<'a, Vec<Result<(), TransportError>>> {
        Box::pin(async move {
            match self.1 {
                Keeps::Nothing | Keeps::Shared => messages.iter().map(|_| Ok(())).collect(),
                Keeps::Twice => {
                    self.0.delay(messages).await;
                    self.0.delay(messages).await
                }
                Keeps::Elsewhere => {
                    let to = Destination::Group("other.v1".into());
                    let moved = messages
                        .iter()
                        .map(|kept| Delayed::new(Arc::clone(&kept.message), SECOND, to.clone()));
                    self.0.delay(&moved.collect::<Vec<_>>()).await;
                    self.0.delay(messages).await
                }
                Keeps::Away | Keeps::Refuses => {
                    let kind = match self.1 {
                        Keeps::Away => TransportErrorKind::Unavailable,
                        _ => TransportErrorKind::Refused,
                    };
                    let error = || TransportError::new(kind, "careless", "it keeps nothing");
                    messages.iter().map(|_| Err(error())).collect()
                }
            }
        })
    }

    fn delays_retries_of(&self, _group: &str) -> bool {
        self.1 != Keeps::Shared
    }
}

/// A bus whose handler fails at its first attempts, by this policy, and notes when each attempt was made.
fn failing(
    builder: CapBuilder,
    failures: u32,
    policy: RetryPolicy,
    noted: Log<(u32, Duration)>,
) -> CapBuilder {
    let start = Instant::now();
    builder.subscribe(Subscribe::to("call").retry(policy), move |Attempt(attempt): Attempt| {
        noted.note((attempt, start.elapsed()));
        async move { if attempt > failures { Ok(()) } else { Err("nobody answers") } }
    })
}

#[tokio::test(start_paused = true)]
async fn a_retry_at_the_broker_comes_back_after_its_delay() {
    let (noted, mut seen) = log();
    let policy = RetryPolicy::broker([5 * SECOND, 60 * SECOND]);
    let cap = failing(alone(), 2, policy, noted).start().await.unwrap();
    let id = cap.publish("call", &1).await.unwrap();
    assert_eq!(attempts(&mut seen, 2).await, [(1, 0), (2, 5)]);
    let row = cap.messages().find(id.as_str()).await.unwrap().remove(0);
    let history = cap.messages().attempts(row.id).await.unwrap();
    let pause = |n: usize| history[n].next.unwrap().duration_since(history[n].at).unwrap();
    assert_eq!(pause(0), 5 * SECOND, "what came next is on record");
    assert_eq!(attempts(&mut seen, 1).await, [(3, 65)]);
    cap.shutdown().await.unwrap();
    seen.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn a_message_that_the_broker_loses_is_retried_a_lease_later() {
    let (noted, mut seen) = log();
    let broker = Careless(MemoryTransport::new(), Keeps::Nothing);
    let policy = RetryPolicy::broker([5 * SECOND]);
    let cap = failing(alone().transport(broker), 1, policy, noted).start().await.unwrap();
    cap.publish("call", &1).await.unwrap();
    assert_eq!(attempts(&mut seen, 2).await, [(1, 0), (2, (5 * SECOND + LEASE).as_secs())]);
    cap.shutdown().await.unwrap();
    seen.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn what_the_broker_cannot_keep_is_retried_in_time_by_the_store() {
    let (noted, mut seen) = log();
    let broker = Careless(MemoryTransport::new(), Keeps::Away);
    let policy = RetryPolicy::broker([5 * SECOND]);
    let cap = failing(alone().transport(broker), 1, policy, noted).start().await.unwrap();
    cap.publish("call", &1).await.unwrap();
    assert_eq!(attempts(&mut seen, 2).await, [(1, 0), (2, 5)]);
    cap.shutdown().await.unwrap();
    seen.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn a_message_that_comes_back_twice_is_handled_once() {
    let (noted, mut seen) = log();
    let broker = Careless(MemoryTransport::new(), Keeps::Twice);
    let policy = RetryPolicy::broker([5 * SECOND]);
    let cap = failing(alone().transport(broker), 1, policy, noted).start().await.unwrap();
    cap.publish("call", &1).await.unwrap();
    assert_eq!(attempts(&mut seen, 2).await, [(1, 0), (2, 5)]);
    tokio::time::sleep(10 * LEASE).await;
    cap.shutdown().await.unwrap();
    seen.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_is_moved_to_another_group_stays_the_first_ones() {
    let (noted, mut seen) = log();
    let broker = Careless(MemoryTransport::new(), Keeps::Elsewhere);
    let policy = RetryPolicy::broker([100 * SECOND]);
    let cap = failing(alone().transport(broker), 1, policy, noted)
        .subscribe(Subscribe::to("else").group("other"), async || ())
        .start()
        .await
        .unwrap();
    cap.publish("call", &1).await.unwrap();
    assert_eq!(attempts(&mut seen, 2).await, [(1, 0), (2, 100)]);
    cap.shutdown().await.unwrap();
    let groups = cap.messages().list().await.unwrap();
    let groups: Vec<_> = groups.iter().map(|row| &*row.group).collect();
    assert_eq!(groups, ["test.v1"], "the other group has no use for it");
}

#[tokio::test(start_paused = true)]
async fn copy_at_the_broker_of_a_changed_row_is_ignored() {
    let (noted, mut seen) = log();
    let cap = failing(alone(), 3, RetryPolicy::broker([60 * SECOND]), noted).start().await.unwrap();
    let waiting = async |count: usize| {
        loop {
            let rows = cap.messages().status(Status::Retrying).list().await.unwrap();
            match &rows[..] {
                [row] if row.attempts as usize == count && row.owner.is_none() => return row.id,
                _ => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    };
    cap.publish("call", &1).await.unwrap();
    assert_eq!(attempts(&mut seen, 1).await, [(1, 0)]);
    let id = waiting(1).await;
    tokio::time::sleep(10 * SECOND).await;
    cap.messages().rerun(&[id]).await.unwrap();
    assert_eq!(attempts(&mut seen, 1).await, [(2, 10)]);
    // The copy of the first attempt comes at the sixtieth second and counts no more; that of the second comes later.
    assert_eq!(attempts(&mut seen, 1).await, [(3, 70)]);
    let done = async || cap.messages().parked().count().await.unwrap();
    while done().await == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    cap.publish("call", &2).await.unwrap();
    assert_eq!(attempts(&mut seen, 1).await, [(1, 70)]);
    let id = waiting(1).await;
    assert_eq!(cap.messages().delete(&[id]).await.unwrap(), [id]);
    tokio::time::sleep(10 * LEASE).await;
    cap.shutdown().await.unwrap();
    seen.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn a_message_delayed_at_the_broker_comes_when_it_is_due() {
    let (noted, mut seen) = log();
    let start = Instant::now();
    let cap = alone()
        .subscribe("later", move |headers: CapHeaders| {
            assert!(headers.get("cap-broker-delay").is_none(), "that stays in the store");
            noted.note((headers.get("cap-delaytime").map(str::to_owned), start.elapsed().as_secs()));
            async {}
        })
        .start()
        .await
        .unwrap();
    cap.publish("later", &1).delay_at_broker(90 * SECOND).await.unwrap();
    assert_eq!(seen.next().await, (Some("00:01:30".to_owned()), 90));
    cap.shutdown().await.unwrap();
    seen.assert_empty();
}

/// A queue for each would be as many queues as messages. Two at most: the end of a step may fall between the messages.
#[tokio::test(start_paused = true)]
async fn delays_that_an_outage_has_shortened_share_a_queue() {
    let (noted, mut seen) = log();
    let (start, transport) = (Instant::now(), MemoryTransport::new());
    let later = move |_: RawBody| {
        noted.note(start.elapsed());
        async {}
    };
    let cap = alone().transport(transport.clone()).subscribe("later", later).start().await.unwrap();
    transport.set_available(false);
    for n in 0..20 {
        cap.publish("later", &n).delay_at_broker(90 * SECOND).await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(10 * SECOND).await;
    transport.set_available(true);
    let came: BTreeSet<Duration> = seen.take(20).await.into_iter().collect();
    assert!(came.iter().all(|came| *came >= 90 * SECOND && *came <= 94 * SECOND), "{came:?}");
    assert!(came.len() <= 2, "{came:?}");
    cap.shutdown().await.unwrap();
}

/// Such as a user who may not declare delay queues. Only delayed messages are concerned, and none is to blame.
#[tokio::test(start_paused = true)]
async fn what_the_broker_will_not_delay_is_sent_in_time_by_the_store() {
    let (noted, mut seen) = log();
    let start = Instant::now();
    let cap = alone()
        .transport(Careless(MemoryTransport::new(), Keeps::Refuses))
        .subscribe("later", move |_: RawBody| {
            noted.note(start.elapsed().as_secs());
            async {}
        })
        .start()
        .await
        .unwrap();
    cap.publish("later", &1).delay_at_broker(90 * SECOND).await.unwrap();
    assert_eq!(seen.next().await, 90);
    let rows = cap.messages().published().list().await.unwrap();
    assert_eq!(rows.iter().map(|row| row.attempts).collect::<Vec<_>>(), [0], "nothing has failed");
    cap.shutdown().await.unwrap();
    seen.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn retries_of_a_group_shared_with_strangers_stay_in_the_storage() {
    let (noted, mut seen) = log();
    let policy = RetryPolicy::broker([5 * SECOND]);
    let shared = Careless(MemoryTransport::new(), Keeps::Shared);
    let cap = failing(alone().transport(shared), 1, policy, noted).start().await.unwrap();
    cap.publish("call", &1).await.unwrap();
    assert_eq!(attempts(&mut seen, 2).await, [(1, 0), (2, 5)]);
    cap.shutdown().await.unwrap();
    seen.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_cannot_delay_says_so() {
    struct Plain(MemoryTransport);
    impl Transport for Plain {
        type Consumer = MemoryConsumer;
        fn name(&self) -> &'static str {
            "plain"
        }
        fn start(&self, context: &TransportContext) -> Result<(), TransportError> {
            self.0.start(context)
        }
        async fn send(&self, messages: &[Arc<Message>]) -> Vec<Result<Sent, TransportError>> {
            self.0.send(messages).await
        }
        async fn consume(&self, spec: &GroupSpec) -> Result<MemoryConsumer, TransportError> {
            self.0.consume(spec).await
        }
        async fn close(&self) {}
    }
    let (noted, mut seen) = log();
    let policy = RetryPolicy::broker([5 * SECOND]);
    let plain = alone().transport(Plain(MemoryTransport::new()));
    let cap = failing(plain, 1, policy, noted).start().await.unwrap();
    let error = cap.publish("call", &1).delay_at_broker(SECOND).await.unwrap_err();
    assert!(error.to_string().contains("use .delay(..)"), "{error}");
    cap.publish("call", &1).await.unwrap();
    assert_eq!(attempts(&mut seen, 2).await, [(1, 0), (2, 5)], "the store keeps it instead");
    cap.shutdown().await.unwrap();
}
