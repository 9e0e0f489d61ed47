//! What the applications on the nodes do: publish alone, in batches, with a delay, in transactions; and cancel.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cap_core::error::PublishError;
use cap_core::{MessageId, Publish};
use cap_ledger::{Event, Told};
use fastrand::Rng;

use crate::fleet::App;
use crate::job::{ANSWERS, GROUPS, JOBS, Job, KEY, name};
use crate::plan::{LEASE, LONG_DELAY, within};
use crate::storage::SimStorage;
use crate::transaction::SimTransaction;
use crate::world::{World, millis};

/// A wish to publish.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    /// The jobs, which go together.
    jobs: Vec<u64>,
    key: String,
    answered: bool,
    way: Way,
}

/// How it is published.
#[derive(Debug, Clone, Copy)]
enum Way {
    Alone,
    Batch,
    Delayed { delay: Duration, called_off_after: Option<Duration> },
    Transaction { plain: bool, commits: bool, work: Duration },
}

impl Wish {
    /// A wish for the next job or jobs.
    pub(crate) fn random(rng: &mut Rng, next: &mut u64, long_delays: bool) -> Self {
        let way = match rng.u8(0..10) {
            0..4 => Way::Alone,
            4 | 5 => Way::Batch,
            6 | 7 => {
                let longest = if long_delays { LONG_DELAY } else { LEASE * 4 };
                let delay = within(rng, longest) + Duration::from_millis(1);
                let called_off_after = (rng.u8(0..3) == 0).then(|| within(rng, delay * 5 / 4));
                Way::Delayed { delay, called_off_after }
            }
            _ => {
                let work = if rng.u8(0..4) == 0 { within(rng, LEASE) } else { Duration::ZERO };
                Way::Transaction { plain: rng.u8(0..3) == 0, commits: rng.u8(0..3) > 0, work }
            }
        };
        let count = match way {
            Way::Batch => rng.u64(1..=5),
            Way::Transaction { .. } => rng.u64(1..=3),
            _ => 1,
        };
        let jobs: Vec<u64> = (*next..*next + count).collect();
        *next += count;
        Self { jobs, key: rng.u8(0..3).to_string(), answered: rng.bool(), way }
    }

    /// Makes the jobs known, and notes that they are about to be published.
    fn announce(&self, world: &World, rng: &mut Rng) {
        let due = match self.way {
            Way::Delayed { delay, .. } => Some(world.now() + millis(delay)),
            _ => None,
        };
        for n in &self.jobs {
            let job = Job::random(rng);
            let mut follow_ups = Vec::new();
            if self.answered {
                follow_ups.push("answer".to_owned());
            }
            if job.publishes {
                follow_ups.push("child".to_owned());
            }
            world.add_job(*n, job);
            let groups: BTreeMap<_, _> =
                GROUPS.iter().map(|group| ((*group).to_owned(), follow_ups.clone())).collect();
            world.note(Event::Publish { message: name(*n), groups, key: Some(self.key.clone()), due });
        }
    }

    fn told(&self, world: &World, told: Told) {
        for n in &self.jobs {
            world.note(Event::Told { message: name(*n), told });
        }
    }

    /// Says about a message what is to be said.
    fn dress(&self, message: Publish) -> Publish {
        let message = message.header(KEY, self.key.clone());
        if self.answered { message.callback(ANSWERS) } else { message }
    }

    /// Publishes as requested, and notes what the bus says to it. A node that dies over it leaves no word.
    pub(crate) async fn publish(self, app: App, mut rng: Rng) {
        let world = Arc::clone(&app.life.world);
        self.announce(&world, &mut rng);
        match self.way {
            Way::Alone => {
                let told = self.dress(app.cap.publish(JOBS, &self.jobs[0])).await;
                app.life.step().await;
                self.told(&world, understood(&told));
            }
            Way::Batch => {
                let messages = app.cap.publish_all(JOBS, &self.jobs).header(KEY, self.key.clone());
                let told = if self.answered { messages.callback(ANSWERS).await } else { messages.await };
                app.life.step().await;
                self.told(&world, understood(&told));
            }
            Way::Delayed { delay, called_off_after } => {
                let told = self.dress(app.cap.publish(JOBS, &self.jobs[0])).delay(delay).await;
                app.life.step().await;
                self.told(&world, understood(&told));
                if let (Ok(id), Some(after)) = (told, called_off_after) {
                    tokio::time::sleep(after).await;
                    app.life.step().await;
                    self.call_off(&app, &id).await;
                }
            }
            Way::Transaction { plain, commits, work } => {
                let told = self.transact(&app, plain, commits, work).await;
                app.life.step().await;
                self.told(&world, told);
            }
        }
    }

    async fn call_off(&self, app: &App, id: &MessageId) {
        let message = || name(self.jobs[0]);
        app.life.world.note(Event::CalledOff { message: message(), sure: false });
        let called_off = tokio::time::timeout(Duration::from_secs(10), app.cap.cancel(id)).await;
        app.life.step().await;
        if matches!(called_off, Ok(Ok(true))) {
            app.life.world.note(Event::CalledOff { message: message(), sure: true });
        }
    }

    async fn transact(&self, app: &App, plain: bool, commits: bool, work: Duration) -> Told {
        let mut transaction = if plain { SimTransaction::plain() } else { SimTransaction::begin(&app.cap) };
        for n in &self.jobs {
            if self.dress(app.cap.publish(JOBS, n)).within(&mut transaction).await.is_err() {
                return Told::RolledBack;
            }
        }
        tokio::time::sleep(work).await;
        app.life.step().await;
        if !commits {
            return Told::RolledBack;
        }
        match transaction.commit(&SimStorage(Arc::clone(&app.life))).await {
            Ok(()) => Told::Stored,
            Err(error) if error.is_unavailable() => Told::Unknown,
            Err(_) => Told::RolledBack,
        }
    }
}

/// What a caller may conclude from what it was told.
fn understood<T>(told: &Result<T, PublishError>) -> Told {
    match told {
        Ok(_) => Told::Stored,
        Err(PublishError::TimedOut { .. }) => Told::Unknown,
        Err(PublishError::Storage { source, .. }) if source.is_unavailable() => Told::Unknown,
        Err(_) => Told::Refused,
    }
}
