//! A clock that all processes of this machine share, and that nobody turns.

use rustix::time::{ClockId, clock_gettime};

/// Microseconds since some moment. It asks the kernel itself, so that a process whose clock is faked has it, too.
pub(crate) fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    seconds * 1_000_000 + u64::try_from(time.tv_nsec).unwrap_or_default() / 1000
}
