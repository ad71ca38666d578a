//! What is wrong with a body although it can be read.

use std::fmt;

/// Fields that a type does not have, and those that came twice.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faults {
    /// Keys that came twice in YAML: `line 4: key "a" already set in map`.
    pub(super) repeated: Vec<String>,
    /// `unknown field "spec.foo"`, and of JSON `duplicate field "spec.bar"`.
    pub(super) fields: Vec<String>,
}

impl Faults {
    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.repeated.is_empty() && self.fields.is_empty()
    }

    /// Each fault by itself.
    pub fn warnings(self) -> Vec<String> {
        let mut warnings = self.repeated;
        warnings.extend(self.fields);
        warnings
    }
}

/// All of them, as a strict client is told. What came twice in YAML is one error of Go's decoder.
impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let repeated = (!self.repeated.is_empty())
            .then(|| format!("yaml: unmarshal errors:\n  {}", self.repeated.join("\n  ")));
        let all: Vec<&str> = repeated.iter().chain(&self.fields).map(String::as_str).collect();
        f.write_str(&all.join(", "))
    }
}
