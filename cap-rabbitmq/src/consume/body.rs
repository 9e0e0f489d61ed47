//! The body of a received message: lapin's buffer, which is shared and never copied.

use bytes::Bytes;

/// From this size on, a body is returned to the operating system as soon as it is freed.
const LARGE: usize = 1024 * 1024;

/// Makes lapin's buffer the body of a message, without copying it.
pub(crate) fn body(buffer: Vec<u8>) -> Bytes {
    if buffer.len() < LARGE { Bytes::from(buffer) } else { Bytes::from_owner(LargeBody(buffer)) }
}

/// A body that is shrunk before it is freed.
///
/// glibc maps large blocks from the operating system, and unmaps them when they are freed. But the first such block of up
/// to 32 MiB that is freed makes it keep blocks of that size from then on, in each thread's own heap. A block that was
/// shrunk first is small when it is freed, so that this does not happen.
struct LargeBody(Vec<u8>);

impl AsRef<[u8]> for LargeBody {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for LargeBody {
    fn drop(&mut self) {
        /// Two pages: smaller blocks are kept in a cache of the thread, and would split the space that they were in.
        const REST: usize = 8 * 1024;
        self.0.truncate(REST);
        self.0.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_buffer_itself_at_any_size() {
        for size in [0, 10, LARGE - 1, LARGE, 3 * LARGE] {
            let buffer = vec![7; size];
            let address = buffer.as_ptr();
            let body = body(buffer);
            assert_eq!(body.len(), size);
            assert!(size == 0 || body.as_ptr() == address, "{size} bytes were copied");
        }
    }
}
