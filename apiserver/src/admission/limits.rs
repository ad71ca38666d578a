//! LimitRanger: what containers, pods and claims get when they do not say, and the least and the most they may ask.

use std::sync::Arc;

use api::{Object, Status, quantity::Quantity, strategies::pod_spec::total};
use serde_json::{Map, Value};

use super::forbidden;
use crate::hooks::Attributes;

const ANNOTATION: &str = "kubernetes.io/limit-ranger";
const CONTAINER_LISTS: [&str; 2] = ["initContainers", "containers"];

/// Fills in defaults for containers, and notes what was filled in.
pub(super) fn set_defaults(pod: &mut Object, ranges: &[Arc<Object>]) {
    let mut notes = Vec::new();
    for item in ranges
        .iter()
        .flat_map(|range| range.list(&["spec", "limits"]))
        .filter(|item| item["type"] == "Container")
    {
        for list in CONTAINER_LISTS {
            let Some(Value::Array(containers)) = pod.map_mut(&["spec"]).get_mut(list) else { continue };
            for container in containers {
                // Requests first: without one, a default limit would become the request.
                for (from, to, word) in
                    [("defaultRequest", "requests", "request"), ("default", "limits", "limit")]
                {
                    let set = fill(container, to, item[from].as_object());
                    if !set.is_empty() {
                        let what = if list == "containers" { "container" } else { "init container" };
                        let name = container["name"].as_str().unwrap_or_default();
                        notes.push(format!("{} {word} for {what} {name}", set.join(", ")));
                    }
                }
            }
        }
    }
    if !notes.is_empty() {
        pod.set(
            &["metadata", "annotations", ANNOTATION],
            format!("LimitRanger plugin set: {}", notes.join("; ")),
        );
    }
}

fn fill(container: &mut Value, part: &str, defaults: Option<&Map<String, Value>>) -> Vec<String> {
    let mut set = Vec::new();
    for (resource, amount) in defaults.into_iter().flatten() {
        if container["resources"][part][resource].is_null() {
            container["resources"][part][resource] = amount.clone();
            set.push(resource.clone());
        }
    }
    set
}

/// Refuses what is outside any of the namespace's ranges, everything at once.
pub(super) fn validate(
    attributes: &Attributes<'_>,
    object: &Object,
    ranges: &[Arc<Object>],
) -> Result<(), Status> {
    let items = ranges.iter().flat_map(|range| range.list(&["spec", "limits"]));
    let faults: Vec<String> = items.flat_map(|item| faults(object, attributes.kind.plural, item)).collect();
    match faults.as_slice() {
        [] => Ok(()),
        [one] => Err(forbidden(attributes, Some(object), one)),
        many => Err(forbidden(attributes, Some(object), &format!("[{}]", many.join(", ")))),
    }
}

fn faults(object: &Object, resource: &str, item: &Value) -> Vec<String> {
    match (resource, item["type"].as_str().unwrap_or_default()) {
        ("pods", "Container") => CONTAINER_LISTS
            .iter()
            .flat_map(|list| object.list(&["spec", list]))
            .flat_map(|container| {
                let amounts = Amounts::of(&container["resources"]);
                amounts.faults(item, "Container")
            })
            .collect(),
        ("pods", "Pod") => pod_amounts(object).faults(item, "Pod"),
        ("persistentvolumeclaims", "PersistentVolumeClaim") => {
            let requests = Amounts::of(object.at(&["spec", "resources"]).unwrap_or(&Value::Null)).requests;
            // A claim has no limit: what it asks for is what it gets.
            Amounts { limits: requests.clone(), requests }.faults(item, "PersistentVolumeClaim")
        }
        _ => Vec::new(),
    }
}

/// What something asks for and may use.
struct Amounts {
    requests: Map<String, Value>,
    limits: Map<String, Value>,
}

impl Amounts {
    fn of(resources: &Value) -> Amounts {
        let part = |name: &str| resources[name].as_object().cloned().unwrap_or_default();
        Amounts { requests: part("requests"), limits: part("limits") }
    }

    fn faults(&self, item: &Value, what: &str) -> Vec<String> {
        let mut faults = Vec::new();
        let bounds = |name: &str| item[name].as_object().cloned().unwrap_or_default();
        for (resource, least) in &bounds("min") {
            faults.extend(self.below(resource, least, what));
        }
        for (resource, most) in &bounds("max") {
            faults.extend(self.above(resource, most, what));
        }
        for (resource, ratio) in &bounds("maxLimitRequestRatio") {
            faults.extend(self.too_far_apart(resource, ratio, what));
        }
        faults
    }

    fn below(&self, resource: &str, least: &Value, what: &str) -> Option<String> {
        let bound = amount(least)?;
        let (request, limit) = (self.requests.get(resource), self.limits.get(resource));
        let text = printed(least);
        match (request.and_then(amount), limit.and_then(amount)) {
            (None, _) => {
                Some(format!("minimum {resource} usage per {what} is {text}.  No request is specified"))
            }
            (Some(asked), _) if asked < bound => Some(format!(
                "minimum {resource} usage per {what} is {text}, but request is {}",
                printed(request?)
            )),
            (_, Some(allowed)) if allowed < bound => Some(format!(
                "minimum {resource} usage per {what} is {text}, but limit is {}",
                printed(limit?)
            )),
            _ => None,
        }
    }

