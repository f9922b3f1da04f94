//! Plain tables: columns padded to their widest cell, numbers to the right.

/// Which side a column's cells lean to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// Rows of cells under column names.
#[derive(Debug, Clone)]
pub struct Table {
    columns: Vec<(String, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows. Columns named by an empty text only get no heading line.
    #[must_use]
    pub fn new(columns: &[(&str, Align)]) -> Self {
        Self { columns: columns.iter().map(|(name, align)| ((*name).to_owned(), *align)).collect(), rows: Vec::new() }
    }

    /// Adds a row; cells past the last column are dropped, missing ones are empty.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Whether nothing was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as lines, each indented by two blanks.
    #[must_use]
    pub fn render(&self) -> String {
        let widths: Vec<usize> = self.columns.iter().enumerate().map(|(at, (name, _))| self.width(at, name)).collect();
        let mut text = String::new();
        if self.columns.iter().any(|(name, _)| !name.is_empty()) {
            self.line(&mut text, &widths, |at| self.columns.get(at).map_or("", |(name, _)| name));
            let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
            self.line(&mut text, &widths, |at| rule.get(at).map_or("", String::as_str));
        }
        for row in &self.rows {
            self.line(&mut text, &widths, |at| row.get(at).map_or("", String::as_str));
        }
        text
    }

    fn width(&self, at: usize, name: &str) -> usize {
        let cells = self.rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count());
        cells.max().unwrap_or(0).max(name.chars().count())
    }

    fn line<'a>(&'a self, text: &mut String, widths: &[usize], cell: impl Fn(usize) -> &'a str) {
        let mut line = String::from(" ");
        for (at, ((_, align), width)) in self.columns.iter().zip(widths).enumerate() {
            let cell = cell(at);
            let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
            let (before, after) = if *align == Align::Right { (padding.as_str(), "") } else { ("", padding.as_str()) };
            for piece in [" ", before, cell, after, " "] {
                line.push_str(piece);
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&[("statistic", Align::Left), ("value", Align::Right)]);
        table.row(["mean".into(), "1,853.53".into()]);
        table.row(["größte".into(), "7".into()]);
        assert_eq!(
            table.render(),
            "  statistic     value\n  ---------  --------\n  mean       1,853.53\n  größte            7\n"
        );
    }
}
