//! What the query of a URL, and the body of a DELETE, ask for: parsed once, wrong values refused with 400.

use std::{
    num::{IntErrorKind, ParseIntError},
    time::Duration,
};

use api::{
    FieldError, Object, Status,
    selector::{FieldSelector, LabelSelector},
};
use axum::extract;
use http::Uri;
use serde_json::{Value, json};

/// What upstream calls the options of a list or watch, and of a delete.
const LIST: &str = "ListOptions";
const DELETE: &str = "DeleteOptions";

/// The parameters of a URL, in order.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads the query of a URL.
    pub fn of(uri: &Uri) -> Result<Query, Status> {
        if uri.query().is_none_or(str::is_empty) {
            return Ok(Query::default());
        }
        let pairs = extract::Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|error| Status::bad_request(error.to_string()))?;
        Ok(Query(pairs.0))
    }

    /// The first value of a parameter; an empty one counts as absent.
    pub fn get(&self, name: &str) -> Option<&str> {
        let pair = self.0.iter().find(|(key, _)| key == name)?;
        Some(pair.1.as_str()).filter(|value| !value.is_empty())
    }

    /// Every value of a parameter.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Whether a flag is set: as upstream, anything but `false` and `0` will do, nothing included.
    pub fn is_true(&self, name: &str) -> bool {
        let value = self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value);
        value.is_some_and(|value| value != "0" && !value.eq_ignore_ascii_case("false"))
    }

    /// A flag that need not be there.
    fn flag(&self, name: &str) -> Option<bool> {
        self.0.iter().any(|(key, _)| key == name).then(|| self.is_true(name))
    }

    /// The state that is asked for; `None`: the newest.
    pub fn resource_version(&self) -> Result<Option<u64>, Status> {
        let Some(text) = self.get("resourceVersion") else { return Ok(None) };
        text.parse().map(Some).map_err(|_| invalid_version(text))
    }

    /// A number that need not be there.
    pub(crate) fn number(&self, name: &str) -> Result<Option<i64>, Status> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let refused = |error| Status::bad_request(not_a_number("ParseInt", text, &error));
        text.parse().map(Some).map_err(refused)
    }

    /// A number of things or seconds. Less than none is as good as not asked for.
    fn count<N: TryFrom<i64>>(&self, name: &str) -> Result<Option<N>, Status> {
        Ok(self.number(name)?.and_then(|number| N::try_from(number).ok()))
    }
}

/// `resourceVersionMatch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionMatch {
    /// The state at exactly this revision.
    Exact,
    /// Any state at this revision or later.
    NotOlderThan,
}

/// What a list or watch asks for.
#[derive(Clone, Debug)]
pub struct ListOptions {
    /// Only objects with such labels.
    pub labels: LabelSelector,
    /// Only objects with such fields.
    pub fields: FieldSelector,
    /// At most so many; 0: all.
    pub limit: usize,
    /// Where an earlier page ended.
    pub continue_token: Option<String>,
    /// `None` when unset: the newest state.
    pub resource_version: Option<u64>,
    /// How `resource_version` is meant.
    pub version_match: Option<VersionMatch>,
    /// Whether a watch may send bookmarks.
    pub bookmarks: bool,
    /// Whether a watch starts with all that is there; `None` when the client does not say.
    pub send_initial_events: Option<bool>,
    /// When a watch ends by itself.
    pub timeout: Option<Duration>,
}

impl ListOptions {
    /// Reads and checks them as upstream does.
    pub fn read(query: &Query, is_watch: bool) -> Result<ListOptions, Status> {
        let labels = LabelSelector::parse(query.get("labelSelector").unwrap_or_default());
        let fields = FieldSelector::parse(query.get("fieldSelector").unwrap_or_default());
        let limit = query.count("limit")?.unwrap_or_default();
        let timeout = query.count("timeoutSeconds")?.map(Duration::from_secs);
        check_versions(query, is_watch)?;
        let version_match = match query.get("resourceVersionMatch") {
            Some("Exact") => Some(VersionMatch::Exact),
            Some("NotOlderThan") => Some(VersionMatch::NotOlderThan),
            _ => None,
        };
        Ok(ListOptions {
            labels: labels.map_err(|error| Status::bad_request(error.to_string()))?,
            fields: fields.map_err(|error| Status::bad_request(error.to_string()))?,
            limit,
            continue_token: query.get("continue").map(str::to_string),
            resource_version: query.resource_version()?,
            version_match,
            bookmarks: query.is_true("allowWatchBookmarks"),
            send_initial_events: query.flag("sendInitialEvents"),
            timeout,
        })
    }

