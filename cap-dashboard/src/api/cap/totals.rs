//! The header for counts that stop.

use axum::http::{HeaderMap, HeaderName, HeaderValue};

/// Says that a number is a lower bound.
const TOTALS_CAPPED: HeaderName = HeaderName::from_static("cap-totals-capped");

/// The headers of a response with counts.
pub(super) fn capped(is_capped: bool) -> HeaderMap {
    let header = is_capped.then(|| (TOTALS_CAPPED, HeaderValue::from_static("true")));
    header.into_iter().collect()
}
