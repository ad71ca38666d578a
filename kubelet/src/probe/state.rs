//! What a row of answers means. Pure.

use k8s_openapi::api::core::v1::Probe;

use super::Answer;

/// Counts equal answers in a row until there are enough of them to believe.
#[derive(Clone, Debug)]
pub struct ProbeState {
    failure_threshold: u32,
    success_threshold: u32,
    last: Option<bool>,
    in_a_row: u32,
    verdict: Option<bool>,
}

impl ProbeState {
    /// No answers yet.
    pub fn new(probe: &Probe) -> ProbeState {
        let threshold = |value: Option<i32>, default| {
            value.and_then(|value| u32::try_from(value).ok()).filter(|value| *value > 0).unwrap_or(default)
        };
        ProbeState {
            failure_threshold: threshold(probe.failure_threshold, 3),
            success_threshold: threshold(probe.success_threshold, 1),
            last: None,
            in_a_row: 0,
            verdict: None,
        }
    }

    /// Takes in an answer; returns the verdict when it changes. An unknown answer says nothing.
    pub fn observe(&mut self, answer: &Answer) -> Option<bool> {
        let succeeded = match answer {
            Answer::Success | Answer::Warning(_) => true,
            Answer::Failure(_) => false,
            Answer::Unknown(_) => return None,
        };
        self.in_a_row = if self.last == Some(succeeded) { self.in_a_row + 1 } else { 1 };
        self.last = Some(succeeded);
        let needed = if succeeded { self.success_threshold } else { self.failure_threshold };
        if self.in_a_row < needed || self.verdict == Some(succeeded) {
            return None;
        }
        self.verdict = Some(succeeded);
        self.verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(probe: Probe, answers: &str) -> Vec<Option<bool>> {
        let mut state = ProbeState::new(&probe);
        let answers = answers.chars().map(|answer| match answer {
            '+' => Answer::Success,
            '-' => Answer::Failure("no".into()),
            _ => Answer::Unknown("?".into()),
        });
        answers.map(|answer| state.observe(&answer)).collect()
    }

    #[test]
    fn three_failures_in_a_row_are_needed_by_default() {
        let expected = [Some(true), None, None, None, None, None, Some(false), None, Some(true)];
        assert_eq!(verdicts(Probe::default(), "+--+---?+"), expected);
    }

    #[test]
    fn thresholds_are_the_probes_own() {
        let probe = Probe { failure_threshold: Some(1), success_threshold: Some(2), ..Probe::default() };
        assert_eq!(verdicts(probe, "-+-++"), [Some(false), None, None, None, Some(true)]);
    }

    #[test]
    fn an_error_neither_counts_nor_interrupts() {
        let probe = Probe { failure_threshold: Some(2), ..Probe::default() };
        assert_eq!(verdicts(probe, "-?-"), [None, None, Some(false)]);
    }
}
