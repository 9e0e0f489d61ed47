//! For operators: follow topics without disturbing anyone, and compare what is on the broker with what a bus expects.

pub(crate) mod follower;
pub(crate) mod found_topology;
