//! Text in columns, for people.

use std::io::{self, Write};

/// The alignment of a cell within its column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The cell begins where the column begins, as words do.
    Left,
    /// The cell ends where the column ends, as numbers do.
    Right,
}

/// Rows under a head. Each column is as wide as its widest cell, in characters.
#[derive(Debug)]
pub struct Table {
    columns: Vec<(&'static str, Side)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these heads and no rows.
    #[must_use]
    pub fn new(columns: &[(&'static str, Side)]) -> Self {
        Self {
            columns: columns.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row. Cells beyond the last column are dropped.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Whether the table has no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Writes the heads and all rows.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut widths: Vec<usize> = self.columns.iter().map(|(name, _)| name.len()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        self.write_row(out, &widths, self.columns.iter().map(|(name, _)| *name))?;
        for row in &self.rows {
            self.write_row(out, &widths, row.iter().map(String::as_str))?;
        }
        Ok(())
    }

    fn write_row<'a>(
        &self,
        out: &mut dyn Write,
        widths: &[usize],
        cells: impl Iterator<Item = &'a str>,
    ) -> io::Result<()> {
        let mut line = String::new();
        for ((cell, width), (_, side)) in cells.zip(widths).zip(&self.columns) {
            if !line.is_empty() {
                line.push_str("  ");
            }
            match side {
                Side::Left => line.push_str(&format!("{cell:<width$}")),
                Side::Right => line.push_str(&format!("{cell:>width$}")),
            }
        }
        writeln!(out, "{}", line.trim_end())
    }
}

/// `3 d 4 h`, `12 min 5 s`: the largest unit that is not zero, and the next smaller one.
#[must_use]
pub fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {} min", minutes % 60),
        (_, _, _) => format!("{days} d {} h", hours % 24),
    }
}

/// `1 server`, `3 servers`.
#[must_use]
pub fn number(count: usize, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        _ => format!("{count} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&[("NAME", Side::Left), ("N", Side::Right)]);
        table.row(["a".into(), "1".into()]);
        table.row(["longer".into(), "100".into()]);
        let mut out = Vec::new();

        table.write(&mut out).unwrap();

        let text = "NAME      N\na         1\nlonger  100\n";
        assert_eq!(String::from_utf8(out).unwrap(), text);
    }

    #[test]
    fn a_duration_is_said_in_two_units() {
        assert_eq!(duration(59), "59 s");
        assert_eq!(duration(725), "12 min 5 s");
        assert_eq!(duration(3 * 86_400 + 4 * 3600), "3 d 4 h");
    }
}
