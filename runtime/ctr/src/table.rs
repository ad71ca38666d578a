//! Tables like docker's: columns three spaces apart, titles in capitals.

/// A table of text, all columns to the left.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// With these titles.
    pub fn new(titles: &[&str]) -> Table {
        Table { rows: vec![titles.iter().map(ToString::to_string).collect()] }
    }

    /// One more row.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// The text.
    pub fn render(&self) -> String {
        let columns = self.rows[0].len();
        let width =
            |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(&format!("{cell:<width$}   "));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Bytes in decimal units, as docker tells transfers: `1.23kB`.
pub fn decimal(bytes: u64) -> String {
    in_units(bytes, 1000.0, &["B", "kB", "MB", "GB", "TB"])
}

/// Bytes in binary units, as docker tells memory: `1.5MiB`.
pub fn binary(bytes: u64) -> String {
    in_units(bytes, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB"])
}

fn in_units(bytes: u64, base: f64, units: &[&str]) -> String {
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= base && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    // Four digits are enough, and zeros at the end say nothing.
    let whole = (value.max(1.0).log10().floor() as usize).min(3);
    let text = format!("{value:.*}", 3 - whole);
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", units[unit])
}

/// As many characters as there is room for.
pub fn shortened(text: &str, room: usize) -> String {
    if text.chars().count() <= room {
        return text.to_owned();
    }
    text.chars().take(room - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_lined_up() {
        let mut table = Table::new(&["NAME", "STATUS"]);
        table.row(vec!["a-long-name".into(), "Up".into()]);
        assert_eq!(table.render(), "NAME          STATUS\na-long-name   Up\n");
    }

    #[test]
    fn sizes_have_the_unit_that_suits_them() {
        assert_eq!([0, 999, 1000, 1_234_567].map(decimal), ["0B", "999B", "1kB", "1.235MB"]);
        assert_eq!(
            [512, 1536, 64 << 20, 25_277_001_728].map(binary),
            ["512B", "1.5KiB", "64MiB", "23.54GiB"]
        );
    }
}
