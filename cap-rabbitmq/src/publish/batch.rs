//! A batch of messages that is being sent: cut into windows, with the answers known so far.

use std::collections::VecDeque;
use std::sync::Arc;

use cap_adapter::error::TransportError;
use cap_adapter::message::Message;
use cap_adapter::transport::Sent;
use lapin::Confirmation;

use crate::error::{destination_full, unavailable};
use crate::publish::amqp_message::AmqpMessage;

/// How much of a batch is sent before its confirms are awaited. lapin copies and queues all that it is given.
const WINDOW_MESSAGES: usize = 1024;
const WINDOW_BYTES: usize = 8 * 1024 * 1024;

pub(crate) type Answer = Result<Sent, TransportError>;

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Unknown,
    Taken,
    Unrouted,
    Refused,
}

impl Fate {
    pub(crate) fn of(confirmation: &Confirmation) -> Self {
        match confirmation {
            Confirmation::Ack(_) => Self::Taken,
            Confirmation::Nack(_) => Self::Refused,
            // Only a channel without confirm mode says so.
            Confirmation::NotRequested => Self::Unknown,
        }
    }
}

/// A batch on its way, with the answers known so far.
pub(crate) struct Batch {
    messages: Vec<Option<AmqpMessage>>,
    answers: Vec<Option<Answer>>,
}

impl Batch {
    pub(crate) fn new(messages: &[Arc<Message>]) -> Self {
        Self::of(messages.iter().map(AmqpMessage::new))
    }

    /// A batch of messages that are ready, and of some that cannot be sent.
    pub(crate) fn of(messages: impl Iterator<Item = Result<AmqpMessage, TransportError>>) -> Self {
        let (messages, answers) = messages
            .map(|message| match message {
                Ok(outgoing) => (Some(outgoing), None),
                Err(error) => (None, Some(Err(error))),
            })
            .unzip();
        Self { messages, answers }
    }

    pub(crate) fn all_answered(&self) -> bool {
        self.answers.iter().all(Option::is_some)
    }

    pub(crate) fn answer(&mut self, index: usize, answer: Answer) {
        self.answers[index] = Some(answer);
    }

    /// Cuts what is to be sent into windows of bounded size. Messages whose headers do not fit into a frame are
    /// answered here: the broker would close the connection over them.
    pub(crate) fn windows(&mut self, max_frame: usize) -> VecDeque<Vec<usize>> {
        let mut windows = VecDeque::new();
        let (mut window, mut bytes) = (Vec::new(), 0);
        for (message, (index, answer)) in self.messages.iter().zip(self.answers.iter_mut().enumerate()) {
            let Some(message) = message else { continue };
            if let Err(error) = message.check_frame(max_frame) {
                *answer = Some(Err(error));
                continue;
            }
            if window.len() == WINDOW_MESSAGES
                || (bytes + message.size() > WINDOW_BYTES && !window.is_empty())
            {
                windows.push_back(std::mem::take(&mut window));
                bytes = 0;
            }
            window.push(index);
            bytes += message.size();
        }
        if !window.is_empty() {
            windows.push_back(window);
        }
        windows
    }

    pub(crate) fn pick(&self, window: &[usize]) -> Vec<&AmqpMessage> {
        window.iter().filter_map(|index| self.messages[*index].as_ref()).collect()
    }

    /// Records the outcome of a window's messages and returns those whose outcome is not known.
    pub(crate) fn record(&mut self, window: &[usize], fates: &[Fate]) -> Vec<usize> {
        let mut unknown = Vec::new();
        for (index, fate) in window.iter().zip(fates) {
            let answer = match fate {
                Fate::Taken => Ok(Sent::Routed),
                Fate::Unrouted => Ok(Sent::Unrouted),
                Fate::Refused => Err(destination_full(
                    "the broker rejected the message (negative confirm): a queue is full and rejects, or failed",
                )),
                Fate::Unknown => {
                    unknown.push(*index);
                    continue;
                }
            };
            self.answer(*index, answer);
        }
        unknown
    }

    pub(crate) fn finish(self, problem: Option<TransportError>) -> Vec<Answer> {
        let problem = problem.unwrap_or_else(|| unavailable("the outcome of a publish is unknown"));
        self.answers.into_iter().map(|answer| answer.unwrap_or_else(|| Err(problem.clone()))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cap_adapter::error::TransportErrorKind;

    const FRAME: usize = 131_072;

    fn batch(sizes: &[usize]) -> Batch {
        let message = |size: &usize| {
            let headers = [("cap-msg-id", "7"), ("cap-msg-name", "t")].into_iter().collect();
            Arc::new(Message::new(headers, vec![0; *size]))
        };
        Batch::new(&sizes.iter().map(message).collect::<Vec<_>>())
    }

    #[test]
    fn windows_are_bounded_in_messages_and_in_bytes() {
        let sizes = |batch: &mut Batch| batch.windows(FRAME).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(sizes(&mut batch(&[])), [0; 0]);
        assert_eq!(sizes(&mut batch(&vec![1; 1024])), [1024]);
        assert_eq!(sizes(&mut batch(&vec![1; 2049])), [1024, 1024, 1]);
        let half = WINDOW_BYTES / 2;
        // With their headers, two halves are more than a window.
        assert_eq!(sizes(&mut batch(&[half, half - 1000, half])), [2, 1]);
        assert_eq!(sizes(&mut batch(&[10 * WINDOW_BYTES, 1, 1, WINDOW_BYTES, 1])), [1, 2, 1, 1]);
    }

    #[test]
    fn each_message_has_its_own_answer() {
        let nameless = Arc::new(Message::default());
        let fine = |id: &'static str| {
            let headers = [("cap-msg-id", id), ("cap-msg-name", "t")].into_iter().collect();
            Arc::new(Message::new(headers, ""))
        };
        let mut batch = Batch::new(&[fine("0"), nameless, fine("2"), fine("3"), fine("4"), fine("5")]);
        assert!(!batch.all_answered());
        let window = batch.windows(FRAME).remove(0).unwrap();
        assert_eq!(window, [0, 2, 3, 4, 5]);
        assert_eq!(batch.pick(&window).iter().map(|one| one.id.as_str()).collect::<String>(), "02345");
        let fates = [Fate::Taken, Fate::Unknown, Fate::Unrouted, Fate::Refused, Fate::Unknown];
        assert_eq!(batch.record(&window, &fates), [2, 5]);
        batch.answer(5, Ok(Sent::Routed));
        let answers = batch.finish(Some(unavailable("gone")));
        let short: Vec<_> =
            answers.iter().map(|answer| answer.as_ref().map_err(TransportError::kind)).collect();
        let (invalid, gone) = (Err(TransportErrorKind::Invalid), Err(TransportErrorKind::Unavailable));
        let full = Err(TransportErrorKind::DestinationFull);
        assert_eq!(short, [Ok(&Sent::Routed), invalid, gone, Ok(&Sent::Unrouted), full, Ok(&Sent::Routed)]);
    }

    #[test]
    fn too_large_headers_are_rejected_before_sending() {
        let mut batch = batch(&[1, 1]);
        assert!(batch.windows(100).is_empty());
        assert!(batch.all_answered());
    }
}
