//! What names, label keys and label values may look like, with upstream's messages
//! (`k8s.io/apimachinery/pkg/util/validation`).
//!
//! Each rule takes the text and answers with the sentence that follows `Invalid value: "...": `.

use std::net::IpAddr;

use crate::network::{ADDRESS_FORM, NETWORK_FORM, Network};

pub(crate) const LABEL_LENGTH: usize = 63;
pub(crate) const SUBDOMAIN_LENGTH: usize = 253;
const PORT_NAME_LENGTH: usize = 15;

const QUALIFIED_NAME: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

/// A lowercase RFC 1123 subdomain, `example.com`: the name of most objects.
pub fn dns_subdomain(name: &str) -> Result<(), String> {
    at_most(name, SUBDOMAIN_LENGTH)?;
    matches(name.split('.').all(is_dns_label), || {
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')".into()
    })
}

/// A domain that resolvers search, `_tcp.example.com`: a subdomain that may have underscores.
pub fn dns_search(name: &str) -> Result<(), String> {
    at_most(name, SUBDOMAIN_LENGTH)?;
    let is_label = |label: &str| {
        let label = label.strip_prefix('_').unwrap_or(label);
        let is_inner = |letter: char| matches!(letter, 'a'..='z' | '0'..='9' | '-' | '_');
        let is_end = |letter: char| matches!(letter, 'a'..='z' | '0'..='9');
        label.starts_with(is_end) && label.ends_with(is_end) && label.chars().all(is_inner)
    };
    matches(name.split('.').all(is_label), || {
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*')".into()
    })
}

/// A lowercase RFC 1123 label, `my-name`: namespaces, containers, volumes.
pub fn dns_label(name: &str) -> Result<(), String> {
    at_most(name, LABEL_LENGTH)?;
    matches(is_dns_label(name), || {
        "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')".into()
    })
}

/// A DNS-1035 label, which starts with a letter: Services of old.
pub fn dns_1035_label(name: &str) -> Result<(), String> {
    at_most(name, LABEL_LENGTH)?;
    let starts_with_letter = name.starts_with(|first: char| first.is_ascii_lowercase());
    matches(starts_with_letter && is_dns_label(name), || {
        "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')".into()
    })
}

/// `*.example.com`: hosts of Ingress rules.
pub fn wildcard_dns_subdomain(name: &str) -> Result<(), String> {
    at_most(name, SUBDOMAIN_LENGTH)?;
    let is_wildcard = name.strip_prefix("*.").is_some_and(|rest| rest.split('.').all(is_dns_label));
    matches(is_wildcard, || {
        "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')".into()
    })
}

/// A name that may stand as one segment of a URL path: RBAC roles and the like.
pub fn path_segment(name: &str) -> Result<(), String> {
    if matches!(name, "." | "..") {
        return Err(format!("may not be '{name}'"));
    }
    match ['/', '%'].into_iter().find(|forbidden| name.contains(*forbidden)) {
        Some(forbidden) => Err(format!("may not contain '{forbidden}'")),
        None => Ok(()),
    }
}

/// `name` or `example.com/name`: keys of labels and annotations, finalizers, resource names.
pub fn qualified_name(name: &str) -> Result<(), String> {
    let name = match name.split('/').collect::<Vec<_>>().as_slice() {
        [name] => *name,
        [prefix, name] => {
            matches(!prefix.is_empty(), || "prefix part must be non-empty".into())?;
            dns_subdomain(prefix).map_err(|message| format!("prefix part {message}"))?;
            *name
        }
        _ => {
            let suffix = "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
            return Err(format!("a qualified name {QUALIFIED_NAME} {suffix}"));
        }
    };
    matches(!name.is_empty(), || "name part must be non-empty".into())?;
    at_most(name, LABEL_LENGTH).map_err(|message| format!("name part {message}"))?;
    matches(is_qualified_part(name), || format!("name part {QUALIFIED_NAME}"))
}

/// The value of a label; may be empty.
pub fn label_value(value: &str) -> Result<(), String> {
    at_most(value, LABEL_LENGTH)?;
    matches(value.is_empty() || is_qualified_part(value), || {
        "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')".into()
    })
}

/// A C identifier, `my_name`.
pub fn c_identifier(name: &str) -> Result<(), String> {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let is_identifier = !name.is_empty()
        && name.bytes().all(is_inner)
        && !name.starts_with(|first: char| first.is_ascii_digit());
    matches(is_identifier, || {
        "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')".into()
    })
}

