//! The clock of generated message ids on virtual time, with which a seed gives the same ids in every run.

use cap_core::message::IdClock;

use crate::elapsed_ms;

/// The virtual time of this thread's run, as if it had begun a second after ids begin to count. Sequences begin at
/// zero.
#[derive(Debug)]
pub(crate) struct VirtualIdClock;

impl IdClock for VirtualIdClock {
    fn now_ms(&self) -> u64 {
        1000 + elapsed_ms()
    }

    fn sequence_start(&self, _ms: u64) -> u64 {
        0
    }
}
