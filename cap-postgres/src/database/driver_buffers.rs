//! Large messages on a connection: the memory of the driver's two buffers. It encodes the arguments of a statement into one
//! of them, and copies that into the other, which it writes to the socket.

use sqlx::postgres::PgArguments;
use sqlx::{Arguments as _, Connection as _, PgConnection};

/// From this size on it is worth while to look after the driver's buffers.
const LARGE: usize = 1024 * 1024;

/// The arguments of a statement that carries this number of bytes of messages, with room for them.
///
/// The room is made at once, as doubling it would copy large bodies again and again. It is larger than 32 MiB: from there on
/// glibc returns a block to the operating system when it is freed, always and on every thread. What is not used of it takes
/// addresses and no memory.
pub(crate) fn arguments(bytes: usize) -> PgArguments {
    const RETURNED: usize = 33 * 1024 * 1024;
    /// For the columns that are small.
    const REST: usize = 64 * 1024;
    let mut arguments = PgArguments::default();
    if bytes >= LARGE {
        arguments.reserve(0, bytes.saturating_add(REST).max(RETURNED));
    }
    arguments
}

/// Returns the memory of the connection's buffers, which would stay as large as the largest message, after a call that
/// wrote or read this number of bytes of messages.
pub(crate) fn shrink_after(connection: &mut PgConnection, bytes: usize) {
    if bytes >= LARGE {
        connection.shrink_buffers();
    }
}
