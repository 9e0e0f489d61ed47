//! What became of the messages of one window, and why of some it is not known.

use cap_adapter::error::TransportError;
use lapin::message::BasicReturnMessage;
use lapin::protocol::AMQPSoftError;

use crate::driver_fixes::returned_messages::unrouted;
use crate::error::{invalid, refused, soft, text};
use crate::publish::amqp_message::AmqpMessage;
use crate::publish::batch::Fate;

/// RabbitMQ returns a message before it confirms it, and does both in the order of publishing. So the
/// return of a confirmed message has come along with some confirm of its window, even if not all of that is confirmed.
pub(crate) fn mark_unrouted(fates: &mut [Fate], window: &[&AmqpMessage], returned: &[BasicReturnMessage]) {
    let sent: Vec<_> = window.iter().map(|message| message.as_sent()).collect();
    for (fate, came_back) in fates.iter_mut().zip(unrouted(&sent, returned)) {
        if came_back && *fate == Fate::Taken {
            *fate = Fate::Unrouted;
        }
    }
}

pub(crate) struct Report {
    pub(crate) fates: Vec<Fate>,
    /// Why some are unknown.
    pub(crate) trouble: Option<Trouble>,
}

pub(crate) enum Trouble {
    /// The broker closed the channel over one of the messages.
    Refusal(TransportError),
    /// Nothing wrong with any message.
    Outage(String),
}

impl Trouble {
    /// The cause of both: the rejection of a message explains everything else that went wrong on the channel, and the first
    /// outage explains the next.
    pub(crate) fn or(self, earlier: Option<Self>) -> Self {
        match earlier {
            Some(earlier) if matches!(self, Self::Outage(_)) => earlier,
            _ => self,
        }
    }

    pub(crate) fn of(error: &lapin::Error) -> Self {
        let what = text(error);
        match soft(error) {
            // Larger than the broker's max_message_size, which no other attempt changes.
            Some(AMQPSoftError::PRECONDITIONFAILED | AMQPSoftError::CONTENTTOOLARGE) => {
                Self::Refusal(invalid(format!("the broker can never take this message: {what}")))
            }
            Some(AMQPSoftError::ACCESSREFUSED) => {
                Self::Refusal(refused(format!("this user may not publish to that topic: {what}")))
            }
            _ => Self::Outage(format!("the outcome of a publish is unknown: {what}")),
        }
    }
}
