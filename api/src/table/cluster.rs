//! What nodes, namespaces, events, settings and accounts print.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use super::cells::{condition, count, flag, joined, number, text_or};
use super::{AGE, Column, NAME, human_duration, since};
use crate::Object;

/// Columns of Nodes.
pub const NODE: &[Column] = &[
    Column::text("Status", "Whether the node takes pods.", |node, _| node_status(node).into()),
    Column::text("Roles", "What the node is for.", |node, _| roles(node).into()),
    AGE,
    Column::text("Version", "Version of the node's kubelet.", |node, _| {
        text_or(node, &["status", "nodeInfo", "kubeletVersion"], "")
    }),
    Column::text("Internal-IP", "Address inside the cluster.", |node, _| address(node, "InternalIP")).wide(),
    Column::text("External-IP", "Address outside the cluster.", |node, _| address(node, "ExternalIP")).wide(),
    Column::text("OS-Image", "Operating system.", |node, _| {
        text_or(node, &["status", "nodeInfo", "osImage"], "<unknown>")
    })
    .wide(),
    Column::text("Kernel-Version", "Version of the kernel.", |node, _| {
        text_or(node, &["status", "nodeInfo", "kernelVersion"], "<unknown>")
    })
    .wide(),
    Column::text("Container-Runtime", "What runs the containers.", |node, _| {
        text_or(node, &["status", "nodeInfo", "containerRuntimeVersion"], "<unknown>")
    })
    .wide(),
];

fn node_status(node: &Object) -> String {
    let ready = condition(node, "Ready").map(|condition| condition["status"] == "True");
    let mut words = vec![match ready {
        Some(true) => "Ready",
        Some(false) => "NotReady",
        None => "Unknown",
    }];
    if node.at(&["spec", "unschedulable"]) == Some(&Value::Bool(true)) {
        words.push("SchedulingDisabled");
    }
    words.join(",")
}

fn roles(node: &Object) -> String {
    let role = |(key, value): (&String, &Value)| match key.strip_prefix("node-role.kubernetes.io/") {
        Some(role) if !role.is_empty() => Some(role.to_string()),
        _ if key == "kubernetes.io/role" => value.as_str().filter(|it| !it.is_empty()).map(String::from),
        _ => None,
    };
    let mut roles: Vec<String> = node.labels().into_iter().flatten().filter_map(role).collect();
    roles.sort();
    roles.dedup();
    joined(&roles, "<none>")
}

fn address(node: &Object, kind: &str) -> Value {
    let found = node.list(&["status", "addresses"]).iter().find(|address| address["type"] == kind);
    found.and_then(|address| address["address"].as_str()).unwrap_or("<none>").into()
}

/// Columns of MutatingWebhookConfigurations and ValidatingWebhookConfigurations.
pub const WEBHOOK_CONFIGURATION: &[Column] = &[
    Column::number("Webhooks", "How many webhooks there are.", |object, _| {
        count(object, &["webhooks"]).into()
    }),
    AGE,
];

/// Columns of ValidatingAdmissionPolicies.
pub const VALIDATING_POLICY: &[Column] = &[
    Column::number(
        "Validations",
        "Validations indicates the number of validation rules defined in this configuration",
        |object, _| count(object, &["spec", "validations"]).into(),
    ),
    Column::text(
        "ParamKind",
        "ParamKind specifies the kind of resources used to parameterize this policy",
        param_kind,
    ),
    AGE,
];

/// Columns of the bindings of validating policies.
pub const VALIDATING_POLICY_BINDING: &[Column] = &[POLICY_NAME, PARAM_REF, AGE];

/// Columns of MutatingAdmissionPolicies.
pub const MUTATING_POLICY: &[Column] = &[
    Column::number(
        "Mutations",
        "Mutations indicates the number of mutations rules defined in this configuration",
        |object, _| count(object, &["spec", "mutations"]).into(),
    ),
    Column::text(
        "ParamKind",
        "ParamKind specifies the kind of resources used to parameterize this policy",
        param_kind,
    ),
    AGE,
];

/// Columns of the bindings of mutating policies.
pub const MUTATING_POLICY_BINDING: &[Column] = &[POLICY_NAME, PARAM_REF, AGE];

