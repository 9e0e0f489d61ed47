//! Completes an attempt once its handler has returned: records the success with its reply, schedules the next attempt, or
//! parks the message.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use cap_adapter::{Completion, Enlisted, HandlerError, HandlerErrorKind};
use futures_util::FutureExt;

use super::callback::{Reply, reply};
use super::inbox::Inbox;
use super::received::{Job, Received};
use super::retry_decision::{Decision, decide};
use crate::faults::point;
use crate::handlers::{Group, Response};
use crate::message::Message;
use crate::message::headers::names;
use crate::publish::PendingCommit;
use crate::publish::attempt_data::{AttemptData, next_attempt};
use crate::runtime::notifier::FailedMessage;
use crate::runtime::repeated_events::Event;
use crate::storage::{Lease, Reason, RowCompletion, RowOutcome, Side};
use crate::writer::OutcomeItem;
use cap_adapter::engine::{caught, panic_text};

/// What the executor does next after one of its asynchronous steps.
pub(crate) enum End {
    /// The attempt is complete and the message has left this node.
    Over(Job),
    /// Another attempt is made at once.
    Again(Job),
    /// The message is parked or released without having been handled.
    Parked,
    /// It is this suspect's turn.
    Turn(Box<Received>),
    /// The start of a suspect is marked in the storage; if `false` it must not start.
    Marked(Job, bool),
}

/// Completes attempts. Separate from the executor, so that its futures can run while the executor goes on.
pub(crate) struct Ending {
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) group: Arc<Group>,
    /// Whether the subscriber's circuit is open. If so no immediate attempt is made: the message is claimed later, and
    /// handled when the circuit admits it.
    pub(crate) circuit_open: bool,
}

impl Ending {
    /// Creates the outcome of a success, with the reply and the messages that the handler published.
    pub(crate) fn row_completion(
        &self,
        job: &Job,
        response: Option<Response>,
    ) -> Result<RowCompletion, HandlerError> {
        let (delivery, in_flight) = (&job.delivery, &job.received.in_flight);
        let Some(data) = AttemptData::of(delivery) else {
            return Err(HandlerError::permanent("the delivery was made by another engine"));
        };
        let control = data.response_control(std::mem::take);
        let policy = &self.group.members[job.member].callbacks;
        let reply = reply(&self.inbox.outbox.composer, policy, delivery, response, control)
            .map_err(|error| HandlerError::permanent(format!("the reply cannot be published: {error}")))?;
        let mut publishes = data.take_publishes();
        match reply {
            Reply::None => {}
            Reply::To(reply) => publishes.push(*reply),
            Reply::NotAllowed(topic) => self.log_disallowed_reply(job, &topic),
        }
        // A message that has crashed a process keeps its state row, as one that has failed does, because the row records
        // why.
        let retention = self
            .inbox
            .engine
            .storage
            .retention(in_flight.attempts.saturating_add(job.received.crashes), in_flight.age);
        Ok(RowCompletion {
            lease: in_flight.lease,
            outcome: RowOutcome::Succeeded { retention, reason: None },
            publishes,
        })
    }

    fn log_failed_attempt(&self, job: &Job, error: &str, decision: &Decision) {
        let delivery = &job.delivery;
        let handler = &*self.group.members[job.member].function;
        // Errors that differ only in numbers are of one kind, such as those that name an order.
        let kind = error.chars().filter(|character| !character.is_ascii_digit()).take(100);
        let kind = format!("{handler}: {}", kind.collect::<String>());
        let (message_id, topic, group) = (delivery.message_id().as_str(), delivery.topic(), delivery.group());
        let attempt = delivery.attempt();
        if self.inbox.engine.repeated.is_first(Event::AttemptFailed, &self.group.name, kind) {
            tracing::warn!(message_id, topic, group, handler, attempt, error, ?decision, "handler failed");
        } else {
            tracing::debug!(message_id, topic, group, handler, attempt, error, ?decision, "handler failed");
        }
    }

