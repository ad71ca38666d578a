//! Where the time goes, from the command's beginning to its end.

use std::time::{Duration, Instant};

/// Moments of one command.
pub struct Trace {
    begin: Instant,
    moments: Vec<(String, Duration)>,
}

impl Trace {
    /// Now it begins.
    pub fn begin() -> Trace {
        Trace { begin: Instant::now(), moments: Vec::new() }
    }

    /// Something is done.
    pub fn done(&mut self, what: &str) {
        self.moments.push((what.to_owned(), self.begin.elapsed()));
    }

    /// All moments, with what passed between them and since the beginning.
    pub fn render(&self) -> String {
        let mut text = format!("{:>10}  {:>10}  {}\n", "since", "took", "done");
        let mut before = Duration::ZERO;
        for (what, at) in &self.moments {
            text.push_str(&format!(
                "{:>10}  {:>10}  {what}\n",
                milliseconds(*at),
                milliseconds(*at - before)
            ));
            before = *at;
        }
        text
    }
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.3} ms", duration.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_moment_tells_what_it_took() {
        let mut trace = Trace::begin();
        trace.moments =
            vec![("one".into(), Duration::from_micros(1500)), ("two".into(), Duration::from_micros(4000))];
        let lines: Vec<String> = trace.render().lines().map(|line| line.trim().to_owned()).collect();
        assert_eq!(lines[1..], ["1.500 ms    1.500 ms  one", "4.000 ms    2.500 ms  two"]);
    }
}
