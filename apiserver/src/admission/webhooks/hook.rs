//! One entry of a webhook configuration, read once when the configuration changes.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use api::{Object, Status, items};
use serde_json::Value;

use super::{condition::Conditions, review::Version};
use crate::{admission::matching::Criteria, follow::View};

const DEFAULT_SECONDS: u64 = 10;

/// A webhook.
#[derive(Debug)]
pub(super) struct Hook {
    /// The name of the object that it stands in.
    pub(super) configuration: String,
    /// Its own name, such as `pods.example.com`.
    pub(super) name: String,
    /// Its `clientConfig`.
    pub(super) client: Value,
    /// Which requests it wants to see; what is wrong with that, when nobody can tell.
    pub(super) criteria: Result<Criteria, String>,
    pub(super) conditions: Conditions,
    /// `failurePolicy: Ignore`.
    pub(super) is_optional: bool,
    /// Whether a dry run may call it; nothing, when it does not say.
    pub(super) is_harmless: Option<bool>,
    /// `reinvocationPolicy: IfNeeded`.
    pub(super) is_reinvocable: bool,
    pub(super) patience: Duration,
    /// The review that it understands; none, when it is none of ours.
    pub(super) version: Option<Version>,
}

impl Hook {
    fn read(configuration: &str, source: &Value) -> Hook {
        let text = |field: &str| source[field].as_str().unwrap_or_default();
        let versions = items(&source["admissionReviewVersions"]);
        Hook {
            configuration: configuration.to_string(),
            name: text("name").to_string(),
            client: source["clientConfig"].clone(),
            criteria: Criteria::of_webhook(source),
            conditions: Conditions::read(&source["matchConditions"]),
            is_optional: text("failurePolicy") == "Ignore",
            is_harmless: match text("sideEffects") {
                "" => None,
                side_effects => Some(matches!(side_effects, "None" | "NoneOnDryRun")),
            },
            is_reinvocable: text("reinvocationPolicy") == "IfNeeded",
            patience: Duration::from_secs(source["timeoutSeconds"].as_u64().unwrap_or(DEFAULT_SECONDS)),
            version: versions.iter().find_map(|version| Version::read(version.as_str()?)),
        }
    }

    /// 400 where a dry run would do more than that.
    pub(super) fn check_dry_run(&self) -> Result<(), Status> {
        match self.is_harmless {
            Some(true) => Ok(()),
            Some(false) => Err(Status::bad_request(format!(
                "admission webhook {:?} does not support dry run",
                self.name
            ))),
            None => Err(Status::internal(format!(
                "failed calling webhook {:?}: Webhook SideEffects is nil",
                self.name
            ))),
        }
    }
}

/// All webhooks of one kind, in the order in which they are called: by configuration, then as they stand there.
#[derive(Default)]
pub(super) struct Hooks {
    configurations: BTreeMap<String, Vec<Arc<Hook>>>,
}

impl Hooks {
    pub(super) fn all(&self) -> Vec<Arc<Hook>> {
        self.configurations.values().flatten().cloned().collect()
    }
}

impl View for Hooks {
    fn add(&mut self, configuration: &Arc<Object>) {
        let hooks = configuration.list(&["webhooks"]).iter();
        let hooks = hooks.map(|source| Arc::new(Hook::read(configuration.name(), source)));
        self.configurations.insert(configuration.name().to_string(), hooks.collect());
    }

    fn remove(&mut self, configuration: &Object) {
        self.configurations.remove(configuration.name());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn configuration(name: &str, hooks: Value) -> Arc<Object> {
        Arc::new(Object::from_value(json!({"metadata": {"name": name}, "webhooks": hooks})).unwrap())
    }

    #[test]
    fn hooks_are_called_by_configuration_and_place() {
        let mut hooks = Hooks::default();
        let late = configuration("b", json!([{"name": "z"}, {"name": "a"}]));
        hooks.add(&late);
        hooks.add(&configuration("a", json!([{"name": "m"}])));
        let names = |hooks: &Hooks| hooks.all().iter().map(|hook| hook.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&hooks), ["m", "z", "a"]);
        hooks.remove(&late);
        assert_eq!(names(&hooks), ["m"]);
    }

    #[test]
    fn a_dry_run_has_no_side_effects() {
        let hook = |side_effects: Value| Hook::read("c", &json!({"name": "h", "sideEffects": side_effects}));
        assert_eq!(hook("None".into()).check_dry_run(), Ok(()));
        assert_eq!(hook("NoneOnDryRun".into()).check_dry_run(), Ok(()));
        let refused = hook("Some".into()).check_dry_run().unwrap_err();
        assert_eq!(
            (refused.code, refused.message.as_str()),
            (400, r#"admission webhook "h" does not support dry run"#)
        );
        assert_eq!(hook(Value::Null).check_dry_run().unwrap_err().code, 500);
    }
}
