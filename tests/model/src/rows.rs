//! Compares what an operator sees of a store with the model.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use cap_core::monitor::{FailedAttempt, Monitor, Query, Row};
use cap_core::storage::{Reason, Side, Status};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use crate::Subject;
use crate::model::{Model, ModelRow, Moment};

const SIDES: [Side; 2] = [Side::Outbox, Side::Inbox];

/// Whether two spans are the same, as far as the store's clock is the test's.
pub(crate) fn same_span<S: Subject>(model: Option<Duration>, real: Option<Duration>) -> bool {
    match (model, real) {
        (Some(model), Some(real)) if S::EXACT => model == real,
        (Some(model), Some(real)) => model.abs_diff(real) < Duration::from_secs(1800),
        (model, real) => model == real,
    }
}

/// Every row, as lists show them.
pub(crate) async fn check_rows<S: Subject>(model: &Model, subject: &S) -> Result<(), TestCaseError> {
    for side in SIDES {
        let listed = subject.store().list(&Query::new(side).limit(1000)).await;
        let listed = listed.map_err(|error| TestCaseError::fail(error.to_string()))?;
        let mut rows: Vec<&ModelRow> = model.rows.iter().filter(|row| row.side == side).collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.id));
        let expected: Vec<i64> = rows.iter().map(|row| row.id).collect();
        let seen: Vec<i64> = listed.iter().map(|row| row.id).collect();
        prop_assert_eq!(expected, seen, "the rows of the {:?}", side);
        for (row, shown) in rows.into_iter().zip(&listed) {
            check_row::<S>(row, shown)?;
        }
    }
    Ok(())
}

fn check_row<S: Subject>(row: &ModelRow, shown: &Row) -> Result<(), TestCaseError> {
    let state = row.state.as_ref();
    let expected = (
        row.version.as_str(),
        row.group.as_str(),
        row.status(),
        state.and_then(|state| state.reason),
        row.attempts.len(),
        state.map_or(0, |state| state.reruns),
        state.and_then(|state| state.error.as_deref()),
        state.and_then(|state| state.owner.as_deref()),
    );
    let seen = (
        shown.version.as_str(),
        &*shown.group,
        shown.status,
        shown.reason,
        shown.attempts as usize,
        shown.reruns,
        shown.last_error.as_deref(),
        shown.owner.as_deref(),
    );
    prop_assert_eq!(expected, seen, "row {}", row.id);
    prop_assert_eq!(&row.message, &shown.message, "the message of row {}", row.id);
    let span = |moment: Option<Moment>| moment.map(|moment| moment.saturating_sub(row.added));
    let shown_span =
        |time: Option<SystemTime>| time.map(|time| time.duration_since(shown.added).unwrap_or_default());
    let due = (span(state.and_then(|state| state.due)), shown_span(shown.due));
    prop_assert!(same_span::<S>(due.0, due.1), "row {} is due after {:?}", row.id, due);
    let expires = (span(state.and_then(|state| state.expires)), shown_span(shown.expires));
    prop_assert!(same_span::<S>(expires.0, expires.1), "row {} expires after {:?}", row.id, expires);
    Ok(())
}

/// What only the end of a history is looked at for: the attempts, the counts, and each row by its ids.
pub(crate) async fn check_details<S: Subject>(model: &Model, subject: &S) -> Result<(), TestCaseError> {
    let store = subject.store();
    let broken = |error: cap_core::error::StorageError| TestCaseError::fail(error.to_string());
    let mut counts = BTreeMap::new();
    for row in &model.rows {
        let attempts = store.attempts(row.side, row.id).await.map_err(broken)?;
        let wait = |one: &FailedAttempt| one.next.map(|next| next.duration_since(one.at).unwrap_or_default());
        let seen: Vec<_> =
            attempts.iter().map(|one| (one.node.as_str(), one.error.as_str(), wait(one))).collect();
        let expected: Vec<_> =
            row.attempts.iter().map(|one| (one.node.as_str(), one.error.as_str(), one.next)).collect();
        prop_assert_eq!(expected, seen, "the attempts of row {}", row.id);
        prop_assert!(
            attempts.iter().zip(1..).all(|(attempt, number)| attempt.number == number),
            "the attempts of row {} are numbered",
            row.id
        );
        let shown = store.get(row.side, row.id).await.map_err(broken)?;
        prop_assert_eq!(shown.map(|shown| shown.status), Some(row.status()), "row {} by its id", row.id);
        if let Some(id) = row.message_id.as_deref() {
            let found = store.find(row.side, id).await.map_err(broken)?;
            prop_assert!(found.iter().any(|found| found.id == row.id), "row {} by its message id", row.id);
        }
        if row.state.as_ref().is_some_and(|state| state.reason != Some(Reason::Cancelled)) {
            *counts.entry((row.side, row.group.clone(), name(row.status()))).or_insert(0) += 1;
        }
    }
    let seen: BTreeMap<_, u64> = store
        .counts()
        .await
        .map_err(broken)?
        .into_iter()
        .map(|count| ((count.side, count.group, name(count.status)), count.count))
        .collect();
    prop_assert_eq!(counts, seen, "the counts");
    Ok(())
}

fn name(status: Status) -> String {
    format!("{status:?}")
}
