//! Sanitizes the bytes from the broker before lapin reads them.
//!
//! **Works around:** lapin ends the whole connection when a name in a message is not UTF-8, or when a header frame is longer
//! than agreed; and its reader recurses once for each level of a nested table, until the stack overflows and the process
//! dies. The broker forwards all three, and redelivers the message afterwards. It also cuts its own reasons for closing
//! something to a length, possibly in the middle of a character.
//!
//! So every frame with text of a sender, or with a reason, is repaired in place: bytes that are not UTF-8 become `?`, and
//! a table that nests too deep becomes a byte array. No length changes, except that a frame that is too long loses its
//! largest headers.
//!
//! **Can go when** lapin's reader takes names that are not UTF-8 and frames that are longer than agreed, and limits the
//! nesting of tables.

use crate::driver_fixes::broker_version::BrokerVersion;
use crate::driver_fixes::frame_fields::Cursor;

/// A frame's type, channel and size, before its payload; one more byte ends it.
const HEAD: usize = 7;
const METHOD: u8 = 1;
const CONTENT_HEADER: u8 = 2;
/// `connection.start`: class 10, method 10.
const START: [u8; 4] = [0, 10, 0, 10];
/// `connection.close` and `channel.close`: classes 10 and 20, methods 50 and 40.
const CLOSE_CONNECTION: [u8; 4] = [0, 10, 0, 50];
const CLOSE_CHANNEL: [u8; 4] = [0, 20, 0, 40];
/// `basic.deliver` and `basic.return`: class 60, methods 60 and 50. The other methods hold our own names only.
const DELIVER: [u8; 4] = [0, 60, 0, 60];
const RETURN: [u8; 4] = [0, 60, 0, 50];
/// A frame longer than this is not gathered, but passed on as it comes. It is far more than what is agreed on, since
/// a broker that agreed on more with a sender sends that sender's headers in one frame all the same.
const MOST_GATHERED: usize = 16 * 1024 * 1024;
/// How deep the value of a header may nest.
pub(crate) const MAX_DEPTH: usize = 32;

/// Finds the frames in a stream of bytes and cleans those that need it.
#[derive(Debug, Default)]
pub(crate) struct Sanitizer {
    /// Bytes of a frame that is not whole yet.
    partial: Vec<u8>,
    /// How many bytes of the current frame pass unchanged.
    passing: usize,
    /// The broker's name and version, once they are known.
    pub(crate) broker: Option<BrokerVersion>,
}

impl Sanitizer {
    /// Takes bytes from the socket and appends to `clean` what may go on. `max_frame` is what was agreed, if it is
    /// known yet.
    pub(crate) fn push(&mut self, mut bytes: &[u8], max_frame: usize, clean: &mut Vec<u8>) {
        while !bytes.is_empty() {
            if self.passing > 0 {
                let (now, later) = bytes.split_at(self.passing.min(bytes.len()));
                clean.extend_from_slice(now);
                self.passing -= now.len();
                bytes = later;
                continue;
            }
            let wanted = self.wanted();
            let (now, later) = bytes.split_at((wanted - self.partial.len()).min(bytes.len()));
            self.partial.extend_from_slice(now);
            bytes = later;
            if self.partial.len() == wanted {
                self.advance(max_frame, clean);
            }
        }
    }

    /// How long `partial` must be for the next step: the head, or the whole frame.
    fn wanted(&self) -> usize {
        if self.partial.len() < HEAD { HEAD } else { frame_length(&self.partial) }
    }

    fn advance(&mut self, max_frame: usize, clean: &mut Vec<u8>) {
        let kind = self.partial[0];
        let length = frame_length(&self.partial);
        let gathered = (kind == METHOD || kind == CONTENT_HEADER) && length <= MOST_GATHERED;
        if self.partial.len() < length && gathered {
            return;
        }
        self.passing = length - self.partial.len();
        if self.passing == 0 {
            if let Some(start) = self.partial[HEAD..length - 1].strip_prefix(&START) {
                self.broker = BrokerVersion::read(start);
            }
            clean_frame(&mut self.partial, max_frame);
        }
        clean.append(&mut self.partial);
    }
}

