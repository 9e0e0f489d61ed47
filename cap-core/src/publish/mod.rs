//! From the caller's word to the broker's confirm: the outbox side.

pub(crate) mod composer;
mod delay_steps;
mod full_destinations;
mod in_process;
mod late_commits;
mod message_builder;
mod open_commits;
mod open_places;
mod pending_commit;
mod probing;
mod relay;

pub(crate) use full_destinations::FullDestinations;
pub(crate) use in_process::InProcess;
pub(crate) use late_commits::{LateCommits, resume_late_commits};
pub(crate) use message_builder::Target;
pub use message_builder::{Publish, PublishAll, Publisher};
pub(crate) use open_commits::{OpenCommits, run_open_commits};
pub(crate) use open_places::OpenPlaces;
pub(crate) use pending_commit::PendingCommit;
pub(crate) use relay::{RelayItem, run_relay};
