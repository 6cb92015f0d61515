//! A table of aligned text that never wraps: columns that do not fit go into a second block with the same first column.

use std::fmt::Write;

/// Columns that stay together in one block, under one heading.
#[derive(Clone, Debug)]
pub struct Group {
    /// The heading above the columns; may be empty.
    pub title: String,
    /// The columns' names.
    pub columns: Vec<String>,
}

/// Rows under groups of columns. `cells[row][column]`, columns counted through all groups.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// What the first column is called.
    pub corner: String,
    /// The groups.
    pub groups: Vec<Group>,
    /// The rows' names.
    pub labels: Vec<String>,
    /// The cells.
    pub cells: Vec<Vec<String>>,
}

fn width(text: &str) -> usize {
    text.chars().count()
}

impl Table {
    /// The text, no line of which is longer than `limit` characters (as long as one group fits).
    pub fn render(&self, limit: usize) -> String {
        let widths = self.column_widths();
        let label_width = self
            .labels
            .iter()
            .map(|l| width(l))
            .max()
            .unwrap_or(0)
            .max(width(&self.corner));
        let mut out = String::new();
        let mut next = 0;
        let mut column = 0;
        while next < self.groups.len() {
            let mut used = label_width;
            let (first, first_column) = (next, column);
            while next < self.groups.len() {
                let n = self.groups[next].columns.len();
                let group: usize = widths[column..column + n]
                    .iter()
                    .map(|w| w + 2)
                    .sum::<usize>()
                    + 1;
                if next > first && used + group > limit {
                    break;
                }
                used += group;
                next += 1;
                column += n;
            }
            if !out.is_empty() {
                out.push('\n');
            }
            self.block(&mut out, first..next, first_column, label_width, &widths);
        }
        out
    }

    /// Each column as wide as its widest cell; a group's heading widens its last column.
    fn column_widths(&self) -> Vec<usize> {
        let mut widths = Vec::new();
        for group in &self.groups {
            let first = widths.len();
            for name in &group.columns {
                let index = widths.len();
                let cells = self
                    .cells
                    .iter()
                    .map(|row| width(&row[index]))
                    .max()
                    .unwrap_or(0);
                widths.push(width(name).max(cells));
            }
            let sum: usize = widths[first..].iter().map(|w| w + 2).sum::<usize>();
            if let Some(last) = widths.last_mut()
                && width(&group.title) + 2 > sum
            {
                *last += width(&group.title) + 2 - sum;
            }
        }
        widths
    }

    fn block(
        &self,
        out: &mut String,
        groups: std::ops::Range<usize>,
        column: usize,
        label_width: usize,
        widths: &[usize],
    ) {
        let mut heading = " ".repeat(label_width);
        let mut names = format!("{:<label_width$}", self.corner);
        let mut rows: Vec<String> = self
            .labels
            .iter()
            .map(|l| format!("{l:<label_width$}"))
            .collect();
        let mut at = column;
        for group in &self.groups[groups] {
            let span: usize = widths[at..at + group.columns.len()]
                .iter()
                .map(|w| w + 2)
                .sum();
            let _ = write!(heading, " │{:^span$}", group.title, span = span - 1);
            names.push_str(" │");
            for row in &mut rows {
                row.push_str(" │");
            }
            for (i, name) in group.columns.iter().enumerate() {
                let w = widths[at] + if i == 0 { 1 } else { 2 };
                let _ = write!(names, "{name:>w$}");
                for (row, cells) in rows.iter_mut().zip(&self.cells) {
                    let _ = write!(row, "{:>w$}", cells[at]);
                }
                at += 1;
            }
        }
        let rule: String = names
            .chars()
            .map(|c| if c == '│' { '┼' } else { '─' })
            .collect();
        if heading.contains(|c: char| !c.is_whitespace() && c != '│') {
            let _ = writeln!(out, "{}", heading.trim_end());
        }
        let _ = writeln!(out, "{}\n{rule}", names.trim_end());
        for row in rows {
            let _ = writeln!(out, "{}", row.trim_end());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(groups: usize) -> Table {
        Table {
            corner: "arm".into(),
            groups: (0..groups)
                .map(|g| Group {
                    title: format!("group {g}"),
                    columns: vec!["a".into(), "latency".into()],
                })
                .collect(),
            labels: vec!["os 6.16".into(), "os highwater µ".into()],
            cells: vec![
                vec!["1".to_string(); groups * 2],
                vec!["123.4 µs".to_string(); groups * 2],
            ],
        }
    }

    #[test]
    fn a_narrow_table_is_one_aligned_block() {
        let text = table(2).render(160);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 5, "{text}");
        let bars = |l: &str| {
            l.chars()
                .enumerate()
                .filter(|(_, c)| "│┼".contains(*c))
                .map(|(i, _)| i)
                .collect::<Vec<_>>()
        };
        for line in &lines[1..] {
            assert_eq!(bars(line), bars(lines[0]), "{text}");
        }
        assert!(lines[4].ends_with("123.4 µs"));
    }

    #[test]
    fn a_wide_table_becomes_blocks_with_the_same_first_column() {
        let text = table(12).render(100);
        assert!(text.lines().all(|l| l.chars().count() <= 100), "{text}");
        assert!(text.matches("os highwater").count() >= 2, "{text}");
        assert_eq!(text.matches("123.4 µs").count(), 24, "no cell is lost");
    }
}