fn frame_length(head: &[u8]) -> usize {
    let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
    HEAD + usize::try_from(size).unwrap_or(usize::MAX - HEAD - 1) + 1
}

/// Cleans one whole frame. A malformed one is left as it is from the first mistake on, for lapin to reject.
fn clean_frame(frame: &mut Vec<u8>, max_frame: usize) {
    let kind = frame[0];
    let end = frame.len() - 1;
    let mut cursor = Cursor { bytes: &mut frame[HEAD..end], at: 0 };
    if kind == METHOD {
        clean_method(&mut cursor);
    } else if let Some(table) = clean_content_header(&mut cursor)
        && frame.len() > max_frame
    {
        drop_largest_headers(frame, HEAD + table, max_frame);
    }
}

fn clean_method(cursor: &mut Cursor<'_>) -> Option<()> {
    match cursor.take::<4>()? {
        CLOSE_CONNECTION | CLOSE_CHANNEL => {
            cursor.skip(2)?;
            return cursor.short_text();
        }
        DELIVER => {
            cursor.short_text()?;
            cursor.skip(8 + 1)?;
        }
        RETURN => {
            cursor.skip(2)?;
            cursor.short_text()?;
        }
        _ => return None,
    }
    // Exchange and routing key.
    cursor.short_text()?;
    cursor.short_text()
}

/// Cleans the properties of a message. Returns where the table of headers stands, if there is one.
fn clean_content_header(cursor: &mut Cursor<'_>) -> Option<usize> {
    const HEADERS: u16 = 1 << 13;
    // In the order of the wire: the flag of a property, and how long it is; 0 stands for a short text.
    const PROPERTIES: [(u16, usize); 14] = [
        (1 << 15, 0), // content-type
        (1 << 14, 0), // content-encoding
        (HEADERS, 0),
        (1 << 12, 1), // delivery-mode
        (1 << 11, 1), // priority
        (1 << 10, 0), // correlation-id
        (1 << 9, 0),  // reply-to
        (1 << 8, 0),  // expiration
        (1 << 7, 0),  // message-id
        (1 << 6, 8),  // timestamp
        (1 << 5, 0),  // type
        (1 << 4, 0),  // user-id
        (1 << 3, 0),  // app-id
        (1 << 2, 0),  // cluster-id
    ];
    // Class, weight and the body's size.
    cursor.skip(2 + 2 + 8)?;
    let flags = u16::from_be_bytes(cursor.take()?);
    let mut table = None;
    for (flag, length) in PROPERTIES {
        if flags & flag == 0 {
            continue;
        }
        if flag == HEADERS {
            table = Some(cursor.at);
            clean_table(cursor)?;
        } else if length == 0 {
            cursor.short_text()?;
        } else {
            cursor.skip(length)?;
        }
    }
    table
}

/// Cleans a table without recursing, however deep it is.
fn clean_table(cursor: &mut Cursor<'_>) -> Option<()> {
    struct Level {
        end: usize,
        has_names: bool,
    }
    let end = cursor.long_length()?;
    let mut levels = vec![Level { end, has_names: true }];
    while let Some(level) = levels.last() {
        if cursor.at >= level.end {
            levels.pop();
            continue;
        }
        if level.has_names {
            cursor.short_text()?;
        }
        let kind_at = cursor.at;
        let [kind] = cursor.take()?;
        if kind == b'F' || kind == b'A' {
            let end = cursor.long_length()?;
            // The table of headers itself is not counted.
            if levels.len() <= MAX_DEPTH {
                levels.push(Level { end, has_names: kind == b'F' });
            } else {
                cursor.bytes[kind_at] = b'x';
                cursor.at = end;
            }
        } else {
            cursor.skip_value(kind)?;
        }
    }
    Some(())
}

