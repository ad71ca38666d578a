//! Service-account tokens: what they say, and how they are asked for.

use std::time::Duration;

use api::{FieldError, Object, Status, kinds};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::TokenAuthority;
use crate::{pki::TokenKey, registry::Registry, request::User};

const GROUP: &str = "authentication.k8s.io";
const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
const NODE_UID: &str = "authentication.kubernetes.io/node-uid";

const DEFAULT_LIFETIME: i64 = 3600;
const MIN_LIFETIME: i64 = 600;
const MAX_LIFETIME: i64 = 1 << 32;
/// Pods' projected volumes ask for exactly this; such tokens live a year, for clients that never read the file again.
const PROJECTED_LIFETIME: i64 = 3607;
const EXTENDED_LIFETIME: i64 = 365 * 24 * 3600;
/// How long a pod that should be gone by now may still use its token.
const GRACE_AFTER_DELETION: Duration = Duration::from_secs(60);

/// The claims in a token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// Who issued it.
    pub issuer: String,
    /// For whom.
    pub audiences: Vec<String>,
    expires: i64,
    not_before: i64,
    id: String,
    namespace: String,
    account: Named,
    pod: Option<Named>,
    secret: Option<Named>,
    node: Option<Named>,
}

/// An object as claims name it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Named {
    name: String,
    uid: String,
}

/// An object that must exist for a token to be good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding<'a> {
    /// Plural name, in the core group.
    pub resource: &'static str,
    /// Empty for nodes.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    uid: &'a str,
}

impl Claims {
    /// Reads the claims of a service account's token; `None` when they are not such.
    pub fn from_json(claims: &Value) -> Option<Claims> {
        let about = &claims["kubernetes.io"];
        let audiences = match &claims["aud"] {
            Value::String(one) => vec![one.clone()],
            Value::Array(many) => many.iter().filter_map(Value::as_str).map(str::to_string).collect(),
            _ => Vec::new(),
        };
        Some(Claims {
            issuer: claims["iss"].as_str()?.to_string(),
            audiences,
            expires: claims["exp"].as_i64()?,
            not_before: claims["nbf"].as_i64().unwrap_or_default(),
            id: claims["jti"].as_str().unwrap_or_default().to_string(),
            namespace: about["namespace"].as_str()?.to_string(),
            account: Named::from_json(&about["serviceaccount"])?,
            pod: Named::from_json(&about["pod"]),
            secret: Named::from_json(&about["secret"]),
            node: Named::from_json(&about["node"]),
        })
    }

    /// Whether the token may be used yet, and still.
    pub fn is_current(&self, now: Timestamp) -> bool {
        (self.not_before..self.expires).contains(&now.as_second())
    }

    /// Those of `wanted` for whom the token is meant.
    pub fn audiences_among(&self, wanted: &[String]) -> Vec<String> {
        wanted.iter().filter(|audience| self.audiences.contains(audience)).cloned().collect()
    }

    /// What must still exist. Of pod and node only the pod counts: a node may come back under its name.
    pub fn bindings(&self) -> Vec<Binding<'_>> {
        let namespace = self.namespace.as_str();
        let mut bindings = vec![self.account.binding("serviceaccounts", namespace)];
        bindings.extend(self.pod.as_ref().map(|pod| pod.binding("pods", namespace)));
        bindings.extend(self.secret.as_ref().map(|secret| secret.binding("secrets", namespace)));
        if self.pod.is_none() {
            bindings.extend(self.node.as_ref().map(|node| node.binding("nodes", "")));
        }
        bindings
    }

    /// The user whom the token stands for.
    pub fn user(&self) -> User {
        let mut user = User::new(
            format!("system:serviceaccount:{}:{}", self.namespace, self.account.name),
            &[
                "system:serviceaccounts",
                &format!("system:serviceaccounts:{}", self.namespace),
                "system:authenticated",
            ],
        );
        user.uid = self.account.uid.clone();
        let mut extra = |key: &str, value: String| user.extra.insert(key.to_string(), vec![value]);
        if !self.id.is_empty() {
            extra(CREDENTIAL_ID, format!("JTI={}", self.id));
        }
        if let Some(pod) = &self.pod {
            extra(POD_NAME, pod.name.clone());
            extra(POD_UID, pod.uid.clone());
        }
        if let Some(node) = &self.node {
            extra(NODE_NAME, node.name.clone());
            extra(NODE_UID, node.uid.clone());
        }
        user
    }
}

impl Named {
    fn from_json(value: &Value) -> Option<Named> {
        let text = |key: &str| value[key].as_str().map(str::to_string);
        Some(Named { name: text("name")?, uid: text("uid").unwrap_or_default() })
    }

    fn of(object: &Object) -> Named {
        Named { name: object.name().to_string(), uid: object.uid().to_string() }
    }

