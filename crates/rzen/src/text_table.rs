//! Tables of plain text.

/// Aligned columns, two spaces apart: the first `left` to the left, the others, numbers, to the right.
pub fn aligned(rows: &[Vec<String>], left: usize) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |i: usize| rows.iter().map(|row| row[i].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| -> String {
        let cells = row.iter().zip(&widths).enumerate().map(|(i, (cell, width))| match i < left {
            true => format!("{cell:<width$}"),
            false => format!("{cell:>width$}"),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_align() {
        let rows = [["task", "metric", "x"], ["a longer name", "m", "0.125"]]
            .map(|row| row.map(String::from).to_vec());
        assert_eq!(aligned(&rows, 2), "task           metric      x\na longer name  m       0.125");
        assert_eq!(aligned(&[], 1), "");
    }
}
