//! Nodes by label, so that what a pod's node selector and node affinity pick is found once for the pod and not asked
//! of every node.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm};

use crate::{
    model::{Labels, NodeInfo, PodInfo, holds},
    node_set::NodeSet,
};

/// Which nodes have which labels and names.
#[derive(Clone, Debug, Default)]
pub struct LabelIndex {
    all: NodeSet,
    names: HashMap<String, usize>,
    keys: HashMap<String, Key>,
}

/// One label key.
#[derive(Clone, Debug, Default)]
struct Key {
    /// The nodes that have it, whatever its value.
    nodes: NodeSet,
    values: HashMap<String, NodeSet>,
}

impl LabelIndex {
    /// Takes a node in.
    pub fn insert(&mut self, number: usize, node: &NodeInfo) {
        self.all.insert(number);
        self.names.insert(node.name.clone(), number);
        for (key, value) in &node.labels {
            let key = self.keys.entry(key.clone()).or_default();
            key.nodes.insert(number);
            key.values.entry(value.clone()).or_default().insert(number);
        }
    }

    /// Takes out a node as it was put in.
    pub fn remove(&mut self, number: usize, node: &NodeInfo) {
        self.all.remove(number);
        self.names.remove(&node.name);
        for (name, value) in &node.labels {
            let Some(key) = self.keys.get_mut(name) else { continue };
            key.nodes.remove(number);
            if let Some(nodes) = key.values.get_mut(value) {
                nodes.remove(number);
                if nodes.is_empty() {
                    key.values.remove(value);
                }
            }
            if key.values.is_empty() {
                self.keys.remove(name);
            }
        }
    }

    /// All nodes.
    pub fn all(&self) -> &NodeSet {
        &self.all
    }

    /// The nodes that a pod's selector and required affinity pick: all when it has neither.
    pub fn picked_by(&self, pod: &PodInfo) -> NodeSet {
        let mut picked = self.labelled(&pod.node_selector);
        if let Some(affinity) = &pod.node_affinity {
            let mut by_terms = NodeSet::default();
            for term in &affinity.node_selector_terms {
                by_terms.unite(&self.picked_by_term(term));
            }
            picked.intersect(&by_terms);
        }
        picked
    }

    /// The nodes that have all of these labels.
    fn labelled(&self, labels: &Labels) -> NodeSet {
        let mut nodes = self.all.clone();
        for (key, value) in labels {
            match self.keys.get(key).and_then(|key| key.values.get(value)) {
                Some(having) => nodes.intersect(having),
                None => return NodeSet::default(),
            }
        }
        nodes
    }

    /// Those for which every requirement holds; an empty term picks nothing.
    pub fn picked_by_term(&self, term: &NodeSelectorTerm) -> NodeSet {
        let expressions = term.match_expressions.as_deref().unwrap_or_default();
        let fields = term.match_fields.as_deref().unwrap_or_default();
        if expressions.is_empty() && fields.is_empty() {
            return NodeSet::default();
        }
        let mut nodes = self.all.clone();
        for each in expressions {
            nodes.intersect(&self.having(each));
        }
        for each in fields {
            nodes.intersect(&self.named(each));
        }
        nodes
    }

    /// Those whose label is as required.
    fn having(&self, required: &NodeSelectorRequirement) -> NodeSet {
        let wanted = required.values.as_deref();
        let key = self.keys.get(&required.key);
        let mut nodes = NodeSet::default();
        if holds(&required.operator, None, wanted) {
            nodes = self.all.clone();
            if let Some(key) = key {
                nodes.subtract(&key.nodes);
            }
        }
        let Some(key) = key else { return nodes };
        if required.operator == "In" {
            // The usual one, and values may be as many as nodes.
            let listed = wanted.unwrap_or_default().iter().filter_map(|value| key.values.get(value));
            listed.for_each(|having| nodes.unite(having));
        } else {
            let fitting =
                key.values.iter().filter(|(value, _)| holds(&required.operator, Some(value), wanted));
            fitting.for_each(|(_, having)| nodes.unite(having));
        }
        nodes
    }

