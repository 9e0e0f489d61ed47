//! Connections to the broker: where it is, how to log in, opening and closing.

pub(crate) mod address;
pub(crate) mod connector;
pub(crate) mod credential_renewal;
pub(crate) mod credentials;
pub(crate) mod deadline;
pub(crate) mod identity;
pub(crate) mod link;
