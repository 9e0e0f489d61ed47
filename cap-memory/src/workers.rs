//! The assignment of worker ids to nodes.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::row::Moment;
use cap_adapter::message::MAX_WORKER;
use cap_adapter::storage::NodeRequest;

/// All worker ids that were ever assigned.
#[derive(Debug, Default)]
pub(super) struct Workers {
    claims: BTreeMap<u16, Claim>,
}

#[derive(Debug)]
struct Claim {
    node: Arc<str>,
    until: Moment,
}

/// Why a node got no worker id.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoNumber {
    /// The requested number is not a worker id.
    OutOfRange,
    /// The requested id belongs to this node, which is alive.
    HeldBy(Arc<str>),
    /// All ids belong to live nodes.
    AllTaken,
}

impl Workers {
    /// Assigns the requested id, the one that the node has, or a free one.
    pub(super) fn join(&mut self, now: Moment, request: &NodeRequest) -> Result<u16, NoNumber> {
        let worker = match request.worker {
            Some(requested) if requested > MAX_WORKER => return Err(NoNumber::OutOfRange),
            Some(requested) => {
                let holder = self.claims.get(&requested).filter(|claim| claim.until > now);
                if let Some(claim) = holder.filter(|claim| claim.node != request.node) {
                    return Err(NoNumber::HeldBy(Arc::clone(&claim.node)));
                }
                requested
            }
            None => self.free(now, &request.node).ok_or(NoNumber::AllTaken)?,
        };
        let until = now.saturating_add(request.lease);
        self.claims.insert(worker, Claim { node: Arc::clone(&request.node), until });
        Ok(worker)
    }

    /// The node's current id; otherwise one that was never used; otherwise the one whose lease ended first.
    fn free(&self, now: Moment, node: &Arc<str>) -> Option<u16> {
        let own = || self.claims.iter().find(|(_, claim)| claim.node == *node).map(|(worker, _)| *worker);
        let unused = || (0..=MAX_WORKER).find(|worker| !self.claims.contains_key(worker));
        let ended = || {
            let ended = self.claims.iter().filter(|(_, claim)| claim.until <= now);
            ended.min_by_key(|(_, claim)| claim.until).map(|(worker, _)| *worker)
        };
        own().or_else(unused).or_else(ended)
    }

    /// Renews the claim, unless another node has taken the id.
    pub(super) fn keep_alive(&mut self, now: Moment, request: &NodeRequest, worker: u16) -> bool {
        match self.claims.get_mut(&worker) {
            Some(claim) if claim.node == request.node => {
                claim.until = now.saturating_add(request.lease);
                true
            }
            _ => false,
        }
    }

    /// Releases the id.
    pub(super) fn leave(&mut self, node: &str, worker: u16) {
        if self.claims.get(&worker).is_some_and(|claim| *claim.node == *node) {
            self.claims.remove(&worker);
        }
    }
}
