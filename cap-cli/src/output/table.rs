//! Tables for people.

use comfy_table::{ContentArrangement, Table as Grid, presets};

/// The most characters of a cell that may be long.
const LONGEST_CELL: usize = 100;

/// A table that fits the terminal; without a terminal each row is one line.
#[derive(Debug)]
pub(crate) struct Table(Grid);

impl Table {
    pub(crate) fn new(titles: &[&str]) -> Self {
        let mut grid = Grid::new();
        grid.load_style(presets::NOTHING);
        grid.set_content_arrangement(ContentArrangement::Dynamic);
        grid.set_header(titles.iter().map(|title| title.to_uppercase()).collect::<Vec<_>>());
        Self(grid)
    }

    pub(crate) fn row<T: Into<String>>(&mut self, cells: impl IntoIterator<Item = T>) {
        self.0.add_row(cells.into_iter().map(|cell| one_line(&cell.into())).collect::<Vec<_>>());
    }

    pub(crate) fn text(&self) -> String {
        self.0.to_string().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
    }
}

/// The beginning of a text on one line. Control characters, which could change the terminal, are replaced.
pub(crate) fn one_line(text: &str) -> String {
    let mut line: String =
        text.chars().take(LONGEST_CELL).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(LONGEST_CELL).is_some() {
        line.push_str("...");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_cannot_control_the_terminal() {
        assert_eq!(one_line("a\x1b[31m\nb"), "a [31m b");
        assert_eq!(one_line(&"x".repeat(200)).len(), LONGEST_CELL + 3);
    }
}
