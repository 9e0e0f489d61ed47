//! The answer to a consumed message.

use cap_adapter::Delivery;

use crate::error::PublishError;
use crate::handlers::Response;
use crate::message::copy_trace;
use crate::message::headers::names;
use crate::publish::attempt_data::{Callback, ResponseControl};
use crate::publish::composer::{Composer, Draft};
use crate::runtime::callback_policy::CallbackPolicy;
use crate::storage::NewOutgoing;

/// What becomes of a handler's return value.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Nobody wants it.
    None,
    /// It is published.
    To(Box<NewOutgoing>),
    /// The sender wants it at this topic, which this service does not publish to for others.
    Refused(String),
}

/// The answer to a consumed message: what the callback topic is to be told (cap-compat section 9).
pub(crate) fn answer(
    composer: &Composer,
    policy: &CallbackPolicy,
    delivery: &Delivery,
    response: Option<Response>,
    control: ResponseControl,
) -> Result<Answer, PublishError> {
    let asked = &delivery.message().headers;
    let written = asked.get(names::CALLBACK_NAME).filter(|topic| !topic.is_empty());
    let topic = match (control.callback, written) {
        (Callback::To(topic), _) if !topic.is_empty() => composer.options.answered_callback(&topic),
        (Callback::AsAsked, Some(_)) if response.is_none() && !policy.reply_to_unit => {
            return Ok(Answer::None);
        }
        (Callback::AsAsked, Some(topic)) => {
            let topic = composer.options.answered_callback(topic);
            if !policy.allows(&topic) {
                return Ok(Answer::Refused(topic));
            }
            topic
        }
        _ => return Ok(Answer::None),
    };
    let mut headers = control.headers;
    headers.remove(names::MESSAGE_ID);
    headers.insert(names::CORRELATION_ID, delivery.message_id().as_str());
    let sequence =
        asked.get(names::CORRELATION_SEQUENCE).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    headers.insert(names::CORRELATION_SEQUENCE, sequence.saturating_add(1).to_string());
    // On whose behalf this service publishes there.
    headers.insert(names::REQUEST_NAME, delivery.topic());
    match asked.get(names::VERIFIED_USER) {
        Some(user) => headers.insert(names::REQUEST_USER, user),
        None => drop(headers.remove(names::REQUEST_USER)),
    }
    copy_trace(asked, &mut headers);
    let draft = Draft {
        topic,
        body: response.map(|response| response.body).unwrap_or_default(),
        type_name: "Object".into(),
        headers,
        verbatim_topic: true,
        ..Draft::default()
    };
    composer.compose(draft).map(|new| Answer::To(Box::new(new)))
}
