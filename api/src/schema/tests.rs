use super::*;
use crate::kinds;

fn definition(name: &str) -> &'static Schema {
    by_name(name).unwrap_or_else(|| panic!("no schema {name}"))
}

#[test]
fn every_kind_has_a_schema() {
    for kind in kinds::KINDS {
        let schema = of(kind).unwrap_or_else(|| panic!("no schema for {} ({})", kind.kind, kind.schema));
        assert_eq!(schema.type_name(), kind.kind);
        assert!(schema.field("metadata").is_some() || kind.kind == "Status", "{}", kind.kind);
    }
}

#[test]
fn a_pod_looks_like_a_pod() {
    let pod = definition("io.k8s.api.core.v1.Pod");
    let containers = pod.field("spec").unwrap().schema.field("containers").unwrap();
    assert!(containers.is_required);
    assert_eq!(containers.merge.map(|merge| (merge.merge, merge.key)), Some((true, "name")));
    assert_eq!(containers.schema.go_type(), "[]v1.Container");
    let limits = pod.at(&["spec", "containers", "resources", "limits"]).unwrap();
    assert!(matches!(limits.shape, Shape::Map(Schema { shape: Shape::Quantity, .. })));
    assert_eq!(limits.go_type(), "v1.ResourceList");
    let created = pod.at(&["metadata", "creationTimestamp"]).unwrap();
    assert!(matches!(created.shape, Shape::Time));
    let port = pod.at(&["spec", "containers", "livenessProbe", "httpGet", "port"]).unwrap();
    assert!(matches!(port.shape, Shape::IntOrString));
    assert!(pod.at(&["spec", "no", "such"]).is_none());
}

#[test]
fn a_type_may_contain_itself() {
    let props = definition("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps");
    assert!(std::ptr::eq(props.at(&["not"]).unwrap(), props));
    assert!(matches!(props.field("items").unwrap().schema.shape, Shape::Either(_)));
    assert!(matches!(props.field("default").unwrap().schema.shape, Shape::Any));
}

#[test]
fn parts_are_found_and_nonsense_is_not() {
    assert_eq!(definition("io.k8s.api.core.v1.ContainerPort").type_name(), "ContainerPort");
    assert!(by_name("io.k8s.api.core.v1.Nonsense").is_none());
    assert!(by_name("").is_none());
    assert!(by_name("com.example.v1.Thing").is_none());
}

#[test]
fn merge_rules_are_in_order_and_about_types_that_exist() {
    let mut missing = Vec::new();
    for (name, fields) in merge::rules() {
        let full = [
            "io.k8s.api.",
            "io.k8s.apimachinery.pkg.apis.",
            "io.k8s.apiextensions-apiserver.pkg.apis.",
            "io.k8s.kube-aggregator.pkg.apis.",
        ]
        .iter()
        .find_map(|prefix| by_name(&format!("{prefix}{name}")));
        let Some(schema) = full else {
            missing.push(name.to_string());
            continue;
        };
        for field in fields {
            if schema.field(field).is_none_or(|found| found.merge.is_none()) {
                missing.push(format!("{name}.{field}"));
            }
        }
    }
    assert_eq!(missing, Vec::<String>::new());
}
