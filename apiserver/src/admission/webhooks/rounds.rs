//! Reinvocation: who changed an object early gets to see it again when somebody changed it later.
//!
//! There are at most two rounds. In the second one, as upstream, nobody is called who was not called in the first, and
//! only those who ask for it (`reinvocationPolicy: IfNeeded`).

use std::collections::BTreeSet;

use api::Object;

/// What has happened to one object so far.
#[derive(Default)]
pub(crate) struct Rounds {
    is_second: bool,
    is_another_needed: bool,
    /// Called since the last change, and willing to be called again.
    willing: BTreeSet<String>,
    /// Willing, and there was a change since.
    due: BTreeSet<String>,
    /// The object as the first round left it.
    left: Option<Object>,
}

impl Rounds {
    /// The number of the round, for annotations.
    pub(crate) fn number(&self) -> u8 {
        u8::from(self.is_second)
    }

    /// Before the callees of a round: built-in plug-ins may have changed the object since the first one.
    pub(crate) fn enter(&mut self, object: &Object) {
        if self.is_second && self.left.as_ref() != Some(object) {
            self.due.append(&mut self.willing);
        }
    }

    /// Whether a callee's turn is in this round.
    pub(crate) fn is_due(&self, id: &str) -> bool {
        !self.is_second || self.due.contains(id)
    }

    /// A callee was called.
    pub(crate) fn called(&mut self, id: &str, is_willing: bool, has_changed: bool) {
        if has_changed {
            self.due.append(&mut self.willing);
            self.is_another_needed = true;
        }
        if is_willing {
            self.willing.insert(id.to_string());
        }
    }

    /// Begins the second round, if there has to be one.
    pub(crate) fn begin_second(&mut self, object: &Object) -> bool {
        let begins = self.is_another_needed && !self.is_second;
        if begins {
            self.is_second = true;
            self.left = Some(object.clone());
        }
        begins
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_called_before_a_change_is_called_again() {
        let object = Object::default();
        let mut rounds = Rounds::default();
        rounds.enter(&object);
        rounds.called("early", true, true);
        rounds.called("unwilling", false, false);
        assert!(rounds.is_due("late"));
        rounds.called("late", true, true);
        rounds.called("last", true, false);
        assert!(rounds.begin_second(&object));
        rounds.enter(&object);
        let due: Vec<&str> = ["early", "unwilling", "late", "last", "never"]
            .into_iter()
            .filter(|id| rounds.is_due(id))
            .collect();
        assert_eq!(due, ["early"]);
        assert!(!rounds.begin_second(&object), "two rounds are enough");
    }

    #[test]
    fn what_a_plug_in_changes_is_seen_by_all_who_want() {
        let mut object = Object::default();
        let mut rounds = Rounds::default();
        rounds.called("only", true, true);
        assert!(rounds.begin_second(&object));
        object.set(&["spec", "x"], 1);
        rounds.enter(&object);
        assert!(rounds.is_due("only"));
    }

    #[test]
    fn without_a_change_one_round_is_enough() {
        let mut rounds = Rounds::default();
        rounds.called("only", true, false);
        assert!(!rounds.begin_second(&Object::default()));
    }
}
