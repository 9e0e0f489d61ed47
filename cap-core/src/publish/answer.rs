//! The answer to a consumed message.

use crate::error::PublishError;
use crate::message::Headers;
use crate::message::headers::names;
use crate::outgoing::{Composer, Draft};
use crate::storage::NewOutgoing;
use crate::subscribe::{Callback, Delivery, Response, ResponseControl};

/// The answer to a consumed message: what the callback topic is to be told (cap-compat section 9). `None` when the
/// sender wants none.
pub(crate) fn answer(
    composer: &Composer,
    delivery: &Delivery,
    response: Option<Response>,
    control: ResponseControl,
) -> Result<Option<NewOutgoing>, PublishError> {
    let asked = &delivery.message().headers;
    let wanted = match control.callback {
        Callback::To(topic) => Some(topic),
        Callback::None => None,
        Callback::AsAsked => asked.get(names::CALLBACK_NAME).map(str::to_owned),
    };
    let Some(topic) = wanted.filter(|topic| !topic.is_empty()) else { return Ok(None) };
    let mut headers = control.headers;
    headers.remove(names::MESSAGE_ID);
    headers.insert(names::CORRELATION_ID, delivery.message_id().as_str());
    let sequence =
        asked.get(names::CORRELATION_SEQUENCE).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    headers.insert(names::CORRELATION_SEQUENCE, sequence.saturating_add(1).to_string());
    copy_trace(asked, &mut headers);
    let draft = Draft {
        topic: composer.options.answered_callback(&topic),
        body: response.map(|response| response.body).unwrap_or_default(),
        type_name: "Object".into(),
        headers,
        verbatim_topic: true,
        ..Draft::default()
    };
    composer.compose(draft).map(Some)
}

/// The trace goes on.
pub(super) fn copy_trace(from: &Headers, to: &mut Headers) {
    for name in [names::TRACE_PARENT, names::TRACE_STATE, names::BAGGAGE] {
        if let Some(value) = from.get(name) {
            to.insert(name, value);
        }
    }
}
