//! Aligned tables for people.

use std::fmt::Write as _;

/// Widest cell by which a column is as wide; longer ones push their line.
const CELL_MAX: usize = 44;

/// A column's head; `Number` columns stand to the right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column<'a> {
    /// Words, to the left.
    Text(&'a str),
    /// Numbers, to the right.
    Number(&'a str),
}

impl Column<'_> {
    const fn head(&self) -> &str {
        match self {
            Self::Text(head) | Self::Number(head) => head,
        }
    }
}

/// Heads and rows; columns without any content are left out.
#[must_use]
pub fn table(columns: &[Column<'_>], rows: &[Vec<String>]) -> String {
    let mut out = String::new();
    let filled = |column: usize| rows.iter().any(|row| !row[column].is_empty());
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([columns[column].head().chars().count()]).max().unwrap_or(0).min(CELL_MAX)
    };
    let layout: Vec<(usize, usize)> =
        (0..columns.len()).filter(|column| filled(*column)).map(|column| (column, width(column))).collect();
    let line = |cell: &dyn Fn(usize) -> String| {
        let cells = layout.iter().map(|(column, width)| match columns[*column] {
            Column::Text(_) => format!("{:<width$}", cell(*column)),
            Column::Number(_) => format!("{:>width$}", cell(*column)),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{}", line(&|column| columns[column].head().to_owned()));
    for row in rows {
        let _ = writeln!(out, "{}", line(&|column| row[column].clone()));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_empty_ones_left_out() {
        let columns = [Column::Number("#"), Column::Text("rule"), Column::Text("flags"), Column::Number("packets")];
        let row = |cells: [&str; 4]| cells.map(str::to_owned).to_vec();
        let text = table(&columns, &[row(["1", "web", "", "12"]), row(["10", "a", "", "1234567"])]);
        assert_eq!(text, " #  rule  packets\n 1  web        12\n10  a     1234567\n");
    }
}
