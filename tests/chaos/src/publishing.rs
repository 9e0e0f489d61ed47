//! What a node publishes, and what it notes of that.

use cap_core::Cap;
use cap_ledger::{Event, Told};
use fastrand::Rng;
use sqlx::{PgConnection, PgPool};
use std::time::Duration;

use crate::clock::now;
use crate::job::{ANSWER, Job, WORK, Way};
use crate::notes::Notes;

/// Publishes by the seed, one message after the other.
pub(crate) struct Publishing {
    pub(crate) cap: Cap,
    pub(crate) pool: PgPool,
    pub(crate) notes: Notes,
    pub(crate) shop: String,
    pub(crate) random: Rng,
    pub(crate) number: u64,
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

impl Publishing {
    /// Publishes one message. What goes wrong leaves it without a word: nobody knows.
    pub(crate) async fn one(&mut self) {
        self.number += 1;
        let (job, way) = Job::draw(&mut self.random, self.notes.node(), self.number);
        let due = match way {
            // The store's clock counts from a moment that is not before this one.
            Way::Delayed(delay) | Way::CalledOff(delay) => Some(now() + micros(delay)),
            _ => None,
        };
        let message = job.key.clone();
        self.notes.note(Event::Publish { message: message.clone(), groups: job.groups(), key: None, due });
        match self.by(way, &job).await {
            Ok(told) => self.notes.note(Event::Told { message, told }),
            Err(error) => tracing::info!(message, error, "nobody knows what became of it"),
        }
    }

    /// A service has its pauses, so that what is done to it meets it at work and not when all is done.
    pub(crate) async fn pause(&mut self) {
        tokio::time::sleep(Duration::from_millis(self.random.u64(0..60))).await;
    }

    async fn by(&self, way: Way, job: &Job) -> Result<Told, Failed> {
        match way {
            Way::Alone => self.publish(job).await.map(|_| Told::Stored).map_err(Into::into),
            Way::Delayed(delay) => {
                self.publish(job).delay(delay).await?;
                Ok(Told::Stored)
            }
            Way::CalledOff(delay) => self.call_off(job, delay).await,
            Way::Within => {
                let mut tx = cap_postgres::begin(&self.cap, &self.pool).await?;
                self.publish(job).within(&mut tx).await?;
                self.book(job, &mut tx).await?;
                tx.commit().await?;
                Ok(Told::Stored)
            }
            Way::WithinPlain => {
                let mut tx = self.pool.begin().await?;
                self.book(job, &mut tx).await?;
                self.publish(job).within(&mut tx).await?;
                tx.commit().await?;
                Ok(Told::Stored)
            }
            Way::RolledBack | Way::Dropped => {
                let mut tx = cap_postgres::begin(&self.cap, &self.pool).await?;
                self.book(job, &mut tx).await?;
                self.publish(job).within(&mut tx).await?;
                if way == Way::RolledBack {
                    tx.rollback().await?;
                }
                Ok(Told::RolledBack)
            }
        }
    }

    fn publish(&self, job: &Job) -> cap_core::Publish {
        let publish = self.cap.publish(WORK, job);
        if job.answer { publish.callback(ANSWER) } else { publish }
    }

    async fn call_off(&self, job: &Job, delay: Duration) -> Result<Told, Failed> {
        let id = self.publish(job).delay(delay).await?;
        let message = job.key.clone();
        self.notes.note(Event::CalledOff { message: message.clone(), sure: false });
        if self.cap.cancel(&id).await? {
            self.notes.note(Event::CalledOff { message, sure: true });
        }
        Ok(Told::Stored)
    }

    /// The row that the message tells of: there if and only if the transaction was committed.
    async fn book(&self, job: &Job, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let statement = format!("INSERT INTO {}.booked VALUES ($1)", self.shop);
        sqlx::query(sqlx::AssertSqlSafe(statement)).bind(&job.key).execute(connection).await.map(drop)
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
