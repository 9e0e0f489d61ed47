//! The cases that every [`Transport`] must pass, by what they are about.
//! [`transport_suite!`](crate::transport_suite) makes tests of them all.

mod bus;
pub mod carry;
pub mod consume;
pub mod delay;
pub mod existing;
pub mod in_process;
pub mod route;

use std::sync::Arc;

use bytes::Bytes;
use cap_adapter::message::Headers;
use cap_adapter::transport::Transport;

/// A fresh broker, or a corner of one that no other test knows: exchanges and queues of its own.
pub trait TransportFixture: Send + Sync + 'static {
    /// The transport under test.
    type Transport: Transport;

    /// A transport as one more process would have it, with connections of its own. The suite
    /// [starts](Transport::start) it, with the version `v1` or `v2`.
    fn open(&self) -> impl Future<Output = Self::Transport> + Send;

    /// The full name for a group of a case, where names must differ from those of other tests on the same broker.
    /// The same name always gives the same group. Default: the name as it is.
    fn group(&self, name: &str) -> Arc<str> {
        name.into()
    }

    /// Sends a message past the transport, as a foreign program would, to where version `v1` sends.
    fn publish_raw(
        &self,
        routing_key: &str,
        headers: &Headers,
        body: Bytes,
    ) -> impl Future<Output = ()> + Send;

    /// Cuts every connection to the broker, or restarts it, so that the transport has to find back by itself.
    /// Returns whether that was done; the case for it passes otherwise. Default: it cannot be done.
    fn interrupt(&self) -> impl Future<Output = bool> + Send {
        async { false }
    }

    /// Removes queues and exchanges when the case is over, whether it passed or not. Default: nothing to remove.
    fn cleanup(self) -> impl Future<Output = ()> + Send
    where
        Self: Sized,
    {
        async {}
    }
}
