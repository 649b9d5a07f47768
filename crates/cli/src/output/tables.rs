//! Listings: aligned columns on a terminal, tab-separated fields elsewhere.

use super::shown;
use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Width, presets};

/// A listing.
#[derive(Debug)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

/// A column's heading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    /// A name or a moment: never broken over lines, because people copy it.
    Whole(&'static str),
    /// Words.
    Text(&'static str),
    /// Numbers, aligned to the right.
    Number(&'static str),
}

impl Column {
    fn name(self) -> &'static str {
        match self {
            Column::Whole(name) | Column::Text(name) | Column::Number(name) => name,
        }
    }
}

impl Table {
    /// A listing with these columns and one row for each record.
    pub fn new<T>(columns: &[Column], records: &[T], row: impl Fn(&T) -> Vec<String>) -> Table {
        let rows = records.iter().map(|r| row(r).iter().map(|cell| shown(cell)).collect()).collect();
        Table { columns: columns.to_vec(), rows }
    }

    /// The text, for a terminal or for a pipe.
    pub fn render(&self, terminal: bool) -> String {
        if terminal { self.aligned(None) } else { self.separated() }
    }

    fn aligned(&self, width: Option<u16>) -> String {
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
        if let Some(width) = width {
            table.set_width(width);
        }
        table.set_header(self.columns.iter().map(|c| c.name()));
        table.add_rows(self.rows.iter());
        for (at, column) in self.columns.iter().enumerate() {
            if let Some(drawn) = table.column_mut(at) {
                drawn.set_padding((0, 2));
                match column {
                    Column::Text(name) => {
                        drawn.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(self.narrowest(at, name))));
                    }
                    Column::Whole(_) => {
                        drawn.set_constraint(ColumnConstraint::ContentWidth);
                    }
                    Column::Number(_) => {
                        drawn.set_constraint(ColumnConstraint::ContentWidth).set_cell_alignment(CellAlignment::Right);
                    }
                }
            }
        }
        let mut text = String::new();
        for line in table.lines() {
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    /// Words are broken over lines down to this width; below it a line rather leaves the terminal.
    fn narrowest(&self, at: usize, heading: &str) -> u16 {
        let longest = self.rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
        let width = longest.min(16).max(heading.len());
        // The padding belongs to it.
        u16::try_from(width + 2).unwrap_or(u16::MAX)
    }

    /// Cells hold neither tabs nor line breaks: [`shown`] has made them visible.
    fn separated(&self) -> String {
        let heading: Vec<&str> = self.columns.iter().map(|c| c.name()).collect();
        let mut text = heading.join("\t");
        text.push('\n');
        for row in &self.rows {
            text.push_str(&row.join("\t"));
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let records = [("web1", 5), ("a\tb\u{1b}", 12345)];
        Table::new(&[Column::Text("NAME"), Column::Number("FILES")], &records, |(name, files)| vec![name.to_string(), files.to_string()])
    }

    #[test]
    fn off_a_terminal_fields_are_separated_by_tabs() {
        assert_eq!(table().render(false), "NAME\tFILES\nweb1\t5\na\\tb\\u{1b}\t12345\n");
    }

    #[test]
    fn on_a_narrow_terminal_names_stay_in_one_piece() {
        let records = ["a-very-long-name-of-an-archive-2026-11-22"];
        let columns = [Column::Whole("NAME"), Column::Text("PATHS")];
        let table = Table::new(&columns, &records, |name| vec![name.to_string(), "many words that may be broken".into()]);
        let text = table.aligned(Some(60));
        assert!(text.contains(records[0]), "{text}");
        assert!(text.lines().count() > 2 && text.lines().all(|l| l.len() <= 60), "{text}");
    }

    #[test]
    fn on_a_terminal_columns_are_aligned() {
        assert_eq!(table().render(true), "NAME        FILES\nweb1            5\na\\tb\\u{1b}  12345\n");
    }
}
