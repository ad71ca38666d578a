//! Sets of fields, and their algebra.

use std::cmp::Ordering;

use serde_json::{Map, Value};

use super::Element;

/// A set of paths into an object, kept as a tree in order. The whole object is never a member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set(Vec<(Element, Node)>);

/// What a set has at one element.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Node {
    /// Whether the path that ends here is a member.
    pub(super) is_member: bool,
    /// What is below.
    pub(super) below: Set,
}

impl Node {
    pub(super) fn leaf() -> Node {
        Node { is_member: true, below: Set::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.is_member && self.below.is_empty()
    }
}

impl Set {
    /// Whether there is no member.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a path.
    pub fn insert(&mut self, path: &[Element]) {
        let Some((first, rest)) = path.split_first() else { return };
        let node = self.node_mut(first.clone());
        match rest {
            [] => node.is_member = true,
            rest => node.below.insert(rest),
        }
    }

    /// Adds what a node has; one without members adds nothing.
    pub(super) fn put(&mut self, element: Element, added: Node) {
        if added.is_empty() {
            return;
        }
        // Values are walked in order, so that most of the time this is the end.
        if self.0.last().is_none_or(|(last, _)| *last < element) {
            self.0.push((element, added));
            return;
        }
        let node = self.node_mut(element);
        node.is_member |= added.is_member;
        node.below = std::mem::take(&mut node.below).union(&added.below);
    }

    /// Whether a path is a member.
    pub fn has(&self, path: &[Element]) -> bool {
        match path {
            [] => false,
            [last] => self.node(last).is_some_and(|node| node.is_member),
            [first, rest @ ..] => self.node(first).is_some_and(|node| node.below.has(rest)),
        }
    }

    /// Members of either.
    pub fn union(&self, other: &Set) -> Set {
        if self.is_empty() || other.is_empty() {
            return if self.is_empty() { other.clone() } else { self.clone() };
        }
        self.combined(other, |left, right| match (left, right) {
            (Some(left), Some(right)) => {
                Node { is_member: left.is_member || right.is_member, below: left.below.union(&right.below) }
            }
            (one, other) => one.or(other).cloned().unwrap_or_default(),
        })
    }

    /// Members of both.
    pub fn intersection(&self, other: &Set) -> Set {
        self.combined(other, |left, right| match (left, right) {
            (Some(left), Some(right)) => Node {
                is_member: left.is_member && right.is_member,
                below: left.below.intersection(&right.below),
            },
            _ => Node::default(),
        })
    }

    /// Members of this one alone.
    pub fn difference(&self, other: &Set) -> Set {
        if other.is_empty() {
            return self.clone();
        }
        self.combined(other, |left, right| match (left, right) {
            (Some(left), Some(right)) => Node {
                is_member: left.is_member && !right.is_member,
                below: left.below.difference(&right.below),
            },
            (left, _) => left.cloned().unwrap_or_default(),
        })
    }

    /// Members of this one alone that are not below a member of the other either.
    pub fn recursive_difference(&self, other: &Set) -> Set {
        if other.is_empty() {
            return self.clone();
        }
        self.combined(other, |left, right| match (left, right) {
            (Some(_), Some(right)) if right.is_member => Node::default(),
            (Some(left), Some(right)) => {
                Node { is_member: left.is_member, below: left.below.recursive_difference(&right.below) }
            }
            (left, _) => left.cloned().unwrap_or_default(),
        })
    }

    /// Calls `visit` with every member, parents first.
    pub fn for_each(&self, visit: &mut dyn FnMut(&[Element])) {
        self.visit_below(&mut Vec::new(), visit);
    }

    fn visit_below(&self, path: &mut Vec<Element>, visit: &mut dyn FnMut(&[Element])) {
        for (element, _) in self.0.iter().filter(|(_, node)| node.is_member) {
            path.push(element.clone());
            visit(path);
            path.pop();
        }
        for (element, node) in self.0.iter().filter(|(_, node)| !node.below.is_empty()) {
            path.push(element.clone());
            node.below.visit_below(path, visit);
            path.pop();
        }
    }

