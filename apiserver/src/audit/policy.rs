//! The audit policy: an `audit.k8s.io/v1` Policy file, and what it says about a request. The first rule that fits
//! decides.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::request::{RequestInfo, User};

const API_VERSION: &str = "audit.k8s.io/v1";

/// How much of a request is written down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Level {
    /// Nothing.
    #[default]
    None,
    /// Who, what, when and how it ended.
    Metadata,
    /// The body of the request as well.
    Request,
    /// And the body of the answer.
    RequestResponse,
}

/// When in the life of a request an event is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Before anything was done.
    RequestReceived,
    /// The answer has begun and will go on, as that of a watch.
    ResponseStarted,
    /// The answer is complete.
    ResponseComplete,
    /// The server failed in a way that it should not.
    Panic,
}

/// A policy file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    api_version: String,
    kind: String,
    /// Files may have a name; nothing asks for it.
    #[serde(default, rename = "metadata")]
    _metadata: serde_json::Value,
    #[serde(default)]
    rules: Vec<Rule>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    #[serde(default)]
    omit_managed_fields: bool,
}

/// Requests that fit, and what to do about them. An empty list fits everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    level: Level,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    resources: Vec<Resources>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default, rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    omit_managed_fields: Option<bool>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Resources {
    #[serde(default)]
    group: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
}

/// What the policy says about one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// How much is written down.
    pub level: Level,
    /// When it is not.
    pub omit_stages: Vec<Stage>,
    /// Whether `managedFields` are left out of bodies.
    pub omit_managed_fields: bool,
}

/// Why a policy is none.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The file cannot be read.
    #[error("failed to read the audit policy {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no policy.
    #[error("{} is no audit policy", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_yaml::Error,
    },
    /// It is one that means nothing.
    #[error("the audit policy {} is invalid: {reason}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl Policy {
    /// Reads and checks a policy file.
    pub fn read(path: &Path) -> Result<Policy, PolicyError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| PolicyError::Read { path: path.into(), source })?;
        let policy: Policy =
            serde_yaml::from_str(&text).map_err(|source| PolicyError::Parse { path: path.into(), source })?;
        match policy.fault() {
            Some(reason) => Err(PolicyError::Invalid { path: path.into(), reason }),
            None => Ok(policy),
        }
    }

    /// What to write down of a request.
    pub fn verdict(&self, user: &User, info: &RequestInfo) -> Verdict {
        let Some(rule) = self.rules.iter().find(|rule| rule.fits(user, info)) else {
            return Verdict::default();
        };
        Verdict {
            level: rule.level,
            omit_stages: self.omit_stages.iter().chain(&rule.omit_stages).copied().collect(),
            omit_managed_fields: rule.omit_managed_fields.unwrap_or(self.omit_managed_fields),
        }
    }

    fn fault(&self) -> Option<String> {
        if self.api_version != API_VERSION || self.kind != "Policy" {
            return Some(format!(
                "it is a {:?} of {:?}, not a Policy of {API_VERSION}",
                self.kind, self.api_version
            ));
        }
        if self.rules.is_empty() {
            return Some("loaded illegal policy with 0 rules".into());
        }
        let faults = self.rules.iter().enumerate();
        faults.filter_map(|(index, rule)| Some(format!("rules[{index}]: {}", rule.fault()?))).next()
    }
}

impl Rule {
    fn fits(&self, user: &User, info: &RequestInfo) -> bool {
        let names = |list: &[String], name: &str| list.is_empty() || list.iter().any(|one| one == name);
        if !names(&self.users, &user.name)
            || !(self.user_groups.is_empty() || self.user_groups.iter().any(|group| user.is_in(group)))
            || !names(&self.verbs, info.verb)
        {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return info.is_resource
                && names(&self.namespaces, &info.namespace)
                && (self.resources.is_empty() || self.resources.iter().any(|one| one.fit(info)));
        }
        self.non_resource_urls.is_empty()
            || !info.is_resource && self.non_resource_urls.iter().any(|url| path_fits(url, &info.path))
    }

    fn fault(&self) -> Option<String> {
        let is_about_resources = !self.resources.is_empty() || !self.namespaces.is_empty();
        if is_about_resources && !self.non_resource_urls.is_empty() {
            return Some("rules cannot apply to both regular resources and non-resource URLs".into());
        }
        let urls = self.non_resource_urls.iter();
        let bad_url =
            |url: &&String| *url != "*" && (!url.starts_with('/') || url.trim_end_matches('*').contains('*'));
        if let Some(url) = urls.clone().find(bad_url) {
            return Some(format!("{url:?} is no path, nor one with a wildcard as its last character"));
        }
        let names_of_nothing =
            self.resources.iter().any(|one| !one.resource_names.is_empty() && one.resources.is_empty());
        names_of_nothing.then(|| "using resourceNames requires at least one resource".into())
    }
}

