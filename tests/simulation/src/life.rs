//! The life of one node: it can stand still, be cut off from the store, and die in the middle of anything.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use cap_ledger::Event;
use tokio::sync::{Notify, mpsc};

use crate::plan::LEASE;
use crate::world::{World, millis};

/// How a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Well,
    Paused,
    Dead,
}

/// The life of one node under one name.
#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) name: String,
    pub(crate) world: Arc<World>,
    place: usize,
    state: Mutex<State>,
    changed: Notify,
    cut_off: AtomicBool,
    /// By which its consumers are ended.
    pub(crate) consumers_end: Notify,
    /// Since when leases may not have been renewed, as renewals were held up; zero if they were not.
    unrenewed: AtomicU64,
    /// When a renewal was held up last.
    held_up: AtomicU64,
    /// Where the keeper of the fleet learns of deaths.
    deaths: Mutex<Option<mpsc::UnboundedSender<usize>>>,
}

impl Life {
    pub(crate) fn new(
        world: Arc<World>,
        place: usize,
        name: String,
        deaths: mpsc::UnboundedSender<usize>,
    ) -> Arc<Self> {
        Arc::new(Self {
            name,
            world,
            place,
            state: Mutex::new(State::Well),
            changed: Notify::new(),
            cut_off: AtomicBool::new(false),
            consumers_end: Notify::new(),
            unrenewed: AtomicU64::new(0),
            held_up: AtomicU64::new(0),
            deaths: Mutex::new(Some(deaths)),
        })
    }

    /// Waits while the node stands still, and for good if it is dead: what a program does between two steps.
    pub(crate) async fn step(&self) {
        if !self.is_well_soon().await {
            std::future::pending::<()>().await;
        }
    }

    /// Waits while the node stands still; `false` if it is dead.
    pub(crate) async fn is_well_soon(&self) -> bool {
        loop {
            // Before looking, so that a change in between is not missed.
            let changed = self.changed.notified();
            match self.state() {
                State::Paused => changed.await,
                state => return state == State::Well,
            }
        }
    }

    fn state(&self) -> State {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, unless it is dead: that is for good. Gives back whether anything changed.
    fn change(&self, to: State) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let changes = *state != State::Dead && *state != to;
        if changes {
            *state = to;
            self.changed.notify_waiters();
        }
        changes
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.state() == State::Dead
    }

    /// Dies on the spot.
    pub(crate) fn die(&self) {
        if self.end() {
            self.world.note(Event::Died { node: self.name.clone() });
            let deaths = self.deaths.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(deaths) = deaths {
                // The keeper is gone at the end of the run.
                let _ = deaths.send(self.place);
            }
        }
    }

    /// Ends a life that came to its end in peace: nothing of it may act any more. `false` if it had ended.
    pub(crate) fn end(&self) -> bool {
        self.note_unrenewed();
        let lived = self.change(State::Dead);
        // A clone of the sender in a node that ended would keep the keeper waiting.
        if lived && self.world.is_calm() {
            drop(self.deaths.lock().unwrap_or_else(PoisonError::into_inner).take());
        }
        lived
    }

    pub(crate) fn pause(&self, paused: bool) {
        self.change(if paused { State::Paused } else { State::Well });
    }

    pub(crate) fn cut_off(&self, cut: bool) {
        self.cut_off.store(cut, Ordering::Relaxed);
    }

    pub(crate) fn reaches_store(&self) -> bool {
        self.world.store_answers() && !self.cut_off.load(Ordering::Relaxed) && !self.is_dead()
    }

    /// A renewal was held up: the leases are as old as the last one that was not.
    pub(crate) fn renewal_held_up(&self) {
        let now = self.world.now();
        self.forget_old_hold_up(now);
        let since = now.saturating_sub(millis(LEASE / 3)).max(1);
        let _ = self.unrenewed.compare_exchange(0, since, Ordering::Relaxed, Ordering::Relaxed);
        self.held_up.store(now, Ordering::Relaxed);
    }

    /// Leases were renewed: if the last time was too long ago, some of them were lost meanwhile, and the node hears
    /// of it now.
    pub(crate) fn renewed(&self) {
        self.forget_old_hold_up(self.world.now());
        self.note_unrenewed();
    }

    /// A heart that beats renews at least this often, unless it has nothing to renew: then nothing was lost.
    fn forget_old_hold_up(&self, now: u64) {
        let last = self.held_up.load(Ordering::Relaxed);
        if now.saturating_sub(last) > millis(LEASE) * 3 / 4 {
            self.unrenewed.store(0, Ordering::Relaxed);
        }
    }

    fn note_unrenewed(&self) {
        let since = self.unrenewed.swap(0, Ordering::Relaxed);
        let now = self.world.now();
        if since > 0 && now - since >= millis(LEASE) * 9 / 10 {
            self.world.note_at(since, Event::Trouble { node: self.name.clone() });
            let knows = now + millis(LEASE / 6);
            self.world.note_at(knows, Event::Recovered { node: self.name.clone() });
        }
    }
}
