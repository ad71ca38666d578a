//! Label and field selector of one request, matched against what the cache keeps of an object.

use api::{
    Kind, Status,
    selector::{FieldSelector, LabelSelector},
};

use super::entry::Entry;

/// Which objects a request means.
#[derive(Clone)]
pub(crate) struct Selection {
    labels: LabelSelector,
    terms: Vec<Term>,
    /// Set where fields can only be told from the whole object: those of a kind that is stored as another,
    /// and those that are computed.
    decoded: Option<(&'static Kind, FieldSelector)>,
}

#[derive(Clone, Debug)]
struct Term {
    place: Place,
    is_equal: bool,
    value: String,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Name,
    Namespace,
    /// The kind's selectable field with this number.
    Selectable(usize),
}

impl Selection {
    /// Refuses fields that the kind cannot be selected by.
    pub(crate) fn new(
        kind: &'static Kind,
        labels: LabelSelector,
        fields: FieldSelector,
    ) -> Result<Selection, Status> {
        fields.check(kind).map_err(Status::bad_request)?;
        let term = |term: &api::selector::FieldTerm| {
            let place = match term.field.as_str() {
                "metadata.name" => Place::Name,
                "metadata.namespace" => Place::Namespace,
                "source" => return None,
                _ if !super::convert::is_stored_as_it_is(kind) => return None,
                field => Place::Selectable(kind.selectable.iter().position(|known| *known == field)?),
            };
            Some(Term { place, is_equal: term.is_equal, value: term.value.clone() })
        };
        let terms: Option<Vec<Term>> = fields.terms().iter().map(term).collect();
        Ok(match terms {
            Some(terms) => Selection { labels, terms, decoded: None },
            None => Selection { labels, terms: Vec::new(), decoded: Some((kind, fields)) },
        })
    }

    /// Whether every object is meant.
    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.terms.is_empty() && self.decoded.is_none()
    }

    /// Whether an object is meant. Where only a webhook knows the fields (`needs_conversion`), it has to be the object
    /// as clients see it.
    pub(crate) fn matches(&self, entry: &Entry) -> bool {
        self.may_match(entry)
            && self.decoded.as_ref().is_none_or(|(kind, fields)| {
                entry.decode_as(kind).is_ok_and(|object| fields.matches(&object))
            })
    }

    /// Whether an object is meant as far as can be told without reading it.
    pub(crate) fn may_match(&self, entry: &Entry) -> bool {
        self.labels.matches(|key| entry.label(key))
            && self.terms.iter().all(|term| term.has_value(entry) == term.is_equal)
    }

    /// Whether the fields are those of a version that only a webhook makes of what is stored.
    pub(crate) fn needs_conversion(&self) -> bool {
        let kind = self.decoded.as_ref().map(|(kind, _)| *kind);
        kind.and_then(|kind| kind.custom).is_some_and(|version| version.needs_webhook())
    }
}

impl Term {
    fn has_value(&self, entry: &Entry) -> bool {
        let actual = match self.place {
            Place::Name => entry.name(),
            Place::Namespace => entry.namespace(),
            Place::Selectable(index) => entry.field(index),
        };
        // A field that is not set has its type's zero value.
        actual == self.value || (actual.is_empty() && matches!(self.value.as_str(), "false" | "0"))
    }
}

impl Selection {
    /// Only the object with this name.
    pub(crate) fn named(mut self, name: &str) -> Selection {
        self.terms.push(Term { place: Place::Name, is_equal: true, value: name.to_string() });
        self
    }
}
