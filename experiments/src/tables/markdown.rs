//! Markdown that reads well in a terminal too.

use std::fmt::Write as _;

use crate::draw::length_label;
use crate::folder::Provenance;

/// Title of a file of tables, and the origin of its numbers.
pub fn head(title: &str, from: &Provenance) -> String {
    let checkpoint = from.checkpoint.get(..12).unwrap_or(&from.checkpoint);
    let mut text = format!(
        "# {title}\n\n- model: {} ({}, trained at {} tokens, checkpoint {checkpoint})\n- data: {}\n",
        from.model, from.dtype, from.trained_length, from.data
    );
    if from.model == "builtin:random" {
        text.push_str(
            "- note: builtin:random is a generated checkpoint with random weights: its numbers show \
             that everything runs, not which method helps\n",
        );
    }
    text
}

/// Heads of columns: in units of 1,024 if all lengths above 1,024 are multiples of it, else plain
/// numbers.
pub fn length_labels(lengths: &[usize]) -> Vec<String> {
    let odd = |&length: &usize| length > 1024 && !length.is_multiple_of(1024);
    if lengths.iter().any(odd) {
        lengths.iter().map(usize::to_string).collect()
    } else {
        lengths.iter().copied().map(length_label).collect()
    }
}

/// A name as the first cell of a row.
pub fn row_name(name: &str) -> String {
    name.replace('|', "\\|")
}

/// A table with padded columns. The first row is the head; all rows have as many cells.
pub fn padded(rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    let mut text = String::new();
    for (i, row) in rows.iter().enumerate() {
        for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            match column {
                0 => write!(text, "| {cell:<width$} "),
                _ => write!(text, "| {cell:>width$} "),
            }
            .expect("writing to a string");
        }
        text.push_str("|\n");
        if i == 0 {
            for (column, &width) in widths.iter().enumerate() {
                let dashes = "-".repeat(width);
                text.push_str(&match column {
                    0 => format!("| {dashes} "),
                    _ => format!("| {}: ", &dashes[..width - 1]),
                });
            }
            text.push_str("|\n");
        }
    }
    text
}

/// The last part of a path, for titles.
pub fn file_name(path: &str) -> &str {
    path.trim_end_matches('/')
        .rsplit('/')
        .next()
        .unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_a_table_share_a_unit() {
        assert_eq!(length_labels(&[512, 1024, 4096]), ["512", "1K", "4K"]);
        assert_eq!(length_labels(&[512, 1024, 3000]), ["512", "1024", "3000"]);
    }

    #[test]
    fn columns_are_padded() {
        let rows = [["method", "1K"], ["a ± b", "12.345"], ["longer name", "-"]];
        let rows = rows.map(|row| row.map(String::from).to_vec());
        let expected = "\
| method      |     1K |
| ----------- | -----: |
| a ± b       | 12.345 |
| longer name |      - |
";
        assert_eq!(padded(&rows), expected);
    }

    #[test]
    fn titles_show_the_last_part_of_a_path() {
        let names = ["a/b.txt", "checkpoints/Qwen-7B/", "builtin:tiny", "/"].map(file_name);
        assert_eq!(names, ["b.txt", "Qwen-7B", "builtin:tiny", ""]);
    }
}
