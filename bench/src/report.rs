//! Samples and the one table that each command prints.

use std::{fmt, time::Duration};

/// How long something took, again and again.
#[derive(Debug, Default)]
pub struct Samples(Vec<Duration>);

impl Samples {
    /// One more.
    pub fn add(&mut self, sample: Duration) {
        self.0.push(sample);
    }

    /// The time that `share` of all samples stay within; nearest rank.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (share * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).copied()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl FromIterator<Duration> for Samples {
    fn from_iter<I: IntoIterator<Item = Duration>>(samples: I) -> Samples {
        Samples(samples.into_iter().collect())
    }
}

/// A table of text, columns lined up, the first to the left and all others to the right.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these titles.
    pub fn new(titles: &[&str]) -> Table {
        Table { rows: vec![titles.iter().map(ToString::to_string).collect()] }
    }

    /// A table of times: what, how many samples, median, p99 and rate; and what the server took for each.
    pub fn of_times() -> Table {
        Table::new(&["what", "samples", "median", "p99", "slowest", "rate", "server CPU"])
    }

    /// One more row.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// One more row of times. `elapsed` is how long all samples took together, for the rate.
    pub fn times(&mut self, what: &str, samples: &Samples, elapsed: Option<Duration>) {
        self.times_and_cpu(what, samples, elapsed, None);
    }

    /// The same with the time on processors that the server took for all samples together.
    pub fn times_and_cpu(
        &mut self,
        what: &str,
        samples: &Samples,
        elapsed: Option<Duration>,
        cpu: Option<Duration>,
    ) {
        let cell = |share| samples.quantile(share).map_or("-".into(), time);
        let rate = elapsed.map_or("-".into(), |all| {
            format!("{:.0}/s", samples.len() as f64 / all.as_secs_f64().max(f64::EPSILON))
        });
        let each = u32::try_from(samples.len()).unwrap_or(u32::MAX).max(1);
        let cpu = cpu.map_or("-".into(), |all| time(all / each));
        self.row(vec![what.into(), samples.len().to_string(), cell(0.5), cell(0.99), cell(1.0), rate, cpu]);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                self.rows.iter().filter_map(|row| row.get(column)).map(|it| it.len()).max().unwrap_or(0)
            })
            .collect();
        for row in &self.rows {
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                match column {
                    0 => write!(f, "{cell:<width$}")?,
                    _ => write!(f, "  {cell:>width$}")?,
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// A duration with three digits: `812us`, `1.43ms`, `2.05s`.
pub fn time(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    let (value, unit) = match seconds {
        seconds if seconds < 1e-3 => (seconds * 1e6, "us"),
        seconds if seconds < 1.0 => (seconds * 1e3, "ms"),
        seconds => (seconds, "s"),
    };
    let digits = match value {
        value if value < 10.0 => 2,
        value if value < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.digits$}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_samples_that_were_taken() {
        let samples: Samples = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(samples.quantile(0.5), Some(Duration::from_millis(50)));
        assert_eq!(samples.quantile(0.99), Some(Duration::from_millis(99)));
        assert_eq!(samples.quantile(1.0), Some(Duration::from_millis(100)));
        assert_eq!(Samples::default().quantile(0.5), None);
    }

    #[test]
    fn times_have_three_digits() {
        let texts = [1, 812, 1_430, 14_300, 2_050_000].map(|micros| time(Duration::from_micros(micros)));
        assert_eq!(texts, ["1.00us", "812us", "1.43ms", "14.3ms", "2.05s"]);
    }

    #[test]
    fn columns_are_lined_up() {
        let mut table = Table::new(&["what", "n"]);
        table.row(vec!["a".into(), "100".into()]);
        assert_eq!(table.to_string(), "what    n\na     100\n");
    }
}
