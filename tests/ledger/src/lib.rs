//! The ledger: what was published, what was handled, and whether the two agree.
//!
//! A fault test notes what happens as [`Event`]s: what each publish was told, when each handler began and how it
//! ended, every effect, every answer, every notice to an operator, which node died or was in trouble when; and at the
//! end what the store says of each message. [`Ledger::judge`] then sorts each message and group into one class, and
//! names every breach of what cap promises. Nothing of the engine is known here, so that the same judge sits over a
//! simulation in one thread and over processes that are killed on real servers: they write the events as lines of
//! text ([`Ledger::write_line`]), and the test reads all of their files together ([`Ledger::read_lines`]).
//!
//! ```
//! use cap_ledger::{Event, Group, Ledger, Told};
//!
//! let mut ledger = Ledger::default();
//! ledger.group("billing", Group::once());
//! ledger.note(10, Event::publish("m1", &["billing"]));
//! ledger.note(11, Event::Told { message: "m1".into(), told: Told::Stored });
//! ledger.note(20, Event::effect("m1", "billing", "node-a", 1));
//! ledger.judge().assert_clean("seed 7");
//! ```

mod book;
mod class;
mod event;
mod follow_ups;
mod ledger;
mod notices;
mod order;
mod outcome;
mod report;
mod runs;

pub use class::Class;
pub use event::{End, Event, Final, Group, Told};
pub use ledger::{Entry, Ledger, LedgerError};
pub use report::{Finding, Report};