    fn to_json(&self) -> Value {
        json!({"name": self.name, "uid": self.uid})
    }

    fn binding<'a>(&'a self, resource: &'static str, namespace: &'a str) -> Binding<'a> {
        Binding { resource, namespace, name: &self.name, uid: &self.uid }
    }
}

impl Binding<'_> {
    /// Whether the object that now has the name is the one that was meant, and not long deleted.
    pub fn holds(&self, object: &Object, now: Timestamp) -> bool {
        let gone_at = object.deletion_timestamp().and_then(|text| text.parse::<Timestamp>().ok());
        let is_gone = gone_at.is_some_and(|at| now > at + GRACE_AFTER_DELETION);
        (self.uid.is_empty() || object.uid() == self.uid) && !is_gone
    }
}

/// What a TokenRequest asks for, checked.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    audiences: Vec<String>,
    lifetime: i64,
}

/// The answer to a `create` on `serviceaccounts/token`: the request with its status.
pub async fn answer(
    registry: &Registry,
    key: &TokenKey,
    authority: &TokenAuthority,
    account: (&str, &str),
    request: &Object,
    now: Timestamp,
) -> Result<Object, Status> {
    let (namespace, name) = account;
    check_names(request, namespace, name)?;
    let account = registry.get(core("serviceaccounts"), namespace, name).await?;
    let wanted = read_request(request, authority)?;
    let mut about = json!({"namespace": namespace, "serviceaccount": Named::of(&account).to_json()});
    if let Some(reference) = request.at(&["spec", "boundObjectRef"]).filter(|reference| !reference.is_null())
    {
        bind(registry, namespace, name, reference, &mut about).await?;
    }
    let is_extended = wanted.lifetime == PROJECTED_LIFETIME && wanted.audiences == authority.audiences;
    let expires =
        now + SignedDuration::from_secs(if is_extended { EXTENDED_LIFETIME } else { wanted.lifetime });
    if is_extended {
        about["warnafter"] = (now.as_second() + PROJECTED_LIFETIME).into();
    }
    let id = uuid::Uuid::new_v4().to_string();
    crate::audit::annotate("authentication.kubernetes.io/issued-credential-id", format!("JTI={id}"));
    let claims = json!({
        "aud": wanted.audiences,
        "exp": expires.as_second(),
        "iat": now.as_second(),
        "iss": authority.issuer,
        "jti": id,
        "kubernetes.io": about,
        "nbf": now.as_second(),
        "sub": format!("system:serviceaccount:{namespace}:{name}"),
    });
    let token = key.sign(&claims).ok_or_else(|| Status::internal("failed to sign the token"))?;

    let mut answer = request.clone();
    answer.set(&["apiVersion"], format!("{GROUP}/v1"));
    answer.set(&["kind"], "TokenRequest");
    answer.set(&["metadata", "name"], name);
    answer.set(&["metadata", "namespace"], namespace);
    answer.set(&["metadata", "creationTimestamp"], api::time::format(now));
    answer.set(&["spec", "audiences"], wanted.audiences);
    answer.set(&["spec", "expirationSeconds"], wanted.lifetime);
    answer.set_if_absent(&["spec", "boundObjectRef"], Value::Null);
    // Clients learn the time they asked for, so that they renew in time, also where the token would live longer.
    let told = now + SignedDuration::from_secs(wanted.lifetime);
    answer.set(&["status"], json!({"token": token, "expirationTimestamp": api::time::format(told)}));
    Ok(answer)
}

/// A request may name the account that it is for, but no other one.
fn check_names(request: &Object, namespace: &str, name: &str) -> Result<(), Status> {
    for (field, given, actual) in
        [("name", request.name(), name), ("namespace", request.namespace(), namespace)]
    {
        if !given.is_empty() && given != actual {
            let detail = format!("must match the service account {field} if specified");
            let error = FieldError::invalid(format!("metadata.{field}"), &given.into(), detail);
            return Err(Status::invalid(GROUP, "TokenRequest", name, &[error]));
        }
    }
    Ok(())
}

fn read_request(request: &Object, authority: &TokenAuthority) -> Result<Wanted, Status> {
    let lifetime = request.number(&["spec", "expirationSeconds"]).unwrap_or(DEFAULT_LIFETIME);
    let field = "spec.expirationSeconds";
    let fault = match lifetime {
        ..MIN_LIFETIME => Some("may not specify a duration less than 10 minutes"),
        MIN_LIFETIME..=MAX_LIFETIME => None,
        _ => Some("may not specify a duration larger than 2^32 seconds"),
    };
    if let Some(fault) = fault {
        let error = FieldError::invalid(field, &lifetime.into(), fault);
        return Err(Status::invalid(GROUP, "TokenRequest", "", &[error]));
    }
    let audiences: Vec<String> =
        request.list(&["spec", "audiences"]).iter().filter_map(Value::as_str).map(str::to_string).collect();
    let audiences = if audiences.is_empty() { authority.audiences.clone() } else { audiences };
    Ok(Wanted { audiences, lifetime })
}