/// The name of an environment variable, by the rule that holds since 1.34: printable ASCII without `=`.
pub fn env_var_name(name: &str) -> Result<(), String> {
    matches(!name.is_empty(), || "environment variable name must not be empty".into())?;
    matches(name.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'='), || {
        "a valid environment variable name must consist only of printable ASCII characters other than '='"
            .into()
    })
}

/// The name of an environment variable by the older rule, which `envFrom` skips keys by.
pub fn strict_env_var_name(name: &str) -> Result<(), String> {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    let fits = !name.is_empty()
        && name.bytes().all(is_inner)
        && !name.starts_with(|first: char| first.is_ascii_digit());
    matches(fits, || {
        "a valid environment variable name must consist of alphabetic characters, digits, '_', '-', or '.', and must not start with a digit (e.g. 'my.env-name',  or 'MY_ENV.NAME',  or 'MyEnvName1', regex used for validation is '[-._a-zA-Z][-._a-zA-Z0-9]*')".into()
    })?;
    no_parent_directory(name)
}

/// A key of a ConfigMap or Secret, which becomes a file name.
pub fn config_key(key: &str) -> Result<(), String> {
    at_most(key, SUBDOMAIN_LENGTH)?;
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    matches(!key.is_empty() && key.bytes().all(is_inner), || {
        "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')".into()
    })?;
    no_parent_directory(key)
}

/// The name of a port, an IANA service name.
pub fn port_name(name: &str) -> Result<(), String> {
    at_most(name, PORT_NAME_LENGTH)?;
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    matches(!name.is_empty() && name.bytes().all(is_inner), || {
        "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".into()
    })?;
    matches(name.bytes().any(|byte| byte.is_ascii_lowercase()), || {
        "must contain at least one letter (a-z)".into()
    })?;
    matches(!name.contains("--"), || "must not contain consecutive hyphens".into())?;
    matches(!name.starts_with('-') && !name.ends_with('-'), || "must not begin or end with a hyphen".into())
}

/// A TCP or UDP port other than 0.
pub fn port_number(port: i64) -> Result<(), String> {
    within(port, 1, 65535)
}

/// A number between two others, both included.
pub fn within(number: i64, low: i64, high: i64) -> Result<(), String> {
    matches((low..=high).contains(&number), || format!("must be between {low} and {high}, inclusive"))
}

/// A percentage, `25%`.
pub fn percent(text: &str) -> Result<(), String> {
    let digits = text.strip_suffix('%').unwrap_or_default();
    matches(!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()), || {
        "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')".into()
    })
}

/// The name of an HTTP header.
pub fn http_header_name(name: &str) -> Result<(), String> {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    matches(!name.is_empty() && name.bytes().all(is_inner), || {
        "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')".into()
    })
}

/// Whether this is the name of an iSCSI initiator or target in one of the three forms that there are.
pub fn is_initiator(text: &str) -> bool {
    let is_code = |code: &str, length| {
        code.len() == length && code.chars().all(|letter| letter.is_ascii_alphanumeric())
    };
    let (form, rest) = text.split_at_checked(3).unwrap_or_default();
    match form {
        "iqn" => is_qualified_initiator(rest.strip_prefix('.').unwrap_or_default()),
        "eui" => rest.get(1..).is_some_and(|code| is_code(code, 16)),
        "naa" => rest.get(1..).is_some_and(|code| is_code(code, 32)),
        _ => false,
    }
}

/// `2001-04.com.example:storage`
fn is_qualified_initiator(text: &str) -> bool {
    let Some((authority, unit)) = text.split_once(':') else { return false };
    let Some((date, domain)) = authority.split_once('.') else { return false };
    let is_date = date.split_once('-').is_some_and(|(year, month)| {
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        (year.len(), month.len()) == (4, 2) && digits(year) && digits(month)
    });
    let in_domain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '.');
    let in_unit =
        |letter: char| !matches!(letter, ',' | ';' | '*' | '&' | '$' | '|') && !letter.is_whitespace();
    is_date
        && !domain.is_empty()
        && domain.chars().all(in_domain)
        && !unit.is_empty()
        && unit.chars().all(in_unit)
}

/// An IPv4 or IPv6 address.
pub fn ip_address(text: &str) -> Result<(), String> {
    matches(text.parse::<IpAddr>().is_ok(), || ADDRESS_FORM.into())
}