    fn above(&self, resource: &str, most: &Value, what: &str) -> Option<String> {
        let bound = amount(most)?;
        let (request, limit) = (self.requests.get(resource), self.limits.get(resource));
        let text = printed(most);
        match (limit.and_then(amount), request.and_then(amount)) {
            (None, _) => {
                Some(format!("maximum {resource} usage per {what} is {text}.  No limit is specified"))
            }
            (Some(allowed), _) if allowed > bound => Some(format!(
                "maximum {resource} usage per {what} is {text}, but limit is {}",
                printed(limit?)
            )),
            (_, Some(asked)) if asked > bound => Some(format!(
                "maximum {resource} usage per {what} is {text}, but request is {}",
                printed(request?)
            )),
            _ => None,
        }
    }

    fn too_far_apart(&self, resource: &str, ratio: &Value, what: &str) -> Option<String> {
        let bound = amount(ratio)?.as_f64();
        let text = printed(ratio);
        let request = self.requests.get(resource).and_then(amount).filter(|asked| !asked.is_zero());
        let limit = self.limits.get(resource).and_then(amount).filter(|allowed| !allowed.is_zero());
        let head = format!("{resource} max limit to request ratio per {what} is {text}");
        match (request, limit) {
            (None, _) => Some(format!("{head}, but no request is specified or request is 0")),
            (_, None) => Some(format!("{head}, but no limit is specified or limit is 0")),
            (Some(asked), Some(allowed)) => {
                let actual = allowed.as_f64() / asked.as_f64();
                (actual > bound).then(|| format!("{head}, but provided ratio is {actual:.6}"))
            }
        }
    }
}

/// What a pod asks for in all.
fn pod_amounts(pod: &Object) -> Amounts {
    let part = |part: &str| {
        let amounts = total::of_pod(pod, part).into_iter();
        amounts.map(|(resource, amount)| (resource, Value::from(amount.to_string()))).collect()
    };
    Amounts { requests: part("requests"), limits: part("limits") }
}

fn amount(value: &Value) -> Option<Quantity> {
    Quantity::from_json(value).ok()
}

fn printed(value: &Value) -> String {
    amount(value).map_or_else(|| value.to_string(), |quantity| quantity.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Object {
        Object::from_value(value).unwrap()
    }

    fn range(item: Value) -> Arc<Object> {
        Arc::new(object(json!({"spec": {"limits": [item]}})))
    }

    fn pod(resources: Value) -> Object {
        object(
            json!({"metadata": {"name": "web"}, "spec": {"containers": [{"name": "c", "resources": resources}]}}),
        )
    }

    #[test]
    fn containers_that_do_not_say_get_the_default() {
        let range = range(json!({
            "type": "Container", "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "100m"},
        }));
        let mut web = pod(json!({}));
        set_defaults(&mut web, std::slice::from_ref(&range));
        let resources = &web.list(&["spec", "containers"])[0]["resources"];
        assert_eq!(resources["limits"]["cpu"], "500m");
        assert_eq!(resources["requests"]["cpu"], "100m");
        let note = "LimitRanger plugin set: cpu request for container c; cpu limit for container c";
        assert_eq!(web.annotation(ANNOTATION), Some(note));
    }

    #[test]
    fn what_is_outside_is_refused_in_upstreams_words() {
        let range = json!({"type": "Container", "min": {"cpu": "100m"}, "max": {"cpu": "1"}});
        let faults = |resources| faults(&pod(resources), "pods", &range);
        assert_eq!(
            faults(json!({"requests": {"cpu": "50m"}, "limits": {"cpu": "2"}})),
            [
                "minimum cpu usage per Container is 100m, but request is 50m",
                "maximum cpu usage per Container is 1, but limit is 2"
            ]
        );
        assert_eq!(
            faults(json!({})),
            [
                "minimum cpu usage per Container is 100m.  No request is specified",
                "maximum cpu usage per Container is 1.  No limit is specified"
            ]
        );
        assert!(faults(json!({"requests": {"cpu": "200m"}, "limits": {"cpu": "1"}})).is_empty());
    }

    #[test]
    fn a_pod_counts_as_the_sum_of_its_containers() {
        let pod = object(json!({"spec": {"containers": [
            {"resources": {"limits": {"memory": "600Mi"}}}, {"resources": {"limits": {"memory": "600Mi"}}},
        ]}}));
        let item = json!({"type": "Pod", "max": {"memory": "1Gi"}});
        assert_eq!(faults(&pod, "pods", &item), ["maximum memory usage per Pod is 1Gi, but limit is 1200Mi"]);
        // A sidecar runs beside them, and what the pod says itself comes before that.
        let mut pod = object(json!({"spec": {
            "initContainers": [{"restartPolicy": "Always", "resources": {"limits": {"memory": "600Mi"}}}],
            "containers": [{"resources": {"limits": {"memory": "600Mi"}}}],
        }}));
        assert_eq!(faults(&pod, "pods", &item), ["maximum memory usage per Pod is 1Gi, but limit is 1200Mi"]);
        pod.set(&["spec", "resources"], json!({"limits": {"memory": "700Mi"}}));
        assert!(faults(&pod, "pods", &item).is_empty());
    }
}
