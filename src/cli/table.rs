//! Columns that stand below each other.

use super::output::{Look, Style};

/// How a column is filled up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    /// Texts.
    Left,
    /// Numbers.
    Right,
}

/// A table with a line of headings.
#[derive(Debug)]
pub(super) struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<(String, Option<Style>)>>,
}

impl Table {
    /// An empty table with these columns.
    pub(super) fn new(columns: &[(&'static str, Align)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// One more row, a cell for each column.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = (String, Option<Style>)>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Its lines. What comes from a server is made harmless here.
    pub(super) fn render(&self, look: Look) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            let widths = cells.map(|(cell, _)| look.harmless(cell).chars().count());
            widths.chain([self.columns[column].0.len()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let headings = self.columns.iter().map(|(name, _)| ((*name).to_owned(), Some(Style::Dim))).collect();
        let line = |cells: &Vec<(String, Option<Style>)>| {
            let cells = cells.iter().zip(&widths).zip(&self.columns);
            let cells = cells.map(|((cell, width), (_, align))| fill(look, cell, *width, *align));
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
        };
        std::iter::once(&headings).chain(&self.rows).map(line).collect()
    }
}

/// The colour goes around the text and not around the filling.
fn fill(look: Look, (text, style): &(String, Option<Style>), width: usize, align: Align) -> String {
    let text = look.harmless(text);
    let padding = " ".repeat(width - text.chars().count());
    let text = style.map_or(text.clone(), |style| look.paint(style, &text).into_owned().into());
    match align {
        Align::Left => format!("{text}{padding}"),
        Align::Right => format!("{padding}{text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_aligned_left_and_numbers_right() {
        let mut table = Table::new(&[("NAME", Align::Left), ("N", Align::Right)]);
        table.row([("a".into(), None), ("1234".into(), None)]);
        table.row([("löng".into(), Some(Style::Red)), ("5".into(), None)]);
        assert_eq!(table.render(Look::plain()), "NAME     N\na     1234\nlöng     5\n");
    }
}