    /// Those whose field is as required; there is only one field, the name.
    fn named(&self, required: &NodeSelectorRequirement) -> NodeSet {
        let wanted = required.values.as_deref();
        match (required.key.as_str(), required.operator.as_str()) {
            ("metadata.name", "In") => {
                wanted.unwrap_or_default().iter().filter_map(|name| self.names.get(name)).copied().collect()
            }
            ("metadata.name", operator) => {
                let fitting = self.names.iter().filter(|(name, _)| holds(operator, Some(name), wanted));
                fitting.map(|(_, number)| *number).collect()
            }
            (_, operator) if holds(operator, None, wanted) => self.all.clone(),
            _ => NodeSet::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::{prelude::*, sample::select};
    use serde_json::{Value, json};

    use super::*;

    fn labels() -> impl Strategy<Value = Labels> {
        let (keys, values) = (select(vec!["a", "b", "c"]), select(vec!["", "1", "2", "x"]));
        proptest::collection::btree_map(keys.prop_map(str::to_owned), values.prop_map(str::to_owned), 0..3)
    }

    fn requirement(
        key: &'static [&'static str],
        values: &'static [&'static str],
    ) -> impl Strategy<Value = Value> {
        let operator = select(vec!["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt", "Odd"]);
        let values = proptest::collection::vec(select(values), 0..3);
        (select(key), operator, values)
            .prop_map(|(key, operator, values)| json!({"key": key, "operator": operator, "values": values}))
    }

    fn terms() -> impl Strategy<Value = Value> {
        let expressions =
            proptest::collection::vec(requirement(&["a", "b", "d"], &["", "1", "2", "x"]), 0..3);
        let fields =
            proptest::collection::vec(requirement(&["metadata.name", "other"], &["node-0", "node-3"]), 0..2);
        let term = (expressions, fields).prop_map(
            |(expressions, fields)| json!({"matchExpressions": expressions, "matchFields": fields}),
        );
        proptest::collection::vec(term, 0..3).prop_map(|terms| json!({"nodeSelectorTerms": terms}))
    }

    fn pod(selector: &Labels, terms: Option<&Value>) -> PodInfo {
        let affinity = terms
            .map(|terms| json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}));
        let spec = json!({"containers": [], "nodeSelector": selector, "affinity": affinity});
        PodInfo::new(Arc::new(serde_json::from_value(json!({"spec": spec})).unwrap()))
    }

    /// What the index has to agree with: whether a term picks a node, asked of the node itself.
    fn is_picked(node: &NodeInfo, term: &NodeSelectorTerm) -> bool {
        let expressions = term.match_expressions.as_deref().unwrap_or_default();
        let fields = term.match_fields.as_deref().unwrap_or_default();
        let by_field = |key: &str| (key == "metadata.name").then_some(node.name.as_str());
        let by_label = |key: &str| node.labels.get(key).map(String::as_str);
        !(expressions.is_empty() && fields.is_empty())
            && expressions
                .iter()
                .all(|each| holds(&each.operator, by_label(&each.key), each.values.as_deref()))
            && fields.iter().all(|each| holds(&each.operator, by_field(&each.key), each.values.as_deref()))
    }

    proptest! {
        #[test]
        fn the_index_picks_what_would_be_picked_node_by_node(
            nodes in proptest::collection::vec((labels(), labels(), any::<bool>()), 0..6),
            selector in labels(),
            terms in proptest::option::of(terms()),
        ) {
            let mut index = LabelIndex::default();
            let mut present = Vec::new();
            for (number, (before, labels, stays)) in nodes.into_iter().enumerate() {
                let node = |labels| NodeInfo { name: format!("node-{number}"), labels, ..NodeInfo::default() };
                index.insert(number, &node(before.clone()));
                index.remove(number, &node(before));
                index.insert(number, &node(labels.clone()));
                if stays {
                    present.push((number, node(labels)));
                } else {
                    index.remove(number, &node(labels));
                }
            }
            let pod = pod(&selector, terms.as_ref());
            let picks = |node: &NodeInfo| {
                pod.node_selector.iter().all(|(key, value)| node.labels.get(key) == Some(value))
                    && pod.node_affinity.as_ref().is_none_or(|affinity| {
                        affinity.node_selector_terms.iter().any(|term| is_picked(node, term))
                    })
            };
            let one_by_one: Vec<usize> =
                present.iter().filter(|(_, node)| picks(node)).map(|(number, _)| *number).collect();
            prop_assert_eq!(index.picked_by(&pod).iter_from(0).collect::<Vec<_>>(), one_by_one);
        }
    }
}