    fn log_disallowed_reply(&self, job: &Job, callback: &str) {
        let delivery = &job.delivery;
        self.group.metrics.member(Some(job.member)).callbacks_refused.increment(1);
        if self.inbox.engine.repeated.is_first(Event::ReplyNotSent, &self.group.name, callback) {
            tracing::warn!(
                message_id = delivery.message_id().as_str(),
                topic = delivery.topic(),
                group = delivery.group(),
                callback,
                user = delivery.message().headers.get(names::VERIFIED_USER),
                "reply not sent: callbacks_to does not allow the requested callback topic"
            );
        }
    }

    /// Creates the item for the outcome writer. The messages that it publishes take their places in the relay's queue
    /// before they are stored, so that their rows can be inserted as leased by this node.
    pub(crate) fn item(&self, mut row_completion: RowCompletion) -> OutcomeItem {
        if row_completion.publishes.is_empty() {
            return OutcomeItem::new(Side::Inbox, row_completion);
        }
        let mut after_commit = PendingCommit::new(Arc::clone(&self.inbox.outbox));
        after_commit.admit_completed(&mut row_completion.publishes);
        OutcomeItem::new(Side::Inbox, row_completion).with_after_write(Box::new(after_commit))
    }

    /// Commits a handler's transaction together with the outcome.
    pub(crate) async fn complete(
        self,
        job: Job,
        mut row_completion: RowCompletion,
        enlisted: Box<dyn Enlisted>,
    ) -> End {
        let mut after_commit = PendingCommit::of_transaction(Arc::clone(&self.inbox.outbox));
        after_commit.admit_completed(&mut row_completion.publishes);
        let completion = Completion { owner: self.inbox.engine.storage.owner.clone(), row_completion };
        point("complete.before").await;
        after_commit.committing();
        let complete = AssertUnwindSafe(async { enlisted.complete(completion).await });
        let completed = complete.catch_unwind().await;
        point("complete.after").await;
        let completed = match completed {
            Ok(completed) => completed,
            Err(panic) => {
                let error = HandlerError::failed(panic_text("the handler's transaction", &*panic));
                return self.failed(job, error).await;
            }
        };
        match completed {
            Ok(true) => {
                self.log_success(&job);
                self.inbox.engine.storage.leases.remove(Side::Inbox, job.lease());
                after_commit.committed();
                End::Over(job)
            }
            Ok(false) => {
                tracing::warn!(row = job.lease().id, "lease lost: the handler's transaction is rolled back");
                self.inbox.engine.storage.leases.lose(Side::Inbox, job.lease());
                after_commit.not_committed();
                End::Over(job)
            }
            // It is unknown whether the transaction was committed. If it was, the outcome that is written now under the
            // same lease does not apply, and dropping `after_commit` makes it look for the published messages.
            Err(error) if !error.is_refused() => {
                let after = Duration::from_secs(1);
                let error = HandlerError::cancelled().retry_after(after).because(error);
                self.failed(job, error).await
            }
            Err(error) => {
                after_commit.not_committed();
                self.failed(job, HandlerError::failed(error)).await
            }
        }
    }

    /// Rolls back a handler's transaction. A panic in it is ignored: it drops the transaction as well.
    pub(crate) async fn abandon(enlisted: Box<dyn Enlisted>) {
        let _ = AssertUnwindSafe(async { enlisted.abandon().await }).catch_unwind().await;
    }

    /// Applies the application's error classifier to an ordinary failure.
    pub(crate) fn classify(&self, job: &Job, error: HandlerError) -> HandlerError {
        let classify = self.group.members[job.member].classify.or(self.inbox.classify);
        match classify {
            Some(classify) if error.kind() == HandlerErrorKind::Failed => {
                let text = error.text_with(self.inbox.engine.options.payload_in_errors);
                caught("the classifier of errors", || classify(error))
                    .unwrap_or_else(|panic| HandlerError::failed(format!("{panic}; the error was: {text}")))
            }
            _ => error,
        }
    }

    /// Releases a message whose handler failed while its circuit was open, without counting the attempt.
    pub(crate) async fn rest(self, job: Job, error: &HandlerError, rest: Duration) -> End {
        let delivery = &job.delivery;
        tracing::warn!(
            message_id = delivery.message_id().as_str(),
            topic = delivery.topic(),
            group = delivery.group(),
            error = error.text_with(self.inbox.engine.options.payload_in_errors),
            ?rest,
            "handler failed while its circuit was open; the attempt is not counted"
        );
        self.complete_and_wait(job.lease(), RowOutcome::Release { after: rest }, None).await;
        End::Over(job)
    }

