//! Transactions of the simulated store: those that an application opens, and those that a handler works in.

use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

use cap_core::error::{StorageError, StorageErrorKind};
use cap_core::storage::{NewOutgoing, Owner, Storage as _, Stored};
use cap_core::{
    AfterCommit, BoxFuture, Cap, CheckContext, Completion, Delivery, Enlisted, FromDelivery, HandlerError,
    Within,
};
use cap_ledger::Event;

use crate::run::Run;
use crate::storage::SimStorage;

/// A transaction that the application opens, publishes in, and commits or drops.
#[derive(Debug)]
pub(crate) struct SimTransaction {
    rows: Vec<NewOutgoing>,
    owner: Option<Owner>,
    /// None for a plain one, of whose commit the bus does not learn.
    after_commit: Option<AfterCommit>,
}

impl SimTransaction {
    /// One that tells the bus of its commit.
    pub(crate) fn begin(cap: &Cap) -> Self {
        Self { rows: Vec::new(), owner: None, after_commit: Some(cap.after_commit()) }
    }

    /// One that does not.
    pub(crate) fn plain() -> Self {
        Self { rows: Vec::new(), owner: None, after_commit: None }
    }

    /// Commits. After an error nobody knows whether it did.
    pub(crate) async fn commit(mut self, storage: &SimStorage) -> Result<(), StorageError> {
        let Some(owner) = &self.owner else { return Ok(()) };
        if let Some(after_commit) = &mut self.after_commit {
            // The rows are inserted with the commit. After an error they are looked for, as the after_commit is dropped.
            after_commit.inserting();
            after_commit.committing();
        }
        storage.commit_messages(owner, self.rows).await?;
        if let Some(after_commit) = self.after_commit {
            after_commit.committed();
        }
        Ok(())
    }
}

impl Within<SimStorage> for SimTransaction {
    async fn store(
        &mut self,
        storage: &SimStorage,
        owner: &Owner,
        messages: &[NewOutgoing],
    ) -> Result<Vec<Stored>, StorageError> {
        storage.statement().await?;
        self.rows.extend_from_slice(messages);
        self.owner = Some(owner.clone());
        Ok(vec![Stored::New; messages.len()])
    }

    fn after_commit(&mut self) -> Option<&mut AfterCommit> {
        self.after_commit.as_mut()
    }
}

/// The transaction that a handler works in: the model of what an adapter gives its handlers.
#[derive(Debug, Clone)]
pub(crate) struct SimTx(Arc<Mutex<Work>>);

#[derive(Debug, Default)]
struct Work {
    effects: Vec<Event>,
    run: Option<Run>,
}

impl SimTx {
    /// The handler has done its work, as far as it is concerned: the run ends with the transaction.
    pub(crate) fn done(&self, run: Run, effect: Event) {
        let mut work = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        work.effects.push(effect);
        work.run = Some(run);
    }
}

impl FromDelivery for SimTx {
    fn check(context: &CheckContext<'_>) -> Result<(), String> {
        context.require_storage::<SimStorage>("SimTx", "the simulated store")
    }

    async fn from_delivery(delivery: &Delivery) -> Result<Self, HandlerError> {
        let Some(storage) = delivery.storage().downcast_ref::<SimStorage>() else {
            return Err(HandlerError::permanent("the store is another"));
        };
        let work = Arc::new(Mutex::new(Work::default()));
        let open = Open { storage: storage.clone(), work: Arc::clone(&work) };
        delivery.enlist(Box::new(open)).map_err(|_| HandlerError::permanent("two transactions"))?;
        Ok(Self(work))
    }
}

/// The other end of a [`SimTx`], in the bus's hands.
struct Open {
    storage: SimStorage,
    work: Arc<Mutex<Work>>,
}

impl Enlisted for Open {
    fn complete(self: Box<Self>, completion: Completion) -> BoxFuture<'static, Result<bool, StorageError>> {
        Box::pin(async move {
            let work = mem::take(&mut *self.work.lock().unwrap_or_else(PoisonError::into_inner));
            let Some(run) = work.run else {
                let text = "the handler succeeded without a word";
                return Err(StorageError::new(StorageErrorKind::Refused, self.storage.name(), text));
            };
            self.storage.commit_handling(completion, work.effects, run).await
        })
    }

    fn abandon(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async {})
    }
}
