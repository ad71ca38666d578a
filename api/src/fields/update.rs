//! Attributes what a write has changed.

use super::{
    Comparison, Managers, Write, empty,
    managers::{self, Entry},
    place::Place,
    remove::reconciled,
};
use crate::Object;

/// Sets `metadata.managedFields` of `new`, an object about to replace `live` or, without one, to be created.
///
/// What changed belongs to the write's manager from now on. A write that changes nothing changes nobody's
/// entry. A client may change entries itself, except through a subresource; what it sends is taken as
/// it is when it can be read, else ignored.
pub fn update(write: &Write<'_>, live: Option<&Object>, new: &mut Object) {
    let sent = new.remove(&["metadata", "managedFields"]).filter(|_| write.manager.subresource.is_empty());
    let kept = live.and_then(|live| live.at(&["metadata", "managedFields"]));
    let sent = sent.filter(|sent| Some(sent) != kept);
    let nothing = empty();
    let comparison = write.compare(write.schema, live.unwrap_or(&nothing), new);
    if let (None, Some(kept), true) = (&sent, kept, comparison.is_empty()) {
        new.set(&["metadata", "managedFields"], kept.clone());
        return;
    }
    let managers = match &sent {
        Some(sent) if managers::is_reset(sent) => Managers::default(),
        Some(sent) => match Managers::from_json(sent) {
            Ok(managers) if !managers.0.is_empty() => managers,
            _ => of_live(live),
        },
        None => of_live(live),
    };
    if live.is_some() && managers.0.is_empty() {
        // Nobody owns anything; that begins again with the first apply.
        return;
    }
    let managers = attributed(write, live.unwrap_or(&nothing), new, managers, comparison);
    if let Some(json) = managers.to_json() {
        new.set(&["metadata", "managedFields"], json);
    }
}

fn of_live(live: Option<&Object>) -> Managers {
    live.and_then(|live| Managers::of(live).ok()).unwrap_or_default()
}

/// The managers after a write that made `new` out of `live`, which differ by `comparison`.
pub(super) fn attributed(
    write: &Write<'_>,
    live: &Object,
    new: &Object,
    managers: Managers,
    comparison: Comparison,
) -> Managers {
    let mut managers = without_changes(write, live, new, managers, &comparison);
    if !comparison.changed.is_empty() {
        let fields = match managers.remove(&write.manager) {
            Some(before) => before.fields.union(&comparison.changed),
            None => comparison.changed,
        };
        managers.0.push(Entry { manager: write.manager.clone(), time: Some(write.now.clone()), fields });
    }
    managers.unite_oldest();
    managers
}

/// What is left to everybody: neither what has changed nor what is gone, each in its own version.
fn without_changes(
    write: &Write<'_>,
    live: &Object,
    new: &Object,
    managers: Managers,
    comparison: &Comparison,
) -> Managers {
    let mut others: Vec<(String, Option<Compared>)> = Vec::new();
    let mut left = Managers::default();
    for mut entry in managers.0 {
        let version = &entry.manager.api_version;
        let (schema, comparison) = if *version == write.manager.api_version {
            (write.schema, comparison)
        } else {
            if !others.iter().any(|(known, _)| known == version) {
                others.push((version.clone(), compared_in(write, live, new, version)));
            }
            let found =
                others.iter().find(|(known, _)| known == version).and_then(|(_, found)| found.as_ref());
            let Some((schema, comparison)) = found else {
                // Nobody can own fields of a version that is gone.
                if write.versions.is_known(version) {
                    left.0.push(entry);
                }
                continue;
            };
            (*schema, comparison)
        };
        let fields = reconciled(Place::of(schema), &entry.fields);
        entry.fields = fields.difference(&comparison.changed).difference(&comparison.removed);
        if !entry.fields.is_empty() {
            left.0.push(entry);
        }
    }
    left
}

/// A version's type, and what differs in that version.
pub(super) type Compared = (Option<&'static crate::schema::Schema>, Comparison);

pub(super) fn compared_in(write: &Write<'_>, live: &Object, new: &Object, version: &str) -> Option<Compared> {
    let (new, schema) = write.versions.converted(new, version)?;
    let live = match live.0.is_empty() {
        true => empty(),
        false => write.versions.converted(live, version)?.0,
    };
    Some((schema, write.compare(schema, &live, &new)))
}
