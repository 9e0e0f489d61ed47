//! The lowest room, which every other room builds on: options, callback policies, circuits, health, leases, and the
//! clients of storage and broker. It imports from no other room.

pub(crate) mod backoff;
pub(crate) mod batch_queue;
pub(crate) mod broker_client;
pub(crate) mod byte_budget;
pub(crate) mod callback_policy;
pub(crate) mod circuit;
pub(crate) mod due_times;
pub(crate) mod engine;
pub(crate) mod erased;
pub(crate) mod health;
pub(crate) mod in_flight;
pub(crate) mod lease_book;
pub(crate) mod lifecycle;
pub mod metric_names;
pub(crate) mod notifier;
pub(crate) mod options;
pub(crate) mod phase;
pub(crate) mod publish_time;
pub(crate) mod repeated_events;
pub(crate) mod retry_proof;
pub(crate) mod storage_client;
pub(crate) mod suspect_gate;
pub(crate) mod tasks;
pub(crate) mod topic_labels;
