//! Composes the message to be stored from what the caller has set: headers, id, times, checks.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use crate::error::PublishError;
use crate::message::headers::names;
use crate::message::{Headers, IdGenerator, Message, MessageId, validate_topic};
use crate::runtime::erased::DynTransport;
use crate::runtime::options::CapOptions;
use crate::storage::NewOutgoing;

/// Composes messages with the bus's prefixes, limits and ids.
#[derive(Debug)]
pub(crate) struct Composer {
    pub(crate) options: Arc<CapOptions>,
    pub(crate) ids: Arc<IdGenerator>,
    /// Whether the broker can delay messages.
    pub(crate) can_delay: bool,
    /// Checks whether the broker could ever accept a message.
    pub(crate) transport: Arc<dyn DynTransport>,
}

/// What the caller has set for a message.
#[derive(Debug, Clone, Default)]
pub(crate) struct Draft {
    pub(crate) topic: String,
    pub(crate) body: Bytes,
    pub(crate) type_name: Cow<'static, str>,
    /// The caller's headers, in order.
    pub(crate) headers: Headers,
    pub(crate) callback: Option<String>,
    pub(crate) delay: Option<Duration>,
    /// How long the broker delays it.
    pub(crate) broker_delay: Option<Duration>,
    pub(crate) id: Option<String>,
    /// Whether the topic is used as given, without the topic prefix, as for a callback topic that the sender has named.
    pub(crate) verbatim_topic: bool,
    /// Whether it is the reply to a message.
    pub(crate) is_reply: bool,
}

impl Composer {
    /// Composes the message. The headers are in CAP's order (cap-compat section 1).
    pub(crate) fn compose(&self, draft: Draft) -> Result<NewOutgoing, PublishError> {
        let name =
            if draft.verbatim_topic { draft.topic.clone() } else { self.options.full_topic(&draft.topic) };
        validate_topic(&name)?;
        let row = self.ids.next_id();
        let mut headers = draft.headers;
        check_callers_headers(&draft.topic, &headers)?;
        // .NET CAP sets the callback as a header.
        let callback = draft.callback.or_else(|| headers.get(names::CALLBACK_NAME).map(str::to_owned));
        headers.remove(names::CALLBACK_NAME);
        let callback = callback.map(|topic| self.options.written_callback(&topic));
        if let Some(callback) = &callback {
            validate_topic(callback)?;
        }
        let id = match draft.id.or_else(|| headers.get(names::MESSAGE_ID).map(str::to_owned)) {
            Some(id) => checked_id(&draft.topic, id)?,
            None => row.to_string(),
        };
        match callback {
            Some(callback) => headers.insert(names::CALLBACK_NAME, callback),
            // A reply of .NET CAP has no such header; other messages have it as null.
            None if draft.is_reply => {}
            None => headers.insert_null(names::CALLBACK_NAME),
        }
        headers.insert(names::MESSAGE_ID, &*id);
        if !headers.contains(names::CORRELATION_ID) {
            headers.insert(names::CORRELATION_ID, &*id);
            headers.insert(names::CORRELATION_SEQUENCE, "0");
        }
        headers.insert(names::MESSAGE_NAME, name);
        headers.insert(names::MESSAGE_TYPE, draft.type_name);
        let delay = draft.delay.filter(|delay| !delay.is_zero());
        let broker_delay = draft.broker_delay.filter(|delay| !delay.is_zero());
        if let Some(delay) = broker_delay {
            if !self.can_delay {
                return Err(PublishError::NoBrokerDelay { topic: draft.topic });
            }
            headers.insert(names::BROKER_DELAY, delay.as_millis().max(1).to_string());
        }
        if let Some(delay) = delay.or(broker_delay) {
            headers.insert(names::DELAY_TIME, time_span(delay));
        }
        headers.insert(names::SENT_TIME, sent_time(SystemTime::now(), delay.or(broker_delay)));
        move_to_end(&mut headers, &[names::TRACE_PARENT, names::TRACE_STATE, names::BAGGAGE]);
        let message = Message::new(headers, draft.body);
        if message.size() > self.options.max_message_size {
            return Err(PublishError::TooLarge {
                topic: draft.topic,
                size: message.size(),
                limit: self.options.max_message_size,
            });
        }
        if let Err(error) = self.transport.check_message(&message) {
            return Err(PublishError::Unsendable { topic: draft.topic, reason: error.message().to_owned() });
        }
        Ok(NewOutgoing { id: row, message: Arc::new(message), delay, held: false })
    }
}

