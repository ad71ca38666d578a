//! What the status of a namespace says while it is being emptied, in upstream's words.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::{api::core::v1::NamespaceCondition, apimachinery::pkg::apis::meta::v1::Time};

/// What is in the way of a namespace's end.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Remains {
    /// How many objects there are of each resource.
    pub objects: BTreeMap<String, usize>,
    /// How many objects have each finalizer.
    pub finalizers: BTreeMap<String, usize>,
    /// Why something could not be deleted.
    pub failures: Vec<String>,
}

impl Remains {
    /// What there is, for people.
    pub fn describe(&self) -> String {
        let objects = self.objects.iter().map(|(resource, count)| format!("{count} {resource}"));
        let failures = self.failures.iter().cloned();
        let all: Vec<String> = objects.chain(failures).collect();
        if all.is_empty() { "nothing left".into() } else { all.join(", ") }
    }

    /// Whether there is nothing any more.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty() && self.failures.is_empty()
    }
}

/// The conditions of a namespace with these remains; what did not change keeps its time.
pub fn conditions(old: &[NamespaceCondition], remains: &Remains, now: Timestamp) -> Vec<NamespaceCondition> {
    let (content, remaining, finalizers) = (content(remains), remaining(remains), finalizers(remains));
    let told = [
        (
            "NamespaceDeletionDiscoveryFailure",
            "False",
            "ResourcesDiscovered",
            "All resources successfully discovered".into(),
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            "False",
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed".into(),
        ),
        ("NamespaceDeletionContentFailure", content.0, content.1, content.2),
        ("NamespaceContentRemaining", remaining.0, remaining.1, remaining.2),
        ("NamespaceFinalizersRemaining", finalizers.0, finalizers.1, finalizers.2),
    ];
    let is_told = |condition: &NamespaceCondition| told.iter().any(|(kind, ..)| *kind == condition.type_);
    let mut conditions: Vec<_> = old.iter().filter(|condition| !is_told(condition)).cloned().collect();
    for (kind, status, reason, message) in told {
        let before = old.iter().find(|condition| condition.type_ == kind && condition.status == status);
        conditions.push(NamespaceCondition {
            type_: kind.into(),
            status: status.into(),
            reason: Some(reason.into()),
            message: Some(message),
            last_transition_time: before
                .and_then(|before| before.last_transition_time.clone())
                .or(Some(Time(now))),
        });
    }
    conditions
}

type Told = (&'static str, &'static str, String);

fn content(remains: &Remains) -> Told {
    match remains.failures.as_slice() {
        [] => (
            "False",
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization".into(),
        ),
        failures => {
            let text = format!(
                "Failed to delete all resource types, {} remaining: {}",
                failures.len(),
                failures.join(", ")
            );
            ("True", "ContentDeletionFailed", text)
        }
    }
}

fn remaining(remains: &Remains) -> Told {
    if remains.objects.is_empty() {
        return ("False", "ContentRemoved", "All content successfully removed".into());
    }
    let each =
        remains.objects.iter().map(|(resource, count)| format!("{resource} has {count} resource instances"));
    let text = format!("Some resources are remaining: {}", each.collect::<Vec<_>>().join(", "));
    ("True", "SomeResourcesRemain", text)
}

fn finalizers(remains: &Remains) -> Told {
    if remains.finalizers.is_empty() {
        return ("False", "ContentHasNoFinalizers", "All content-preserving finalizers finished".into());
    }
    let each = remains.finalizers.iter().map(|(name, count)| format!("{name} in {count} resource instances"));
    let text = format!(
        "Some content in the namespace has finalizers remaining: {}",
        each.collect::<Vec<_>>().join(", ")
    );
    ("True", "SomeFinalizersRemain", text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message<'a>(conditions: &'a [NamespaceCondition], kind: &str) -> &'a str {
        conditions.iter().find(|condition| condition.type_ == kind).unwrap().message.as_deref().unwrap()
    }

    #[test]
    fn what_remains_is_named() {
        let remains = Remains {
            objects: [("pods.".to_string(), 2)].into(),
            finalizers: [("example.com/wait".to_string(), 1)].into(),
            failures: Vec::new(),
        };
        let told = conditions(&[], &remains, Timestamp::UNIX_EPOCH);
        assert_eq!(
            message(&told, "NamespaceContentRemaining"),
            "Some resources are remaining: pods. has 2 resource instances"
        );
        assert_eq!(
            message(&told, "NamespaceFinalizersRemaining"),
            "Some content in the namespace has finalizers remaining: example.com/wait in 1 resource instances"
        );
    }

    #[test]
    fn an_unchanged_condition_keeps_its_time() {
        let first = conditions(&[], &Remains::default(), Timestamp::UNIX_EPOCH);
        assert_eq!(conditions(&first, &Remains::default(), Timestamp::from_second(60).unwrap()), first);
    }
}
