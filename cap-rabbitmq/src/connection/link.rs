//! One connection to the broker.

use std::sync::Arc;
use std::time::Duration;

use cap_adapter::error::TransportError;
use lapin::{Channel, Connection};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tracing::debug;

use crate::driver_fixes::blocked;
use crate::driver_fixes::broker_version::BrokerVersion;
use crate::driver_fixes::channel_numbers::ChannelNumbers;
use crate::driver_fixes::expected_closes::ExpectedCloses;
use crate::driver_fixes::open_channels::OpenChannels;
use crate::driver_fixes::socket::Control;
use crate::error::{text, unavailable};

/// How long the broker may take to answer the closing of a connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long closing the channels before that may take.
const CHANNELS_TIMEOUT: Duration = Duration::from_millis(500);

/// One connection. It is never repaired: once broken, it is replaced.
pub(crate) struct Link {
    connection: Arc<Connection>,
    control: Control,
    numbers: ChannelNumbers,
    channels: OpenChannels,
    /// Renews the credentials, for as long as somebody has the connection.
    renewal: JoinSet<()>,
}

impl Link {
    pub(crate) fn new(connection: Arc<Connection>, control: Control) -> Self {
        let link = Self {
            connection,
            control,
            numbers: ChannelNumbers::default(),
            channels: OpenChannels::default(),
            renewal: JoinSet::new(),
        };
        link.control.set_max_frame(link.max_frame());
        link
    }

    /// Runs the renewal of the credentials until nobody has the connection any more.
    pub(crate) fn renew_by(&mut self, renewal: impl Future<Output = ()> + Send + 'static) {
        self.renewal.spawn(renewal);
    }

    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    pub(crate) fn control(&self) -> &Control {
        &self.control
    }

    /// The longest frame that both sides take.
    pub(crate) fn max_frame(&self) -> usize {
        usize::try_from(self.connection.configuration().frame_max()).unwrap_or(usize::MAX)
    }

    /// Whether the broker drops a message of a quorum queue that it delivered often, unless the queue says not to.
    pub(crate) fn limits_deliveries(&self) -> bool {
        self.control.broker().is_some_and(BrokerVersion::limits_deliveries)
    }

    /// Where to note that the broker may close a channel.
    pub(crate) fn expected_closes(&self) -> &ExpectedCloses {
        self.control.expected_closes()
    }

    pub(crate) fn is_usable(&self) -> bool {
        self.connection.status().connected() && !self.control.is_cut()
    }

    /// Gives it no more channels. Those that it has go on, and it ends with the last of them.
    pub(crate) fn retire(&self) {
        self.numbers.use_up();
    }

    pub(crate) fn takes_channels(&self) -> bool {
        self.is_usable() && self.numbers.are_left()
    }

    /// Ends the connection at once, with all that still waits to be sent on it.
    pub(crate) fn cut(&self) {
        self.control.cut();
    }

    /// Notes a channel that was opened on this connection.
    pub(crate) fn note(&self, channel: &Channel) {
        self.channels.note(channel);
    }

    pub(crate) fn is_blocked(&self) -> bool {
        self.connection.status().blocked()
    }

    /// Waits while a broker short of memory or disk blocks those who publish. What is given to lapin meanwhile only piles
    /// up.
    pub(crate) async fn wait_while_blocked(&self, deadline: Instant) -> Result<(), TransportError> {
        if blocked::wait_while(deadline, || self.is_usable() && self.is_blocked()).await {
            return Ok(());
        }
        Err(unavailable("the broker blocks publishers because it is short of memory or disk space"))
    }

    /// Closes the channels, then the connection.
    pub(crate) async fn close(&self) {
        // A channel that is still in use is not waited for any longer.
        let _ = timeout(CHANNELS_TIMEOUT, self.channels.all_closed(|| self.is_usable())).await;
        match timeout(CLOSE_TIMEOUT, self.connection.close(200, "closing".into())).await {
            // lapin's thread ends by itself; cut now, it would log an error about its socket.
            Ok(Ok(())) => return,
            // Whoever closes races with channels that close themselves, and with the broker going away.
            Ok(Err(error)) => debug!(error = text(&error), "a RabbitMQ connection did not close cleanly"),
            Err(_) => debug!("RabbitMQ did not answer the closing of a connection in time"),
        }
        self.cut();
    }
}
