//! `status.typeChecking`: what looks wrong about a policy's expressions for the kinds that it is meant for.
//!
//! A policy is compiled without knowing what objects look like, as it may be meant for kinds that are not there yet. For
//! the kinds that are there, this tells what would fail.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value as Json, json};

use super::{Names, Scope, text};
use crate::{
    Kind,
    cel::{ObjectType, Type, field_name},
    crd, items,
    schema::{self, Schema, Shape},
};

/// How many kinds are looked at, as upstream.
const MOST_KINDS: usize = 10;

/// The warnings about a policy's spec, as its status has them. `find` gives the kind behind group, version and
/// plural.
pub fn warnings(spec: &Json, find: &dyn Fn(&str, &str, &str) -> Option<&'static Kind>) -> Vec<Json> {
    let kinds = meant(spec, find);
    let scopes: Vec<(String, Scope)> =
        kinds.into_iter().map(|kind| (shown(kind), scope(spec, kind))).collect();
    let mut warnings = Vec::new();
    for (index, validation) in items(&spec["validations"]).iter().enumerate() {
        for field in ["expression", "messageExpression"] {
            let expression = text(&validation[field]);
            if expression.trim().is_empty() {
                continue;
            }
            let told: Vec<String> = scopes
                .iter()
                .filter_map(|(kind, scope)| Some(format!("{kind}: {}", scope.compile(expression).err()?)))
                .collect();
            if !told.is_empty() {
                warnings.push(json!({
                    "fieldRef": format!("spec.validations[{index}].{field}"),
                    "warning": told.join("\n"),
                }));
            }
        }
    }
    warnings
}

/// The kinds that the rules name; those that mean all of something name none.
fn meant(spec: &Json, find: &dyn Fn(&str, &str, &str) -> Option<&'static Kind>) -> Vec<&'static Kind> {
    let mut kinds: BTreeMap<String, &'static Kind> = BTreeMap::new();
    for rule in items(&spec["matchConstraints"]["resourceRules"]) {
        for group in items(&rule["apiGroups"]) {
            for version in items(&rule["apiVersions"]) {
                for resource in items(&rule["resources"]) {
                    if let Some(kind) = find(text(group), text(version), text(resource)) {
                        kinds.insert(shown(kind), kind);
                    }
                }
            }
        }
    }
    kinds.into_values().take(MOST_KINDS).collect()
}

fn shown(kind: &Kind) -> String {
    format!("{}/{}, Kind={}", kind.group, kind.version, kind.kind)
}

fn scope(spec: &Json, kind: &Kind) -> Scope {
    let names = Names { params: spec["paramKind"].is_object(), authorizer: true, mutations: false };
    let object = schema::of(kind).map_or(Type::Dyn, |schema| object(kind, schema));
    let mut scope = Scope::new(names, object);
    for variable in items(&spec["variables"]) {
        // What is wrong with a variable is told where it is used.
        scope.add(text(&variable["name"]), text(&variable["expression"])).ok();
    }
    scope
}

fn object(kind: &Kind, schema: &'static Schema) -> Type {
    let Some(version) = kind.custom.filter(|version| !version.props.keeps_unknown()) else {
        return Types::default().of(schema);
    };
    let metadata = schema.field("metadata").map(|field| Types::default().of(field.schema));
    match (crd::resource_type(&version.props), metadata) {
        (Type::Object(object), Some(metadata)) => {
            // Policies see all metadata, other than the rules of a definition.
            let mut object = ObjectType::clone(&object);
            object.fields.insert("metadata".into(), ("metadata".into(), metadata));
            Type::Object(object.into())
        }
        (other, _) => other,
    }
}

/// The types of schemas, each made once; inside of itself a type is not known.
#[derive(Default)]
struct Types(HashMap<&'static str, Type>);

impl Types {
    fn of(&mut self, schema: &'static Schema) -> Type {
        if let Some(known) = self.0.get(schema.name).filter(|_| !schema.name.is_empty()) {
            return known.clone();
        }
        match &schema.shape {
            Shape::Boolean => Type::Bool,
            Shape::Int32 | Shape::Int64 => Type::Int,
            Shape::Number => Type::Double,
            Shape::Text | Shape::Quantity => Type::TEXT,
            Shape::Bytes => Type::Bytes(1 << 20),
            Shape::Time | Shape::MicroTime => Type::Timestamp,
            Shape::List(item) => Type::list(self.of(item)),
            Shape::Map(value) => Type::map(self.of(value)),
            Shape::Object(_) if schema.custom.is_some_and(|custom| custom.keeps_unknown) => Type::Dyn,
            Shape::Object(_) => self.of_object(schema),
            Shape::Any | Shape::IntOrString | Shape::Either(_) => Type::Dyn,
        }
    }

    fn of_object(&mut self, schema: &'static Schema) -> Type {
        self.0.insert(schema.name, Type::Dyn);
        let fields = schema.fields().iter().filter_map(|field| {
            Some((field_name(field.name)?, (field.name.to_string(), self.of(field.schema))))
        });
        let fields: BTreeMap<String, (String, Type)> = fields.collect();
        let made = match fields.is_empty() {
            true => Type::Dyn,
            false => Type::Object(ObjectType { name: schema.name.to_string(), fields }.into()),
        };
        self.0.insert(schema.name, made.clone());
        made
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds;

    fn told(resources: Json, expression: &str) -> Vec<String> {
        let spec = json!({
            "matchConstraints": {"resourceRules": [{"apiGroups": ["apps", ""], "apiVersions": ["v1"], "resources": resources}]},
            "variables": [{"name": "spec", "expression": "object.spec"}],
            "validations": [{"expression": expression}],
        });
        let told = warnings(&spec, &|group, version, plural| kinds::find(group, version, plural));
        told.iter()
            .map(|warning| format!("{}: {}", text(&warning["fieldRef"]), text(&warning["warning"])))
            .collect()
    }

    #[test]
    fn what_no_object_of_a_kind_can_have_is_told() {
        let right =
            "object.spec.replicas > 1 && object.metadata.labels['a'] == 'b' && variables.spec.replicas > 1";
        assert!(told(json!(["deployments"]), right).is_empty());
        assert_eq!(
            told(json!(["deployments"]), "object.replicas > 1"),
            [
                "spec.validations[0].expression: apps/v1, Kind=Deployment: ERROR: <input>:1:7: undefined field 'replicas'\n | object.replicas > 1\n | ......^"
            ]
        );
        let wrong = told(json!(["deployments"]), "variables.spec.replicas == 'many'");
        assert!(
            wrong[0].contains("found no matching overload for '_==_' applied to '(int, string)'"),
            "{wrong:?}"
        );
        // One kind of two.
        let wrong = told(json!(["pods", "replicasets"]), "object.spec.replicas == 1");
        assert!(wrong[0].contains("/v1, Kind=Pod") && !wrong[0].contains("ReplicaSet"), "{wrong:?}");
        // Nobody knows what all are like.
        assert!(told(json!(["*"]), "object.nope").is_empty());
        // Types that are part of themselves have an end.
        let own = json!({"matchConstraints": {"resourceRules": [{"apiGroups": ["apiextensions.k8s.io"], "apiVersions": ["v1"],
            "resources": ["customresourcedefinitions"]}]}, "validations": [{"expression": "object.spec.versions.size() > 0"}]});
        assert!(warnings(&own, &|group, version, plural| kinds::find(group, version, plural)).is_empty());
    }
}
