//! Numbers as people read them.

/// `1234567` as `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1234567` as `1.2M`: three digits at most.
#[allow(clippy::cast_precision_loss, reason = "it is shown with two digits")]
pub(crate) fn short(number: u64) -> String {
    let (unit, size) = match number {
        0..1_000 => return number.to_string(),
        1_000..1_000_000 => ("k", 1e3),
        1_000_000..1_000_000_000 => ("M", 1e6),
        _ => ("G", 1e9),
    };
    let value = number as f64 / size;
    if value < 9.95 { format!("{value:.1}{unit}") } else { format!("{value:.0}{unit}") }
}

/// A size such as `3.4 kB`.
#[allow(clippy::cast_precision_loss, reason = "it is shown with two digits")]
pub(crate) fn bytes(size: usize) -> String {
    match size {
        0..1_000 => format!("{size} B"),
        1_000..1_000_000 => format!("{:.1} kB", size as f64 / 1e3),
        _ => format!("{:.1} MB", size as f64 / 1e6),
    }
}

/// A number that may be a lower bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Amount {
    pub(crate) count: u64,
    pub(crate) is_capped: bool,
}

impl Amount {
    /// In full, with a `+` if there may be more.
    pub(crate) fn full(&self) -> String {
        format!("{}{}", grouped(self.count), if self.is_capped { "+" } else { "" })
    }

    /// In short, with a `+` if there may be more.
    pub(crate) fn short(&self) -> String {
        format!("{}{}", short(self.count), if self.is_capped { "+" } else { "" })
    }

    pub(crate) fn is_zero(&self) -> bool {
        self.count == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_shortened() {
        for (number, full, brief) in [
            (0, "0", "0"),
            (999, "999", "999"),
            (1_000, "1,000", "1.0k"),
            (9_960, "9,960", "10k"),
            (123_456, "123,456", "123k"),
            (1_234_567, "1,234,567", "1.2M"),
        ] {
            assert_eq!((grouped(number).as_str(), short(number).as_str()), (full, brief));
        }
    }
}