const POLICY_NAME: Column = Column::text(
    "PolicyName",
    "PolicyName indicates the policy definition which the policy binding binded to",
    |object, _| object.text(&["spec", "policyName"]).into(),
);

const PARAM_REF: Column = Column::text(
    "ParamRef",
    "ParamRef indicates the param resource which sets the configration param",
    |object, _| {
        let reference = |field: &str| object.text(&["spec", "paramRef", field]);
        match (reference("namespace"), reference("name")) {
            _ if object.at(&["spec", "paramRef"]).is_none() => "<unset>".into(),
            (_, "") => selector_in_go(object.at(&["spec", "paramRef", "selector"])).into(),
            // Nothing here tells whether the parameter lives in a namespace.
            ("", name) => format!("*/{name}").into(),
            (namespace, name) => format!("{namespace}/{name}").into(),
        }
    },
);

/// A label selector as Go prints it.
fn selector_in_go(selector: Option<&Value>) -> String {
    let Some(selector) = selector.filter(|selector| selector.is_object()) else { return "<unset>".into() };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let labels = selector["matchLabels"].as_object().into_iter().flatten();
    let labels: BTreeMap<&String, &Value> = labels.collect();
    let labels: String = labels.iter().map(|(key, value)| format!("{key}: {},", text(value))).collect();
    let expressions = selector["matchExpressions"].as_array().into_iter().flatten();
    let expression = |it: &Value| {
        let values: Vec<String> = it["values"].as_array().into_iter().flatten().map(text).collect();
        let (key, operator, values) = (text(&it["key"]), text(&it["operator"]), values.join(" "));
        format!("LabelSelectorRequirement{{Key:{key},Operator:{operator},Values:[{values}],}},")
    };
    let expressions: String = expressions.map(expression).collect();
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{labels}}},MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}"
    )
}

fn param_kind(object: &Object, _now: Timestamp) -> Value {
    match object.at(&["spec", "paramKind"]) {
        Some(kind) if kind.is_object() => {
            let text = |field: &str| kind[field].as_str().unwrap_or_default();
            format!("{}/{}", text("apiVersion"), text("kind")).into()
        }
        _ => "<unset>".into(),
    }
}

/// Columns of APIServices.
pub const API_SERVICE: &[Column] = &[
    Column::text("Service", "Who answers.", |object, _| match object.text(&["spec", "service", "name"]) {
        "" => "Local".into(),
        name => format!("{}/{name}", object.text(&["spec", "service", "namespace"])).into(),
    }),
    Column::text("Available", "Whether there is an answer.", |object, _| availability(object).into()),
    AGE,
];

fn availability(object: &Object) -> String {
    let Some(condition) = condition(object, "Available") else { return "Unknown".into() };
    let text = |field: &str| condition[field].as_str().unwrap_or_default();
    match (text("status"), text("reason")) {
        (status, "") => status.into(),
        ("True", _) => "True".into(),
        (status, reason) => format!("{status} ({reason})"),
    }
}

/// Columns of Namespaces.
pub const NAMESPACE: &[Column] = &[
    Column::text("Status", "Whether the namespace is in use or going away.", |object, _| {
        text_or(object, &["status", "phase"], "")
    }),
    AGE,
];

/// Columns of core Events.
pub const EVENT: &[Column] = &[
    Column::text("Last Seen", "Time since it happened last.", |event, now| {
        let moment = match event.text(&["series", "lastObservedTime"]) {
            "" => match event.text(&["lastTimestamp"]) {
                "" => first_seen(event),
                last => last,
            },
            observed => observed,
        };
        since(moment, now).into()
    }),
    Column::text("Type", "Normal or Warning.", |event, _| text_or(event, &["type"], "")),
    Column::text("Reason", "What happened, in one word.", |event, _| text_or(event, &["reason"], "")),
    Column::text("Object", "What it happened to.", |event, _| about(event, "involvedObject").into()),
    Column::text("Subobject", "Which part of it.", |event, _| {
        text_or(event, &["involvedObject", "fieldPath"], "")
    })
    .wide(),
    Column::text("Source", "Who says so.", |event, _| {
        let [component, host] = ["component", "host"].map(|name| event.text(&["source", name]));
        source(event, component, host, "reportingComponent").into()
    })
    .wide(),
    Column::text("Message", "What happened, in one sentence.", |event, _| {
        event.text(&["message"]).trim().into()
    }),
    Column::text("First Seen", "Time since it happened first.", |event, now| {
        since(first_seen(event), now).into()
    })
    .wide(),
    Column::text("Count", "How often it happened.", |event, _| times(event, "count").into()).wide(),
    NAME.wide(),
];

