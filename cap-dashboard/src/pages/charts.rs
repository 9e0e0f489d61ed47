//! Charts as SVG paths, computed here so that a page needs no script to draw them.

use std::fmt::Write as _;

/// A line over its area, as two SVG paths.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Line {
    pub(crate) stroke: String,
    pub(crate) area: String,
}

/// The line of these values in a box. One value is a flat line; the highest value, but at least `at_least`, is at the top.
#[allow(clippy::cast_precision_loss, reason = "a pixel is coarser")]
pub(crate) fn line(values: &[u64], width: u32, height: u32, at_least: u64) -> Line {
    let top = values.iter().copied().max().unwrap_or_default().max(at_least).max(1) as f64;
    let values = if let [one] = values { &[*one, *one] } else { values };
    if values.len() < 2 {
        return Line::default();
    }
    let (width, height) = (f64::from(width), f64::from(height));
    let step = width / (values.len() - 1) as f64;
    let mut stroke = String::with_capacity(values.len() * 12);
    for (at, value) in values.iter().enumerate() {
        // A pixel above and below, so that the line is not cut.
        let y = (height - 2.0).mul_add(1.0 - *value as f64 / top, 1.0);
        let _ = write!(stroke, "{}{:.1} {y:.1}", if at == 0 { "M" } else { "L" }, step * at as f64);
    }
    let area = format!("{stroke}L{width} {height}L0 {height}Z");
    Line { stroke, area }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_value_is_at_the_top() {
        assert_eq!(line(&[0, 5, 10], 100, 22, 0).stroke, "M0.0 21.0L50.0 11.0L100.0 1.0");
        assert_eq!(line(&[3], 10, 22, 6).stroke, "M0.0 11.0L10.0 11.0");
        assert_eq!(line(&[], 10, 10, 0), Line::default());
    }
}