    /// Whether a watch begins with all that is there, as if it had just been created.
    pub fn has_initial_events(&self) -> bool {
        self.send_initial_events.unwrap_or(matches!(self.resource_version, None | Some(0)))
    }
}

/// Which versions may be asked for in which way: every fault at once.
fn check_versions(query: &Query, is_watch: bool) -> Result<(), Status> {
    let field = "resourceVersionMatch";
    let (wanted, sends_initial_events) = (query.get(field), query.flag("sendInitialEvents").is_some());
    let mut faults = Vec::new();
    let mut forbid = |field: &str, why: &str| faults.push(FieldError::forbidden(field, why));
    if is_watch && sends_initial_events && wanted != Some("NotOlderThan") {
        forbid(field, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
    }
    if is_watch && wanted.is_some() && !sends_initial_events {
        forbid(field, "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided");
    }
    if !is_watch && wanted.is_some() && query.get("resourceVersion").is_none() {
        forbid(field, "resourceVersionMatch is forbidden unless resourceVersion is provided");
    }
    if wanted.is_some() && query.get("continue").is_some() {
        forbid(field, "resourceVersionMatch is forbidden when continue is provided");
    }
    if !is_watch && wanted == Some("Exact") && query.get("resourceVersion") == Some("0") {
        forbid(field, r#"resourceVersionMatch "exact" is forbidden for resourceVersion "0""#);
    }
    if !is_watch && sends_initial_events {
        forbid("sendInitialEvents", "sendInitialEvents is forbidden for list");
    }
    let known: &[&str] = if is_watch { &["NotOlderThan"] } else { &["Exact", "NotOlderThan", ""] };
    if let Some(wanted) = wanted.filter(|wanted| !known.contains(wanted)) {
        faults.push(FieldError::not_supported(field, &wanted.into(), known));
    }
    match faults.is_empty() {
        true => Ok(()),
        false => Err(Status::invalid("meta.k8s.io", LIST, "", &faults)),
    }
}

/// `fieldValidation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldValidation {
    /// Unknown and repeated fields fail the request.
    Strict,
    /// They are dropped, and the client is told.
    Warn,
    /// They are dropped.
    Ignore,
}

/// What create, update and patch ask for.
#[derive(Clone, Debug)]
pub struct WriteOptions {
    /// Everything happens but the write.
    pub dry_run: bool,
    /// What to do about fields that the schema does not know.
    pub validation: FieldValidation,
    /// The name under which the client owns what it writes, where it gives one.
    pub field_manager: Option<String>,
    /// Whether an apply patch takes what others own; `None` when the client does not say.
    pub force: Option<bool>,
}

impl WriteOptions {
    /// Reads and checks them; upstream's default for `fieldValidation` is `Warn`. Upstream has a
    /// kind of options for each verb.
    pub fn read(query: &Query, verb: &str) -> Result<WriteOptions, Status> {
        let kind = match verb {
            "create" => "CreateOptions",
            "update" => "UpdateOptions",
            _ => "PatchOptions",
        };
        let validation = match query.get("fieldValidation") {
            None | Some("Warn") => FieldValidation::Warn,
            Some("Strict") => FieldValidation::Strict,
            Some("Ignore") => FieldValidation::Ignore,
            Some(other) => {
                let (value, allowed) = (other.into(), ["Ignore", "Strict", "Warn"]);
                return Err(unsupported(kind, "fieldValidation", value, &allowed));
            }
        };
        let field_manager = query.get("fieldManager").map(str::to_string);
        if let Some(name) = &field_manager {
            check_field_manager(name).map_err(|error| invalid(kind, error))?;
        }
        let force = query.0.iter().any(|(key, _)| key == "force").then(|| query.is_true("force"));
        Ok(WriteOptions { dry_run: dry_run(query.all("dryRun"), kind)?, validation, field_manager, force })
    }

    /// Checks what depends on the sort of patch: who applies says who he is.
    pub fn check_patch(&self, is_apply: bool) -> Result<(), Status> {
        const OPTIONS: &str = "PatchOptions";
        if is_apply && self.field_manager.is_none() {
            return Err(invalid(
                OPTIONS,
                FieldError::required("fieldManager", "is required for apply patch"),
            ));
        }
        if !is_apply && self.force.is_some() {
            return Err(forbidden(OPTIONS, "force", "may not be specified for non-apply patch"));
        }
        Ok(())
    }
}

/// The longest name of a field manager, in bytes.
pub(crate) const FIELD_MANAGER_LIMIT: usize = 128;

fn check_field_manager(name: &str) -> Result<(), FieldError> {
    if name.len() > FIELD_MANAGER_LIMIT {
        return Err(FieldError::too_long("fieldManager", FIELD_MANAGER_LIMIT));
    }
    match name.char_indices().find(|(_, letter)| letter.is_control()) {
        Some((at, letter)) => {
            let why = format!("invalid character U+{:04X} (at position {at})", u32::from(letter));
            Err(FieldError::invalid("fieldManager", &name.into(), why))
        }
        None => Ok(()),
    }
}

/// `propagationPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// Dependents stay.
    Orphan,
    /// Dependents go later.
    Background,
    /// Dependents go first.
    Foreground,
}

