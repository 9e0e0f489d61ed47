//! From the caller's word to the broker's confirm: the outbox side.

mod answer;
mod broker_delay;
mod full_destinations;
mod in_process;
mod late_commits;
mod open_commits;
mod open_places;
mod pending_commit;
mod probing;
mod publisher;
mod relay;

pub(crate) use answer::{Answer, answer};
pub(crate) use full_destinations::FullDestinations;
pub(crate) use in_process::InProcess;
pub(crate) use late_commits::{LateCommits, resume_late_commits};
pub(crate) use open_commits::{OpenCommits, run_open_commits};
pub(crate) use open_places::OpenPlaces;
pub(crate) use pending_commit::PendingCommit;
pub(crate) use publisher::Target;
pub use publisher::{Publish, PublishAll, Publisher};
pub(crate) use relay::{RelayItem, run_relay};
