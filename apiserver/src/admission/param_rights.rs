//! Nobody reads through a policy what they may not read: whoever writes a policy with parameters, or binds one to them,
//! has to be allowed to get these.

use api::{FieldError, Object, Status};
use serde_json::Value;

use super::kind;
use crate::{
    authz::{Authorizer, Question},
    hooks::Attributes,
    registry::Registry,
    request::User,
};

const GROUP: &str = "admissionregistration.k8s.io";

/// Refuses parameters that the writer may not get.
pub(super) async fn check(
    registry: &Registry,
    authorizer: &Authorizer,
    attributes: &Attributes<'_>,
    object: &Object,
    old: Option<&Object>,
) -> Result<(), Status> {
    let spec = |object: &Object, field: &str| object.at(&["spec", field]).cloned().unwrap_or(Value::Null);
    let is_same =
        |fields: &[&str]| old.is_some_and(|old| fields.iter().all(|it| spec(old, it) == spec(object, it)));
    let (field, asked, why) = match attributes.kind.plural {
        "validatingadmissionpolicies" | "mutatingadmissionpolicies" => {
            let param_kind = spec(object, "paramKind");
            if param_kind.is_null() || is_same(&["paramKind"]) {
                return Ok(());
            }
            let text = |field: &str| param_kind[field].as_str().unwrap_or_default();
            let why = format!(
                "must have \"get\" permission on all objects of the referenced paramKind (kind={}, apiVersion={})",
                text("kind"),
                text("apiVersion")
            );
            ("spec.paramKind", Asked::all_of(registry, &param_kind), why)
        }
        plural @ ("validatingadmissionpolicybindings" | "mutatingadmissionpolicybindings") => {
            let param_ref = spec(object, "paramRef");
            if param_ref.is_null() || is_same(&["paramRef", "policyName"]) {
                return Ok(());
            }
            let policies = plural.replace("policybindings", "policies");
            let policy =
                registry.find(kind(GROUP, &policies), "", object.text(&["spec", "policyName"])).await?;
            let param_kind = policy.map_or(Value::Null, |policy| spec(&policy, "paramKind"));
            let text = |field: &str| param_ref[field].as_str().unwrap_or_default().to_string();
            let asked = Asked {
                namespace: text("namespace"),
                name: text("name"),
                ..Asked::all_of(registry, &param_kind)
            };
            let why = "does not have \"get\" permission on the object referenced by paramRef".to_string();
            ("spec.paramRef", asked, why)
        }
        _ => return Ok(()),
    };
    let user = attributes.user;
    if authorizer.decide(user, &asked.as_question()).await?.allowed {
        return Ok(());
    }
    let fault = FieldError::forbidden(field, format!("user {} {why}", shown(user)));
    Err(Status::invalid(GROUP, attributes.kind.kind, object.name(), &[fault]))
}

/// What has to be allowed; `*` for what is not known.
struct Asked {
    group: String,
    resource: String,
    namespace: String,
    name: String,
}

impl Asked {
    fn all_of(registry: &Registry, param_kind: &Value) -> Asked {
        let any = || "*".to_string();
        let mut asked = Asked { group: any(), resource: any(), namespace: any(), name: any() };
        let text = |field: &str| param_kind[field].as_str().unwrap_or_default();
        if !text("apiVersion").is_empty() {
            let (group, version) = text("apiVersion").split_once('/').unwrap_or(("", text("apiVersion")));
            asked.group = group.to_string();
            if let Some(kind) = registry.kinds().find_kind(group, version, text("kind")) {
                asked.resource = kind.plural.to_string();
            }
        }
        asked
    }

    fn as_question(&self) -> Question<'_> {
        Question {
            is_resource: true,
            verb: "get",
            group: &self.group,
            resource: &self.resource,
            namespace: &self.namespace,
            name: &self.name,
            ..Question::default()
        }
    }
}

/// As Go prints a user: name, uid, groups, extra.
fn shown(user: &User) -> String {
    let extra: Vec<String> =
        user.extra.iter().map(|(key, values)| format!("{key}:[{}]", values.join(" "))).collect();
    format!("&{{{} {} [{}] map[{}]}}", user.name, user.uid, user.groups.join(" "), extra.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_shown_as_upstream_does() {
        let mut ann = User::new("ann", &["dev", "system:authenticated"]);
        ann.extra.insert("k".into(), vec!["v".into()]);
        assert_eq!(shown(&ann), "&{ann  [dev system:authenticated] map[k:[v]]}");
    }
}