    /// Decides what follows from a failure, and records it.
    pub(crate) async fn failed(self, mut job: Job, error: HandlerError) -> End {
        let text = error.text_with(self.inbox.engine.options.payload_in_errors);
        let attempt = job.delivery.attempt();
        let stopping = self.inbox.engine.lifecycle.stop.intake.is_cancelled();
        let in_flight = &job.received.in_flight;
        let counted = in_flight.attempts + 1 - in_flight.attempts_before_rerun;
        let policy = &self.group.members[job.member].retry;
        let decision = match decide(&error, counted, policy, stopping, fastrand::f64()) {
            Decision::Again if self.circuit_open => Decision::Later(Duration::ZERO),
            decision => decision,
        };
        self.log_failed_attempt(&job, &text, &decision);
        if error.kind() != HandlerErrorKind::Cancelled {
            self.group.metrics.member(Some(job.member)).failed.increment(1);
        }
        let outcome = match decision {
            Decision::Again => {
                let outcome = RowOutcome::Retry { after: Duration::ZERO, hold: true, error: text };
                let failed_before = job.received.in_flight.attempts;
                if self.complete_and_wait(job.lease(), outcome, Some(failed_before)).await {
                    job.received.in_flight.attempts += 1;
                    job.delivery = next_attempt(&job.delivery);
                    return End::Again(job);
                }
                return End::Over(job);
            }
            Decision::GiveUp(reason) => {
                let message = Arc::clone(&job.delivery.parts().message);
                self.give_up(job.lease(), message, reason, text, attempt, true).await;
                return End::Over(job);
            }
            Decision::AtBroker(after) if self.may_retry_at_broker() => {
                self.retry_at_broker(&job, after, text).await;
                return End::Over(job);
            }
            Decision::Later(after) | Decision::AtBroker(after) => {
                RowOutcome::Retry { after, hold: false, error: text }
            }
            Decision::Release(after) => RowOutcome::Release { after },
        };
        self.complete_and_wait(job.lease(), outcome, None).await;
        End::Over(job)
    }

    /// Parks a message that has failed for good, and notifies an operator.
    pub(crate) async fn give_up(
        &self,
        lease: Lease,
        message: Arc<Message>,
        reason: Reason,
        error: String,
        attempts: u32,
        counted: bool,
    ) {
        let notify = self.inbox.engine.notifier.has_callback();
        let keep = self.inbox.engine.options.failed_expire_after;
        let outcome = RowOutcome::Failed { reason, error: error.clone(), counted, keep, notify };
        let applied =
            self.complete_and_wait(lease, outcome, counted.then(|| attempts.saturating_sub(1))).await;
        self.group.metrics_for(&message).parked.increment(1);
        if applied {
            let (side, group) = (Side::Inbox, Arc::clone(&self.group.name));
            let failed = FailedMessage { side, lease, message, group, reason, error, attempts };
            self.inbox.engine.failed_for_good(failed);
        }
    }

    /// Writes an outcome, waits until it is stored, and returns whether this node still had the lease. If the outcome counts
    /// a failed attempt, `failed_before` is how many had failed before.
    pub(crate) async fn complete_and_wait(
        &self,
        lease: Lease,
        outcome: RowOutcome,
        failed_before: Option<u32>,
    ) -> bool {
        let mut item = OutcomeItem::of(Side::Inbox, lease, outcome);
        if let Some(failed_before) = failed_before {
            item = item.counting(failed_before);
        }
        self.inbox.outbox.outcomes.send_and_wait(item).await
    }

    pub(crate) fn log_success(&self, job: &Job) {
        let delivery = &job.delivery;
        self.group.metrics.handled(job.member, delivery.message());
        tracing::debug!(
            message_id = delivery.message_id().as_str(),
            topic = delivery.topic(),
            group = delivery.group(),
            attempt = delivery.attempt(),
            "handled"
        );
    }
}
