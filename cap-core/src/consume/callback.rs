//! The reply to a handled message.

use cap_adapter::Delivery;

use crate::error::PublishError;
use crate::handlers::Response;
use crate::message::copy_trace;
use crate::message::headers::names;
use crate::publish::attempt_data::{Callback, ResponseControl};
use crate::publish::composer::{Composer, Draft};
use crate::runtime::callback_policy::CallbackPolicy;
use crate::storage::NewOutgoing;

/// What to do with a handler's return value.
#[derive(Debug)]
pub(crate) enum Reply {
    /// No reply is requested.
    None,
    /// This reply is published.
    To(Box<NewOutgoing>),
    /// The sender requested a reply to this topic, which `callbacks_to` does not allow.
    NotAllowed(String),
}

/// Creates the reply to a handled message, for its callback topic (cap-compat section 9).
pub(crate) fn reply(
    composer: &Composer,
    policy: &CallbackPolicy,
    delivery: &Delivery,
    response: Option<Response>,
    control: ResponseControl,
) -> Result<Reply, PublishError> {
    let asked = &delivery.message().headers;
    let written = asked.get(names::CALLBACK_NAME).filter(|topic| !topic.is_empty());
    let topic = match (control.callback, written) {
        (Callback::To(topic), _) if !topic.is_empty() => composer.options.answered_callback(&topic),
        (Callback::AsRequested, Some(_)) if response.is_none() && !policy.reply_to_unit => {
            return Ok(Reply::None);
        }
        (Callback::AsRequested, Some(topic)) => {
            let topic = composer.options.answered_callback(topic);
            if !policy.allows(&topic) {
                return Ok(Reply::NotAllowed(topic));
            }
            topic
        }
        _ => return Ok(Reply::None),
    };
    let mut headers = control.headers;
    headers.remove(names::MESSAGE_ID);
    headers.insert(names::CORRELATION_ID, delivery.message_id().as_str());
    let sequence =
        asked.get(names::CORRELATION_SEQUENCE).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    headers.insert(names::CORRELATION_SEQUENCE, sequence.saturating_add(1).to_string());
    // The receiver of the reply can see on whose behalf this service publishes it.
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
        is_reply: true,
        ..Draft::default()
    };
    composer.compose(draft).map(|new| Reply::To(Box::new(new)))
}
