//! Claims in a history: when rows are due, and by copies from the broker.

use std::sync::Arc;

use cap_core::storage::{ClaimRequest, Claimed, Lease, Reason, Side, Storage as _};
use proptest::prelude::*;

use super::{Given, History, Judged, TICK, broken, owner};
use crate::Subject;
use crate::model::ModelRow;
use crate::rows::same_span;
use crate::step::{BrokerCopy, GROUPS, Step};

impl<S: Subject> History<'_, S> {
    pub(super) async fn claim(&mut self, node: usize, side: Side, groups: &[usize], limit: usize) -> Judged {
        let groups: Vec<Arc<str>> = groups.iter().map(|group| GROUPS[*group].into()).collect();
        let owner = owner(node);
        let request = ClaimRequest::new(side, groups, limit);
        let claims = self.subject.store().claim(&owner, &request).await.map_err(broken)?;
        let (expected, next) = self.model.claim(self.now, &owner, side, &request.groups, limit);
        let ids: Vec<i64> = expected.iter().map(|row| row.id).collect();
        let real: Vec<i64> = claims.rows.iter().map(|claimed| claimed.lease.id).collect();
        prop_assert_eq!(ids, real, "claiming for {:?}: {:?}", node, request);
        prop_assert!(
            same_span::<S>(next, claims.next_due),
            "after {:?} the next row is due in {:?}, the store says {:?}",
            request,
            next,
            claims.next_due
        );
        for (row, claimed) in expected.iter().zip(&claims.rows) {
            self.expect_claimed(node, side, row, claimed)?;
        }
        Ok(())
    }

    /// A node has claimed a row; it remembers its lease.
    pub(super) fn expect_claimed(
        &mut self,
        node: usize,
        side: Side,
        row: &ModelRow,
        claimed: &Claimed,
    ) -> Judged {
        if let Some(state) = &row.state {
            let is_notice = state.status == cap_core::storage::Status::Failed;
            let notice = is_notice.then(|| {
                (state.reason.unwrap_or(Reason::Exhausted), state.error.clone().unwrap_or_default())
            });
            prop_assert_eq!(notice, claimed.notice.clone(), "the notice of row {}", row.id);
            let expected = (row.attempts.len(), state.attempts_before_rerun, row.group.as_str());
            prop_assert_eq!(row.suspect, claimed.suspect.is_some(), "row {} as a suspect", row.id);
            let (all, before) = (claimed.attempts as usize, claimed.attempts_before_rerun as usize);
            prop_assert_eq!(expected, (all, before, &*claimed.group), "row {}", row.id);
            prop_assert_eq!(&row.message, &claimed.message);
            let age = self.now.saturating_sub(row.added);
            prop_assert!(same_span::<S>(Some(age), Some(claimed.age)), "the age of row {}", row.id);
        }
        let model = Lease { id: row.id, epoch: row.epoch };
        self.given.push(Given { side, node, model, real: claimed.lease });
        Ok(())
    }

    /// The broker brings copies to one node, under leases that any node may have had.
    pub(super) async fn deliver(&mut self, node: usize, copies: &[BrokerCopy]) -> Judged {
        let pick = |copy: &BrokerCopy| {
            let fits = |given: &&Given| {
                given.side == Side::Inbox && (!copy.waits || self.model.is_waiting(given.model))
            };
            let given: Vec<&Given> = self.given.iter().filter(fits).collect();
            (!given.is_empty()).then(|| **copy.lease.get(&given))
        };
        let brought: Vec<Given> = copies.iter().filter_map(pick).collect();
        let real: Vec<Lease> = brought.iter().map(|given| given.real).collect();
        let claimed = self.subject.store().claim_waiting(&owner(node), &real).await.map_err(broken)?;
        prop_assert_eq!(claimed.len(), real.len(), "one answer for each copy");
        for (given, claimed) in brought.into_iter().zip(claimed) {
            let expected = self.model.claim_waiting(self.now, &owner(node), given.model);
            prop_assert_eq!(expected.is_some(), claimed.is_some(), "{} is brought {:?}", node, given);
            if let (Some(row), Some(claimed)) = (expected, claimed) {
                prop_assert_eq!(row.id, claimed.lease.id, "answers stand in the order of the copies");
                self.expect_claimed(node, Side::Inbox, &row, &claimed)?;
            }
        }
        Ok(())
    }

    /// Once all leases and delays are over, whatever can be claimed at all is claimed by each version's node.
    pub(super) async fn claim_all(&mut self) -> Judged {
        self.take(&Step::Pass(10)).await?;
        for side in [Side::Outbox, Side::Inbox] {
            for node in [0, 2] {
                self.tick(TICK).await?;
                self.claim(node, side, &[0, 1], 1000).await?;
            }
        }
        Ok(())
    }
}
