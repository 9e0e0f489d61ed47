//! Where a URL names its server.

use std::ops::Range;

/// Where host and port stand in a URL.
pub(crate) fn host_and_port(url: &str) -> Range<usize> {
    let authority = url.find("://").map_or(0, |at| at + 3);
    let end = url[authority..].find(['/', '?']).map_or(url.len(), |at| authority + at);
    let start = url[authority..end].rfind('@').map_or(authority, |at| authority + at + 1);
    start..end
}

/// The server of a URL, with the usual port of its protocol if it names none.
pub(crate) fn with_default_port(url: &str) -> String {
    let place = &url[host_and_port(url)];
    if place.rsplit(']').next().unwrap_or(place).contains(':') {
        return place.to_owned();
    }
    let port = if url.starts_with("amqps") {
        5671
    } else if url.starts_with("amqp") {
        5672
    } else {
        5432
    };
    format!("{place}:{port}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_found_in_urls_of_all_forms() {
        for (url, expected) in [
            ("amqp://guest:guest@127.0.0.1:5672", "127.0.0.1:5672"),
            ("amqp://test@test/%2f?heartbeat=1", "test:5672"),
            ("amqps://rabbit", "rabbit:5671"),
            ("postgres://u:p@[::1]/shop", "[::1]:5432"),
            ("postgres://[::1]:7/shop?sslmode=disable", "[::1]:7"),
        ] {
            assert_eq!(with_default_port(url), expected, "{url}");
        }
    }
}
