//! The service that a node is: a bus with handlers of every kind.

use std::time::Duration;

use cap_core::prelude::*;
use cap_core::{BoxError, Cap, CapBuilder};
use cap_ledger::{End, Event};
use cap_postgres::{PgTx, Postgres};
use cap_rabbitmq::RabbitMq;
use sqlx::PgPool;

use crate::job::{ANSWER, Back, Course, ECHO, FOLLOW, Job, ONCE, PLAIN, WORK};
use crate::notes::{Notes, Run};
use crate::settings::Settings;

/// What handlers share.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) notes: Notes,
    pub(crate) shop: String,
    contention: bool,
}

impl Desk {
    pub(crate) fn new(settings: &Settings, notes: Notes) -> Self {
        Self { notes, shop: format!("\"{}_shop\"", settings.scene), contention: settings.contention }
    }
}

/// The bus of a node, ready to start.
pub(crate) fn builder(settings: &Settings, pool: PgPool, notes: &Notes) -> CapBuilder {
    let storage = Postgres::new(pool).schema(&settings.scene);
    let transport = RabbitMq::new(&settings.amqp).exchange(&settings.scene);
    let builder = Cap::builder()
        .handlers(Handlers::none())
        .storage(storage)
        .transport(transport)
        .state(Desk::new(settings, notes.clone()))
        .configure(|options| configure(options, settings));
    let notes = notes.clone();
    let builder = builder.on_failed(move |failure| {
        let notes = notes.clone();
        async move { tell(&notes, &failure) }
    });
    if !settings.handles {
        return builder;
    }
    // One group's retries wait at the broker, the other's in the store.
    let pauses = vec![
        settings.retry_pause;
        usize::try_from(settings.attempts).unwrap_or(usize::MAX).saturating_sub(1)
    ];
    let at_broker = RetryPolicy::broker(pauses);
    builder
        .subscribe(Subscribe::to(WORK).group(ONCE).concurrency(3).retry(at_broker), once)
        .subscribe(Subscribe::to(WORK).group(PLAIN).concurrency(4), plain)
        .subscribe(Subscribe::to(ANSWER).group(FOLLOW), follow)
        .subscribe(Subscribe::to(ECHO).group(FOLLOW), follow)
}

fn configure(options: &mut CapOptions, settings: &Settings) {
    options.group_prefix = Some(settings.scene.clone());
    options.node_name.clone_from(&settings.node);
    options.lease = settings.lease;
    options.poll_interval = Duration::from_millis(500);
    options.collector_interval = Duration::from_millis(400);
    options.succeeded_expire_after = settings.keep;
    options.prefetch = 32;
    options.relay_buffer = settings.relay_buffer;
    options.batch_size = 64;
    options.start_timeout = Duration::from_secs(5);
    options.publish_timeout = Duration::from_secs(5);
    options.shutdown_timeout = settings.patience;
    options.retry = RetryPolicy::Fixed { every: settings.retry_pause, attempts: settings.attempts };
    options.publish_retry = RetryPolicy::Fixed { every: Duration::from_millis(200), attempts: 1000 };
}

fn tell(notes: &Notes, failure: &Failure) {
    if let Ok(job) = serde_json::from_slice::<Job>(&failure.message.body) {
        let group = [ONCE, PLAIN].into_iter().find(|group| failure.group.ends_with(&format!(".{group}.v1")));
        let group = group.unwrap_or_default().to_owned();
        notes.note(Event::Notice { message: job.key, group, node: notes.node().to_owned() });
    }
}

async fn once(
    job: Job,
    attempt: Attempt,
    publisher: Publisher,
    desk: State<Desk>,
    mut tx: PgTx,
) -> Result<Reply<Back>, BoxError> {
    let run = desk.notes.begin(&job.key, ONCE);
    let done = async {
        let statement = format!("INSERT INTO {}.effects VALUES ($1, $2, $3, $4)", desk.shop);
        sqlx::query(sqlx::AssertSqlSafe(statement))
            .bind(&job.key)
            .bind(desk.notes.node())
            .bind(i32::try_from(attempt.0).unwrap_or(i32::MAX))
            .bind(i64::try_from(crate::clock::now()).unwrap_or(i64::MAX))
            .execute(&mut *tx)
            .await?;
        if desk.contention && contends(&job.key) {
            count(&desk.shop, &job.key, &mut tx).await?;
        }
        Ok(())
    };
    let done = match done.await {
        Ok(()) => work(&job, attempt.0, ONCE, &publisher).await,
        failed => failed,
    };
    finish(&job, run, done, ONCE)
}

/// One message in six: more of them would be busy with nothing but each other.
fn contends(key: &str) -> bool {
    key.bytes().map(u32::from).sum::<u32>() % 6 == 0
}

/// Two rows, in an order that others have the other way round.
async fn count(shop: &str, key: &str, tx: &mut PgTx) -> Result<(), BoxError> {
    let first = u32::from(key.as_bytes().last().copied().unwrap_or_default()) % 3;
    for id in [first, (first + 1) % 3] {
        let statement = format!("UPDATE {shop}.counters SET number = number + 1 WHERE id = {id}");
        sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut **tx).await?;
    }
    Ok(())
}

async fn plain(
    job: Job,
    attempt: Attempt,
    publisher: Publisher,
    desk: State<Desk>,
) -> Result<Reply<Back>, BoxError> {
    let run = desk.notes.begin(&job.key, PLAIN);
    let done = work(&job, attempt.0, PLAIN, &publisher).await;
    if done.is_ok() {
        desk.notes.note(Event::effect(&job.key, PLAIN, desk.notes.node(), attempt.0));
    }
    finish(&job, run, done, PLAIN)
}

async fn work(job: &Job, attempt: u32, group: &str, publisher: &Publisher) -> Result<(), BoxError> {
    if job.echo {
        let echo = Back { key: job.key.clone(), group: group.to_owned(), what: ECHO.to_owned() };
        publisher.publish(ECHO, &echo).await?;
    }
    match job.course {
        Course::Slow(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
        Course::Fails(times) if attempt <= times => return Err("not yet".into()),
        Course::Panics if attempt == 1 => panic!("as it was told to"),
        Course::Poison => return Err("poison".into()),
        Course::Permanent => return Err(HandlerError::permanent("never").into()),
        Course::Fine | Course::Fails(_) | Course::Panics => {}
    }
    Ok(())
}

fn finish(job: &Job, run: Run, done: Result<(), BoxError>, group: &str) -> Result<Reply<Back>, BoxError> {
    run.end(match (&done, job.course) {
        (Ok(()), _) => End::Succeeded,
        (Err(_), Course::Permanent) => End::Permanent,
        (Err(_), _) => End::Failed,
    });
    done.map(|()| Reply(Back { key: job.key.clone(), group: group.to_owned(), what: ANSWER.to_owned() }))
}

async fn follow(back: Back, id: MessageId, desk: State<Desk>) {
    let id = id.as_str().to_owned();
    desk.notes.note(Event::FollowUp { message: back.key, group: back.group, what: back.what, id });
}