/// Checks the caller's headers: names, values, and that none of them is written by the bus itself.
fn check_callers_headers(topic: &str, headers: &Headers) -> Result<(), PublishError> {
    const RESERVED: [&str; 12] = [
        names::MESSAGE_NAME,
        names::MESSAGE_TYPE,
        names::SENT_TIME,
        names::DELAY_TIME,
        names::GROUP,
        names::EXECUTION_INSTANCE,
        names::EXCEPTION,
        names::AUDIT,
        names::RETRY,
        names::BROKER_DELAY,
        names::VERIFIED_USER,
        names::DELIVERY,
    ];
    let fail = |name: &str, reason| {
        Err(PublishError::Header { topic: topic.to_owned(), name: name.chars().take(100).collect(), reason })
    };
    for (name, value) in headers.iter() {
        if RESERVED.contains(&name) {
            return fail(name, "is written by the bus and cannot be set");
        }
        if name.is_empty() || name.len() > 255 {
            return fail(name, "has a name that is empty or longer than 255 bytes");
        }
        if name == names::CORRELATION_SEQUENCE && value.is_none_or(|value| value.parse::<u64>().is_err()) {
            return fail(name, "is not a number");
        }
    }
    Ok(())
}

fn checked_id(topic: &str, id: String) -> Result<String, PublishError> {
    if id.is_empty() || id.len() > MessageId::MAX_LENGTH || id.contains('\0') {
        return Err(PublishError::Header {
            topic: topic.to_owned(),
            name: names::MESSAGE_ID.to_owned(),
            reason: "is empty, longer than 200 bytes, or contains a NUL character",
        });
    }
    Ok(id)
}

