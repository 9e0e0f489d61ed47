//! What a broker sends, from the socket's bytes to the headers of a message; and the url by which it is found.

use amq_protocol::frame::{AMQPFrame, parse_frame};
use cap_rabbitmq::XDeath;
use lapin::types::ShortString;

use crate::connection::address::{Address, redacted};
use crate::consume::incoming_headers::{incoming_headers, incoming_properties};
use crate::driver_fixes::broker_version::BrokerVersion;
use crate::driver_fixes::sanitize::Sanitizer;
use crate::text;

/// The longest frame that such a connection agrees on.
const MAX_FRAME: usize = 4096;

/// Bytes from the socket. The first byte says where they are cut.
///
/// They may be anything: the same comes out however they are cut, sanitizing it again changes nothing, lapin's reader
/// takes what came out without running out of stack, and the headers in it become text.
pub fn amqp_frames(data: &[u8]) {
    let Some((cut, bytes)) = data.split_first() else { return };
    let clean = sanitized([bytes]);
    assert!(clean.len() <= bytes.len(), "sanitizing adds nothing");
    let size = usize::from(*cut).max(1);
    assert_eq!(sanitized(bytes.chunks(size)), clean, "the same comes out however the bytes are cut");
    assert_eq!(sanitized([clean.as_slice()]), clean, "what is clean stays as it is");
    let mut rest = clean.as_slice();
    while let Ok((after, frame)) = parse_frame(rest) {
        rest = after;
        if let AMQPFrame::Header(_, header) = frame {
            let headers = incoming_headers(&header.properties);
            let stored = cap_core::message::Headers::from_json(&headers.to_json()).ok();
            assert_eq!(stored, Some(headers), "the headers can be stored");
            let _ = incoming_properties(&header.properties, &ShortString::from("exchange"));
        }
    }
    let _ = BrokerVersion::read(bytes).map(|broker| broker.limits_deliveries());
}

fn sanitized<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let (mut sanitizer, mut clean) = (Sanitizer::default(), Vec::new());
    for piece in pieces {
        sanitizer.push(piece, MAX_FRAME, &mut clean);
    }
    clean
}

/// Any text as a url. What is shown of it holds no user and no password.
pub fn broker_url(data: &[u8]) {
    const SECRET: &str = "Pa55w0rd-";
    let text = text(data);
    if let Ok(address) = Address::parse(&text, &[]) {
        assert!(!address.hosts().is_empty());
        for host in address.hosts() {
            let _ = (address.uri(host, 20), host.to_string());
        }
        let _ = (address.user(), address.vhost(), address.is_tls());
    }
    // The same url with a password that nothing else in it holds.
    let parts = text.split_once("://").filter(|_| !text.contains(SECRET));
    let Some((scheme, rest)) = parts else { return };
    let with_secret = format!("{scheme}://user:{SECRET}{rest}");
    let hidden = !redacted(&with_secret).contains(SECRET) || !rest.contains('@');
    assert!(hidden, "{with_secret:?} is shown as {:?}", redacted(&with_secret));
}

/// The header `x-death`, from a broker, or from somebody who pretends to be one.
pub fn x_death(data: &[u8]) {
    let headers = [("x-death", text(data))].into_iter().collect();
    if let Ok(deaths) = XDeath::read(&headers) {
        let _ = format!("{deaths:?}");
    }
}
