//! `AdmissionReview`: what a webhook is asked, and what its answer means. All pure.

use api::{Kind, Status, items};
use base64::{Engine, prelude::BASE64_STANDARD};
use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::{admission::matching::word, discovery, hooks::Attributes, request::User};

/// The version of a review.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// The present one.
    V1,
    /// The older one, which is less exact about answers.
    V1Beta1,
}

impl Version {
    /// The version that a configuration names; none for those that nobody knows.
    pub(super) fn read(name: &str) -> Option<Version> {
        match name {
            "v1" => Some(Version::V1),
            "v1beta1" => Some(Version::V1Beta1),
            _ => None,
        }
    }

    fn api_version(self) -> &'static str {
        match self {
            Version::V1 => "admission.k8s.io/v1",
            Version::V1Beta1 => "admission.k8s.io/v1beta1",
        }
    }
}

/// The object before and after, as the webhook wants to see them; null where there is none.
#[derive(Clone, Debug, Default)]
pub(super) struct Shown {
    pub(super) object: Value,
    pub(super) old: Value,
}

/// What is asked about: everything but the objects. `seen` is the kind that the webhook asked for.
pub(super) fn request(attributes: &Attributes<'_>, seen: &'static Kind, name: &str, uid: &str) -> Value {
    let subresource = attributes.subresource;
    let mut request = json!({
        "uid": uid,
        "kind": kind_of(seen, subresource),
        "resource": resource_of(seen),
        "requestKind": kind_of(attributes.kind, subresource),
        "requestResource": resource_of(attributes.kind),
        "operation": word(attributes.operation),
        "userInfo": user_info(attributes.user),
        "dryRun": attributes.dry_run,
        "options": attributes.options,
    });
    let is_namespace = attributes.kind.group.is_empty() && attributes.kind.plural == "namespaces";
    let namespace = if is_namespace { name } else { attributes.namespace };
    let texts = [
        ("subResource", subresource),
        ("requestSubResource", subresource),
        ("name", name),
        ("namespace", namespace),
    ];
    for (field, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
        request[field] = text.into();
    }
    request
}

/// The whole question.
pub(super) fn review(version: Version, mut request: Value, shown: &Shown) -> Value {
    request["object"] = shown.object.clone();
    request["oldObject"] = shown.old.clone();
    json!({"kind": "AdmissionReview", "apiVersion": version.api_version(), "request": request})
}

fn kind_of(kind: &Kind, subresource: &str) -> Value {
    let (group, version, name) = discovery::kind_of(kind, subresource);
    json!({"group": group, "version": version, "kind": name})
}

fn resource_of(kind: &Kind) -> Value {
    json!({"group": kind.group, "version": kind.version, "resource": kind.plural})
}

