//! Times as text.

use std::time::SystemTime;

/// A time in RFC 3339, in UTC, to the millisecond.
pub(crate) fn iso(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

/// A time in RFC 3339, or a duration before now: `2026-01-31T10:00:00Z`, `2h`.
pub(crate) fn parse_time(text: &str) -> Result<SystemTime, String> {
    if let Ok(time) = humantime::parse_rfc3339_weak(text) {
        return Ok(time);
    }
    let ago = humantime::parse_duration(text.trim_end_matches(" ago"));
    ago.ok().and_then(|ago| SystemTime::now().checked_sub(ago)).ok_or_else(|| {
        "not a time such as 2026-01-31T10:00:00Z, nor a duration before now such as 2h".to_owned()
    })
}
