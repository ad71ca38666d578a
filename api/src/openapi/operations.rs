//! What clients can do with a kind: each pair of path and method, with parameters, body and answer.

use super::definitions::{body_of, has_list, list_name};
use crate::{Kind, Verbs};

const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";
const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
const SCALE: &str = "io.k8s.api.autoscaling.v1.Scale";

/// One operation.
pub(super) struct Operation {
    pub(super) path: String,
    pub(super) method: &'static str,
    /// Upstream's word for it, such as `list` or `deletecollection`.
    pub(super) action: &'static str,
    /// Upstream's `operationId`, such as `listCoreV1NamespacedPod`.
    pub(super) id: String,
    /// One sentence.
    pub(super) description: String,
    pub(super) parameters: Vec<Parameter>,
    /// The definition of what is sent.
    pub(super) body: Option<&'static str>,
    /// The definition of what comes back; `None` for plain text.
    pub(super) answer: Option<String>,
    /// Codes of success.
    pub(super) codes: &'static [&'static str],
    /// Group, version and kind that the operation is about.
    pub(super) subject: [&'static str; 3],
}

/// A parameter of the query: name, type, and what it is for.
pub(super) type Parameter = (&'static str, &'static str, &'static str);

const PRETTY: Parameter = ("pretty", "string", "If 'true', then the output is pretty printed.");
const DRY_RUN: Parameter = ("dryRun", "string", "'All': everything is done but the change is not stored.");
const FIELD_MANAGER: Parameter =
    ("fieldManager", "string", "A name for whoever or whatever makes these changes.");
const FIELD_VALIDATION: Parameter = (
    "fieldValidation",
    "string",
    "What to do with unknown and duplicate fields: 'Ignore', 'Warn' (the default) or 'Strict'.",
);
const FORCE: Parameter = ("force", "boolean", "Take over fields that others own; apply patches only.");
const LIST_PARAMETERS: [Parameter; 10] = [
    ("allowWatchBookmarks", "boolean", "Ask a watch for events of type BOOKMARK."),
    ("continue", "string", "Where an earlier, limited list left off."),
    ("fieldSelector", "string", "Restricts the objects by their fields."),
    ("labelSelector", "string", "Restricts the objects by their labels."),
    ("limit", "integer", "The most objects to return at once."),
    ("resourceVersion", "string", "The version to list, or to start watching from."),
    ("resourceVersionMatch", "string", "How resourceVersion is meant in a list."),
    ("sendInitialEvents", "boolean", "Let a watch begin with the present objects, then a bookmark."),
    ("timeoutSeconds", "integer", "How long the call may take."),
    ("watch", "boolean", "Stream changes instead of listing."),
];
const DELETE_PARAMETERS: [Parameter; 4] = [
    DRY_RUN,
    ("gracePeriodSeconds", "integer", "How long to wait before the object is removed."),
    ("orphanDependents", "boolean", "Deprecated: use propagationPolicy."),
    ("propagationPolicy", "string", "What becomes of dependents: 'Orphan', 'Background' or 'Foreground'."),
];

/// Everything that clients can do with a kind.
pub(super) fn operations(kind: &Kind) -> Vec<Operation> {
    let mut operations = Builder { kind, all: Vec::new() };
    let base = kind.base_path();
    let collection = match kind.is_namespaced() {
        true => format!("{base}/namespaces/{{namespace}}/{}", kind.plural),
        false => format!("{base}/{}", kind.plural),
    };
    if kind.is_namespaced() && has_list(kind) {
        operations.list(format!("{base}/{}", kind.plural), true);
    }
    if has_list(kind) {
        operations.list(collection.clone(), false);
    }
    if kind.verbs != Verbs::Read {
        operations.create(collection.clone());
    }
    let object = format!("{collection}/{{name}}");
    if has_list(kind) {
        operations.read(object.clone(), "");
    }
    if kind.verbs == Verbs::All {
        operations.delete_collection(collection);
    }
    if kind.verbs.can_write() {
        operations.change(object.clone(), "");
        operations.delete(object.clone());
    }
    let parts = [("status", kind.status), ("scale", kind.scale.is_some())];
    let present = parts.into_iter().filter(|(_, is_there)| *is_there).map(|(name, _)| name);
    for name in present.chain(kind.subresources.iter().copied()) {
        operations.subresource(format!("{object}/{name}"), name);
    }
    operations.all
}

/// `core_v1`, `rbacAuthorization_v1`: the tag of a group-version.
pub(super) fn tag(kind: &Kind) -> String {
    format!("{}_{}", group_name(kind), kind.version)
}

struct Builder<'a> {
    kind: &'a Kind,
    all: Vec<Operation>,
}

