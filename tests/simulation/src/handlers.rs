//! The handlers of every node: they do what the job says, and note what they see.

use std::sync::Arc;
use std::time::Duration;

use cap_core::{
    Cancelled, CapBuilder, Delivery, Failure, HandlerError, MessageId, Publisher, Reply, Subscribe,
};
use cap_ledger::{End, Event};

use crate::job::{
    ANSWERS, Act, Answer, CHILDREN, JOBS, KEY, KEYED, ONCE, PLAIN, TIMEOUT, name, number_of, retry_at_broker,
};
use crate::life::Life;
use crate::run::Run;
use crate::transaction::SimTx;

/// What a handler that was told to stop, or failed, ends with.
enum Undone {
    Failed(HandlerError),
    Panicked,
}

/// Subscribes every handler of a node.
pub(crate) fn subscribe(builder: CapBuilder, life: &Arc<Life>) -> CapBuilder {
    let (plain, once, keyed) = (Arc::clone(life), Arc::clone(life), Arc::clone(life));
    let (answers, children, told) = (Arc::clone(life), Arc::clone(life), Arc::clone(life));
    builder
        .subscribe(
            Subscribe::to(JOBS).group(PLAIN).concurrency(3).timeout(TIMEOUT),
            move |n: u64, delivery: Delivery, publisher: Publisher, stop: Cancelled| {
                handle(Arc::clone(&plain), PLAIN, n, delivery, publisher, stop, None)
            },
        )
        .subscribe(
            Subscribe::to(JOBS).group(ONCE).concurrency(2).retry(retry_at_broker()),
            move |n: u64, delivery: Delivery, publisher: Publisher, stop: Cancelled, tx: SimTx| {
                handle(Arc::clone(&once), ONCE, n, delivery, publisher, stop, Some(tx))
            },
        )
        .subscribe(
            Subscribe::to(JOBS).group(KEYED).concurrency(3).order_by(KEY),
            move |n: u64, delivery: Delivery, publisher: Publisher, stop: Cancelled| {
                handle(Arc::clone(&keyed), KEYED, n, delivery, publisher, stop, None)
            },
        )
        .subscribe(Subscribe::to(ANSWERS).group("answers"), move |answer: Answer, id: MessageId| {
            follow_up(Arc::clone(&answers), "answer", answer, id)
        })
        .subscribe(Subscribe::to(CHILDREN).group("children"), move |child: Answer, id: MessageId| {
            follow_up(Arc::clone(&children), "child", child, id)
        })
        .on_failed(move |failure| tell(Arc::clone(&told), failure))
}

async fn handle(
    life: Arc<Life>,
    group: &'static str,
    n: u64,
    delivery: Delivery,
    publisher: Publisher,
    stop: Cancelled,
    tx: Option<SimTx>,
) -> Result<Reply<Answer>, HandlerError> {
    let (run, act, has_child) = Arrival { life: &life, group, job: n, is_in: false }.begin().await;
    let answer = || Answer { job: n, group: group.to_owned() };
    if has_child {
        publisher.publish(CHILDREN, &answer()).await.map_err(HandlerError::failed)?;
    }
    let done = perform(act, &stop).await;
    life.step().await;
    match done {
        Ok(()) => {
            let effect = run.effect(delivery.attempt());
            if let Some(tx) = tx {
                tx.done(run, effect);
            } else {
                life.world.note(effect);
                run.end(End::Succeeded);
            }
            Ok(Reply(answer()))
        }
        Err(Undone::Panicked) => {
            run.end(End::Failed);
            // Without the panic hook, which would fill the output.
            std::panic::resume_unwind(Box::new("the job says so"))
        }
        Err(Undone::Failed(error)) => {
            run.end(match error.kind() {
                cap_core::HandlerErrorKind::Cancelled => End::CalledOff,
                cap_core::HandlerErrorKind::Permanent => End::Permanent,
                _ => End::Failed,
            });
            Err(error)
        }
    }
}

/// A job before a handler that stands still with its node. Should its time run out meanwhile, that is an attempt.
struct Arrival<'a> {
    life: &'a Arc<Life>,
    group: &'static str,
    job: u64,
    is_in: bool,
}

impl Arrival<'_> {
    async fn begin(mut self) -> (Run, Act, bool) {
        self.life.step().await;
        self.is_in = true;
        self.enter()
    }

    fn enter(&self) -> (Run, Act, bool) {
        let (number, act, has_child) = self.life.world.begin(self.job, self.group);
        (Run::begin(self.life, self.group, self.job, number), act, has_child)
    }
}

impl Drop for Arrival<'_> {
    fn drop(&mut self) {
        if !self.is_in && !self.life.is_dead() {
            drop(self.enter());
        }
    }
}

async fn perform(act: Act, stop: &Cancelled) -> Result<(), Undone> {
    let sleep = tokio::time::sleep;
    let failed = || Undone::Failed(HandlerError::failed("the job says so"));
    match act {
        Act::Succeed(time) => sleep(time).await,
        Act::SucceedUnlessStopped(time) => {
            let stopped = stop.run_until_cancelled(sleep(time)).await.is_none();
            if stopped {
                return Err(Undone::Failed(HandlerError::cancelled()));
            }
        }
        Act::Fail(time) => {
            sleep(time).await;
            return Err(failed());
        }
        Act::FailAndRest(time) => {
            return Err(Undone::Failed(HandlerError::failed("the job says so").retry_after(time)));
        }
        Act::Permanent => return Err(Undone::Failed(HandlerError::permanent("the job says so"))),
        Act::Panic => return Err(Undone::Panicked),
        Act::CallOff => return Err(Undone::Failed(HandlerError::cancelled())),
        Act::TakeTooLong => sleep(TIMEOUT + Duration::from_secs(5)).await,
    }
    Ok(())
}

async fn follow_up(life: Arc<Life>, what: &str, of: Answer, id: MessageId) {
    life.step().await;
    let (message, group) = (name(of.job), of.group);
    life.world.note(Event::FollowUp { message, group, what: what.to_owned(), id: id.to_string() });
}

/// Tells an operator of a failure, which takes a while.
async fn tell(life: Arc<Life>, failure: Failure) {
    tokio::time::sleep(life.world.within(Duration::from_secs(2))).await;
    life.step().await;
    if let Some(number) = number_of(&failure.message) {
        let (message, group) = (name(number), failure.group.trim_end_matches(".v1").to_owned());
        life.world.note(Event::Notice { message, group, node: life.name.clone() });
    }
}
