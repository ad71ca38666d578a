//! When a job counts as failed or as done before all of it is: the policies in its spec.

use std::collections::HashSet;

use super::check::{Faults, Field};
use crate::{FieldError, name};

const MOST_RULES: usize = 20;
const MOST_CODES: usize = 255;
const MOST_PATTERNS: usize = 20;
const LONGEST_INDEXES: usize = 64 * 1024;
const LONGEST_MANAGER: usize = 63;

/// What becomes of a job whose pods fail.
pub fn validate_failure(spec: &Field, faults: &mut Faults) {
    let policy = spec.get("podFailurePolicy");
    if !policy.is_set() {
        return;
    }
    let restart = spec.get("template").get("spec").get("restartPolicy");
    if restart.text() != "Never" {
        faults.invalid(&restart, "only \"Never\" is supported when podFailurePolicy is specified");
    }
    let rules = policy.get("rules");
    faults.at_most(&rules, MOST_RULES);
    let pod = spec.get("template").get("spec");
    let lists = ["containers", "initContainers"].map(|list| pod.get(list));
    let containers: HashSet<&str> =
        lists.iter().flat_map(Field::items).map(|container| container.get("name").text()).collect();
    for rule in rules.items() {
        validate_failure_rule(spec, &rule, &containers, faults);
    }
}

fn validate_failure_rule(spec: &Field, rule: &Field, containers: &HashSet<&str>, faults: &mut Faults) {
    let action = rule.get("action");
    if action.text().is_empty() {
        let actions = "valid values: [\"Count\" \"FailIndex\" \"FailJob\" \"Ignore\"]";
        faults.required(&action, actions);
    } else if action.text() == "FailIndex" && !spec.get("backoffLimitPerIndex").is_set() {
        faults.invalid(&action, "requires the backoffLimitPerIndex to be set");
    } else {
        faults.one_of(&action, &["Count", "FailIndex", "FailJob", "Ignore"]);
    }
    let (codes, patterns) = (rule.get("onExitCodes"), rule.get("onPodConditions"));
    if codes.is_set() {
        validate_exit_codes(&codes, containers, faults);
    }
    faults.at_most(&patterns, MOST_PATTERNS);
    for pattern in patterns.items() {
        faults.must_keep(&pattern.get("type"), name::qualified_name);
        faults.must_be_one_of(&pattern.get("status"), &["False", "True", "Unknown"]);
    }
    match (codes.is_set(), !patterns.is_empty()) {
        (true, true) => {
            let text = "specifying both OnExitCodes and OnPodConditions is not supported";
            faults.invalid(rule, text);
        }
        (false, false) => {
            faults.invalid(rule, "specifying one of OnExitCodes and OnPodConditions is required");
        }
        _ => {}
    }
}

fn validate_exit_codes(codes: &Field, containers: &HashSet<&str>, faults: &mut Faults) {
    let operator = codes.get("operator");
    if operator.text().is_empty() {
        faults.required(&operator, "valid values: [\"In\" \"NotIn\"]");
    } else {
        faults.one_of(&operator, &["In", "NotIn"]);
    }
    let container = codes.get("containerName");
    if container.is_set() && !containers.contains(container.text()) {
        let text = "must be one of the container or initContainer names in the pod template";
        faults.invalid(&container, text);
    }
    let values = codes.get("values");
    if values.is_empty() {
        faults.invalid(&values, "at least one value is required");
    }
    faults.at_most(&values, MOST_CODES);
    let mut seen = HashSet::new();
    let mut last = i64::MIN;
    for value in values.items() {
        let Some(code) = value.number() else { continue };
        if operator.text() == "In" && code == 0 {
            faults.invalid(&value, "must not be 0 for the In operator");
        }
        if !seen.insert(code) {
            faults.duplicate(&value);
        }
        if code < last {
            faults.invalid(&values, "must be ordered");
            break;
        }
        last = code;
    }
}

/// Which indexes are enough for the whole job.
pub fn validate_success(spec: &Field, faults: &mut Faults) {
    let policy = spec.get("successPolicy");
    if !policy.is_set() {
        return;
    }
    if spec.get("completionMode").text() != "Indexed" {
        faults.invalid(&policy, "requires indexed completion mode");
        return;
    }
    let rules = policy.get("rules");
    if rules.is_empty() {
        faults.required(&rules, "at least one rules must be specified when the successPolicy is specified");
    }
    faults.at_most(&rules, MOST_RULES);
    let completions = spec.get("completions").number().unwrap_or_default();
    for rule in rules.items() {
        let (indexes, count) = (rule.get("succeededIndexes"), rule.get("succeededCount"));
        if !indexes.is_set() && !count.is_set() {
            faults.required(&rule, "at least one of succeededCount or succeededIndexes must be specified");
        }
        let mut total = completions;
        if indexes.is_set() {
            if indexes.text().len() > LONGEST_INDEXES {
                faults.0.push(FieldError::too_long(&indexes.path, LONGEST_INDEXES));
            }
            match index_count(indexes.text(), completions) {
                Ok(number) => total = number,
                Err(why) => {
                    faults.invalid(&indexes, format!("error parsing succeededIndexes: {why}"));
                    continue;
                }
            }
        }
        faults.not_negative(&count);
        if count.number().is_some_and(|number| number > total) {
            let of = if indexes.is_set() {
                "the number of indexes in the specified succeededIndexes field"
            } else {
                "the number of specified completions"
            };
            faults.invalid(&count, format!("must be less than or equal to {total} ({of})"));
        }
    }
}