fn first_seen(event: &Object) -> &str {
    match event.text(&["firstTimestamp"]) {
        "" => event.text(&["eventTime"]),
        first => first,
    }
}

/// Columns of `events.k8s.io` Events.
pub const EVENTS_EVENT: &[Column] = &[
    Column::text("Last Seen", "Time since it happened last.", |event, now| {
        let moments = ["deprecatedLastTimestamp", "deprecatedFirstTimestamp", "eventTime"];
        let observed = event.text(&["series", "lastObservedTime"]);
        let mut all = std::iter::once(observed).chain(moments.map(|name| event.text(&[name])));
        since(all.find(|moment| !moment.is_empty()).unwrap_or_default(), now).into()
    }),
    Column::text("Type", "Normal or Warning.", |event, _| text_or(event, &["type"], "")),
    Column::text("Reason", "What happened, in one word.", |event, _| text_or(event, &["reason"], "")),
    Column::text("Object", "What it happened to.", |event, _| about(event, "regarding").into()),
    Column::text("Subobject", "Which part of it.", |event, _| {
        text_or(event, &["regarding", "fieldPath"], "")
    })
    .wide(),
    Column::text("Source", "Who says so.", |event, _| {
        let [component, host] = ["component", "host"].map(|name| event.text(&["deprecatedSource", name]));
        source(event, component, host, "reportingController").into()
    })
    .wide(),
    Column::text("Message", "What happened, in one sentence.", |event, _| {
        event.text(&["note"]).trim().into()
    }),
    Column::text("First Seen", "Time since it happened first.", |event, now| {
        let first = match event.text(&["deprecatedFirstTimestamp"]) {
            "" => event.text(&["eventTime"]),
            first => first,
        };
        since(first, now).into()
    })
    .wide(),
    Column::text("Count", "How often it happened.", |event, _| times(event, "deprecatedCount").into()).wide(),
    NAME.wide(),
];

fn about(event: &Object, field: &str) -> String {
    let kind = event.text(&[field, "kind"]).to_lowercase();
    match event.text(&[field, "name"]) {
        "" => kind,
        name => format!("{kind}/{name}"),
    }
}

fn source<'a>(event: &'a Object, component: &'a str, host: &'a str, reporter: &'a str) -> String {
    let first = |given: &'a str, otherwise| if given.is_empty() { event.text(&[otherwise]) } else { given };
    let (component, host) = (first(component, reporter), first(host, "reportingInstance"));
    if host.is_empty() { component.to_string() } else { format!("{component}, {host}") }
}

fn times(event: &Object, field: &str) -> i64 {
    match event.at(&["series"]) {
        Some(series) if series.is_object() => series["count"].as_i64().unwrap_or_default(),
        _ => event.number(&[field]).filter(|count| *count != 0).unwrap_or(1),
    }
}

/// Columns of ConfigMaps.
pub const CONFIG_MAP: &[Column] = &[
    Column::text("Data", "How many values there are.", |object, _| {
        (count(object, &["data"]) + count(object, &["binaryData"])).into()
    }),
    AGE,
];

/// Columns of Secrets.
pub const SECRET: &[Column] = &[
    Column::text("Type", "What the secret is for.", |object, _| text_or(object, &["type"], "")),
    Column::text("Data", "How many values there are.", |object, _| count(object, &["data"]).into()),
    AGE,
];

/// Columns of ServiceAccounts.
pub const SERVICE_ACCOUNT: &[Column] = &[
    Column::text("Secrets", "How many secrets belong to the account.", |object, _| {
        count(object, &["secrets"]).into()
    }),
    AGE,
];

