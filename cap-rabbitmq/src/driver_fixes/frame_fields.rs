//! Reads the fields of an AMQP frame one after another, and repairs text in place.
//!
//! **Works around:** see [`sanitize`](super::sanitize) and [`broker_version`](super::broker_version), which share it.
//! **Can go when** both have gone.

/// A place in a frame. Each step is `None` when the frame ends before it.
pub(crate) struct Cursor<'a> {
    pub(crate) bytes: &'a mut [u8],
    pub(crate) at: usize,
}

impl Cursor<'_> {
    pub(crate) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(N)?)?.try_into().ok()?;
        self.at += N;
        Some(taken)
    }

    pub(crate) fn skip(&mut self, length: usize) -> Option<()> {
        let after = self.at.checked_add(length)?;
        (after <= self.bytes.len()).then(|| self.at = after)
    }

    /// Passes the length of a long field and returns where that field ends.
    pub(crate) fn long_length(&mut self) -> Option<usize> {
        let length = usize::try_from(u32::from_be_bytes(self.take()?)).ok()?;
        let end = self.at.checked_add(length)?;
        (end <= self.bytes.len()).then_some(end)
    }

    /// Passes a short text and makes it UTF-8 on the way.
    pub(crate) fn short_text(&mut self) -> Option<()> {
        let [length] = self.take()?;
        let start = self.at;
        self.skip(usize::from(length))?;
        clean_text(&mut self.bytes[start..self.at]);
        Some(())
    }

    /// Passes a value of a table, nested ones as a whole.
    pub(crate) fn skip_value(&mut self, kind: u8) -> Option<()> {
        match kind {
            b'V' => Some(()),
            b't' | b'b' | b'B' => self.skip(1),
            b's' | b'U' | b'u' => self.skip(2),
            b'I' | b'i' | b'f' => self.skip(4),
            b'D' => self.skip(5),
            b'L' | b'l' | b'd' | b'T' => self.skip(8),
            b'S' | b'x' | b'F' | b'A' => {
                self.at = self.long_length()?;
                Some(())
            }
            _ => None,
        }
    }
}

/// Writes `?` over each byte that is not part of a UTF-8 character.
fn clean_text(bytes: &mut [u8]) {
    let mut good = 0;
    while let Err(error) = std::str::from_utf8(&bytes[good..]) {
        let bad = good + error.valid_up_to();
        good = error.error_len().map_or(bytes.len(), |length| bad + length);
        bytes[bad..good].fill(b'?');
    }
}
