//! Which messages of a batch the broker gave back, since no queue wanted them.

use std::collections::HashMap;

use lapin::message::BasicReturnMessage;
use tracing::warn;

use crate::outgoing::Outgoing;

/// Marks the messages that came back.
///
/// lapin hands a returned message to whichever confirm it handles next, so it is known again by what it carries: id,
/// routing key and body. Messages equal in all three are interchangeable, and as many of them are marked as came back.
///
/// Gives back one flag for each message of the batch.
pub(crate) fn unrouted(batch: &[&Outgoing], returned: &[BasicReturnMessage]) -> Vec<bool> {
    let mut marks = vec![false; batch.len()];
    if returned.is_empty() {
        return marks;
    }
    let mut by_id: HashMap<(&str, &str), Vec<usize>> = HashMap::new();
    for (index, message) in batch.iter().enumerate() {
        by_id.entry((message.id.as_str(), message.routing_key.as_str())).or_default().push(index);
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
    use cap_adapter::message::Message;
    use lapin::message::Delivery;
    use std::sync::Arc;

    fn outgoing((id, topic, body): (&'static str, &'static str, &'static str)) -> Outgoing {
        let headers = [("cap-msg-id", id), ("cap-msg-name", topic)].into_iter().collect();
        Outgoing::new(&Arc::new(Message::new(headers, body))).unwrap()
    }

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
        let batch: Vec<_> = batch.iter().copied().map(outgoing).collect();
        let came_back: Vec<_> = came_back.iter().copied().map(returned).collect();
        assert_eq!(unrouted(&batch.iter().collect::<Vec<_>>(), &came_back), expected);
    }

    #[test]
    fn a_message_is_known_by_id_key_and_body() {
        let batch = [("1", "a", ""), ("2", "a", ""), ("2", "b", "x"), ("2", "b", "y")];
        check(&batch, &[], &[false; 4]);
        check(&batch, &[("2", "a", "")], &[false, true, false, false]);
        check(&batch, &[("2", "b", "y"), ("1", "a", "")], &[true, false, false, true]);
    }

    #[test]
    fn of_equal_messages_as_many_are_marked_as_came_back() {
        let batch = [("1", "a", ""), ("1", "a", ""), ("1", "a", "")];
        check(&batch, &[("1", "a", "")], &[true, false, false]);
        check(&batch, &[("1", "a", ""), ("1", "a", ""), ("1", "a", "")], &[true; 3]);
        check(&batch, &[("9", "a", ""), ("1", "z", ""), ("1", "a", "z")], &[false; 3]);
    }
}