/// What a delete asks for, in its body or its query.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    /// How long the object may take to end.
    pub grace_period: Option<i64>,
    /// What becomes of its dependents; `None`: what its finalizers say, else background.
    pub propagation: Option<Propagation>,
    /// Only the object with this uid.
    pub uid: Option<String>,
    /// Only at this revision.
    pub resource_version: Option<String>,
    /// Everything happens but the write.
    pub dry_run: bool,
}

impl DeleteOptions {
    /// From an object of kind DeleteOptions.
    pub fn from_object(body: &Object) -> Result<DeleteOptions, Status> {
        let text = |path: &[&str]| body.at(path).and_then(|value| value.as_str()).map(str::to_string);
        let orphan = body.at(&["orphanDependents"]).and_then(|value| value.as_bool());
        Ok(DeleteOptions {
            // Negative periods mean "one second", as upstream reads them since 1.22.
            grace_period: body
                .number(&["gracePeriodSeconds"])
                .map(|seconds| if seconds < 0 { 1 } else { seconds }),
            propagation: propagation(text(&["propagationPolicy"]).as_deref(), orphan)?,
            uid: text(&["preconditions", "uid"]),
            resource_version: text(&["preconditions", "resourceVersion"]),
            dry_run: dry_run(body.list(&["dryRun"]).iter().filter_map(|value| value.as_str()), DELETE)?,
        })
    }
}

/// What Go says of a text that is no number.
pub(crate) fn not_a_number(reader: &str, text: &str, error: &ParseIntError) -> String {
    let why = match error.kind() {
        IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
        _ => "invalid syntax",
    };
    format!("strconv.{reader}: parsing {text:?}: {why}")
}

fn propagation(policy: Option<&str>, orphan: Option<bool>) -> Result<Option<Propagation>, Status> {
    match (policy, orphan) {
        (Some(policy), Some(_)) => {
            let why = "orphanDependents and deletionPropagation cannot be both set";
            Err(invalid(DELETE, FieldError::invalid("propagationPolicy", &policy.into(), why)))
        }
        (None, None) => Ok(None),
        (None, Some(true)) | (Some("Orphan"), None) => Ok(Some(Propagation::Orphan)),
        (None, Some(false)) | (Some("Background"), None) => Ok(Some(Propagation::Background)),
        (Some("Foreground"), None) => Ok(Some(Propagation::Foreground)),
        (Some(other), None) => {
            let (value, allowed) = (other.into(), ["Foreground", "Background", "Orphan", "nil"]);
            Err(unsupported(DELETE, "propagationPolicy", value, &allowed))
        }
    }
}