fn user_info(user: &User) -> Value {
    let mut info = json!({"username": user.name});
    if !user.uid.is_empty() {
        info["uid"] = user.uid.clone().into();
    }
    if !user.groups.is_empty() {
        info["groups"] = user.groups.clone().into();
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
}

/// What a webhook has decided.
#[derive(Debug, PartialEq)]
pub(super) struct Response {
    pub(super) is_allowed: bool,
    /// A JSON patch; null when there is none.
    pub(super) patch: Value,
    pub(super) warnings: Vec<String>,
    pub(super) annotations: Map<String, Value>,
    /// Why not, as a Status; null when the webhook does not say.
    pub(super) result: Value,
}

/// Reads an answer. Only a webhook that may change objects may answer with a patch.
pub(super) fn read(
    version: Version,
    uid: &str,
    is_mutating: bool,
    answer: &Value,
) -> Result<Response, String> {
    let response = &answer["response"];
    if !response.is_object() {
        return Err("webhook response was absent".into());
    }
    if version == Version::V1 {
        check(uid, answer, is_mutating)?;
    }
    let patch = match response["patch"].as_str().filter(|_| is_mutating) {
        None | Some("") => Value::Null,
        Some(text) => decoded(text)?,
    };
    let warnings = items(&response["warnings"]).iter();
    Ok(Response {
        is_allowed: response["allowed"] == true,
        patch,
        warnings: warnings.filter_map(|warning| warning.as_str().map(str::to_string)).collect(),
        annotations: response["auditAnnotations"].as_object().cloned().unwrap_or_default(),
        result: response["status"].clone(),
    })
}

fn check(uid: &str, answer: &Value, is_mutating: bool) -> Result<(), String> {
    let response = &answer["response"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    if response["uid"] != uid {
        return Err(format!("expected response.uid={uid:?}, got {:?}", text(&response["uid"])));
    }
    let (api_version, kind) = (text(&answer["apiVersion"]), text(&answer["kind"]));
    let expected = Version::V1.api_version();
    if (api_version.as_str(), kind.as_str()) != (expected, "AdmissionReview") {
        let found = if api_version.contains('/') { api_version } else { format!("/{api_version}") };
        return Err(format!(
            "expected webhook response of {expected}, Kind=AdmissionReview, got {found}, Kind={kind}"
        ));
    }
    let has_patch = response["patch"].as_str().is_some_and(|patch| !patch.is_empty());
    let sort = &response["patchType"];
    match (is_mutating, has_patch, sort.is_null()) {
        (true, true, true) => Err("webhook returned response.patch but not response.patchType".into()),
        (true, false, false) => Err("webhook returned response.patchType but not response.patch".into()),
        (true, true, false) if sort == "" => {
            Err(r#"webhook returned invalid response.patchType of """#.into())
        }
        (true, true, false) if sort != "JSONPatch" => Err(format!("unsupported patch type {:?}", text(sort))),
        (false, true, _) => Err("validating webhook may not return response.patch".into()),
        (false, false, false) => Err("validating webhook may not return response.patchType".into()),
        _ => Ok(()),
    }
}

fn decoded(patch: &str) -> Result<Value, String> {
    let bytes = BASE64_STANDARD.decode(patch).map_err(|error| format!("illegal base64 data: {error}"))?;
    serde_json::from_slice(&bytes)
        .map_err(|error| format!("received undecodable patch in webhook response: {error}"))
}

/// The refusal that the client is told.
pub(super) fn denial(webhook: &str, result: &Value) -> Status {
    let denied = format!("admission webhook {webhook:?} denied the request");
    let text = |field: &str| result[field].as_str().unwrap_or_default();
    let message = match (text("message"), text("reason")) {
        ("", "") => format!("{denied} without explanation"),
        ("", reason) => format!("{denied}: {reason}"),
        (message, _) => format!("{denied}: {message}"),
    };
    let code = result["code"].as_u64().and_then(|code| u16::try_from(code).ok());
    // A refusal is none with a code that says success, or with one that HTTP does not know.
    let code = code.filter(|code| *code >= 400 && StatusCode::from_u16(*code).is_ok()).unwrap_or(400);
    let mut status = Status::new(code, "", message);
    status.given_reason = Some(text("reason").into());
    status.details = Some(result["details"].clone()).filter(Value::is_object);
    status
}

#[cfg(test)]
mod tests {
    use api::kinds;

    use super::*;
    use crate::hooks::Operation;

    fn answer(response: Value) -> Value {
        json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response})
    }

    #[test]
    fn a_question_tells_who_wants_what() {
        let user = User::new("jane", &["devs"]);
        let options = json!({"kind": "UpdateOptions"});
        let deployments = kinds::find("apps", "v1", "deployments").unwrap();
        let attributes = Attributes {
            user: &user,
            operation: Operation::Update,
            kind: deployments,
            subresource: "scale",
            namespace: "prod",
            name: "web",
            addressed: "",
            dry_run: false,
            options: &options,
            deadline: None,
        };
        let request = request(&attributes, deployments, "web", "1-2-3");
        assert_eq!(request["kind"], json!({"group": "autoscaling", "version": "v1", "kind": "Scale"}));
        assert_eq!(request["resource"], json!({"group": "apps", "version": "v1", "resource": "deployments"}));
        assert_eq!((&request["subResource"], &request["operation"]), (&json!("scale"), &json!("UPDATE")));
        assert_eq!(request["userInfo"], json!({"username": "jane", "groups": ["devs"]}));
        let review = review(Version::V1, request, &Shown { object: json!({"a": 1}), old: Value::Null });
        assert_eq!(
            (&review["request"]["object"], &review["request"]["oldObject"]),
            (&json!({"a": 1}), &Value::Null)
        );
        assert_eq!(review["request"]["options"], options);
    }

    #[test]
    fn an_answer_is_to_the_question_and_complete() {
        let wrong = |is_mutating: bool, response: Value| {
            read(Version::V1, "1", is_mutating, &answer(response)).unwrap_err()
        };
        assert_eq!(wrong(true, json!({"uid": "2"})), r#"expected response.uid="1", got "2""#);
        assert_eq!(
            wrong(true, json!({"uid": "1", "patch": "W10="})),
            "webhook returned response.patch but not response.patchType"
        );
        assert_eq!(
            wrong(false, json!({"uid": "1", "patch": "W10=", "patchType": "JSONPatch"})),
            "validating webhook may not return response.patch"
        );
        assert_eq!(read(Version::V1, "1", true, &json!({})).unwrap_err(), "webhook response was absent");
        let old = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1beta1", "response": {"uid": "1", "allowed": true}});
        assert_eq!(
            read(Version::V1, "1", false, &old).unwrap_err(),
            "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got admission.k8s.io/v1beta1, Kind=AdmissionReview"
        );
        assert!(read(Version::V1Beta1, "other", false, &old).unwrap().is_allowed);
    }

    #[test]
    fn an_answer_may_change_warn_and_note() {
        let patch = json!([{"op": "add", "path": "/x", "value": 1}]);
        let response = json!({
            "uid": "1", "allowed": true, "patchType": "JSONPatch",
            "patch": BASE64_STANDARD.encode(patch.to_string()),
            "warnings": ["take care"], "auditAnnotations": {"why": "because"},
        });
        let response = read(Version::V1, "1", true, &answer(response)).unwrap();
        assert_eq!((response.patch, response.warnings), (patch, vec!["take care".to_string()]));
        assert_eq!(response.annotations["why"], "because");
    }

    #[test]
    fn a_denial_says_who_and_why() {
        let said = |result: Value| {
            let status = denial("a.b.c", &result);
            (status.code, status.message.replace("admission webhook \"a.b.c\" denied the request", "NO"))
        };
        assert_eq!(said(Value::Null), (400, "NO without explanation".into()));
        assert_eq!(said(json!({"message": "not you", "code": 403})), (403, "NO: not you".into()));
        assert_eq!(said(json!({"reason": "Because", "code": 200})), (400, "NO: Because".into()));
        assert_eq!(said(json!({"code": 7000})), (400, "NO without explanation".into()));
        let status = denial("a.b.c", &json!({"reason": "Policy", "details": {"kind": "x"}})).to_json();
        assert_eq!((&status["reason"], &status["details"]), (&json!("Policy"), &json!({"kind": "x"})));
        assert!(denial("a.b.c", &Value::Null).to_json().get("reason").is_none());
    }
}