/// Adds the claims about the object that the token is bound to.
async fn bind(
    registry: &Registry,
    namespace: &str,
    account: &str,
    reference: &Value,
    about: &mut Value,
) -> Result<(), Status> {
    let text = |key: &str| reference[key].as_str().unwrap_or_default();
    let (group, version) = text("apiVersion").split_once('/').unwrap_or(("", text("apiVersion")));
    let kind = text("kind");
    let (key, resource, namespace) = match (group, kind) {
        ("", "Pod") => ("pod", "pods", namespace),
        ("", "Secret") => ("secret", "secrets", namespace),
        ("", "Node") => ("node", "nodes", ""),
        _ => {
            let why = format!("cannot bind token to object of type {group}/{version}, Kind={kind}");
            return Err(Status::bad_request(why));
        }
    };
    if text("name").is_empty() {
        return Err(Status::bad_request("Name parameter required."));
    }
    let object = registry.get(core(resource), namespace, text("name")).await?;
    let uid = text("uid");
    if !uid.is_empty() && uid != object.uid() {
        let why = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(Status::conflict("", kind, text("name"), &why));
    }
    if resource == "pods" {
        let runs_as = object.text(&["spec", "serviceAccountName"]);
        if runs_as != account {
            return Err(Status::bad_request(format!(
                "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
            )));
        }
        let node = object.text(&["spec", "nodeName"]);
        if !node.is_empty()
            && let Ok(node) = registry.get(core("nodes"), "", node).await
        {
            about["node"] = Named::of(&node).to_json();
        }
    }
    about[key] = Named::of(&object).to_json();
    Ok(())
}

fn core(plural: &str) -> &'static api::Kind {
    kinds::built_in("", plural)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> Claims {
        let claims = json!({
            "iss": "https://issuer", "aud": ["api"], "exp": 2000, "nbf": 1000, "jti": "id",
            "kubernetes.io": {
                "namespace": "a",
                "serviceaccount": {"name": "web", "uid": "u1"},
                "pod": {"name": "p", "uid": "u2"},
                "node": {"name": "n", "uid": "u3"},
            },
        });
        Claims::from_json(&claims).unwrap()
    }

    #[test]
    fn a_token_is_good_between_its_times() {
        let at = |second| claims().is_current(Timestamp::from_second(second).unwrap());
        assert!(!at(999) && at(1000) && at(1999) && !at(2000));
    }

    #[test]
    fn a_token_is_for_its_audiences() {
        assert_eq!(claims().audiences_among(&["other".into(), "api".into()]), ["api"]);
        assert!(claims().audiences_among(&["other".into()]).is_empty());
    }

    #[test]
    fn the_user_carries_what_the_token_is_bound_to() {
        let user = claims().user();
        assert_eq!((user.name.as_str(), user.uid.as_str()), ("system:serviceaccount:a:web", "u1"));
        assert_eq!(
            user.groups,
            ["system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"]
        );
        assert_eq!(user.extra[POD_NAME], ["p"]);
        assert_eq!(user.extra[CREDENTIAL_ID], ["JTI=id"]);
    }

    #[test]
    fn a_bound_object_must_be_the_same_one_and_there() {
        let claims = claims();
        let bindings = claims.bindings();
        assert_eq!(
            bindings.iter().map(|binding| binding.resource).collect::<Vec<_>>(),
            ["serviceaccounts", "pods"]
        );
        let pod = |uid: &str, deleted: Value| {
            Object::from_value(json!({"metadata": {"uid": uid, "deletionTimestamp": deleted}})).unwrap()
        };
        let now: Timestamp = "2026-01-01T00:10:00Z".parse().unwrap();
        assert!(bindings[1].holds(&pod("u2", Value::Null), now));
        assert!(!bindings[1].holds(&pod("other", Value::Null), now));
        assert!(bindings[1].holds(&pod("u2", json!("2026-01-01T00:09:30Z")), now));
        assert!(!bindings[1].holds(&pod("u2", json!("2026-01-01T00:08:00Z")), now));
    }

    #[test]
    fn a_request_may_not_ask_for_too_little() {
        let authority = TokenAuthority { issuer: "i".into(), audiences: vec!["api".into()] };
        let request = |seconds: i64| {
            let request = Object::from_value(json!({"spec": {"expirationSeconds": seconds}})).unwrap();
            read_request(&request, &authority)
        };
        let refused = request(599).unwrap_err();
        assert_eq!(refused.code, 422);
        assert!(refused.message.contains(
            "spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes"
        ));
        assert_eq!(request(600), Ok(Wanted { audiences: vec!["api".into()], lifetime: 600 }));
    }
}