fn dry_run<'a>(values: impl Iterator<Item = &'a str>, options: &str) -> Result<bool, Status> {
    let values: Vec<&str> = values.collect();
    match values.iter().all(|value| *value == "All") {
        true => Ok(!values.is_empty()),
        false => Err(unsupported(options, "dryRun", json!(values), &["All"])),
    }
}

fn invalid_version(text: &str) -> Status {
    let parse = format!("strconv.ParseUint: parsing {text:?}: invalid syntax");
    Status::bad_request(format!("resourceVersion: Invalid value: {text:?}: {parse}"))
}

/// `options` is the kind whose field is wrong, such as `ListOptions`.
fn invalid(options: &str, error: FieldError) -> Status {
    Status::invalid("meta.k8s.io", options, "", &[error])
}

fn forbidden(options: &str, field: &str, why: &str) -> Status {
    invalid(options, FieldError::forbidden(field, why))
}

fn unsupported(options: &str, field: &str, value: Value, allowed: &[&str]) -> Status {
    invalid(options, FieldError::not_supported(field, &value, allowed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Query {
        Query::of(&format!("/api/v1/pods?{text}").parse().unwrap()).unwrap()
    }

    #[test]
    fn versions_are_asked_for_in_ways_that_make_sense() {
        let unless = "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided";
        let requires = "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        let with_continue =
            "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden when continue is provided";
        for (text, is_watch, faults) in [
            ("resourceVersionMatch=Exact", false, vec![unless]),
            ("resourceVersionMatch=Exact&continue=x", false, vec![unless, with_continue]),
            (
                "resourceVersionMatch=Exact&resourceVersion=0",
                false,
                vec![
                    r#"resourceVersionMatch: Forbidden: resourceVersionMatch "exact" is forbidden for resourceVersion "0""#,
                ],
            ),
            (
                "resourceVersionMatch=Sometimes&resourceVersion=1",
                false,
                vec![
                    r#"resourceVersionMatch: Unsupported value: "Sometimes": supported values: "Exact", "NotOlderThan", """#,
                ],
            ),
            (
                "sendInitialEvents=false",
                false,
                vec!["sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list"],
            ),
            ("sendInitialEvents=true", true, vec![requires]),
            (
                "sendInitialEvents=true&resourceVersionMatch=Exact",
                true,
                vec![
                    requires,
                    r#"resourceVersionMatch: Unsupported value: "Exact": supported values: "NotOlderThan""#,
                ],
            ),
            (
                "resourceVersionMatch=NotOlderThan",
                true,
                vec![
                    "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                ],
            ),
            (
                "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&continue=x",
                true,
                vec![with_continue],
            ),
        ] {
            let status = ListOptions::read(&query(text), is_watch).unwrap_err();
            let joined = if faults.len() > 1 { format!("[{}]", faults.join(", ")) } else { faults.concat() };
            assert_eq!(status.code, 422, "{text}");
            assert_eq!(
                status.message,
                format!("ListOptions.meta.k8s.io \"\" is invalid: {joined}"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_watch_begins_with_what_is_there_unless_it_says_where_it_was() {
        for (text, expected) in [
            ("", true),
            ("resourceVersion=0", true),
            ("resourceVersion=7", false),
            ("resourceVersion=7&sendInitialEvents=true&resourceVersionMatch=NotOlderThan", true),
            ("sendInitialEvents=false&resourceVersionMatch=NotOlderThan", false),
        ] {
            let options = ListOptions::read(&query(text), true).unwrap();
            assert_eq!(options.has_initial_events(), expected, "{text}");
        }
    }

    #[test]
    fn wrong_options_are_refused() {
        for text in ["resourceVersion=abc", "limit=many"] {
            assert!(ListOptions::read(&query(text), false).is_err(), "{text}");
        }
        assert!(WriteOptions::read(&query("dryRun=Some"), "create").is_err());
        let status = WriteOptions::read(&query("fieldValidation=Maybe"), "patch").unwrap_err();
        assert_eq!(
            status.message,
            r#"PatchOptions.meta.k8s.io "" is invalid: fieldValidation: Unsupported value: "Maybe": supported values: "Ignore", "Strict", "Warn""#
        );
        assert_eq!(status.details.unwrap()["causes"][0]["reason"], "FieldValueNotSupported");
    }
}