/// Makes a header frame fit by leaving out as many of its largest headers as it takes. The broker sends such a frame
/// when it adds a header of its own, such as `x-delivery-count`, to a message that filled the frame already.
fn drop_largest_headers(frame: &mut Vec<u8>, table: usize, max_frame: usize) -> Option<()> {
    let mut cursor = Cursor { bytes: frame, at: table };
    let end = cursor.long_length()?;
    let mut headers = Vec::new();
    while cursor.at < end {
        let start = cursor.at;
        cursor.short_text()?;
        let [kind] = cursor.take()?;
        cursor.skip_value(kind)?;
        headers.push(start..cursor.at);
    }
    // A header that ends behind the table: the frame is malformed, and the sum of the headers is no length of the table.
    if cursor.at != end {
        return None;
    }
    headers.sort_by_key(|header| std::cmp::Reverse(header.len()));
    let mut excess = frame.len().saturating_sub(max_frame);
    let mut dropped = Vec::new();
    for header in headers {
        if excess == 0 {
            break;
        }
        excess = excess.saturating_sub(header.len());
        dropped.push(header);
    }
    dropped.sort_by_key(|header| header.start);
    let mut table_length = end - table - 4;
    // From the back, so that what is still to be left out does not move.
    for header in dropped.into_iter().rev() {
        table_length -= header.len();
        frame.drain(header);
    }
    let payload_length = frame.len() - HEAD - 1;
    frame[table..table + 4].copy_from_slice(&u32::try_from(table_length).ok()?.to_be_bytes());
    frame[3..HEAD].copy_from_slice(&u32::try_from(payload_length).ok()?.to_be_bytes());
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap();
        [&[kind, 0, 1][..], &length.to_be_bytes(), payload, &[0xCE]].concat()
    }

    /// A header frame with these headers and the message-id `id`.
    fn header_frame(table: &[u8]) -> Vec<u8> {
        let length = u32::try_from(table.len()).unwrap();
        let flags = ((1u16 << 13) | (1 << 7)).to_be_bytes();
        frame(
            CONTENT_HEADER,
            &[&[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], &flags, &length.to_be_bytes(), table, b"\x02id"]
                .concat(),
        )
    }

    fn long(kind: u8, content: &[u8]) -> Vec<u8> {
        [&[kind][..], &u32::try_from(content.len()).unwrap().to_be_bytes(), content].concat()
    }

    fn named(name: &[u8], value: &[u8]) -> Vec<u8> {
        [&[u8::try_from(name.len()).unwrap()][..], name, value].concat()
    }

    fn sanitized(bytes: &[u8], max_frame: usize) -> Vec<u8> {
        let mut clean = Vec::new();
        Sanitizer::default().push(bytes, max_frame, &mut clean);
        // However the bytes are cut, the same comes out.
        for size in [1, 3, 7, 8, 64] {
            let (mut sanitizer, mut pieces) = (Sanitizer::default(), Vec::new());
            bytes.chunks(size).for_each(|piece| sanitizer.push(piece, max_frame, &mut pieces));
            assert_eq!(pieces, clean);
        }
        clean
    }

    #[test]
    fn well_formed_frames_pass_unchanged() {
        let nested = long(b'F', &named("grün".as_bytes(), &long(b'A', b"t\x01VI\0\0\0\x05")));
        let table = [named(b"a", &long(b'S', b"\xff\xfe")), named(b"n", &nested)].concat();
        let stream = [
            frame(METHOD, b"\0\x0a\0\x0a\xff\xff"),
            frame(METHOD, b"\0\x3c\0\x3c\x01c\0\0\0\0\0\0\0\x01\0\x01e\x03a.b"),
            header_frame(&table),
            frame(3, &[0xff; 300]),
            frame(8, b""),
        ]
        .concat();
        assert_eq!(sanitized(&stream, 4096), stream);
    }

    #[test]
    fn names_that_are_not_text_are_repaired_in_place() {
        let deliver = |key: &[u8]| {
            let mut payload = b"\0\x3c\0\x3c\x01c\0\0\0\0\0\0\0\x01\0\x01e".to_vec();
            payload.extend(named(key, b""));
            frame(METHOD, &payload)
        };
        assert_eq!(sanitized(&deliver(b"a\xff.\xc3"), 4096), deliver(b"a?.?"));
        let table = |name: &[u8]| header_frame(&named(name, &long(b'F', &named(name, b"V"))));
        assert_eq!(sanitized(&table(b"\xe9t\xe9"), 4096), table(b"?t?"));
    }

    #[test]
    fn reason_cut_within_a_character_is_repaired() {
        for class in [b"\0\x0a\0\x32", b"\0\x14\0\x28"] {
            let close = |text: &[u8]| {
                frame(METHOD, &[&class[..], b"\x01\x94", &named(text, b""), b"\0\x32\0\x0a"].concat())
            };
            assert_eq!(sanitized(&close("no queue 'ü".as_bytes()), 4096), close("no queue 'ü".as_bytes()));
            assert_eq!(sanitized(&close(b"no queue '\xe5\x95"), 4096), close(b"no queue '??"));
        }
    }

    #[test]
    fn endless_frame_is_not_gathered() {
        let mut endless = vec![METHOD, 0, 1, 0xff, 0xff, 0xff, 0xff];
        endless.extend([0; 100]);
        assert_eq!(sanitized(&endless, 4096), endless);
        let (mut sanitizer, mut clean) = (Sanitizer::default(), Vec::new());
        sanitizer.push(&endless, 4096, &mut clean);
        assert!(sanitizer.partial.is_empty());
    }

    #[test]
    fn values_that_nest_too_deep_become_bytes() {
        let deep = |levels: usize, last: &[u8]| {
            let inner = (0..levels).fold(last.to_vec(), |inner, _| long(b'F', &named(b"", &inner)));
            header_frame(&named(b"h", &inner))
        };
        let bytes = |content: &[u8]| long(b'x', content);
        let most = MAX_DEPTH;
        assert_eq!(sanitized(&deep(most, b"V"), 1 << 20), deep(most, b"V"));
        let too_deep = long(b'F', &named(b"", b"V"));
        assert_eq!(sanitized(&deep(most, &too_deep), 1 << 20), deep(most, &bytes(&named(b"", b"V"))));
        // As deep as a frame can hold: must come to an end, on a small stack.
        let abyss = deep(15_000, b"V");
        assert_eq!(sanitized(&abyss, 1 << 20).len(), abyss.len());
    }

    #[test]
    fn too_long_frame_with_a_header_beyond_its_table_stays() {
        // The length of the table ends within its only header, whose value goes on to the end of the frame.
        let mut frame = header_frame(&named(b"a", &long(b'S', &[b'x'; 600])));
        frame[HEAD + 14..HEAD + 18].copy_from_slice(&8u32.to_be_bytes());
        assert_eq!(sanitized(&frame, 400), frame);
    }

    #[test]
    fn too_long_frame_loses_its_largest_headers() {
        let small = named(b"cap-msg-id", &long(b'S', b"7"));
        let large = |name: &[u8], size| named(name, &long(b'S', &vec![b'x'; size]));
        let table = [large(b"a", 600), small.clone(), large(b"b", 900), large(b"c", 100)].concat();
        let kept = [small, large(b"c", 100)].concat();
        assert_eq!(sanitized(&header_frame(&table), 400), header_frame(&kept));
        let kept_more = [large(b"a", 600), kept].concat();
        assert_eq!(sanitized(&header_frame(&table), 900), header_frame(&kept_more));
    }

    #[test]
    fn malformed_frames_do_not_panic() {
        for length in 0..64 {
            for kind in [METHOD, CONTENT_HEADER] {
                let garbage: Vec<u8> = (0..length).map(|n: u8| n.wrapping_mul(89) ^ 0x3c).collect();
                assert_eq!(sanitized(&frame(kind, &garbage), 4096).len(), garbage.len() + 8);
            }
        }
    }
}
