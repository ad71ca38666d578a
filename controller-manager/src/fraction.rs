//! `maxSurge`, `maxUnavailable` and their like: a number, or a percentage of something.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// Which way a percentage is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    /// To the next smaller number.
    Down,
    /// To the next greater number.
    Up,
}

/// The number that `value` stands for, of `total`; 0 for what is neither a number nor a percentage.
pub fn resolve(value: Option<&IntOrString>, total: i32, round: Round) -> i32 {
    match value {
        None => 0,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(text)) => {
            let percent: i64 = text.strip_suffix('%').and_then(|text| text.parse().ok()).unwrap_or_default();
            let hundredfold = percent * i64::from(total);
            let rounded = match round {
                Round::Down => hundredfold.div_euclid(100),
                Round::Up => -(-hundredfold).div_euclid(100),
            };
            rounded.try_into().unwrap_or(i32::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_round_as_asked() {
        let quarter = IntOrString::String("25%".into());
        assert_eq!(resolve(Some(&quarter), 10, Round::Up), 3);
        assert_eq!(resolve(Some(&quarter), 10, Round::Down), 2);
        assert_eq!(resolve(Some(&quarter), 8, Round::Up), 2);
        assert_eq!(resolve(Some(&IntOrString::Int(4)), 10, Round::Up), 4);
    }
}
