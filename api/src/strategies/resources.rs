//! Quantities and resource requirements.

use serde_json::Value;

use super::check::{Faults, Field};
use crate::name;
use crate::quantity::Quantity;

/// The quantity that a value holds, be it text or a plain number.
pub fn quantity(value: &Value) -> Option<Quantity> {
    Quantity::from_json(value).ok()
}

/// Whether a value holds a quantity other than nothing.
pub fn is_positive(value: &Value) -> bool {
    quantity(value).is_some_and(|quantity| quantity.signum() > 0)
}

/// A quantity that must be well formed and not negative.
pub fn validate_quantity(field: &Field, faults: &mut Faults) {
    match Quantity::from_json(field.value) {
        Err(error) => faults.invalid(field, error.to_string()),
        Ok(quantity) if quantity.signum() < 0 => {
            faults.invalid(field, "must be greater than or equal to 0");
        }
        Ok(_) => {}
    }
}

/// The `resources` of a container.
pub fn validate(resources: &Field, faults: &mut Faults) {
    validate_requirements(resources, validate_resource_name, faults);
}

/// The `resources` of a pod as a whole.
pub fn validate_of_pod(resources: &Field, faults: &mut Faults) {
    validate_requirements(resources, validate_name_of_pod, faults);
}

fn validate_requirements(
    resources: &Field,
    validate_name: fn(&str, &Field, &mut Faults),
    faults: &mut Faults,
) {
    let (limits, requests) = (resources.get("limits"), resources.get("requests"));
    for (resource, amount) in limits.entries() {
        validate_name(resource, &limits, faults);
        validate_amount(resource, &amount, faults);
    }
    for (resource, amount) in requests.entries() {
        validate_name(resource, &requests, faults);
        validate_amount(resource, &amount, faults);
        validate_limit(resource, &requests, &amount, limits.entry(resource).value, faults);
    }
    let has_huge_pages = |field: &Field| field.entries().any(|(resource, _)| is_huge_pages(resource));
    let has_others = |field: &Field| ["cpu", "memory"].iter().any(|resource| field.entry(resource).is_set());
    if (has_huge_pages(&limits) || has_huge_pages(&requests))
        && !has_others(&limits)
        && !has_others(&requests)
    {
        faults.forbidden(resources, "HugePages require cpu or memory");
    }
}

/// There are whole devices and whole pages only.
fn validate_amount(resource: &str, amount: &Field, faults: &mut Faults) {
    validate_quantity(amount, faults);
    validate_whole(resource, amount, faults);
    let Some(given) = quantity(amount.value).filter(|given| given.signum() >= 0) else { return };
    if let Some(page) = resource.strip_prefix("hugepages-") {
        let page = Quantity::parse(page).map_or(0, Quantity::value);
        if page <= 0 || given.value() % page != 0 {
            faults.invalid(amount, format!("{given} is not positive integer multiple of {resource}"));
        }
    }
}

/// What a pod as a whole may ask for.
fn validate_name_of_pod(resource: &str, list: &Field, faults: &mut Faults) {
    let value = Value::from(resource);
    let field = Field { path: format!("{}[{resource}]", list.path), value: &value };
    if let Err(message) = name::qualified_name(resource) {
        faults.invalid(&field, message);
    } else if !is_standard(resource) && !resource.contains('/') {
        faults.invalid(&field, "must be a standard resource type or fully qualified");
    } else if !is_of_pods(resource) {
        faults.not_supported(&field, &["cpu", "hugepages-", "memory"]);
    }
}

/// Whether a pod as a whole may ask for it.
pub fn is_of_pods(resource: &str) -> bool {
    matches!(resource, "cpu" | "memory") || is_huge_pages(resource)
}

