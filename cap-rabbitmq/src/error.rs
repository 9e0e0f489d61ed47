//! How the broker's errors become the bus's: which kind, and a text without secrets.

use cap_adapter::error::{TransportError, TransportErrorKind};
use lapin::ErrorKind;
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};

/// The transport's name in errors and logs.
pub(crate) const NAME: &str = "RabbitMQ";

pub(crate) fn unavailable(message: impl Into<String>) -> TransportError {
    TransportError::new(TransportErrorKind::Unavailable, NAME, message)
}

pub(crate) fn refused(message: impl Into<String>) -> TransportError {
    TransportError::new(TransportErrorKind::Refused, NAME, message)
}

/// The broker could not store a message that is valid.
pub(crate) fn destination_full(message: impl Into<String>) -> TransportError {
    TransportError::new(TransportErrorKind::DestinationFull, NAME, message)
}

/// This message can never be sent.
pub(crate) fn invalid(message: impl Into<String>) -> TransportError {
    TransportError::new(TransportErrorKind::Invalid, NAME, message)
}

/// The same error for a message that is not at fault: it waits for an operator, and no attempt is counted.
pub(crate) fn no_fault_of_the_message(error: TransportError) -> TransportError {
    if error.is_unavailable() {
        return error;
    }
    unavailable(error.message()).requiring_operator()
}

pub(crate) fn unusable(message: impl Into<String>) -> TransportError {
    TransportError::new(TransportErrorKind::Unusable, NAME, message)
}

/// The text of an error of the broker or the connection: `PRECONDITION_FAILED - inequivalent arg ..`.
pub(crate) fn text(error: &lapin::Error) -> String {
    match error.kind() {
        ErrorKind::ProtocolError(error) => error.get_message().to_string(),
        ErrorKind::InvalidChannelState(..) | ErrorKind::InvalidChannel(_) => {
            "the channel was closed".to_owned()
        }
        ErrorKind::InvalidConnectionState(_) => "the connection was closed".to_owned(),
        ErrorKind::IOError(error) => format!("the connection broke: {error}"),
        _ => error.to_string(),
    }
}

/// The broker's reason for closing a channel, if that is what happened.
pub(crate) fn soft(error: &lapin::Error) -> Option<&AMQPSoftError> {
    match error.kind() {
        ErrorKind::ProtocolError(error) => match error.kind() {
            AMQPErrorKind::Soft(soft) => Some(soft),
            AMQPErrorKind::Hard(_) => None,
        },
        _ => None,
    }
}

/// The property in which a queue or an exchange differs from its declaration: `alternate-exchange` of `PRECONDITION_FAILED -
/// inequivalent arg 'alternate-exchange' for exchange ..`.
pub(crate) fn inequivalent(said: &str) -> Option<&str> {
    said.split_once("inequivalent arg '")?.1.split_once('\'').map(|(property, _)| property)
}
