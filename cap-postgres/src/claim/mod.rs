//! Claims: rows that are due, rows whose retry the broker has delivered, leases, and crashes of the nodes that had them.

pub(crate) mod claim_due;
mod claimed_rows;
pub(crate) mod crash_marks;
pub(crate) mod lease_renewal;
pub(crate) mod retry_at_broker;
