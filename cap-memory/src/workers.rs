//! Which node has which worker id.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::row::Moment;
use cap_adapter::message::MAX_WORKER;
use cap_adapter::storage::NodeRequest;

/// The worker ids that were ever given out.
#[derive(Debug, Default)]
pub(super) struct Workers {
    claims: BTreeMap<u16, Claim>,
}

#[derive(Debug)]
struct Claim {
    node: Arc<str>,
    until: Moment,
}

/// Why a node got no number.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoNumber {
    /// The requested one is not a worker id.
    OutOfRange,
    /// The requested one belongs to this node, which lives.
    HeldBy(Arc<str>),
    /// Every number belongs to a node that lives.
    AllTaken,
}

impl Workers {
    /// Gives the node the number that it requests, the one that it has, or a free one.
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

    /// The node's own number; else one that nobody had before; else the one whose lease ended first.
    fn free(&self, now: Moment, node: &Arc<str>) -> Option<u16> {
        let own = || self.claims.iter().find(|(_, claim)| claim.node == *node).map(|(worker, _)| *worker);
        let unused = || (0..=MAX_WORKER).find(|worker| !self.claims.contains_key(worker));
        let ended = || {
            let ended = self.claims.iter().filter(|(_, claim)| claim.until <= now);
            ended.min_by_key(|(_, claim)| claim.until).map(|(worker, _)| *worker)
        };
        own().or_else(unused).or_else(ended)
    }

    /// Lengthens the claim, unless another node has taken the number.
    pub(super) fn keep_alive(&mut self, now: Moment, request: &NodeRequest, worker: u16) -> bool {
        match self.claims.get_mut(&worker) {
            Some(claim) if claim.node == request.node => {
                claim.until = now.saturating_add(request.lease);
                true
            }
            _ => false,
        }
    }

    /// Gives the number back.
    pub(super) fn leave(&mut self, node: &str, worker: u16) {
        if self.claims.get(&worker).is_some_and(|claim| *claim.node == *node) {
            self.claims.remove(&worker);
        }
    }
}