/// How many indexes a list such as `1,3-5` has.
fn index_count(text: &str, completions: i64) -> Result<i64, String> {
    let (mut count, mut last) = (0, -1);
    for interval in text.split(',').filter(|_| !text.is_empty()) {
        let number = |text: &str| {
            text.parse::<i64>().map_err(|_| format!("cannot convert string to integer for index: {text:?}"))
        };
        let (from, to) = interval.split_once('-').unwrap_or((interval, interval));
        let (from, to) = (number(from)?, number(to)?);
        if from >= completions || to >= completions {
            return Err(format!(
                "too large index: {:?}",
                if from >= completions { from } else { to }.to_string()
            ));
        }
        if from <= last {
            return Err(format!("non-increasing order, previous: {last}, current: {from}"));
        }
        if interval.contains('-') && to <= from {
            return Err(format!("non-increasing order, previous: {from}, current: {to}"));
        }
        count += to - from + 1;
        last = to;
    }
    Ok(count)
}

/// Who looks after a job, if it is not the job controller.
pub fn validate_manager(manager: &Field, faults: &mut Faults) {
    if !manager.is_set() {
        return;
    }
    if manager.text().len() > LONGEST_MANAGER {
        faults.0.push(FieldError::too_long(&manager.path, LONGEST_MANAGER));
    }
    match manager.text().split_once('/') {
        Some((domain, path)) if !path.is_empty() => {
            if let Err(message) = name::dns_subdomain(domain) {
                faults.invalid(manager, message);
            }
        }
        _ => faults.invalid(manager, "must be a domain-prefixed path (such as \"acme.io/foo\")"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn told(spec: Value, rule: fn(&Field, &mut Faults)) -> Vec<String> {
        let mut faults = Faults::new();
        rule(&Field { path: "spec".into(), value: &spec }, &mut faults);
        faults.0.iter().map(FieldError::to_string).collect()
    }

    #[test]
    fn a_failure_policy_looks_at_codes_or_at_conditions() {
        let job = |rules: Value| {
            let pod = json!({"restartPolicy": "Never", "containers": [{"name": "main"}]});
            told(json!({"template": {"spec": pod}, "podFailurePolicy": {"rules": rules}}), validate_failure)
        };
        let fine = json!([
            {"action": "FailJob", "onExitCodes": {"containerName": "main", "operator": "In", "values": [1, 42]}},
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        ]);
        assert_eq!(job(fine), [""; 0]);
        let wrong = json!([
            {"action": "FailIndex", "onExitCodes": {"containerName": "x", "operator": "In", "values": [0, 0]}},
            {"action": "Count"},
        ]);
        assert_eq!(
            job(wrong),
            [
                "spec.podFailurePolicy.rules[0].action: Invalid value: \"FailIndex\": requires the backoffLimitPerIndex to be set",
                "spec.podFailurePolicy.rules[0].onExitCodes.containerName: Invalid value: \"x\": must be one of the container or initContainer names in the pod template",
                "spec.podFailurePolicy.rules[0].onExitCodes.values[0]: Invalid value: 0: must not be 0 for the In operator",
                "spec.podFailurePolicy.rules[0].onExitCodes.values[1]: Invalid value: 0: must not be 0 for the In operator",
                "spec.podFailurePolicy.rules[0].onExitCodes.values[1]: Duplicate value: 0",
                "spec.podFailurePolicy.rules[1]: Invalid value: {\"action\":\"Count\"}: specifying one of OnExitCodes and OnPodConditions is required",
            ]
        );
    }

    #[test]
    fn a_success_policy_counts_indexes_that_there_are() {
        assert_eq!(index_count("1,3-5,7", 8), Ok(5));
        assert!(index_count("8", 8).unwrap_err().starts_with("too large index"));
        assert!(index_count("3,2", 8).unwrap_err().starts_with("non-increasing order"));
        let job = |rule: Value| {
            let spec =
                json!({"completionMode": "Indexed", "completions": 4, "successPolicy": {"rules": [rule]}});
            told(spec, validate_success).len()
        };
        assert_eq!(job(json!({"succeededIndexes": "0-1", "succeededCount": 2})), 0);
        assert_eq!(job(json!({"succeededIndexes": "0-1", "succeededCount": 3})), 1);
        assert_eq!(job(json!({})), 1);
    }
}