    /// What the set has at one element.
    pub(super) fn node(&self, element: &Element) -> Option<&Node> {
        let index = self.0.binary_search_by(|(other, _)| other.cmp(element)).ok()?;
        Some(&self.0[index].1)
    }

    /// What the set has at its elements, in order.
    pub(super) fn nodes(&self) -> impl Iterator<Item = &(Element, Node)> {
        self.0.iter()
    }

    fn node_mut(&mut self, element: Element) -> &mut Node {
        let index = match self.0.binary_search_by(|(other, _)| other.cmp(&element)) {
            Ok(index) => index,
            Err(index) => {
                self.0.insert(index, (element, Node::default()));
                index
            }
        };
        &mut self.0[index].1
    }

    fn combined(&self, other: &Set, join: impl Fn(Option<&Node>, Option<&Node>) -> Node + Copy) -> Set {
        let mut result = Vec::with_capacity(self.0.len());
        let (mut left, mut right) = (self.0.iter().peekable(), other.0.iter().peekable());
        loop {
            let order = match (left.peek(), right.peek()) {
                (None, None) => return Set(result),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((left, _)), Some((right, _))) => left.cmp(right),
            };
            let one = if order.is_le() { left.next() } else { None };
            let two = if order.is_ge() { right.next() } else { None };
            let node = join(one.map(|(_, node)| node), two.map(|(_, node)| node));
            if let Some((element, _)) = one.or(two).filter(|_| !node.is_empty()) {
                result.push((element.clone(), node));
            }
        }
    }

    /// The set as `fieldsV1` has it.
    pub fn to_json(&self) -> Value {
        self.to_json_of(false)
    }

    fn to_json_of(&self, is_member: bool) -> Value {
        let mut map = Map::new();
        if is_member && !self.is_empty() {
            map.insert(".".into(), Value::Object(Map::new()));
        }
        for (element, node) in &self.0 {
            map.insert(element.encoded(), node.below.to_json_of(node.is_member));
        }
        Value::Object(map)
    }

    /// Reads what [`Set::to_json`] makes.
    pub fn from_json(json: &Value) -> Result<Set, String> {
        if !json.is_object() {
            return Err(format!("expected a map of fields, got {json}"));
        }
        Set::node_from_json(json).map(|node| node.below)
    }

    fn node_from_json(json: &Value) -> Result<Node, String> {
        let mut node = Node::default();
        let mut below = Vec::new();
        for (key, value) in json.as_object().into_iter().flatten() {
            if key == "." {
                node.is_member = true;
            } else if let Some(element) = Element::decoded(key)? {
                below.push((element, Set::node_from_json(value)?));
            }
        }
        // What comes in order is appended; whoever sends it otherwise would have every element moved for every one.
        below.sort_by(|(one, _), (other, _)| one.cmp(other));
        for (element, child) in below {
            node.below.put(element, child);
        }
        node.is_member |= node.below.is_empty();
        Ok(node)
    }
}

/// Builds a set from paths.
impl<P: AsRef<[Element]>> FromIterator<P> for Set {
    fn from_iter<I: IntoIterator<Item = P>>(paths: I) -> Set {
        let mut set = Set::default();
        paths.into_iter().for_each(|path| set.insert(path.as_ref()));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_in_any_order_are_read_in_no_time() {
        // As text "-10" comes before "-11", as a number behind: read one by one, each is put before all others.
        let keys = (100_000..300_000).map(|number| format!("v:-{number}"));
        let json = Value::Object(keys.map(|key| (key, Value::Object(Map::new()))).collect());
        let set = Set::from_json(&json).unwrap();
        assert_eq!(set.0.len(), 200_000);
        assert!(set.0.is_sorted_by(|(one, _), (other, _)| one < other));
        assert_eq!(set.to_json(), json);
    }
}