/// Columns of ResourceQuotas.
pub const RESOURCE_QUOTA: &[Column] = &[
    Column::text("Request", "What is used of what may be requested.", |object, _| {
        quotas(object, false).into()
    }),
    Column::text("Limit", "What is used of what limits may add up to.", |object, _| {
        quotas(object, true).into()
    }),
    AGE,
];

fn quotas(object: &Object, are_limits: bool) -> String {
    let hard = object.at(&["status", "hard"]);
    let used = object.at(&["status", "used"]);
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), String::from);
    let mut texts: Vec<String> = hard
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter(|(name, _)| name.starts_with("limits.") == are_limits)
        .map(|(name, hard)| {
            let used = used.and_then(|used| used.get(name)).map_or("0".into(), text);
            format!("{name}: {used}/{}", text(hard))
        })
        .collect();
    texts.sort();
    texts.join(", ")
}

/// Columns of ComponentStatuses.
pub const COMPONENT_STATUS: &[Column] = &[
    Column::text("Status", "Whether the component works.", |object, _| {
        let healthy = object.list(&["conditions"]).iter().find(|condition| condition["type"] == "Healthy");
        match healthy.and_then(|condition| condition["status"].as_str()) {
            Some("True") => "Healthy".into(),
            Some(_) => "Unhealthy".into(),
            None => "Unknown".into(),
        }
    }),
    Column::text("Message", "What the component says.", |object, _| healthy(object, "message")),
    Column::text("Error", "What is wrong.", |object, _| healthy(object, "error")),
];

fn healthy(object: &Object, field: &str) -> Value {
    let found = object.list(&["conditions"]).iter().find(|condition| condition["type"] == "Healthy");
    found.and_then(|condition| condition[field].as_str()).unwrap_or_default().into()
}

/// Columns of NodeMetrics.
pub const NODE_METRICS: &[Column] = &[
    Column::text("cpu", "Processors in use.", |object, _| text_or(object, &["usage", "cpu"], "")),
    Column::text("memory", "Memory in use.", |object, _| text_or(object, &["usage", "memory"], "")),
    WINDOW,
];

/// Columns of PodMetrics: the sums over the containers.
pub const POD_METRICS: &[Column] = &[
    Column::text("cpu", "Processors in use.", |object, _| used_by_containers(object, "cpu")),
    Column::text("memory", "Memory in use.", |object, _| used_by_containers(object, "memory")),
    WINDOW,
];

const WINDOW: Column =
    Column::text("Window", "For how long was measured.", |object, _| text_or(object, &["window"], ""));

fn used_by_containers(object: &Object, resource: &str) -> Value {
    let texts =
        object.list(&["containers"]).iter().filter_map(|container| container["usage"][resource].as_str());
    let amounts: Vec<(u64, &str)> = texts.filter_map(amount_and_unit).collect();
    let unit = amounts.first().map_or("", |(_, unit)| *unit);
    format!("{}{unit}", amounts.iter().map(|(number, _)| number).sum::<u64>()).into()
}

fn amount_and_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.trim_end_matches(char::is_alphabetic);
    Some((digits.parse().ok()?, &text[digits.len()..]))
}

/// Columns of Leases.
pub const LEASE: &[Column] = &[
    Column::text("Holder", "Who holds the lease.", |object, _| {
        text_or(object, &["spec", "holderIdentity"], "")
    }),
    AGE,
];

/// Columns of PriorityClasses.
pub const PRIORITY_CLASS: &[Column] = &[
    Column::number("Value", "Priority of the pods; higher goes first.", |object, _| {
        number(object, &["value"])
    }),
    Column {
        kind: "boolean",
        ..Column::text("Global-Default", "Whether pods without a class are of this one.", |object, _| {
            flag(object, &["globalDefault"])
        })
    },
    AGE,
    Column::text("PreemptionPolicy", "Whether others are evicted to make room.", |object, _| {
        text_or(object, &["preemptionPolicy"], "")
    }),
];

