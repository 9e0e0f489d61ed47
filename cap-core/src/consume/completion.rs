//! What becomes of a message whose handler has returned: its mark and its answer, its next attempt, or its end.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;

use super::callback::{Answer, answer};
use super::in_flight::Intake;
use super::retry_decision::{Decision, decide};
use crate::faults::point;
use crate::handlers::{
    Completion, Delivery, EnginePart, Enlisted, Group, HandlerError, HandlerErrorKind, Job, Response, Ticket,
    next_attempt,
};
use crate::message::Message;
use crate::message::headers::names;
use crate::operate::failure_callback::Failure;
use crate::publish::PendingCommit;
use crate::runtime::context::Context;
use crate::runtime::repeated_events::Event;
use crate::storage::{Lease, Reason, RowCompletion, RowOutcome, Side};
use crate::writer::OutcomeItem;
use cap_adapter::engine::{caught, panic_text};

/// How the slow way of ending a message ended.
pub(crate) enum End {
    /// The message has left this node's hands.
    Over(Ticket),
    /// Another attempt is to be made at once.
    Again(Job),
    /// A message that nobody here takes waits for an operator.
    Parked,
    /// A suspect's turn has come.
    Turn(Box<Intake>),
    /// A suspect's start was noted, or must not happen.
    Marked(Job, bool),
}

/// What ends a message; apart from the executor, so that it can run beside it.
pub(crate) struct Ending {
    pub(crate) context: Arc<Context>,
    pub(crate) group: Arc<Group>,
    /// No attempt is made at once: the message comes by again, and is admitted when the circuit says so.
    pub(crate) circuit_open: bool,
}

impl Ending {
    /// The outcome of a success: the mark, the answer, and what the handler published.
    pub(crate) fn row_completion(
        &self,
        ticket: &Ticket,
        delivery: &Delivery,
        response: Option<Response>,
    ) -> Result<RowCompletion, HandlerError> {
        let Some(part) = EnginePart::of(delivery) else {
            return Err(HandlerError::permanent("the delivery was made by another engine"));
        };
        let control = part.response_control(std::mem::take);
        let policy = &self.group.members[ticket.member].callbacks;
        let answer = answer(&self.context.composer, policy, delivery, response, control)
            .map_err(|error| HandlerError::permanent(format!("the answer cannot be published: {error}")))?;
        let mut publishes = part.take_publishes();
        match answer {
            Answer::None => {}
            Answer::To(answer) => publishes.push(*answer),
            Answer::Refused(topic) => self.log_refused_reply(delivery, &topic),
        }
        // What has crashed a process keeps its row, as what has failed does: its record says why.
        let retention = self.context.retention(ticket.attempts.saturating_add(ticket.crashes), ticket.age);
        Ok(RowCompletion {
            lease: ticket.lease,
            outcome: RowOutcome::Succeeded { retention, reason: None },
            publishes,
        })
    }

    fn log_failed_attempt(&self, ticket: &Ticket, delivery: &Delivery, error: &str, decision: &Decision) {
        let handler = &*self.group.members[ticket.member].function;
        // What differs in numbers only is one kind, such as an error that names its order.
        let kind = error.chars().filter(|character| !character.is_ascii_digit()).take(100);
        let kind = format!("{handler}: {}", kind.collect::<String>());
        let (message_id, topic, group) = (delivery.message_id().as_str(), delivery.topic(), delivery.group());
        let attempt = delivery.attempt();
        if self.context.repeats.is_first(Event::AttemptFailed, &self.group.name, kind) {
            tracing::warn!(message_id, topic, group, handler, attempt, error, ?decision, "handler failed");
        } else {
            tracing::debug!(message_id, topic, group, handler, attempt, error, ?decision, "handler failed");
        }
    }

