//! Where webhooks and extension API servers are: what `clientConfig` and its relatives may say.

use std::{collections::BTreeSet, fmt::Display};

use serde_json::{Value, json};

use super::check::{Faults, Field};
use crate::{FieldError, items, name};

const FORM: &str = "; desired format: https://host[/path]";
const HIGHEST_PORT: i64 = 65535;
/// The versions in which the server asks.
const REVIEWS: [&str; 2] = ["v1", "v1beta1"];

/// A `clientConfig`: a URL or a Service, not both.
pub fn validate_client(client: &Field, faults: &mut Faults) {
    let (service, url) = (client.get("service"), client.get("url"));
    match (service.is_set(), url.is_set()) {
        (true, false) => validate_service(&service, faults),
        (false, true) => validate_url(&url, faults),
        _ => faults.required(client, "exactly one of url or service is required"),
    }
}

/// The versions of the question that a webhook knows, one of the server's among them. `needed` is what is said where
/// there are none.
pub fn validate_reviews(versions: &Field, is_lenient: bool, needed: &str, faults: &mut Faults) {
    if versions.is_empty() {
        return faults.required(versions, needed);
    }
    let mut seen = BTreeSet::new();
    for version in versions.items() {
        match seen.insert(version.text()) {
            true => faults.fits(&version, name::dns_1035_label),
            false => faults.invalid(&version, "duplicate version"),
        }
    }
    if !is_lenient && knows_no_review(versions.value) {
        faults.invalid(versions, format!("must include at least one of {}", REVIEWS.join(", ")));
    }
}

/// Whether a webhook knows versions, and none of the server's. One that was stored so may stay.
pub fn knows_no_review(versions: &Value) -> bool {
    let is_ours = |version: &Value| REVIEWS.contains(&version.as_str().unwrap_or_default());
    !items(versions).is_empty() && !items(versions).iter().any(is_ours)
}

/// The port of a Service, where it has to be a number that is given or has been filled in.
pub fn validate_port(port: &Field, faults: &mut Faults) {
    let number = port.number().unwrap_or_default();
    if !(1..=HIGHEST_PORT).contains(&number) {
        let why = format!("port is not valid: must be between 1 and {HIGHEST_PORT}, inclusive");
        faults.0.push(FieldError::invalid(&port.path, &json!(number), why));
    }
}

fn validate_service(service: &Field, faults: &mut Faults) {
    for (field, what) in [("name", "service name"), ("namespace", "service namespace")] {
        if service.get(field).text().is_empty() {
            faults.required(&service.get(field), &format!("{what} is required"));
        }
    }
    validate_port(&service.get("port"), faults);
    validate_path(&service.get("path"), faults);
}

fn validate_path(path: &Field, faults: &mut Faults) {
    let Some(inner) = path.text().strip_prefix('/') else {
        if !path.text().is_empty() {
            faults.invalid(path, "must start with a '/'");
        }
        return;
    };
    if inner.is_empty() {
        return;
    }
    let inner = inner.strip_suffix('/').unwrap_or(inner);
    for (index, step) in inner.split('/').enumerate() {
        if step.is_empty() {
            faults.invalid(path, format!("segment[{index}] may not be empty"));
        } else if let Err(why) = name::dns_subdomain(step) {
            faults.invalid(path, format!("segment[{index}]: {why}"));
        }
    }
}

fn validate_url(url: &Field, faults: &mut Faults) {
    let mut invalid = |value: &str, why: &dyn Display| {
        faults.0.push(FieldError::invalid(&url.path, &json!(value), why.to_string()));
    };
    let text = url.text();
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    if scheme != "https" {
        invalid(scheme, &format_args!("'https' is the only allowed URL scheme{FORM}"));
    }
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = rest.split('/').next().unwrap_or_default();
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    if host.is_empty() || scheme.is_empty() {
        invalid("", &format_args!("host must be specified{FORM}"));
    }
    if !user.is_empty() {
        invalid(user, &"user information is not permitted in the URL");
    }
    if !fragment.is_empty() {
        invalid(fragment, &"fragments are not permitted in the URL");
    }
    if !query.is_empty() {
        invalid(query, &"query parameters are not permitted in the URL");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn faults(client: Value) -> Vec<String> {
        let mut faults = Faults::new();
        validate_client(&Field { path: "clientConfig".into(), value: &client }, &mut faults);
        faults.0.iter().map(FieldError::to_string).collect()
    }

    #[test]
    fn a_client_is_a_url_or_a_service() {
        let service = json!({"name": "a", "namespace": "b", "port": 443, "path": "/x/y/"});
        assert_eq!(faults(json!({"url": "https://example.com:8443/path"})), Vec::<String>::new());
        assert_eq!(faults(json!({"service": service})), Vec::<String>::new());
        let needed = ["clientConfig: Required value: exactly one of url or service is required"];
        assert_eq!(faults(json!({})), needed);
        assert_eq!(faults(json!({"service": service, "url": "https://a"})), needed);
    }

    #[test]
    fn a_url_has_scheme_host_and_path() {
        assert_eq!(
            faults(json!({"url": "http://user@host/x?a=b#c"})),
            [
                r#"clientConfig.url: Invalid value: "http": 'https' is the only allowed URL scheme; desired format: https://host[/path]"#,
                r#"clientConfig.url: Invalid value: "user": user information is not permitted in the URL"#,
                r#"clientConfig.url: Invalid value: "c": fragments are not permitted in the URL"#,
                r#"clientConfig.url: Invalid value: "a=b": query parameters are not permitted in the URL"#,
            ]
        );
        let nowhere = faults(json!({"url": "https:///x"}));
        assert_eq!(
            nowhere,
            [
                r#"clientConfig.url: Invalid value: "": host must be specified; desired format: https://host[/path]"#
            ]
        );
    }

    #[test]
    fn a_service_has_a_name_a_port_and_a_clean_path() {
        assert_eq!(
            faults(json!({"service": {"name": "", "port": 0, "path": "x"}})),
            [
                "clientConfig.service.name: Required value: service name is required",
                "clientConfig.service.namespace: Required value: service namespace is required",
                "clientConfig.service.port: Invalid value: 0: port is not valid: must be between 1 and 65535, inclusive",
                r#"clientConfig.service.path: Invalid value: "x": must start with a '/'"#,
            ]
        );
        let double = faults(json!({"service": {"name": "a", "namespace": "b", "port": 1, "path": "/a//b"}}));
        assert_eq!(
            double,
            [r#"clientConfig.service.path: Invalid value: "/a//b": segment[1] may not be empty"#]
        );
    }
}
