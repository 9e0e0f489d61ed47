//! Everything between the caller's `publish` and the broker's confirm: the outbox side of the engine.

pub(crate) mod attempt_data;
pub(crate) mod composer;
mod delay_steps;
mod full_destinations;
mod in_process;
mod late_commit_renewal;
mod late_commits;
mod message_batch;
mod message_builder;
mod open_commit_watch;
mod open_commits;
mod outbox;
mod outgoing_metrics;
pub(crate) mod payload;
mod pending_commit;
mod probing;
mod relay;
mod relay_queue;
mod sending;
mod storing;
mod uncommitted;

pub(crate) use full_destinations::FullDestinations;
pub(crate) use in_process::{InProcess, OwnGroup};
pub(crate) use late_commit_renewal::resume_late_commits;
pub(crate) use late_commits::LateCommits;
pub use message_batch::MessageBatch;
pub use message_builder::{Publish, PublishAll};
pub(crate) use open_commit_watch::run_open_commits;
pub(crate) use open_commits::OpenCommits;
pub(crate) use outbox::Outbox;
pub(crate) use outgoing_metrics::OutgoingMetrics;
pub(crate) use pending_commit::PendingCommit;
pub(crate) use relay::run_relay;
pub(crate) use relay_queue::RelayQueue;
pub(crate) use storing::Target;
