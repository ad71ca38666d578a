//! Where the time goes, from the command's beginning to its end: our own steps, and those of the runtime, the
//! shim and the process that becomes the container, by the same clock.

use runtime::sys::clock::monotonic;
use runtime::trace::{Actor, Step};

/// The steps of one command.
pub struct Trace {
    wanted: bool,
    begin: u64,
    last: u64,
    lines: Vec<Line>,
}

struct Line {
    who: &'static str,
    what: String,
    begin: u64,
    end: u64,
}

impl Trace {
    /// Now it begins. Without anybody who wants to know, nothing is kept.
    pub fn begin(wanted: bool) -> Trace {
        let begin = monotonic();
        Trace { wanted, begin, last: begin, lines: Vec::new() }
    }

    /// Whether anybody wants to know.
    pub fn is_wanted(&self) -> bool {
        self.wanted
    }

    /// What began with the one before is done.
    pub fn done(&mut self, what: &str) {
        if self.wanted {
            let (begin, end) = (self.last, monotonic());
            self.lines.push(Line { who: "ctr", what: what.to_owned(), begin, end });
            self.last = end;
        }
    }

    /// Steps that others have taken meanwhile.
    pub fn add(&mut self, steps: Vec<Step>) {
        self.lines.extend(steps.into_iter().map(|step| Line {
            who: match step.actor {
                Actor::Server => "  runtime",
                Actor::Shim => "    shim",
                Actor::Container => "      container",
            },
            what: step.name,
            begin: step.begin,
            end: step.end,
        }));
    }

    /// All steps in the order of their beginning.
    pub fn render(mut self) -> String {
        // Of those that begin together, the one that contains the others comes first.
        self.lines.sort_by_key(|line| (line.begin, std::cmp::Reverse(line.end)));
        let mut text = format!("{:>12} {:>12}  {:<16} {}\n", "AT", "TOOK", "WHO", "WHAT");
        for line in &self.lines {
            let at = milliseconds(line.begin.saturating_sub(self.begin));
            let took = milliseconds(line.end.saturating_sub(line.begin));
            text.push_str(&format!("{at:>12} {took:>12}  {:<16} {}\n", line.who, line.what));
        }
        text.push_str(&format!("{:>12}\n", milliseconds(self.last - self.begin)));
        text
    }
}

fn milliseconds(nanoseconds: u64) -> String {
    format!("{:.3} ms", nanoseconds as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_of_others_are_told_within_ours() {
        let mut trace = Trace::begin(true);
        let at = trace.begin;
        trace.done("all of it");
        trace.lines[0].end = at + 3_000_000;
        let name = "MountRoot".to_owned();
        trace.add(vec![Step { actor: Actor::Container, name, begin: at + 1_000_000, end: at + 1_500_000 }]);
        let text = trace.render();
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        assert_eq!(lines[1], "0.000 ms     3.000 ms  ctr              all of it");
        assert_eq!(lines[2], "1.000 ms     0.500 ms        container  MountRoot");
    }

    #[test]
    fn nothing_is_kept_unless_wanted() {
        let mut trace = Trace::begin(false);
        trace.done("something");
        assert!(trace.lines.is_empty());
    }
}