fn move_to_end(headers: &mut Headers, which: &[&'static str]) {
    for name in which {
        if let Some(value) = headers.get(name).map(str::to_owned) {
            headers.remove(name);
            headers.insert(*name, value);
        }
    }
}

/// Formats the sent time as `MM/dd/yyyy HH:mm:ss`. .NET writes local time without a zone; we write UTC. It is only
/// informational.
fn sent_time(now: SystemTime, delay: Option<Duration>) -> String {
    const FORM: &[BorrowedFormatItem<'_>] =
        format_description!("[month]/[day]/[year] [hour]:[minute]:[second]");
    let due = now.checked_add(delay.unwrap_or_default()).unwrap_or(now);
    let latest = time::macros::datetime!(9999-12-31 23:59:59 UTC);
    // A delay of thousands of years is a mistake, but no reason to panic.
    let due = due
        .duration_since(SystemTime::UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_secs()).ok())
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .unwrap_or(latest);
    due.format(FORM).unwrap_or_default()
}

/// Formats a duration in the "c" format of a .NET `TimeSpan`: `[d.]hh:mm:ss[.fffffff]`.
fn time_span(span: Duration) -> String {
    let seconds = span.as_secs();
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (hours, minutes, seconds) = (rest / 3600, rest / 60 % 60, rest % 60);
    let days = if days > 0 { format!("{days}.") } else { String::new() };
    let ticks = match span.subsec_nanos() / 100 {
        0 => String::new(),
        ticks => format!(".{ticks:07}"),
    };
    format!("{days}{hours:02}:{minutes:02}:{seconds:02}{ticks}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn composer(change: impl FnOnce(&mut CapOptions)) -> Composer {
        let mut options = CapOptions::default();
        change(&mut options);
        let transport = Arc::new(crate::memory::MemoryTransport::new());
        Composer {
            options: Arc::new(options),
            ids: Arc::new(IdGenerator::new(1)),
            can_delay: true,
            transport,
        }
    }

    fn draft(topic: &str) -> Draft {
        Draft {
            topic: topic.to_owned(),
            body: Bytes::from_static(br#"{"OrderId":7}"#),
            type_name: "OrderCreated".into(),
            ..Draft::default()
        }
    }

    #[test]
    fn headers_are_in_caps_order() {
        let new = composer(|_| ()).compose(draft("order.created")).unwrap();
        let names: Vec<_> = new.message.headers.iter().map(|(name, _)| name).collect();
        assert_eq!(
            names,
            [
                "cap-callback-name",
                "cap-msg-id",
                "cap-corr-id",
                "cap-corr-seq",
                "cap-msg-name",
                "cap-msg-type",
                "cap-senttime"
            ]
        );
        let headers = &new.message.headers;
        assert!(headers.contains("cap-callback-name") && headers.get("cap-callback-name").is_none());
        assert_eq!(headers.get("cap-msg-id"), Some(new.id.to_string().as_str()));
        assert_eq!(headers.get("cap-corr-id"), headers.get("cap-msg-id"));
        assert_eq!(headers.get("cap-corr-seq"), Some("0"));
    }

    #[test]
    fn time_spans_have_the_format_of_dot_net() {
        for (span, text) in [
            (Duration::from_secs(90), "00:01:30"),
            (Duration::from_millis(1500), "00:00:01.5000000"),
            (Duration::from_secs(26 * 3600), "1.02:00:00"),
        ] {
            assert_eq!(time_span(span), text);
        }
    }

    #[test]
    fn sent_time_is_the_due_time_and_never_panics() {
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_763_751_785);
        assert_eq!(sent_time(start, None), "11/21/2025 19:03:05");
        assert_eq!(sent_time(start, Some(Duration::from_secs(90))), "11/21/2025 19:04:35");
        assert!(sent_time(start, Some(Duration::MAX)).starts_with("11/21/2025"));
        assert!(sent_time(start, Some(Duration::from_secs(1 << 50))).starts_with("12/31/9999"));
    }

    #[test]
    fn a_callers_correlation_and_id_are_kept() {
        let mut given = draft("a");
        given.headers.insert(names::CORRELATION_ID, "saga-1");
        given.id = Some("0b8b7a1e-5c55-4c38-9d4b-6a53b7f7c1aa".to_owned());
        let headers = composer(|_| ()).compose(given).unwrap().message.headers.clone();
        assert_eq!(headers.get("cap-corr-id"), Some("saga-1"));
        assert!(!headers.contains("cap-corr-seq"));
        assert_eq!(headers.get("cap-msg-id"), Some("0b8b7a1e-5c55-4c38-9d4b-6a53b7f7c1aa"));
    }

    #[test]
    fn topics_get_the_prefix_unless_they_are_verbatim() {
        let composer = composer(|options| options.topic_prefix = Some("shop".to_owned()));
        assert_eq!(composer.compose(draft("a")).unwrap().message.name(), Some("shop.a"));
        let verbatim = Draft { verbatim_topic: true, ..draft("a") };
        assert_eq!(composer.compose(verbatim).unwrap().message.name(), Some("a"));
    }

    #[test]
    fn a_callback_as_a_header_is_a_callback() {
        let composer = composer(|options| options.topic_prefix = Some("shop".to_owned()));
        let header =
            |name: &'static str| [("cap-callback-name", name), ("tenant", "acme")].into_iter().collect();
        let as_header = composer.compose(Draft { headers: header("answer"), ..draft("a") }).unwrap();
        let headers = [("tenant", "acme")].into_iter().collect();
        let as_said =
            composer.compose(Draft { headers, callback: Some("answer".to_owned()), ..draft("a") }).unwrap();
        let names = |new: &NewOutgoing| {
            new.message.headers.iter().map(|(name, _)| name.to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(as_header.message.headers.get("cap-callback-name"), Some("shop.answer"));
        assert_eq!(names(&as_header), names(&as_said));
        for bad in ["a b", "", "a.*"] {
            assert!(composer.compose(Draft { headers: header(bad), ..draft("a") }).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn mistakes_are_errors_that_name_the_topic() {
        #[track_caller]
        fn check(expected: &str, draft: Draft) {
            let composer = composer(|options| options.max_message_size = 10_000);
            let error = composer.compose(draft).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        check("wildcard", draft("a.*"));
        check("empty", draft(""));
        check("cap-msg-name", Draft { headers: [("cap-msg-name", "x")].into_iter().collect(), ..draft("a") });
        check("not a number", Draft { headers: [("cap-corr-seq", "x")].into_iter().collect(), ..draft("a") });
        check("cap-msg-id", Draft { id: Some(String::new()), ..draft("a") });
        check("allows 10000", Draft { body: Bytes::from(vec![b' '; 10_001]), ..draft("a") });
        check("topic \"b c\"", Draft { callback: Some("b c".to_owned()), ..draft("a") });
    }
}
