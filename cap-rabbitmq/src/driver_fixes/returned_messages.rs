//! Finds out which messages of a batch the broker returned because no queue wanted them.
//!
//! **Works around:** lapin hands a returned message to whichever confirm it handles next, of any message.
//! **Can go when** a confirm brings the return of its own message, or none.

use std::collections::HashMap;

use lapin::message::BasicReturnMessage;
use tracing::warn;

/// What a message is recognized by when it comes back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SentMessage<'a> {
    pub(crate) id: &'a str,
    pub(crate) routing_key: &'a str,
    pub(crate) body: &'a [u8],
}

/// Marks the messages that came back, with one flag for each message of the batch.
///
/// A message is recognized by what it carries: id, routing key and body. Messages equal in all three are
/// interchangeable, and as many of them are marked as came back.
pub(crate) fn unrouted(batch: &[SentMessage<'_>], returned: &[BasicReturnMessage]) -> Vec<bool> {
    let mut marks = vec![false; batch.len()];
    if returned.is_empty() {
        return marks;
    }
    let mut by_id: HashMap<(&str, &str), Vec<usize>> = HashMap::new();
    for (index, message) in batch.iter().enumerate() {
        by_id.entry((message.id, message.routing_key)).or_default().push(index);
    }
    for message in returned {
        let id = message.properties.message_id().as_ref().map_or("", |id| id.as_str());
        let candidates = by_id.get(&(id, message.routing_key.as_str())).map_or(&[][..], Vec::as_slice);
        let same = candidates.iter().find(|index| !marks[**index] && batch[**index].body == message.data);
        if let Some(index) = same {
            marks[*index] = true;
        } else {
            warn!(id, "RabbitMQ returned a message that was not sent with this batch");
        }
    }
    marks
}

#[cfg(test)]
mod tests {
    use super::*;
    use lapin::message::Delivery;

    fn returned((id, topic, body): (&'static str, &'static str, &'static str)) -> BasicReturnMessage {
        let mut delivery = Delivery::mock(0, "x".into(), topic.into(), false, body.into());
        delivery.properties = lapin::BasicProperties::default().with_message_id(id.into());
        BasicReturnMessage { delivery, reply_code: 312, reply_text: "NO_ROUTE".into() }
    }

    #[track_caller]
    fn check(
        batch: &[(&'static str, &'static str, &'static str)],
        came_back: &[(&'static str, &'static str, &'static str)],
        expected: &[bool],
    ) {
        let batch: Vec<_> = batch
            .iter()
            .map(|(id, routing_key, body)| SentMessage { id, routing_key, body: body.as_bytes() })
            .collect();
        let came_back: Vec<_> = came_back.iter().copied().map(returned).collect();
        assert_eq!(unrouted(&batch, &came_back), expected);
    }

    #[test]
    fn message_is_recognized_by_id_key_and_body() {
        let batch = [("1", "a", ""), ("2", "a", ""), ("2", "b", "x"), ("2", "b", "y")];
        check(&batch, &[], &[false; 4]);
        check(&batch, &[("2", "a", "")], &[false, true, false, false]);
        check(&batch, &[("2", "b", "y"), ("1", "a", "")], &[true, false, false, true]);
    }

    #[test]
    fn as_many_equal_messages_are_marked_as_came_back() {
        let batch = [("1", "a", ""), ("1", "a", ""), ("1", "a", "")];
        check(&batch, &[("1", "a", "")], &[true, false, false]);
        check(&batch, &[("1", "a", ""), ("1", "a", ""), ("1", "a", "")], &[true; 3]);
        check(&batch, &[("9", "a", ""), ("1", "z", ""), ("1", "a", "z")], &[false; 3]);
    }
}