/// An IPv4 or IPv6 network, `10.0.0.0/8`.
pub fn cidr(text: &str) -> Result<(), String> {
    matches(text.parse::<Network>().is_ok(), || NETWORK_FORM.into())
}

/// The name with which a rule for whole names checks a prefix such as `generateName`: a last dash is
/// followed by the generated part and so no fault.
pub fn without_trailing_dash(prefix: &str) -> String {
    match prefix.strip_suffix('-') {
        Some(rest) if !rest.is_empty() => format!("{rest}a"),
        _ => prefix.to_string(),
    }
}

fn matches(holds: bool, message: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(message()) }
}

fn at_most(text: &str, limit: usize) -> Result<(), String> {
    matches(text.len() <= limit, || format!("must be no more than {limit} bytes"))
}

/// Keys become file names: none may lead out of the directory.
fn no_parent_directory(name: &str) -> Result<(), String> {
    match name {
        "." | ".." => Err(format!("must not be '{name}'")),
        _ if name.starts_with("..") => Err("must not start with '..'".into()),
        _ => Ok(()),
    }
}

fn is_dns_label(label: &str) -> bool {
    let is_alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = label.as_bytes();
    bytes.first().is_some_and(is_alphanumeric)
        && bytes.last().is_some_and(is_alphanumeric)
        && bytes.iter().all(|byte| is_alphanumeric(byte) || *byte == b'-')
}

fn is_qualified_part(name: &str) -> bool {
    let bytes = name.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Rule = fn(&str) -> Result<(), String>;

    fn check(rule: Rule, good: &[&str], bad: &[&str]) {
        for name in good {
            assert_eq!(rule(name), Ok(()), "{name:?}");
        }
        for name in bad {
            assert!(rule(name).is_err(), "{name:?} passes");
        }
    }

    #[test]
    fn names_follow_their_rules() {
        let long = "a".repeat(64);
        check(dns_subdomain, &["a", "a.b", "1-2.x", &long], &["", ".", "a.", "A", "-a", "a-", "a_b", "a..b"]);
        check(dns_label, &["a", "1a", "a-b"], &["", "a.b", "A", "-a", "a-", &long]);
        check(dns_1035_label, &["a", "a1-b"], &["", "1a", "a.b", "-a", "a-"]);
        check(wildcard_dns_subdomain, &["*.a", "*.a.b"], &["*", "*.", "a.*", "a", "*.*.a"]);
        check(path_segment, &["a:b", "system:x", "...", "A B"], &[".", "..", "a/b", "a%b"]);
        check(qualified_name, &["a", "A_b.c", "x.y/Z"], &["", "/a", "a/", "a/b/c", "X/a", "-a", "é", &long]);
        check(label_value, &["", "a", "A_b.c-1"], &["-", "a-", "a b", "é", &long]);
        check(c_identifier, &["_", "a1"], &["", "1a", "a-b"]);
        check(env_var_name, &["a", "1", "a b"], &["", "a=b", "é", "a\nb"]);
        check(strict_env_var_name, &["a", "_.-"], &["", "1", "a b", "..", "..a", "."]);
        check(config_key, &["a", ".a", "a_B.c"], &["", ".", "..", "..a", "a/b", "a b"]);
        check(port_name, &["http", "p2p", "a-1"], &["", "80", "-a", "a-", "a--b", "A", "sixteen-letters-"]);
        check(percent, &["0%", "100%"], &["", "%", "1", "1.5%", "-1%"]);
        check(ip_address, &["1.2.3.4", "::1"], &["", "1.2.3", "1.2.3.4/8"]);
        check(cidr, &["10.0.0.0/8", "fd00::/64"], &["", "10.0.0.0", "10.0.0.0/33", "10.0.0.0/+8", "x/8"]);
    }

    #[test]
    fn a_prefix_may_end_in_a_dash() {
        assert_eq!(without_trailing_dash("web-"), "weba");
        assert_eq!(without_trailing_dash("web"), "web");
        assert_eq!(without_trailing_dash("-"), "-");
    }

    #[test]
    fn messages_are_those_of_upstream() {
        assert_eq!(qualified_name("a/").unwrap_err(), "name part must be non-empty");
        assert_eq!(
            qualified_name("-/a").unwrap_err().split(" (e.g.").next(),
            Some(
                "prefix part a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character"
            )
        );
        assert_eq!(dns_label(&"a".repeat(64)).unwrap_err(), "must be no more than 63 bytes");
        assert_eq!(port_number(0).unwrap_err(), "must be between 1 and 65535, inclusive");
    }
}
