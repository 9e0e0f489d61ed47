//! Parked messages by what their errors are about.

use std::collections::HashMap;
use std::time::SystemTime;

use cap_core::Messages;
use cap_core::storage::{Reason, Side};

use super::extract::Reader;
use super::scan::{Stopped, scan};
use crate::data::{common_part, fingerprint};
use crate::request::Problem;

/// Parked messages of one group and topic, with errors of one kind.
#[derive(Debug, Clone)]
pub(crate) struct FailureKind {
    pub(crate) side: Side,
    pub(crate) group: String,
    pub(crate) topic: String,
    pub(crate) reason: Option<Reason>,
    /// The error without its numbers and ids.
    pub(crate) error: String,
    /// A part that all of these errors have.
    pub(crate) common: String,
    pub(crate) count: u64,
    /// When the oldest and the newest of them were stored.
    pub(crate) first: SystemTime,
    pub(crate) last: SystemTime,
    /// The row id of the newest one.
    pub(crate) sample: i64,
}

/// The kinds of failures among the newest parked messages of a selection, the most frequent first.
pub(crate) async fn failure_kinds(
    reader: &Reader,
    parked: &Messages,
) -> Result<(Vec<FailureKind>, Option<Stopped>), Problem> {
    let mut kinds: HashMap<(String, String, Option<Reason>, String), FailureKind> = HashMap::new();
    let stopped = scan(reader, parked, |row, shown| {
        let text = shown.error.unwrap_or_default();
        let error = fingerprint(&text);
        let key = (row.group.to_string(), row.name.clone(), row.reason, error.clone());
        // The newest comes first.
        let kind = kinds.entry(key).or_insert_with(|| FailureKind {
            side: row.side,
            group: row.group.to_string(),
            topic: row.name.clone(),
            reason: row.reason,
            error,
            common: common_part(&text),
            count: 0,
            first: row.added,
            last: row.added,
            sample: row.id,
        });
        kind.count += 1;
        kind.first = kind.first.min(row.added);
        kind.last = kind.last.max(row.added);
    })
    .await?;
    let mut kinds: Vec<FailureKind> = kinds.into_values().collect();
    kinds.sort_by_key(|kind| (std::cmp::Reverse(kind.count), std::cmp::Reverse(kind.sample)));
    Ok((kinds, stopped))
}