impl Builder<'_> {
    fn list(&mut self, path: String, is_everywhere: bool) {
        let suffix = if is_everywhere { "ForAllNamespaces" } else { "" };
        let id = format!("list{}{}{}{suffix}", self.group(), self.scope(is_everywhere), self.kind.kind);
        let description = format!("list or watch objects of kind {}", self.kind.kind);
        let answer = Some(list_name(self.kind));
        self.add(path, "get", "list", id, description, &LIST_PARAMETERS, None, answer, &["200"]);
    }

    fn create(&mut self, path: String) {
        let (id, article) = (self.id("create", ""), article(self.kind.kind));
        let description = format!("create {article} {}", self.kind.kind);
        let parameters = [DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION];
        let schema = self.kind.schema;
        let codes = &["200", "201", "202"];
        self.add(
            path,
            "post",
            "post",
            id,
            description,
            &parameters,
            Some(schema),
            Some(schema.into()),
            codes,
        );
    }

    fn read(&mut self, path: String, part: &'static str) {
        let (id, description) = (self.id("read", part), self.sentence("read", part));
        let answer = Some(self.type_of(part).to_string());
        self.add(path, "get", "get", id, description, &[], None, answer, &["200"]);
    }

    /// Update and patch.
    fn change(&mut self, path: String, part: &'static str) {
        let schema = self.type_of(part);
        let parameters = [DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION, FORCE];
        let answer = || Some(schema.to_string());
        let codes = &["200", "201"];
        let (id, description) = (self.id("replace", part), self.sentence("replace", part));
        let (put, body) = (&parameters[..3], Some(schema));
        self.add(path.clone(), "put", "put", id, description, put, body, answer(), codes);
        let (id, description) = (self.id("patch", part), self.sentence("partially update", part));
        self.add(path, "patch", "patch", id, description, &parameters, Some(PATCH), answer(), codes);
    }

    fn delete(&mut self, path: String) {
        let (id, article) = (self.id("delete", ""), article(self.kind.kind));
        let description = format!("delete {article} {}", self.kind.kind);
        let (body, answer) = (Some(DELETE_OPTIONS), Some(STATUS.into()));
        self.add(
            path,
            "delete",
            "delete",
            id,
            description,
            &DELETE_PARAMETERS,
            body,
            answer,
            &["200", "202"],
        );
    }

    fn delete_collection(&mut self, path: String) {
        let id = format!("delete{}Collection{}{}", self.group(), self.scope(false), self.kind.kind);
        let description = format!("delete collection of {}", self.kind.kind);
        let own = LIST_PARAMETERS
            .into_iter()
            .filter(|(name, ..)| !matches!(*name, "watch" | "allowWatchBookmarks"));
        let parameters: Vec<Parameter> = own.chain(DELETE_PARAMETERS).collect();
        let (body, answer) = (Some(DELETE_OPTIONS), Some(STATUS.into()));
        self.add(path, "delete", "deletecollection", id, description, &parameters, body, answer, &["200"]);
    }

    fn subresource(&mut self, path: String, name: &'static str) {
        match name {
            "status" | "scale" | "approval" | "ephemeralcontainers" | "resize" => {
                self.read(path.clone(), name);
                self.change(path, name);
            }
            "log" => {
                let (id, description) = (self.id("read", name), self.sentence("read", name));
                self.add(path, "get", "get", id, description, &LOG_PARAMETERS, None, None, &["200"]);
            }
            "finalize" => {
                let (id, description) = (self.id("replace", name), self.sentence("replace", name));
                let schema = self.kind.schema;
                let (body, answer) = (Some(schema), Some(schema.into()));
                self.add(path, "put", "put", id, description, &[DRY_RUN], body, answer, &["200", "201"]);
            }
            _ => {
                let Some(body) = body_of(name) else { return };
                let (id, description) = (self.id("create", name), self.sentence("create", name));
                let parameters = [DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION];
                let codes = &["200", "201", "202"];
                let answer = Some(body.into());
                self.add(path, "post", "post", id, description, &parameters, Some(body), answer, codes);
            }
        }
    }

    #[allow(clippy::too_many_arguments, reason = "a row of the table that the methods above are")]
    fn add(
        &mut self,
        path: String,
        method: &'static str,
        action: &'static str,
        id: String,
        description: String,
        parameters: &[Parameter],
        body: Option<&'static str>,
        answer: Option<String>,
        codes: &'static [&'static str],
    ) {
        let subject = match path.rsplit('/').next() {
            Some("scale") => ["autoscaling", "v1", "Scale"],
            Some("eviction") => ["policy", "v1", "Eviction"],
            Some("token") => ["authentication.k8s.io", "v1", "TokenRequest"],
            Some("binding") => ["", "v1", "Binding"],
            _ => [self.kind.group, self.kind.version, self.kind.kind],
        };
        let mut parameters = parameters.to_vec();
        parameters.push(PRETTY);
        self.all.push(Operation {
            path,
            method,
            action,
            id,
            description,
            parameters,
            body,
            answer,
            codes,
            subject,
        });
    }

    fn type_of(&self, part: &str) -> &'static str {
        if part == "scale" { SCALE } else { self.kind.schema }
    }

    fn id(&self, verb: &str, part: &str) -> String {
        let part = match part {
            "ephemeralcontainers" => "Ephemeralcontainers".to_string(),
            part => capitalized(part),
        };
        format!("{verb}{}{}{}{part}", self.group(), self.scope(false), self.kind.kind)
    }

    fn sentence(&self, verb: &str, part: &str) -> String {
        if part.is_empty() {
            format!("{verb} the specified {}", self.kind.kind)
        } else {
            format!("{verb} {part} of the specified {}", self.kind.kind)
        }
    }

    /// `CoreV1`.
    fn group(&self) -> String {
        capitalized(&group_name(self.kind)) + &capitalized(self.kind.version)
    }

    fn scope(&self, is_everywhere: bool) -> &'static str {
        if self.kind.is_namespaced() && !is_everywhere { "Namespaced" } else { "" }
    }
}

