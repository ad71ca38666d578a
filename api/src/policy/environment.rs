//! What the expressions of a policy may look at.

use std::{
    rc::Rc,
    sync::{Arc, LazyLock},
};

use serde_json::Value as Json;

use crate::cel::{Authority, Check, Lazy, ObjectType, Program, Question, Type, Value};

/// What a request shows to a policy.
#[derive(Clone, Debug)]
pub struct Input<'a> {
    /// The object as it will be; null on deletion.
    pub object: &'a Json,
    /// The object as it was; null on creation.
    pub old: &'a Json,
    /// The `AdmissionRequest`, without the objects.
    pub request: &'a Json,
    /// The parameters; null where there are none.
    pub params: &'a Json,
    /// The namespace; null for what belongs to the whole cluster.
    pub namespace: &'a Json,
    /// Who knows what the user may do.
    pub authority: Arc<dyn Authority>,
}

/// Which variables there are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Names {
    /// `params`, for policies with a `paramKind`.
    pub params: bool,
    /// `authorizer`, but not in expressions for messages, where it has been asked too late.
    pub authorizer: bool,
    /// `Object` and `JSONPatch`, of which mutations are made.
    pub mutations: bool,
}

impl Names {
    /// The variables and their types, beside `variables`.
    pub fn types(self, object: &Type) -> Vec<(&'static str, Type)> {
        let mut types = vec![
            ("object", object.clone()),
            ("oldObject", object.clone()),
            ("request", REQUEST.clone()),
            ("namespaceObject", NAMESPACE.clone()),
        ];
        if self.params {
            types.push(("params", Type::Dyn));
        }
        if self.authorizer {
            types.push(("authorizer", Type::Named("kubernetes.authorization.Authorizer")));
        }
        if self.mutations {
            types.extend([("Object", Type::Dyn), ("JSONPatch", Type::Dyn)]);
        }
        types
    }
}

static DYN: Type = Type::Dyn;
static REQUEST: LazyLock<Type> = LazyLock::new(request_type);
static NAMESPACE: LazyLock<Type> = LazyLock::new(namespace_type);

impl<'a> Input<'a> {
    /// The values of the variables, `variables` among them.
    pub(super) fn values(&self, variables: &Arc<[(String, Program)]>) -> Rc<Lazy<'a>> {
        let json = |json: &'a Json| Value::from_json(json, &DYN);
        let values = vec![
            ("object", json(self.object)),
            ("oldObject", json(self.old)),
            ("request", Value::from_json(self.request, &REQUEST)),
            ("namespaceObject", Value::from_json(self.namespace, &NAMESPACE)),
            ("params", json(self.params)),
            ("authorizer", authorizer(self.authority.clone(), self.request)),
        ];
        Lazy::new(variables.clone(), values).into()
    }
}

/// What `authorizer` stands for, in a request with this `AdmissionRequest`.
pub fn authorizer(authority: Arc<dyn Authority>, request: &Json) -> Value<'static> {
    let text = |field: &str| request[field].as_str().unwrap_or_default().to_string();
    let resource = |field: &str| request["resource"][field].as_str().unwrap_or_default().to_string();
    let about = Question {
        group: resource("group"),
        resource: resource("resource"),
        subresource: text("subResource"),
        namespace: text("namespace"),
        name: text("name"),
        ..Question::default()
    };
    Value::Check(Check::authorizer(authority, about).into())
}

/// `variables`, so far.
pub(super) fn variables_type(known: &[(String, Type)]) -> Type {
    let fields = known.iter().map(|(name, kind)| (name.clone(), (name.clone(), kind.clone())));
    Type::Object(ObjectType { name: "kubernetes.variables".into(), fields: fields.collect() }.into())
}

fn object(name: &str, fields: &[(&str, Type)]) -> Type {
    let fields = fields.iter().map(|(name, kind)| (name.to_string(), (name.to_string(), kind.clone())));
    Type::Object(ObjectType { name: name.into(), fields: fields.collect() }.into())
}

fn request_type() -> Type {
    let kind = object(
        "kubernetes.GroupVersionKind",
        &[("group", Type::TEXT), ("version", Type::TEXT), ("kind", Type::TEXT)],
    );
    let resource = object(
        "kubernetes.GroupVersionResource",
        &[("group", Type::TEXT), ("version", Type::TEXT), ("resource", Type::TEXT)],
    );
    let user = object(
        "kubernetes.UserInfo",
        &[
            ("username", Type::TEXT),
            ("uid", Type::TEXT),
            ("groups", Type::list(Type::TEXT)),
            ("extra", Type::map(Type::list(Type::TEXT))),
        ],
    );
    object(
        "kubernetes.AdmissionRequest",
        &[
            ("uid", Type::TEXT),
            ("kind", kind.clone()),
            ("resource", resource.clone()),
            ("subResource", Type::TEXT),
            ("requestKind", kind),
            ("requestResource", resource),
            ("requestSubResource", Type::TEXT),
            ("name", Type::TEXT),
            ("namespace", Type::TEXT),
            ("operation", Type::TEXT),
            ("userInfo", user),
            ("dryRun", Type::Bool),
            ("options", Type::Dyn),
        ],
    )
}

fn namespace_type() -> Type {
    let metadata = object(
        "kubernetes.NamespaceMetadata",
        &[
            ("name", Type::TEXT),
            ("generateName", Type::TEXT),
            ("namespace", Type::TEXT),
            ("labels", Type::map(Type::TEXT)),
            ("annotations", Type::map(Type::TEXT)),
            ("UID", Type::TEXT),
            ("creationTimestamp", Type::Timestamp),
            ("deletionGracePeriodSeconds", Type::Int),
            ("deletionTimestamp", Type::Timestamp),
            ("generation", Type::Int),
            ("resourceVersion", Type::TEXT),
            ("finalizers", Type::list(Type::TEXT)),
        ],
    );
    let spec = object("kubernetes.NamespaceSpec", &[("finalizers", Type::list(Type::TEXT))]);
    let status = object("kubernetes.NamespaceStatus", &[("phase", Type::TEXT)]);
    object("kubernetes.Namespace", &[("metadata", metadata), ("spec", spec), ("status", status)])
}
