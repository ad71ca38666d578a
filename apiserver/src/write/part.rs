//! Which part of an object a write to a subresource may change.

use api::{FieldError, Kind, Object};

use crate::registry::now;

/// What a write goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The object itself, also by its `scale`: everything but the status.
    Whole,
    /// The status, and for most kinds the metadata.
    Status,
    /// The server's own change, decided elsewhere (`binding`).
    Own,
    /// What the kind's strategy says (`approval`, `finalize`, `ephemeralcontainers`, `resize`).
    Special,
}

impl Part {
    /// The part that a subresource stands for.
    pub(super) fn of(subresource: &str) -> Part {
        match subresource {
            "" | "scale" => Part::Whole,
            "status" => Part::Status,
            "binding" => Part::Own,
            _ => Part::Special,
        }
    }

    /// `object` as far as a write may change `old`; everything else is as it was.
    pub(super) fn confine(self, kind: &Kind, subresource: &str, mut object: Object, old: &Object) -> Object {
        match self {
            Part::Whole if kind.status => {
                object.take_over(&["status"], old);
                object
            }
            Part::Whole | Part::Own => object,
            Part::Status => {
                let mut kept = old.clone();
                for path in taken_by_status(kind) {
                    kept.take_over(path, &object);
                }
                kept
            }
            Part::Special => {
                kind.strategy.prepare_for_subresource(subresource, &mut object, old);
                object
            }
        }
    }

    /// Adds to a report what it leaves out.
    pub(super) fn complete(self, kind: &Kind, subresource: &str, object: &mut Object, old: &Object) {
        if matches!(self, Part::Status | Part::Special) {
            kind.strategy.complete_status(subresource, object, old, now());
        }
    }

    /// Whether the spec may change, and so the generation.
    pub(super) fn changes_spec(self) -> bool {
        matches!(self, Part::Whole | Part::Special)
    }

    /// The kind's own faults and, when there are none, its warnings.
    pub(super) fn judge(
        self,
        kind: &Kind,
        subresource: &str,
        object: &Object,
        old: &Object,
    ) -> (Vec<FieldError>, Vec<String>) {
        match self {
            Part::Whole => kind.strategy.judge_update(object, old),
            Part::Status => (kind.strategy.validate_status(object, old), Vec::new()),
            Part::Own => (Vec::new(), Vec::new()),
            Part::Special => (kind.strategy.validate_subresource(subresource, object, old), Vec::new()),
        }
    }
}

/// What a write to the status may change.
fn taken_by_status(kind: &Kind) -> &'static [&'static [&'static str]] {
    // Who may write such an object's status may not take its finalizers or owners away. Validation compares the uid, so
    // that nobody reports about a later object of the same name.
    match kind.custom.is_some() || kind.strategy.status_is_apart() {
        true => &[&["status"], &["metadata", "managedFields"], &["metadata", "uid"]],
        false => &[&["status"], &["metadata"]],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::kinds;
    use serde_json::{Value, json};

    fn object(value: Value) -> Object {
        Object::from_value(value).unwrap()
    }

    #[test]
    fn each_subresource_changes_its_part_alone() {
        let kind = kinds::find("", "v1", "pods").unwrap();
        let old =
            object(json!({"metadata": {"name": "a"}, "spec": {"x": 1}, "status": {"phase": "Pending"}}));
        let new = object(json!({"metadata": {"name": "a", "labels": {"l": "1"}}, "spec": {"x": 2}}));
        let whole = Part::Whole.confine(kind, "", new.clone(), &old);
        assert_eq!((whole.number(&["spec", "x"]), whole.text(&["status", "phase"])), (Some(2), "Pending"));
        let status = Part::Status.confine(kind, "status", new.clone(), &old);
        assert_eq!((status.number(&["spec", "x"]), status.at(&["status"])), (Some(1), None));
        assert_eq!(status.text(&["metadata", "labels", "l"]), "1");
        // The kinds that came late keep their metadata.
        for (group, plural) in [
            ("storage.k8s.io", "volumeattachments"),
            ("flowcontrol.apiserver.k8s.io", "flowschemas"),
            ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations"),
            ("apiregistration.k8s.io", "apiservices"),
        ] {
            let late = kinds::find(group, "v1", plural).unwrap();
            let status = Part::Status.confine(late, "status", new.clone(), &old);
            assert_eq!(
                (status.at(&["metadata", "labels"]), status.at(&["status"])),
                (None, None),
                "{plural}"
            );
            // Left for validation to compare.
            let mut stale = new.clone();
            stale.set(&["metadata", "uid"], "gone");
            assert_eq!(Part::Status.confine(late, "status", stale, &old).uid(), "gone", "{plural}");
        }
    }
}
