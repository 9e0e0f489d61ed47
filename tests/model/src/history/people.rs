//! What people do in a history, and the collector.

use std::collections::BTreeSet;

use cap_core::monitor::{Among, Change, Monitor as _};
use cap_core::storage::{Expiry, Side, Storage as _};
use proptest::prelude::*;
use proptest::sample::Index;

use super::{History, Judged, broken};
use crate::Subject;
use crate::step::{KEEP, KEEP_SUCCEEDED};

impl<S: Subject> History<'_, S> {
    /// Row ids to act on: some that are there, some that are gone, each once.
    fn chosen(&self, picks: &[Index]) -> Vec<i64> {
        let ids: BTreeSet<i64> =
            picks.iter().map(|pick| i64::try_from(pick.index(40)).unwrap_or(0)).collect();
        ids.into_iter().filter(|id| *id < self.next_id + 3).collect()
    }

    pub(super) async fn rerun(
        &mut self,
        side: Side,
        picks: &[Index],
        among: Among,
        change: &Change,
    ) -> Judged {
        let ids = self.chosen(picks);
        let done = self.subject.store().rerun(side, &ids, among, change).await.map_err(broken)?;
        let expected: Vec<i64> =
            ids.iter().copied().filter(|id| self.model.rerun(self.now, side, *id, among, change)).collect();
        prop_assert_eq!(expected, done, "running {:?} of {:?} of the {:?} again", among, ids, side);
        Ok(())
    }

    pub(super) async fn cancel(&mut self, picks: &[Index]) -> Judged {
        let ids = self.chosen(picks);
        let done = self.subject.store().cancel(&ids, KEEP).await.map_err(broken)?;
        let expected: Vec<i64> =
            ids.iter().copied().filter(|id| self.model.cancel(self.now, *id, KEEP)).collect();
        prop_assert_eq!(expected, done, "cancelling {:?}", ids);
        Ok(())
    }

    pub(super) async fn delete(&mut self, side: Side, picks: &[Index], among: Among) -> Judged {
        let ids = self.chosen(picks);
        let done = self.subject.store().delete(side, &ids, among).await.map_err(broken)?;
        let expected: Vec<i64> =
            ids.iter().copied().filter(|id| self.model.delete(self.now, side, *id, among)).collect();
        prop_assert_eq!(expected, done, "deleting {:?} of {:?} of the {:?}", among, ids, side);
        Ok(())
    }

    pub(super) async fn expire(&mut self, limit: usize) -> Judged {
        // Rows of one batch end at the same moment, and which of them comes first is a store's own affair.
        let limit = if S::EXACT { limit } else { 100 };
        let expiry = Expiry { succeeded: KEEP_SUCCEEDED, limit };
        let deleted = self.subject.store().delete_expired(&expiry).await.map_err(broken)?;
        let mut collect = |side| self.model.expire(self.now, side, KEEP_SUCCEEDED, limit);
        prop_assert_eq!((collect(Side::Outbox), collect(Side::Inbox)), deleted, "expiring {:?}", expiry);
        Ok(())
    }
}