fn validate_limit(resource: &str, requests: &Field, amount: &Field, limit: &Value, faults: &mut Faults) {
    let is_exact = is_huge_pages(resource) || is_extended_resource(resource);
    let named = Field { path: requests.path.clone(), value: amount.value };
    match (quantity(amount.value), quantity(limit)) {
        (Some(request), Some(limit)) if is_exact && request != limit => {
            faults.invalid(&named, format!("must be equal to {resource} limit of {limit}"));
        }
        (Some(request), Some(limit)) if request > limit => {
            faults.invalid(&named, format!("must be less than or equal to {resource} limit of {limit}"));
        }
        (Some(_), None) if is_exact && limit.is_null() => {
            let limits = requests.path.replace(".requests", ".limits");
            faults.required(
                &Field { path: limits, value: limit },
                "Limit must be set for non overcommitable resources",
            );
        }
        _ => {}
    }
}

fn validate_resource_name(resource: &str, list: &Field, faults: &mut Faults) {
    validate_container_resource(resource, &list.entry(resource).path, faults);
}

/// What a pod costs beside its containers: `whole` is the field's path, under which upstream speaks of limits.
pub fn validate_overhead(whole: &str, amounts: &Field, faults: &mut Faults) {
    let amounts = Field { path: format!("{whole}.limits"), value: amounts.value };
    for (resource, amount) in amounts.entries() {
        validate_resource_name(resource, &amounts, faults);
        validate_amount(resource, &amount, faults);
    }
}

/// What is counted is counted in whole numbers.
pub fn validate_whole(resource: &str, amount: &Field, faults: &mut Faults) {
    let is_counted = COUNTED.contains(&resource) || is_extended_resource(resource);
    if is_counted && quantity(amount.value).is_some_and(|quantity| !quantity.is_whole()) {
        faults.invalid(amount, "must be an integer");
    }
}

/// The name of a resource, at the place where it stands.
pub fn validate_resource(resource: &str, path: &str, faults: &mut Faults) {
    let value = Value::from(resource);
    let field = Field { path: path.to_string(), value: &value };
    if let Err(message) = name::qualified_name(resource) {
        faults.invalid(&field, message);
    } else if !resource.contains('/') && !is_standard(resource) {
        faults.invalid(&field, "must be a standard resource type or fully qualified");
    }
}

/// The name of a resource that containers have.
pub fn validate_container_resource(resource: &str, path: &str, faults: &mut Faults) {
    validate_resource(resource, path, faults);
    let value = Value::from(resource);
    let field = Field { path: path.to_string(), value: &value };
    if !resource.contains('/') {
        if !is_of_containers(resource) {
            faults.invalid(&field, "must be a standard resource for containers");
        }
    } else if !resource.contains("kubernetes.io/") && !is_extended_resource(resource) {
        faults.invalid(&field, "doesn't follow extended resource name standard");
    }
}

/// Resources without a domain that come in amounts, beside huge pages.
const MEASURED: &[&str] = &[
    "cpu",
    "memory",
    "storage",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
];

/// Resources without a domain that are counted.
const COUNTED: &[&str] = &[
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

/// Resources that need no domain.
pub fn is_standard(resource: &str) -> bool {
    MEASURED.contains(&resource)
        || COUNTED.contains(&resource)
        || is_huge_pages(resource)
        || resource.starts_with("requests.hugepages-")
}

fn is_of_containers(resource: &str) -> bool {
    matches!(resource, "cpu" | "memory" | "ephemeral-storage") || is_huge_pages(resource)
}

/// Pages of memory of one size.
pub fn is_huge_pages(resource: &str) -> bool {
    resource.starts_with("hugepages-")
}

/// Resources such as `example.com/gpu`, of which there are whole ones only and no more than there are.
pub fn is_extended_resource(name: &str) -> bool {
    name.contains('/')
        && !name.contains("kubernetes.io/")
        && !name.starts_with("requests.")
        && name::qualified_name(&format!("requests.{name}")).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_of_others_are_extended() {
        for name in ["example.com/gpu", "mykubernetes.example/x"] {
            assert!(is_extended_resource(name), "{name}");
        }
        // Upstream takes whatever ends so for its own.
        for name in ["cpu", "kubernetes.io/x", "mykubernetes.io/x", "requests.example.com/gpu", "a b/c"] {
            assert!(!is_extended_resource(name), "{name}");
        }
    }
}
