//! Rules that are younger than the API that they are rules of.

use super::{Check, Props, prune};

/// What the schemas of a definition need not keep to: what one of them did not keep to before.
#[derive(Clone, Copy, Debug, Default)]
pub struct Exemptions {
    /// The items of sets may have parts that are merged.
    pub(super) sets: bool,
    /// The items of sets and maps may be null, and those of maps may lack their keys.
    pub(super) keys: bool,
    /// Defaults may hold what pruning would take away.
    pub(super) defaults: bool,
}

impl Exemptions {
    /// The exemptions of a definition whose stored schemas these are.
    pub fn of(schemas: &[Props]) -> Exemptions {
        let mut exempt = Exemptions::default();
        for schema in schemas {
            schema.visit(&mut |props| {
                exempt.sets |= loose_item(props).is_some();
                exempt.keys |= lacks_keys(props);
                exempt.defaults |= has_unknown_fields(props);
            });
        }
        exempt
    }
}

/// The field that would have to be `atomic` for the items of a set to be told apart as wholes.
pub(super) fn loose_item(props: &Props) -> Option<&'static str> {
    let item = props.item().filter(|_| props.list_type.as_deref() == Some("set"))?;
    match item.kind.as_str() {
        "array" if item.list_type.as_deref().is_some_and(|kind| kind != "atomic") => {
            Some("items.x-kubernetes-list-type")
        }
        "object" if item.map_type.as_deref() != Some("atomic") => Some("items.x-kubernetes-map-type"),
        _ => None,
    }
}

fn lacks_keys(props: &Props) -> bool {
    let mut check = Check::default();
    check.check_keys(props, "");
    !check.faults.is_empty()
}

/// Whether the default of a node holds what pruning would take away.
pub(super) fn has_unknown_fields(props: &Props) -> bool {
    let default = props.default.as_ref();
    default.is_some_and(|default| !prune::unknown_fields(default, props, "", false).is_empty())
}
