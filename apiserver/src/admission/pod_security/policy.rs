//! What a namespace's labels ask of its pods.

use api::{FieldError, Object};
use serde_json::{Value, json};
use std::fmt;

const PREFIX: &str = "pod-security.kubernetes.io/";

/// How much a pod may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    #[default]
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    fn parse(text: &str) -> Option<Level> {
        [Level::Privileged, Level::Baseline, Level::Restricted].into_iter().find(|level| level.name() == text)
    }

    fn name(self) -> &'static str {
        match self {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        }
    }
}

/// As which minor version of Kubernetes understood the levels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    Minor(u16),
    #[default]
    Latest,
}

impl Version {
    fn parse(text: &str) -> Option<Version> {
        if text == "latest" {
            return Some(Version::Latest);
        }
        let digits = text.strip_prefix("v1.")?;
        let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
        let is_plain = is_number && (digits == "0" || !digits.starts_with('0'));
        digits.parse().ok().filter(|_| is_plain).map(Version::Minor)
    }

    /// Whether what came with a minor version holds.
    pub(super) fn has(self, minor: u16) -> bool {
        self >= Version::Minor(minor)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Version::Latest => f.write_str("latest"),
            Version::Minor(minor) => write!(f, "v1.{minor}"),
        }
    }
}

/// A level as of a version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bar {
    pub(super) level: Level,
    pub(super) version: Version,
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.level.name(), self.version)
    }
}

/// What is refused, what is noted in the audit log, and what is warned about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Policy {
    pub(super) enforce: Bar,
    pub(super) audit: Bar,
    pub(super) warn: Bar,
}

impl Policy {
    /// What the labels say, and what of it makes no sense. A level that nobody knows refuses the most and warns of
    /// nothing, as upstream.
    pub(super) fn of(namespace: &Object) -> (Policy, Vec<FieldError>) {
        let mut errors = Vec::new();
        let mut bar = |mode: &str, otherwise: Level| {
            let label = |suffix: &str| {
                let key = format!("{PREFIX}{mode}{suffix}");
                let value = namespace.at(&["metadata", "labels", &key]).and_then(Value::as_str);
                value.map(|value| (format!("metadata.labels[{key}]"), value.to_string()))
            };
            let mut bar = Bar::default();
            if let Some((field, text)) = label("") {
                bar.level = Level::parse(&text).unwrap_or_else(|| {
                    let why = "must be one of privileged, baseline, restricted";
                    errors.push(FieldError::invalid(field, &json!(text), why));
                    otherwise
                });
            }
            if let Some((field, text)) = label("-version") {
                bar.version = Version::parse(&text).unwrap_or_else(|| {
                    errors.push(FieldError::invalid(field, &json!(text), r#"must be "latest" or "v1.x""#));
                    Version::Latest
                });
            }
            bar
        };
        let enforce = bar("enforce", Level::Restricted);
        let audit = bar("audit", Level::Privileged);
        let warn = bar("warn", Level::Privileged);
        (Policy { enforce, audit, warn }, errors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(labels: Value) -> (Policy, Vec<String>) {
        let namespace = Object::from_value(json!({"metadata": {"name": "n", "labels": labels}})).unwrap();
        let (policy, errors) = Policy::of(&namespace);
        (policy, errors.iter().map(FieldError::to_string).collect())
    }

    #[test]
    fn labels_name_levels_and_versions() {
        let (policy, errors) = policy(json!({
            "pod-security.kubernetes.io/enforce": "baseline",
            "pod-security.kubernetes.io/enforce-version": "v1.29",
            "pod-security.kubernetes.io/warn": "restricted",
        }));
        assert_eq!(
            (policy.enforce.to_string(), policy.warn.to_string()),
            ("baseline:v1.29".into(), "restricted:latest".into())
        );
        assert_eq!((policy.audit, errors), (Bar::default(), Vec::new()));
        assert!(policy.enforce.version.has(29) && !policy.enforce.version.has(30) && Version::Latest.has(30));
    }

    #[test]
    fn what_nobody_knows_is_strict_where_it_refuses_only() {
        let (policy, errors) = policy(json!({
            "pod-security.kubernetes.io/enforce": "tight", "pod-security.kubernetes.io/warn": "tight",
            "pod-security.kubernetes.io/audit-version": "v1.07",
        }));
        assert_eq!((policy.enforce.level, policy.warn.level), (Level::Restricted, Level::Privileged));
        assert_eq!(
            errors,
            [
                r#"metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: "tight": must be one of privileged, baseline, restricted"#,
                r#"metadata.labels[pod-security.kubernetes.io/audit-version]: Invalid value: "v1.07": must be "latest" or "v1.x""#,
                r#"metadata.labels[pod-security.kubernetes.io/warn]: Invalid value: "tight": must be one of privileged, baseline, restricted"#,
            ]
        );
    }
}
