//! Finds out whether a queue is a stream, which a group cannot consume.
//!
//! A stream keeps messages that were read and does not remember its readers: a consumer begins with the messages that
//! arrive after it. All that arrived while the service was down would never be handled, without any error.

use cap_adapter::error::TransportError;
use lapin::options::QueueDeclareOptions;
use lapin::protocol::AMQPSoftError;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use tokio::time::Instant;

use crate::connection::link::Link;
use crate::declare::topology::Topology;
use crate::error::{inequivalent, soft, text, unusable};

const QUEUE_TYPE: &str = "x-queue-type";
/// No broker has a queue of this type, so that asking for one declares nothing.
const NO_TYPE: &str = "cap-asks-for-the-type";
/// A broker names one difference at a time. A stream has one argument that is named before its type.
const QUESTIONS: usize = 4;

impl Topology {
    /// Refuses a queue that is a stream. `refusal` is what the broker said to a declaration of it, if there was one.
    ///
    /// A broker reveals the type of a queue only by rejecting another one, and reveals nothing to a user without the right
    /// to configure the queue.
    pub(crate) async fn refuse_a_stream(
        &self,
        link: &Link,
        queue: &ShortString,
        refusal: Option<&lapin::Error>,
        deadline: Instant,
    ) -> Result<(), TransportError> {
        let reported = refusal.map(text).filter(|said| inequivalent(said) == Some(QUEUE_TYPE));
        let kind = match reported {
            Some(said) => Current::of(&said),
            None => self.ask_for_kind(link, queue, deadline).await?,
        };
        match kind {
            Some(Current { value, .. }) if value == "stream" => Err(unusable(format!(
                "queue {:?} is a stream: messages that arrive while the service is down would never be handled; use another \
                 group name, or delete the stream and let the bus declare a queue",
                queue.as_str()
            ))),
            _ => Ok(()),
        }
    }

    /// Asks for the type of a queue that exists, by a declaration that never succeeds.
    async fn ask_for_kind(
        &self,
        link: &Link,
        queue: &ShortString,
        deadline: Instant,
    ) -> Result<Option<Current>, TransportError> {
        let mut arguments = FieldTable::default();
        arguments.insert(QUEUE_TYPE.into(), AMQPValue::LongString(NO_TYPE.into()));
        for _ in 0..QUESTIONS {
            let channel = self.new_channel(link, deadline).await?;
            let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
            let asked = channel.queue_declare(queue.clone(), options, arguments.clone());
            let Err(error) = link.expected_closes().during(&channel, asked).await else { return Ok(None) };
            if soft(&error) != Some(&AMQPSoftError::PRECONDITIONFAILED) {
                return Ok(None);
            }
            let said = text(&error);
            let (property, current) = (inequivalent(&said), Current::of(&said));
            match (property, current) {
                (Some(QUEUE_TYPE), current) => return Ok(current),
                // For an argument that is compared before the type, the broker names its value too.
                (Some(property), Some(current)) if property.starts_with("x-") => {
                    let Ok(name) = ShortString::try_new(property) else { return Ok(None) };
                    arguments.insert(name, current.argument());
                }
                _ => return Ok(None),
            }
        }
        Ok(None)
    }
}

/// The value that the broker has instead of the declared one.
#[derive(Debug, PartialEq, Eq)]
struct Current {
    value: String,
    is_number: bool,
}

impl Current {
    /// Reads `.. but current is 'stream'` and `.. but current is the value '1000' of type 'signedint'`.
    fn of(said: &str) -> Option<Self> {
        let current = said.split_once("but current is ")?.1;
        let (value, rest) =
            current.strip_prefix("the value ").unwrap_or(current).strip_prefix('\'')?.split_once('\'')?;
        let is_number = rest.strip_prefix(" of type '").is_some_and(|kind| !kind.starts_with("longstr"));
        Some(Self { value: value.to_owned(), is_number })
    }

    fn argument(self) -> AMQPValue {
        match self.value.parse() {
            Ok(number) if self.is_number => AMQPValue::LongLongInt(number),
            _ => AMQPValue::LongString(self.value.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn current_value_is_read_from_the_brokers_text() {
        let said = |current: &str| {
            format!(
                "PRECONDITION_FAILED - inequivalent arg 'x' for queue 'q' in vhost '/': received .. but current is {current}"
            )
        };
        for (current, expected) in [
            ("'stream'", Some(("stream", false))),
            ("the value 'stream' of type 'longstr'", Some(("stream", false))),
            ("the value '1000000' of type 'signedint'", Some(("1000000", true))),
            ("none", None),
            ("the value 'cut", None),
            ("", None),
        ] {
            let expected = expected.map(|(value, is_number)| Current { value: value.to_owned(), is_number });
            assert_eq!(Current::of(&said(current)), expected, "{current}");
        }
        assert_eq!(Current::of("NOT_FOUND"), None);
    }
}
