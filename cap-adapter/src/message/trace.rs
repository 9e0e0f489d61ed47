//! Copies the trace context of a handled message to the messages that its handler publishes.
//!
//! A sender sets it, and it is copied to every message that the handler publishes. So it is limited as in the [W3C
//! trace context](https://www.w3.org/TR/trace-context/) and of [W3C baggage](https://www.w3.org/TR/baggage/):
//! anything beyond the limits is left out, in whole list members, and never fails the handler.

use super::headers::{Headers, names};

/// Characters of `traceparent` in version 00; a later version may add to it.
const TRACE_PARENT: usize = 55;
/// The longest `traceparent` of a later version that is copied.
const LONGEST_TRACE_PARENT: usize = 256;
/// Members of `tracestate`, and the bytes that are copied of it.
const TRACE_STATE: Limits = Limits { members: 32, bytes: 512 };
/// A `tracestate` member larger than this is dropped first if not all fit.
const LARGE_MEMBER: usize = 128;
/// Members of `baggage`, and the bytes that are copied of it.
const BAGGAGE: Limits = Limits { members: 64, bytes: 8192 };

struct Limits {
    members: usize,
    bytes: usize,
}

/// Copies the trace context within its limits.
pub fn copy_trace(from: &Headers, to: &mut Headers) {
    let parent = from.get(names::TRACE_PARENT).filter(|parent| is_trace_parent(parent));
    if let Some(parent) = parent {
        to.insert(names::TRACE_PARENT, parent);
        // It has no meaning without `traceparent`.
        if let Some(state) = from.get(names::TRACE_STATE).and_then(trace_state) {
            to.insert(names::TRACE_STATE, state);
        }
    }
    if let Some(baggage) = from.get(names::BAGGAGE).and_then(|text| list(text, &BAGGAGE, usize::MAX)) {
        to.insert(names::BAGGAGE, baggage);
    }
}

/// Whether a text is a `traceparent`: version, trace, parent and flags in lower-case hexadecimal digits.
#[must_use]
pub fn is_trace_parent(text: &str) -> bool {
    let Some(known) = text.get(..TRACE_PARENT) else { return false };
    let (version, more) = (&known[..2.min(known.len())], &text[TRACE_PARENT..]);
    let parts: Vec<&str> = known.split('-').collect();
    let is_hex = |part: &&str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let is_zero = |part: &str| part.bytes().all(|byte| byte == b'0');
    let [_, trace, parent, _] = parts[..] else { return false };
    let has_form = parts.iter().map(|part| part.len()).eq([2, 32, 16, 2]) && parts.iter().all(is_hex);
    let has_end = match version {
        "00" => more.is_empty(),
        "ff" => false,
        _ => more.is_empty() || (more.starts_with('-') && is_printable(more)),
    };
    has_form && has_end && !is_zero(trace) && !is_zero(parent) && text.len() <= LONGEST_TRACE_PARENT
}

/// As much of `tracestate` as fits. If not all fits, large members are dropped first, as W3C specifies.
fn trace_state(text: &str) -> Option<String> {
    let all = members(text).count();
    let bytes = members(text).map(|member| member.len() + 1).sum::<usize>().saturating_sub(1);
    let fits = all <= TRACE_STATE.members && bytes <= TRACE_STATE.bytes;
    list(text, &TRACE_STATE, if fits { usize::MAX } else { LARGE_MEMBER })
}

/// The first members of a list that fit, each complete; `None` if none fits.
fn list(text: &str, limits: &Limits, longest: usize) -> Option<String> {
    let mut kept = String::new();
    let mut count = 0;
    for member in members(text).filter(|member| member.len() <= longest) {
        let comma = usize::from(!kept.is_empty());
        if count == limits.members {
            break;
        }
        if kept.len() + comma + member.len() > limits.bytes {
            continue;
        }
        if comma > 0 {
            kept.push(',');
        }
        kept.push_str(member);
        count += 1;
    }
    (!kept.is_empty()).then_some(kept)
}

/// The valid members of a list: a key, `=`, and printable ASCII.
fn members(text: &str) -> impl Iterator<Item = &str> {
    let is_member = |member: &&str| {
        member.split_once('=').is_some_and(|(key, _)| !key.trim().is_empty()) && is_printable(member)
    };
    text.split(',').map(|member| member.trim_matches([' ', '\t'])).filter(is_member)
}

fn is_printable(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn copied(headers: &[(&'static str, &str)]) -> Headers {
        let mut to = Headers::new();
        copy_trace(&headers.iter().copied().collect(), &mut to);
        to
    }

    #[test]
    fn only_a_trace_parent_is_one() {
        let later = format!("01{}-more", &PARENT[2..]);
        for good in [PARENT, &later, &format!("cc{}", &PARENT[2..])] {
            assert!(is_trace_parent(good), "{good}");
        }
        for bad in [
            "",
            "x",
            &format!("{PARENT}-more"),
            &PARENT.to_uppercase(),
            &format!("ff{}", &PARENT[2..]),
            &PARENT.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &PARENT.replace("b7ad6b7169203331", &"0".repeat(16)),
            &format!("{later}\n"),
            &format!("{later}{}", "x".repeat(300)),
            &"\u{fc}".repeat(55),
            &"-".repeat(55),
        ] {
            assert!(!is_trace_parent(bad), "{bad}");
        }
    }

    #[test]
    fn baggage_of_a_sender_is_cut_to_whole_members() {
        // Issue 9, row 8: 127,500 bytes were copied, and every message refused that had them.
        let huge =
            (0..1500).map(|number| format!("key{number}={}", "v".repeat(75))).collect::<Vec<_>>().join(",");
        let copied = copied(&[("baggage", &huge)]);
        let baggage = copied.get("baggage").unwrap();
        assert!(baggage.len() <= 8192 && baggage.split(',').count() == 64);
        assert!(
            huge.starts_with(baggage) && baggage.split(',').all(|member| member.ends_with(&"v".repeat(75)))
        );
        // A member that is too large alone is left out alone.
        let large = format!("a=1,b={},c=%20;p=1", "x".repeat(9000));
        assert_eq!(self::copied(&[("baggage", &large)]).get("baggage"), Some("a=1,c=%20;p=1"));
        assert_eq!(self::copied(&[("baggage", &"x".repeat(127_500))]).get("baggage"), None);
        assert_eq!(
            self::copied(&[("baggage", "a=1\u{1b}[2J, ,b\u{fc}=2,=3,c=4")]).get("baggage"),
            Some("c=4")
        );
    }

    #[test]
    fn trace_state_keeps_its_first_members() {
        let state = |text: &str| {
            copied(&[("traceparent", PARENT), ("tracestate", text)]).get("tracestate").map(str::to_owned)
        };
        assert_eq!(state("a=1, b=2").as_deref(), Some("a=1,b=2"));
        let many = (0..100).map(|number| format!("k{number}=v")).collect::<Vec<_>>().join(",");
        assert_eq!(state(&many).unwrap().split(',').count(), 32);
        let large = format!("first=1,large={},m={}", "x".repeat(200), "y".repeat(100));
        assert_eq!(state(&large).unwrap(), large, "all fits");
        let over = format!(
            "large={},{}",
            "x".repeat(400),
            (0..5).map(|n| format!("k{n}={}", "y".repeat(60))).collect::<Vec<_>>().join(",")
        );
        let kept = state(&over).unwrap();
        assert!(kept.len() <= 512 && !kept.contains("large") && kept.split(',').count() == 5, "{kept}");
        assert_eq!(copied(&[("traceparent", "no"), ("tracestate", "a=1")]), Headers::new());
    }
}
