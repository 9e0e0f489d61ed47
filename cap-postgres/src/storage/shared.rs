//! What all clones of a storage share, from its first use.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::connections::server::Server;
use crate::connections::source::Source;
use crate::connections::target::Target;
use crate::database::encoding::Encoding;
use crate::database::schema_name::SchemaName;
use crate::storage::statements::Statements;

/// What is made at the first use, and then shared by all clones.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) server: Server,
    pub(crate) statements: Statements,
    pub(crate) channel: String,
    /// Known since the first start that reached the database.
    pub(crate) encoding: OnceLock<Encoding>,
    /// Where the application's connections lead.
    pub(crate) application_target: Target,
    /// The application's role may not call the schema's function `forget`.
    misses_forget: AtomicBool,
}

impl Shared {
    pub(crate) fn new(source: &Source, connections: u32, schema: &SchemaName) -> Self {
        Self {
            server: Server::new(source, connections),
            statements: Statements::prepare(schema),
            channel: schema.channel(),
            encoding: OnceLock::new(),
            application_target: Target::new(&source.application.connect_options()),
            misses_forget: AtomicBool::new(false),
        }
    }

    /// The encoding of the database. Before it is known, that of most databases.
    pub(crate) fn encoding(&self) -> &Encoding {
        self.encoding.get().unwrap_or(&Encoding::Utf8)
    }

    /// Whether the application's role may call the schema's function `forget`, as far as is known.
    pub(crate) fn has_forget(&self) -> bool {
        !self.misses_forget.load(Ordering::Relaxed)
    }

    /// Remembers that it may not.
    pub(crate) fn miss_forget(&self) {
        if !self.misses_forget.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "PgTx costs two round trips more: no EXECUTE right on the schema's function forget"
            );
        }
    }
}
