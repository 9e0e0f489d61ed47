//! How many messages a consumer lets the broker send ahead, by the sizes that it has seen. AMQP limits the number of
//! messages, but what is limited is memory.

/// The first window: no size is known yet, and the first message may be of any.
const FIRST: u16 = 1;

/// The most by which it grows at once, when as many messages have come as it lets in.
const GROWTH: u16 = 8;

/// Once it has shrunk, this many times as many messages must come before it grows again, so that mixed sizes do not change
/// it all the time.
const PATIENCE: u16 = 8;

/// The prefetch of a consumer, for about `bytes` of unacknowledged messages. It begins small, grows up to the configured
/// prefetch while messages are small, and shrinks at the first message that is too large for it.
#[derive(Debug)]
pub(crate) struct PrefetchWindow {
    most: u16,
    bytes: usize,
    open: u16,
    /// The expected size: the largest of the last messages.
    largest: usize,
    /// The largest since the window changed, or was last looked at.
    recent: usize,
    /// How many have come since then.
    seen: u16,
    /// It has had to shrink.
    has_shrunk: bool,
}

impl PrefetchWindow {
    /// For at most `most` messages of about `bytes` in all.
    pub(crate) fn new(most: u16, bytes: usize) -> Self {
        // To the broker 0 means "no limit", and lapin would hold them all in memory.
        let most = most.max(1);
        let open = if bytes == usize::MAX { most } else { FIRST };
        Self { most, bytes, open, largest: 0, recent: 0, seen: 0, has_shrunk: false }
    }

    /// How many messages are let in now.
    pub(crate) fn open(&self) -> u16 {
        self.open
    }

    /// How many messages are let in at most.
    pub(crate) fn most(&self) -> u16 {
        self.most
    }

    /// Notes a message, which may change how many are let in.
    pub(crate) fn see(&mut self, size: usize) {
        self.recent = self.recent.max(size);
        self.seen = self.seen.saturating_add(1);
        if self.fitting(self.recent) < self.open {
            self.has_shrunk = true;
            return self.change(self.fitting(self.recent));
        }
        let patience = if self.has_shrunk { PATIENCE } else { 1 };
        if self.seen < self.open.saturating_mul(patience) {
            return;
        }
        // If none of them was as large as the largest, that one was probably an exception.
        self.largest = self.recent.max(self.largest / 2);
        let next = self.fitting(self.largest).min(self.open.saturating_mul(GROWTH));
        if next > self.open.saturating_add(self.open / 8) {
            self.change(next);
        }
        (self.recent, self.seen) = (0, 0);
    }

    fn change(&mut self, next: u16) {
        self.largest = self.largest.max(self.recent);
        (self.open, self.recent, self.seen) = (next, 0, 0);
    }

    /// How many messages of this size are let in.
    fn fitting(&self, size: usize) -> u16 {
        let fitting = self.bytes / size.max(1);
        u16::try_from(fitting).unwrap_or(u16::MAX).clamp(1, self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;
    const NONE: [u16; 0] = [];

    /// The windows that messages of these sizes lead to.
    fn changes(window: &mut PrefetchWindow, sizes: impl IntoIterator<Item = usize>) -> Vec<u16> {
        let mut changes = Vec::new();
        for size in sizes {
            let before = window.open();
            window.see(size);
            changes.extend(Some(window.open()).filter(|open| *open != before));
        }
        changes
    }

    #[test]
    fn begins_with_one_and_grows_with_small_messages() {
        let mut window = PrefetchWindow::new(256, 128 * MIB);
        assert_eq!(window.open(), 1);
        assert_eq!(changes(&mut window, [300; 1]), [8]);
        assert_eq!(changes(&mut window, [300; 7]), NONE);
        assert_eq!(changes(&mut window, [300; 1]), [64]);
        assert_eq!(changes(&mut window, [300; 1000]), [256]);
    }

    #[test]
    fn holds_as_many_large_ones_as_fit() {
        let mut window = PrefetchWindow::new(256, 16 * MIB);
        assert_eq!(changes(&mut window, [8 * MIB; 20]), [2]);
        let mut window = PrefetchWindow::new(256, 16 * MIB);
        assert_eq!(changes(&mut window, [100 * MIB; 20]), NONE, "one at a time");
    }

    #[test]
    fn shrinks_at_the_first_large_one_and_grows_slowly_again() {
        let mut window = PrefetchWindow::new(256, 16 * MIB);
        changes(&mut window, [300; 1000]);
        assert_eq!(changes(&mut window, [8 * MIB]), [2]);
        let grown = changes(&mut window, [300; 2 * 8 + 4 * 8 + 8 * 8]);
        assert_eq!(grown, [4, 8, 16], "as if the largest size were halved each time");
        assert_eq!(changes(&mut window, [8 * MIB]), [2]);
        // Large ones now and then keep it small.
        assert_eq!(changes(&mut window, [8 * MIB, 300, 8 * MIB, 300, 8 * MIB]), NONE);
    }

    #[test]
    fn never_leaves_its_bounds() {
        let mut random = fastrand::Rng::with_seed(9);
        for _ in 0..200 {
            let (most, bytes) = (random.u16(..), random.usize(1..64 * MIB));
            let mut window = PrefetchWindow::new(most, bytes);
            for _ in 0..500 {
                let magnitude = random.u32(1..28);
                let size = random.usize(0..1 << magnitude);
                window.see(size);
                assert!((1..=most.max(1)).contains(&window.open()));
                assert!(window.open() == 1 || usize::from(window.open()) * size <= bytes);
            }
        }
        assert_eq!(PrefetchWindow::new(7, usize::MAX).open(), 7);
    }
}