    fn log_refused_reply(&self, delivery: &Delivery, callback: &str) {
        metrics::counter!("cap_callbacks_refused_total").increment(1);
        if self.context.repeats.is_first(Event::ReplyNotSent, &self.group.name, callback) {
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

    /// Reserves places in the relay for what is published along.
    pub(crate) fn with_pending_commit(
        &self,
        row_completion: RowCompletion,
    ) -> (RowCompletion, PendingCommit) {
        Self::admit(row_completion, PendingCommit::new(Arc::clone(&self.context)))
    }

    fn admit(
        mut row_completion: RowCompletion,
        mut after_commit: PendingCommit,
    ) -> (RowCompletion, PendingCommit) {
        for row in &mut row_completion.publishes {
            after_commit.admit_completed(row);
        }
        (row_completion, after_commit)
    }

    /// Commits a handler's transaction together with the outcome.
    pub(crate) async fn complete(
        self,
        ticket: Ticket,
        delivery: Delivery,
        row_completion: RowCompletion,
        enlisted: Box<dyn Enlisted>,
    ) -> End {
        let after_commit = PendingCommit::of_transaction(Arc::clone(&self.context));
        let (row_completion, mut after_commit) = Self::admit(row_completion, after_commit);
        let completion = Completion { owner: self.context.owner.clone(), row_completion };
        point("complete.before").await;
        after_commit.committing();
        let complete = AssertUnwindSafe(async { enlisted.complete(completion).await });
        let completed = complete.catch_unwind().await;
        point("complete.after").await;
        let completed = match completed {
            Ok(completed) => completed,
            Err(panic) => {
                let error = HandlerError::failed(panic_text("the handler's transaction", &*panic));
                return self.failed(ticket, delivery, error).await;
            }
        };
        match completed {
            Ok(true) => {
                Self::log_success(&delivery);
                self.context.leases.remove(Side::Inbox, ticket.lease);
                after_commit.committed();
                End::Over(ticket)
            }
            Ok(false) => {
                tracing::warn!(row = ticket.lease.id, "lease lost: the handler's transaction is rolled back");
                self.context.leases.lose(Side::Inbox, ticket.lease);
                after_commit.not_committed();
                End::Over(ticket)
            }
            // What follows is written under the same lease: had the commit happened after all, it finds no row, and what
            // was published is found as the after_commit is dropped.
            Err(error) if !error.is_refused() => {
                let after = Duration::from_secs(1);
                let error = HandlerError::cancelled().retry_after(after).because(error);
                self.failed(ticket, delivery, error).await
            }
            Err(error) => {
                after_commit.not_committed();
                self.failed(ticket, delivery, HandlerError::failed(error)).await
            }
        }
    }

    /// Rolls a handler's transaction back; one that panics at that is gone, too.
    pub(crate) async fn abandon(enlisted: Box<dyn Enlisted>) {
        let _ = AssertUnwindSafe(async { enlisted.abandon().await }).catch_unwind().await;
    }

    /// What the application says about an error besides what it says itself.
    pub(crate) fn classify(&self, ticket: &Ticket, error: HandlerError) -> HandlerError {
        let classify = self.group.members[ticket.member].classify.or(self.context.classify);
        match classify {
            Some(classify) if error.kind() == HandlerErrorKind::Failed => {
                let text = error.text_with(self.context.options().payload_in_errors);
                caught("the classifier of errors", || classify(error))
                    .unwrap_or_else(|panic| HandlerError::failed(format!("{panic}; the error was: {text}")))
            }
            _ => error,
        }
    }

    /// Gives a message back whose handler failed while its circuit was open: nothing counts.
    pub(crate) async fn rest(
        self,
        ticket: Ticket,
        delivery: &Delivery,
        error: &HandlerError,
        rest: Duration,
    ) -> End {
        tracing::warn!(
            message_id = delivery.message_id().as_str(),
            topic = delivery.topic(),
            group = delivery.group(),
            error = error.text_with(self.context.options().payload_in_errors),
            ?rest,
            "the handler failed while its circuit was open; the attempt is not counted"
        );
        self.write_outcome(&ticket, RowOutcome::Release { after: rest }).await;
        End::Over(ticket)
    }

    /// Records a failure and decides what follows.
    pub(crate) async fn failed(self, mut ticket: Ticket, delivery: Delivery, error: HandlerError) -> End {
        let text = error.text_with(self.context.options().payload_in_errors);
        let attempt = delivery.attempt();
        let stopping = self.context.stop.intake.is_cancelled();
        let counted = ticket.attempts + 1 - ticket.attempts_before_rerun;
        let policy = &self.group.members[ticket.member].retry;
        let decision = match decide(&error, counted, policy, stopping, fastrand::f64()) {
            Decision::Again if self.circuit_open => Decision::Later(Duration::ZERO),
            decision => decision,
        };
        self.log_failed_attempt(&ticket, &delivery, &text, &decision);
        if error.kind() != HandlerErrorKind::Cancelled {
            metrics::counter!("cap_handler_failed_total").increment(1);
        }
        let outcome = match decision {
            Decision::Again => {
                let outcome = RowOutcome::Retry { after: Duration::ZERO, hold: true, error: text };
                let row_completion = RowCompletion { lease: ticket.lease, outcome, publishes: Vec::new() };
                if self.complete_and_wait(row_completion, Some(ticket.attempts)).await {
                    ticket.attempts += 1;
                    return End::Again(Job { delivery: next_attempt(&delivery), ticket });
                }
                return End::Over(ticket);
            }
            Decision::GiveUp(reason) => {
                let message = Arc::clone(&delivery.parts().message);
                self.give_up(ticket.lease, message, reason, text, attempt, true).await;
                return End::Over(ticket);
            }
            Decision::AtBroker(after) if self.may_retry_at_broker() => {
                self.retry_at_broker(&ticket, &delivery, after, text).await;
                return End::Over(ticket);
            }
            Decision::Later(after) | Decision::AtBroker(after) => {
                RowOutcome::Retry { after, hold: false, error: text }
            }
            Decision::GiveBack(after) => RowOutcome::Release { after },
        };
        self.write_outcome(&ticket, outcome).await;
        End::Over(ticket)
    }

    /// Ends a message for good, and has an operator told.
    pub(crate) async fn give_up(
        &self,
        lease: Lease,
        message: Arc<Message>,
        reason: Reason,
        error: String,
        attempts: u32,
        counted: bool,
    ) {
        let notify = self.context.notifies();
        let keep = self.context.options().failed_expire_after;
        let outcome = RowOutcome::Failed { reason, error: error.clone(), counted, keep, notify };
        let row_completion = RowCompletion { lease, outcome, publishes: Vec::new() };
        let applied =
            self.complete_and_wait(row_completion, counted.then(|| attempts.saturating_sub(1))).await;
        metrics::counter!("cap_parked_total").increment(1);
        if applied {
            let (side, id, group) = (Side::Inbox, lease.id, Arc::clone(&self.group.name));
            let bus = self.context.bus.clone();
            let failure = Failure { side, id, message, group, reason, error, attempts, lease, bus };
            self.context.failed_for_good(failure);
        }
    }

    async fn write_outcome(&self, ticket: &Ticket, outcome: RowOutcome) -> bool {
        self.complete_and_wait(RowCompletion { lease: ticket.lease, outcome, publishes: Vec::new() }, None)
            .await
    }

    /// Waits until the store has heard it, and says whether the lease held. `failed_before` is how many attempts had
    /// failed before the one that it counts.
    pub(crate) async fn complete_and_wait(
        &self,
        row_completion: RowCompletion,
        failed_before: Option<u32>,
    ) -> bool {
        let mut item = OutcomeItem::new(Side::Inbox, row_completion);
        if let Some(failed_before) = failed_before {
            item = item.counting(failed_before);
        }
        let (item, applied) = item.awaited();
        self.context.complete.send(item).await.is_ok() && applied.await.unwrap_or(false)
    }

    pub(crate) fn log_success(delivery: &Delivery) {
        metrics::counter!("cap_handled_total").increment(1);
        tracing::debug!(
            message_id = delivery.message_id().as_str(),
            topic = delivery.topic(),
            group = delivery.group(),
            attempt = delivery.attempt(),
            "handled"
        );
    }
}