const LOG_PARAMETERS: [Parameter; 9] = [
    ("container", "string", "The container; may be left out when there is only one."),
    ("follow", "boolean", "Keep streaming."),
    ("insecureSkipTLSVerifyBackend", "boolean", "Do not verify the kubelet's certificate."),
    ("limitBytes", "integer", "The most bytes to return."),
    ("previous", "boolean", "The log of the container's previous run."),
    ("sinceSeconds", "integer", "Only what is younger than this."),
    ("stream", "string", "'All', 'Stdout' or 'Stderr'."),
    ("tailLines", "integer", "Only the last lines."),
    ("timestamps", "boolean", "Put the time before every line."),
];

/// `core`, `apps`, `rbacAuthorization`.
fn group_name(kind: &Kind) -> String {
    if kind.group.is_empty() {
        return "core".into();
    }
    let mut parts = kind.group.trim_end_matches(".k8s.io").split('.');
    let first = parts.next().unwrap_or_default().to_string();
    parts.fold(first, |name, part| name + &capitalized(part))
}

fn capitalized(text: &str) -> String {
    let mut characters = text.chars();
    characters
        .next()
        .map_or(String::new(), |first| first.to_ascii_uppercase().to_string() + characters.as_str())
}

fn article(noun: &str) -> &'static str {
    if noun.starts_with(['A', 'E', 'I', 'O', 'U']) { "an" } else { "a" }
}
