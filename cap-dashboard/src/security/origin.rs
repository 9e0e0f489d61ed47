//! Where a request comes from, as far as its headers say.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use axum::http::request::Parts;
use axum::http::{HeaderMap, header};

/// The host that the browser has asked for, without the port.
pub(crate) fn host_of(parts: &Parts) -> Option<&str> {
    let header = parts.headers.get(header::HOST).and_then(|value| value.to_str().ok());
    let authority = header.or_else(|| parts.uri.authority().map(axum::http::uri::Authority::as_str))?;
    Some(without_port(authority))
}

fn without_port(authority: &str) -> &str {
    match authority.rfind(':') {
        Some(colon) if !authority[colon..].contains(']') => &authority[..colon],
        _ => authority,
    }
}

/// Whether a name means this machine: `localhost` or a loopback address. Any other name may be made to point here.
pub(crate) fn is_loopback_host(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || bare.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
        || bare.parse::<Ipv6Addr>().is_ok_and(|address| IpAddr::from(address).is_loopback())
}

/// Whether a proxy has passed the request on.
pub(crate) fn is_proxied(headers: &HeaderMap) -> bool {
    ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via"]
        .iter()
        .any(|name| headers.contains_key(*name))
}

/// Whether the browser says that a page of another site has caused the request.
pub(crate) fn is_cross_site(parts: &Parts) -> bool {
    let text = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(site) = text("sec-fetch-site") {
        return !matches!(site, "same-origin" | "none");
    }
    match text("origin") {
        None => false,
        Some(origin) => {
            let host = origin.split_once("://").map(|(_, authority)| without_port(authority));
            host.is_none() || host != host_of(parts)
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use axum::http::Request;

    use super::*;

    #[test]
    fn loopback_is_an_address_or_localhost() {
        for (host, expected) in [
            ("localhost", true),
            ("LOCALHOST", true),
            ("127.0.0.1", true),
            ("127.9.9.9", true),
            ("[::1]", true),
            ("localhost.evil.example", false),
            ("127.0.0.1.nip.io", false),
            ("10.0.0.1", false),
            ("", false),
        ] {
            assert_eq!(is_loopback_host(host), expected, "{host}");
        }
    }

    #[test]
    fn the_port_is_no_part_of_the_host() {
        for (host, expected) in [("a:80", "a"), ("[::1]:80", "[::1]"), ("[::1]", "[::1]"), ("a", "a")] {
            let (parts, ()) = Request::builder().header("host", host).body(()).unwrap().into_parts();
            assert_eq!(host_of(&parts), Some(expected));
        }
    }

    #[test]
    fn another_sites_requests_are_known() {
        let cross = |pairs: &[(&str, &str)]| {
            let mut request = Request::builder().header("host", "cap.example:8080");
            for (name, value) in pairs {
                request = request.header(*name, *value);
            }
            is_cross_site(&request.body(()).unwrap().into_parts().0)
        };
        assert!(!cross(&[]));
        assert!(!cross(&[("sec-fetch-site", "same-origin")]));
        assert!(cross(&[("sec-fetch-site", "same-site")]));
        assert!(cross(&[("sec-fetch-site", "cross-site"), ("origin", "http://cap.example:8080")]));
        assert!(!cross(&[("origin", "http://cap.example:8080")]));
        assert!(cross(&[("origin", "http://evil.example")]));
        assert!(cross(&[("origin", "null")]));
    }
}
