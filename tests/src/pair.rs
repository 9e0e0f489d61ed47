//! Every storage with every broker, and a service on such a pair whose notes survive its death.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cap_core::memory::{MemoryStorage, MemoryTransport};
use cap_core::prelude::*;
use cap_core::{BoxError, CapBuilder};
use cap_postgres::Postgres;
use cap_rabbitmq::RabbitMq;
use cap_sqlite::Sqlite;

use crate::{amqp_url, database_url};

/// Where the messages are stored.
#[allow(missing_docs, reason = "they are their names")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    Memory,
    Sqlite,
    Postgres,
}

/// What the messages are sent over.
#[allow(missing_docs, reason = "they are their names")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broker {
    Memory,
    RabbitMq,
}

/// A storage and a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair(pub Store, pub Broker);

impl Pair {
    /// By the name that [`Debug`] gives it.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let pairs = [Store::Memory, Store::Sqlite, Store::Postgres]
            .into_iter()
            .flat_map(|store| [Self(store, Broker::Memory), Self(store, Broker::RabbitMq)]);
        pairs.into_iter().find(|pair| format!("{pair:?}") == name)
    }
}

/// Where the lives of one service take place, one after the other: the names of its schema, its exchange and its groups, the
/// folder of its file and its notes, and what the storage in memory has.
#[derive(Debug, Clone)]
pub struct Place {
    /// The name of the schema and the exchange, and what the groups' names begin with.
    pub name: String,
    /// Of the file of SQLite, and of the notes.
    pub folder: PathBuf,
    /// What [`Store::Memory`] stores in.
    pub memory: MemoryStorage,
}

/// The groups of the service: the first two handle `work`, and the first publishes `follow` for each, which the third
/// handles.
pub const GROUPS: [&str; 3] = ["first", "second", "third"];

impl Place {
    /// The bus of one life, as a process of its own would have it: the broker in memory begins empty.
    pub fn builder(&self, Pair(store, broker): Pair) -> CapBuilder {
        let builder = Cap::builder().handlers(Handlers::none()).configure(|options| {
            options.group_prefix = Some(self.name.clone());
            options.lease = Duration::from_secs(3);
            options.poll_interval = Duration::from_millis(500);
        });
        let builder = match store {
            Store::Memory => builder.storage(self.memory.clone()),
            Store::Sqlite => builder.storage(Sqlite::open(self.folder.join("bus.db"))),
            Store::Postgres => {
                builder.storage(Postgres::connect_lazy(&database_url()).expect("a URL").schema(&self.name))
            }
        };
        let builder = match broker {
            Broker::Memory => builder.transport(MemoryTransport::new()),
            Broker::RabbitMq => builder.transport(RabbitMq::new(amqp_url()).exchange(&self.name)),
        };
        let [first, second, third] = GROUPS;
        let (notes, of_first) = (self.notes(), self.notes());
        builder
            .subscribe(
                Subscribe::to("work").group(first).concurrency(4),
                move |n: u64, publisher: Publisher| {
                    let notes = of_first.clone();
                    async move {
                        publisher.publish("follow", &n).await?;
                        notes.handled(first, n);
                        Ok::<_, BoxError>(())
                    }
                },
            )
            .subscribe(Subscribe::to("work").group(second), handler(&notes, second))
            .subscribe(Subscribe::to("follow").group(third), handler(&notes, third))
    }

    /// The notes of all lives together, which outlive each.
    #[must_use]
    pub fn notes(&self) -> Notes {
        let path = self.folder.join("notes");
        let file = OpenOptions::new().append(true).create(true).open(path).expect("a file for notes");
        Notes(Arc::new(file))
    }

    /// How often each group has handled each number, and the numbers that were published.
    #[must_use]
    pub fn read_notes(&self) -> (HashMap<(String, u64), usize>, Vec<u64>) {
        let text = std::fs::read_to_string(self.folder.join("notes")).unwrap_or_default();
        let (mut handled, mut published) = (HashMap::new(), Vec::new());
        // A line that was cut by the end of a life has no end.
        for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
            let (what, n) = line.split_once(' ').expect("a note");
            let n = n.parse().expect("a number");
            if what == "published" {
                published.push(n);
            } else {
                *handled.entry((what.to_owned(), n)).or_default() += 1;
            }
        }
        (handled, published)
    }
}

fn handler(notes: &Notes, group: &'static str) -> impl Fn(u64) -> std::future::Ready<()> + Clone + use<> {
    let notes = notes.clone();
    move |n| {
        notes.handled(group, n);
        std::future::ready(())
    }
}

/// What a service notes down of itself.
#[derive(Debug, Clone)]
pub struct Notes(Arc<File>);

impl Notes {
    fn handled(&self, group: &str, n: u64) {
        self.line(&format!("{group} {n}\n"));
    }

    /// Notes that these were published: the bus has said that they are stored.
    pub fn published(&self, numbers: impl IntoIterator<Item = u64>) {
        let lines: Vec<String> = numbers.into_iter().map(|n| format!("published {n}\n")).collect();
        self.line(&lines.concat());
    }

    /// One call for each, so that lines do not mix, and none is lost with the process.
    fn line(&self, line: &str) {
        let written = (&*self.0).write(line.as_bytes()).expect("a note is written");
        assert_eq!(written, line.len());
    }
}