impl Resources {
    fn fit(&self, info: &RequestInfo) -> bool {
        if self.group != info.group {
            return false;
        }
        let is_meant = |wanted: &String| match wanted.split_once('/') {
            _ if wanted == "*" => true,
            None => info.subresource.is_empty() && *wanted == info.resource,
            // As upstream: `pods/*` are the pods, too.
            Some((parent, "*")) => parent == info.resource,
            Some((parent, child)) => (parent == "*" || parent == info.resource) && child == info.subresource,
        };
        let is_named = self.resource_names.is_empty() || self.resource_names.contains(&info.name);
        self.resources.is_empty() || is_named && self.resources.iter().any(is_meant)
    }
}

fn path_fits(rule: &str, path: &str) -> bool {
    rule == "*" || rule == path || rule.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use http::{Method, Uri};

    use super::*;
    use crate::request::Query;

    fn policy(text: &str) -> Policy {
        serde_yaml::from_str(&format!("apiVersion: audit.k8s.io/v1\nkind: Policy\n{text}")).unwrap()
    }

    fn info(method: Method, uri: &str) -> RequestInfo {
        let uri: Uri = uri.parse().unwrap();
        RequestInfo::read(&method, &uri, &Query::of(&uri).unwrap())
    }

    const RULES: &str = r#"
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- level: None
  users: ["system:kube-proxy"]
  verbs: ["watch"]
  resources: [{group: "", resources: ["endpoints", "services"]}]
- level: None
  userGroups: ["system:authenticated"]
  nonResourceURLs: ["/api*", "/version"]
- level: Request
  resources: [{group: "", resources: ["configmaps"]}]
  namespaces: ["kube-system"]
- level: Metadata
  resources: [{group: "", resources: ["secrets", "pods/*", "*/scale"]}, {group: "", resources: ["configmaps"], resourceNames: ["one"]}]
  omitStages: [ResponseStarted]
  omitManagedFields: false
- level: RequestResponse
  resources: [{group: "apps"}]
"#;

    #[test]
    fn the_first_rule_that_fits_decides() {
        let policy = policy(RULES);
        let ann = User::new("ann", &["system:authenticated"]);
        let proxy = User::new("system:kube-proxy", &[]);
        let level = |user: &User, uri: &str| policy.verdict(user, &info(Method::GET, uri)).level;
        assert_eq!(level(&proxy, "/api/v1/services?watch=1"), Level::None);
        assert_eq!(level(&ann, "/api/v1/namespaces/a/secrets"), Level::Metadata);
        assert_eq!(level(&ann, "/apis"), Level::None);
        assert_eq!(level(&ann, "/healthz"), Level::None);
        assert_eq!(level(&ann, "/api/v1/namespaces/kube-system/configmaps"), Level::Request);
        assert_eq!(level(&ann, "/api/v1/namespaces/a/configmaps"), Level::None);
        assert_eq!(level(&ann, "/api/v1/namespaces/a/configmaps/one"), Level::Metadata);
        assert_eq!(level(&ann, "/api/v1/namespaces/a/nodes"), Level::None);
        assert_eq!(level(&ann, "/api/v1/namespaces/a/pods/x/log"), Level::Metadata);
        assert_eq!(level(&ann, "/api/v1/namespaces/a/replicationcontrollers/x/scale"), Level::Metadata);
        assert_eq!(level(&ann, "/apis/apps/v1/deployments"), Level::RequestResponse);
    }

    #[test]
    fn a_rule_may_omit_more_stages_and_decides_about_managed_fields() {
        let policy = policy(RULES);
        let ann = User::new("ann", &[]);
        let verdict = policy.verdict(&ann, &info(Method::GET, "/api/v1/namespaces/a/secrets"));
        assert_eq!(verdict.omit_stages, [Stage::RequestReceived, Stage::ResponseStarted]);
        assert!(!verdict.omit_managed_fields);
        assert!(policy.verdict(&ann, &info(Method::GET, "/apis/apps/v1/deployments")).omit_managed_fields);
    }

    #[test]
    fn policies_that_mean_nothing_are_refused() {
        let fault = |text: &str| policy(text).fault().unwrap_or_default();
        assert!(fault("rules: []").contains("0 rules"));
        let both = "rules: [{level: None, namespaces: [a], nonResourceURLs: [/x]}]";
        assert!(fault(both).contains("cannot apply to both"));
        assert!(fault("rules: [{level: None, nonResourceURLs: ['/a*b']}]").contains("wildcard"));
        assert!(fault("rules: [{level: None, resources: [{resourceNames: [a]}]}]").contains("at least one"));
        assert_eq!(fault("rules: [{level: Metadata}]"), "");
        assert!(
            serde_yaml::from_str::<Policy>(
                "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: All}]"
            )
            .is_err()
        );
    }
}
