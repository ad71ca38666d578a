//! Decides what becomes of an event: a new one, one more of an old one, or nothing.

use std::{collections::HashMap, hash::Hash};

use jiff::{Timestamp, ToSpan};
use k8s_openapi::api::core::v1::ObjectReference;

use super::{EventType, Note};

/// Upstream's numbers (`client-go/tools/record/events_cache.go`).
const REMEMBERED: usize = 4096;
const SIMILAR_BEFORE_COMBINING: usize = 10;
const COMBINING_SECONDS: i64 = 600;
const BURST: f64 = 25.0;
const REFILL_PER_SECOND: f64 = 1.0 / 300.0;

/// What to do with an event.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// The object floods.
    Drop,
    /// Write a new event.
    Create {
        /// Name of the new event.
        name: String,
        /// Message, perhaps marked as combined.
        message: String,
    },
    /// Change the event that is there.
    CountUp {
        /// Its name.
        name: String,
        /// Its newest message.
        message: String,
        /// How often it happened.
        count: i32,
        /// When it happened first.
        first: Timestamp,
    },
}

/// Remembers the recent events of one component.
#[derive(Default)]
pub struct Correlator {
    told: Recent<(Similar, String), Told>,
    similar: Recent<Similar, Group>,
    budgets: Recent<Subject, Budget>,
}

/// What an event is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Subject {
    kind: String,
    namespace: String,
    name: String,
    uid: String,
    field: String,
}

/// Events that differ in their message only.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Similar {
    subject: Subject,
    kind: EventType,
    reason: String,
}

struct Told {
    name: String,
    count: i32,
    first: Timestamp,
}

struct Group {
    messages: Vec<String>,
    last: Timestamp,
}

struct Budget {
    left: f64,
    at: Timestamp,
}

impl Correlator {
    /// What becomes of an event; they come in the order in which they happened.
    pub fn decide(&mut self, note: &Note) -> Verdict {
        let now = note.at;
        let subject = Subject::of(&note.regarding);
        if !self.spend(subject.clone(), now) {
            return Verdict::Drop;
        }
        let similar = Similar { subject, kind: note.kind, reason: note.reason.clone() };
        let (identity, message) = match self.is_one_of_many(&similar, &note.message, now) {
            true => (String::new(), format!("(combined from similar events): {}", note.message)),
            false => (note.message.clone(), note.message.clone()),
        };
        let entry = self.told.entry((similar, identity));
        match entry {
            Some(told) => {
                told.count += 1;
                Verdict::CountUp { name: told.name.clone(), message, count: told.count, first: told.first }
            }
            slot @ None => {
                let object = note.regarding.name.as_deref().unwrap_or_default();
                let name = format!("{object}.{:x}", now.as_nanosecond());
                *slot = Some(Told { name: name.clone(), count: 1, first: now });
                Verdict::Create { name, message }
            }
        }
    }

    fn spend(&mut self, subject: Subject, now: Timestamp) -> bool {
        let budget = self.budgets.entry(subject).get_or_insert(Budget { left: BURST, at: now });
        let elapsed = now.duration_since(budget.at).as_secs_f64().max(0.0);
        budget.left = (budget.left + elapsed * REFILL_PER_SECOND).min(BURST);
        budget.at = now;
        let enough = budget.left >= 1.0;
        budget.left -= if enough { 1.0 } else { 0.0 };
        enough
    }

    fn is_one_of_many(&mut self, similar: &Similar, message: &str, now: Timestamp) -> bool {
        let group =
            self.similar.entry(similar.clone()).get_or_insert(Group { messages: Vec::new(), last: now });
        if now > group.last + COMBINING_SECONDS.seconds() {
            group.messages.clear();
        }
        group.last = now;
        if !group.messages.iter().any(|known| known == message) {
            if group.messages.len() >= SIMILAR_BEFORE_COMBINING {
                group.messages.remove(0);
                group.messages.push(message.into());
                return true;
            }
            group.messages.push(message.into());
        }
        group.messages.len() >= SIMILAR_BEFORE_COMBINING
    }
}

impl Subject {
    fn of(reference: &ObjectReference) -> Subject {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        Subject {
            kind: text(&reference.kind),
            namespace: text(&reference.namespace),
            name: text(&reference.name),
            uid: text(&reference.uid),
            field: text(&reference.field_path),
        }
    }
}

/// A map that forgets the older half when it is full: two generations, as cheap as one map.
struct Recent<K, V> {
    young: HashMap<K, Option<V>>,
    old: HashMap<K, Option<V>>,
}

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Recent { young: HashMap::new(), old: HashMap::new() }
    }
}

impl<K: Eq + Hash, V> Recent<K, V> {
    fn entry(&mut self, key: K) -> &mut Option<V> {
        if self.young.len() >= REMEMBERED / 2 && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        let remembered = self.old.remove(&key).flatten();
        let slot = self.young.entry(key).or_default();
        if remembered.is_some() {
            *slot = remembered;
        }
        slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(message: &str, second: i64) -> Note {
        let regarding = ObjectReference {
            kind: Some("Pod".into()),
            name: Some("web".into()),
            uid: Some("1".into()),
            ..ObjectReference::default()
        };
        let (reason, at) = ("BackOff".into(), at(second));
        Note { regarding, kind: EventType::Warning, reason, message: message.into(), at }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_same_event_counts_up_the_first_one() {
        let mut correlator = Correlator::default();
        let Verdict::Create { name, .. } = correlator.decide(&note("restarting", 10)) else {
            panic!("the first event is new")
        };
        let again = correlator.decide(&note("restarting", 20));
        assert_eq!(again, Verdict::CountUp { name, message: "restarting".into(), count: 2, first: at(10) });
    }

    #[test]
    fn many_messages_of_one_reason_are_combined() {
        let mut correlator = Correlator::default();
        let verdicts: Vec<Verdict> =
            (0..12).map(|index| correlator.decide(&note(&format!("failure {index}"), index))).collect();
        assert!(matches!(&verdicts[8], Verdict::Create { message, .. } if message == "failure 8"));
        let combined = |message: &str| message.starts_with("(combined from similar events): ");
        assert!(
            matches!(&verdicts[10], Verdict::CountUp { message, .. } | Verdict::Create { message, .. } if combined(message))
        );
        assert!(matches!(&verdicts[11], Verdict::CountUp { message, .. } if combined(message)));
    }

    #[test]
    fn a_flooding_object_is_cut_off_and_trickles_afterwards() {
        let mut correlator = Correlator::default();
        let passed = (0..100).filter(|_| correlator.decide(&note("x", 0)) != Verdict::Drop).count();
        assert_eq!(passed, 25);
        assert_eq!(correlator.decide(&note("x", 299)), Verdict::Drop);
        assert_ne!(correlator.decide(&note("x", 600)), Verdict::Drop);
    }
}
