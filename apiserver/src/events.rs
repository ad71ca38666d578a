//! Events that the server itself has to tell.

use api::{Object, kinds, name, time};
use jiff::Timestamp;
use serde_json::json;

use crate::registry::Registry;

/// Something that somebody may have to look at.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Warning {
    /// Which part of the server says so.
    pub(crate) controller: &'static str,
    /// Of which object.
    pub(crate) regarding: Regarding,
    /// Why, in CamelCase.
    pub(crate) reason: &'static str,
    /// What was being done, in CamelCase.
    pub(crate) action: &'static str,
    /// What happened, for people.
    pub(crate) note: String,
}

/// The object that an event is about.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Regarding {
    pub(crate) api_version: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
}

impl Warning {
    /// Writes it down. That it cannot be is no reason to stop.
    pub(crate) async fn tell(self, registry: &Registry) {
        tracing::warn!(object = self.regarding.name, reason = self.reason, note = self.note, "an event");
        let kind = kinds::built_in("events.k8s.io", "events");
        if let Err(status) = registry.create(kind, self.into_object(Timestamp::now())).await {
            tracing::warn!(%status, "cannot write an event");
        }
    }

    fn into_object(self, now: Timestamp) -> Object {
        let Warning { controller, regarding, reason, action, note } = self;
        let Regarding { api_version, kind, namespace, name, uid } = regarding;
        // Addresses of IPv6 are no names.
        let stem = if name::dns_subdomain(&name).is_ok() { name.as_str() } else { controller };
        let own = format!("{stem}.{:x}", now.as_nanosecond());
        let about = json!({
            "apiVersion": api_version, "kind": kind, "name": name, "uid": uid,
            "namespace": (!namespace.is_empty()).then_some(&namespace),
        });
        let home = if namespace.is_empty() { "default" } else { &namespace };
        let object = json!({
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": own, "namespace": home},
            "eventTime": time::format_micro(now),
            "type": "Warning",
            "reportingController": controller,
            "reportingInstance": format!("{controller}-apiserver"),
            "regarding": about,
            "reason": reason,
            "action": action,
            "note": note,
        });
        Object::from_value(object).unwrap_or_default()
    }
}

impl Regarding {
    /// An object that has been read.
    pub(crate) fn of(api_version: &'static str, kind: &'static str, object: &Object) -> Regarding {
        Regarding {
            api_version,
            kind,
            namespace: object.namespace().into(),
            name: object.name().into(),
            uid: object.uid().into(),
        }
    }
}

/// What keeps an event from being written.
#[cfg(test)]
pub(crate) fn faults(warning: Warning) -> Vec<String> {
    let object = warning.into_object(Timestamp::UNIX_EPOCH);
    let kind = kinds::built_in("events.k8s.io", "events");
    let mut faults = api::meta::validate(&object, kind, None);
    faults.extend(kind.strategy.validate(&object, None));
    faults.iter().map(ToString::to_string).collect()
}