/// Columns of RuntimeClasses.
pub const RUNTIME_CLASS: &[Column] =
    &[Column::text("Handler", "What runs the pods.", |object, _| text_or(object, &["handler"], "")), AGE];

/// Columns of RoleBindings and ClusterRoleBindings.
pub const ROLE_BINDING: &[Column] = &[
    Column::text("Role", "What the subjects may do.", |object, _| {
        let [kind, name] = ["kind", "name"].map(|name| object.text(&["roleRef", name]));
        format!("{kind}/{name}").into()
    }),
    AGE,
    Column::text("Users", "Users who may.", |object, _| subjects(object, "User")).wide(),
    Column::text("Groups", "Groups who may.", |object, _| subjects(object, "Group")).wide(),
    Column::text("ServiceAccounts", "Service accounts who may.", |object, _| {
        subjects(object, "ServiceAccount")
    })
    .wide(),
];

fn subjects(object: &Object, kind: &str) -> Value {
    let text = |subject: &Value, name: &str| subject[name].as_str().unwrap_or_default().to_string();
    let texts: Vec<String> = object
        .list(&["subjects"])
        .iter()
        .filter(|subject| subject["kind"] == kind)
        .map(|subject| match kind {
            "ServiceAccount" => format!("{}/{}", text(subject, "namespace"), text(subject, "name")),
            _ => text(subject, "name"),
        })
        .collect();
    texts.join(", ").into()
}

/// Columns of CertificateSigningRequests.
pub const CERTIFICATE_SIGNING_REQUEST: &[Column] = &[
    AGE,
    Column::text("SignerName", "Who shall sign.", |object, _| {
        text_or(object, &["spec", "signerName"], "<none>")
    }),
    Column::text("Requestor", "Who asks.", |object, _| text_or(object, &["spec", "username"], "")),
    Column::text("RequestedDuration", "How long the certificate shall hold.", |object, _| {
        object.number(&["spec", "expirationSeconds"]).map_or("<none>".into(), human_duration).into()
    }),
    Column::text("Condition", "Whether it was approved and signed.", |object, _| {
        let has = |kind: &str| condition(object, kind).is_some();
        let mut words = match (has("Approved"), has("Denied")) {
            (_, true) => vec!["Denied"],
            (true, _) => vec!["Approved"],
            _ => vec!["Pending"],
        };
        if has("Failed") {
            words.push("Failed");
        }
        if !object.text(&["status", "certificate"]).is_empty() {
            words.push("Issued");
        }
        words.join(",").into()
    }),
];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cells(columns: &[Column], value: Value) -> Vec<String> {
        let object = Object::from_value(value).unwrap();
        let now = "2026-01-01T01:00:00Z".parse().unwrap();
        let cell = |column: &Column| match (column.cell)(&object, now) {
            Value::String(text) => text,
            other => other.to_string(),
        };
        columns.iter().map(cell).collect()
    }

    #[test]
    fn a_node_shows_its_state_and_roles() {
        let node = json!({
            "metadata": {"labels": {
                "node-role.kubernetes.io/worker": "", "node-role.kubernetes.io/control-plane": "",
            }},
            "spec": {"unschedulable": true},
            "status": {
                "conditions": [{"type": "Ready", "status": "True"}],
                "nodeInfo": {"kubeletVersion": "v1.37.0"},
                "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}],
            },
        });
        let expected = [
            "Ready,SchedulingDisabled",
            "control-plane,worker",
            "<unknown>",
            "v1.37.0",
            "192.0.2.1",
            "<none>",
        ];
        assert_eq!(cells(&NODE[..6], node), expected);
    }

    #[test]
    fn an_event_names_its_object_and_when_it_was_seen() {
        let event = json!({
            "metadata": {"name": "web.1"}, "type": "Normal", "reason": "Pulled", "message": "all good \n",
            "involvedObject": {"kind": "Pod", "name": "web"},
            "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:59:00Z", "count": 7,
            "source": {"component": "kubelet", "host": "a"},
        });
        let expected =
            ["60s", "Normal", "Pulled", "pod/web", "", "kubelet, a", "all good", "60m", "7", "web.1"];
        assert_eq!(cells(EVENT, event), expected);
    }
}
