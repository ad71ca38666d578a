//! What Kubernetes adds: lists, sets, optionals, quantities, addresses, URLs, versions, named formats.

use std::{cmp::Ordering, net::IpAddr, sync::Arc};

use regex::{Regex, RegexBuilder};

use super::{Failure, Value};
use crate::{
    Quantity, name,
    network::{Network, is_mapped},
};

type Answer<'a> = Result<Value<'a>, Failure>;

/// How large a compiled expression may get, in bytes: one that is compiled once, and one that is compiled while an
/// expression is evaluated.
const CONSTANT_REGEX_LIMIT: usize = 1 << 18;
const REGEX_LIMIT: usize = 1 << 16;
/// How long a pattern may be that is compiled while an expression is evaluated.
const PATTERN_LIMIT: usize = 4 << 10;

/// Compiles a regular expression that is part of an expression.
pub(super) fn constant_regex(text: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(text).size_limit(CONSTANT_REGEX_LIMIT).build()
}

/// Compiles a regular expression that was computed.
pub(super) fn regex(text: &str) -> Result<Regex, Failure> {
    if text.len() > PATTERN_LIMIT {
        return Failure::error("error parsing regexp: expression too large");
    }
    let regex = RegexBuilder::new(text).size_limit(REGEX_LIMIT).build();
    regex.map_err(|error| Failure::Error(format!("error parsing regexp: {error}")))
}

/// An address on the web, as far as expressions ask for its parts.
#[derive(Debug, PartialEq)]
pub struct Url {
    pub(super) text: String,
    scheme: String,
    host: String,
    port: String,
    path: String,
    query: String,
}

/// A semantic version.
#[derive(Debug, PartialEq, Eq)]
pub struct Semver {
    numbers: [u64; 3],
    pre: Vec<String>,
}

/// Calls one of these functions; `None` when there is none for such values.
pub(super) fn call<'a>(function: &str, values: &[Value<'a>]) -> Option<Answer<'a>> {
    constructor(function, values)
        .or_else(|| optional(function, values))
        .or_else(|| sets(function, values))
        .or_else(|| list(function, values))
        .or_else(|| quantity(function, values))
        .or_else(|| address(function, values))
        .or_else(|| url(function, values))
        .or_else(|| semver(function, values))
        .or_else(|| format(function, values))
}

fn text(value: Option<&Value<'_>>) -> Option<String> {
    value?.as_text().map(str::to_string)
}

fn constructor<'a>(function: &str, values: &[Value<'a>]) -> Option<Answer<'a>> {
    let text = text(values.first());
    let made =
        |made: Option<Value<'a>>, what: &str| Some(made.map_or_else(|| Failure::error(what.to_string()), Ok));
    match function {
        "quantity" => made(
            Quantity::parse(&text?).ok().map(Value::Quantity),
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        "isQuantity" => Some(Ok(Value::Bool(Quantity::parse(&text?).is_ok()))),
        "ip" if text.is_some() => {
            let text = text?;
            made(
                parse_ip(&text).map(Value::Ip),
                &format!("IP Address {text:?} parse error during conversion from string"),
            )
        }
        "isIP" if values.len() == 1 => Some(Ok(Value::Bool(parse_ip(&text?).is_some()))),
        "ip.isCanonical" => {
            let text = text?;
            made(
                parse_ip(&text).map(|address| Value::Bool(address.to_string() == text)),
                &format!("IP Address {text:?} parse error during conversion from string"),
            )
        }
        "cidr" => {
            let text = text?;
            let range = parse_cidr(&text).map(|(address, range)| Value::Cidr(address, range));
            made(range, &format!("network address parse error during conversion from string: {text:?}"))
        }
        "isCIDR" => Some(Ok(Value::Bool(parse_cidr(&text?).is_some()))),
        "url" => {
            let text = text?;
            let what = format!(
                "URL parse error during conversion from string: parse {text:?}: invalid URI for request"
            );
            made(Url::parse(&text).map(|url| Value::Url(Arc::new(url))), &what)
        }
        "isURL" => Some(Ok(Value::Bool(Url::parse(&text?).is_some()))),
        "semver" => made(
            Semver::parse(&text?, is_lenient(values)).map(|version| Value::Semver(Arc::new(version))),
            "No Major.Minor.Patch elements found",
        ),
        "isSemver" => Some(Ok(Value::Bool(Semver::parse(&text?, is_lenient(values)).is_some()))),
        _ => None,
    }
}

fn is_lenient(values: &[Value<'_>]) -> bool {
    matches!(values.get(1), Some(Value::Bool(true)))
}

fn optional<'a>(function: &str, values: &[Value<'a>]) -> Option<Answer<'a>> {
    Some(Ok(match (function, values) {
        ("optional.none", []) => Value::Optional(None),
        ("optional.of", [value]) => Value::Optional(Some(Box::new(value.clone()))),
        ("optional.ofNonZeroValue", [value]) => {
            Value::Optional((!value.is_zero()).then(|| Box::new(value.clone())))
        }
        ("hasValue", [Value::Optional(inner)]) => Value::Bool(inner.is_some()),
        ("value", [Value::Optional(Some(value))]) => (**value).clone(),
        ("value", [Value::Optional(None)]) => return Some(Failure::error("optional.none() dereference")),
        _ => return None,
    }))
}

fn sets<'a>(function: &str, values: &[Value<'a>]) -> Option<Answer<'a>> {
    let [one, other] = values else { return None };
    if !function.starts_with("sets.") {
        return None;
    }
    let is_list = |value: &Value<'_>| matches!(value, Value::List(_) | Value::JsonList(..));
    let is_empty = |value: &Value<'_>| value.size() == Some(0);
    if is_list(one) && is_list(other) && (is_empty(one) || is_empty(other)) {
        // There is nothing to compare, and no need to look at the other.
        return Some(Ok(Value::Bool(match function {
            "sets.contains" => is_empty(other),
            "sets.intersects" => false,
            "sets.equivalent" => is_empty(one) && is_empty(other),
            _ => return None,
        })));
    }
    let (one, other) = (one.items()?, other.items()?);
    let has = |list: &[Value<'a>], item: &Value<'a>| list.iter().any(|other| other.equals(item));
    Some(Ok(Value::Bool(match function {
        "sets.contains" => other.iter().all(|item| has(&one, item)),
        "sets.intersects" => other.iter().any(|item| has(&one, item)),
        "sets.equivalent" => {
            other.iter().all(|item| has(&one, item)) && one.iter().all(|item| has(&other, item))
        }
        _ => return None,
    })))
}

fn list<'a>(function: &str, values: &[Value<'a>]) -> Option<Answer<'a>> {
    let (target, arguments) = values.split_first()?;
    let items = target.items()?;
    let by_size = |one: &Value<'_>, other: &Value<'_>| one.compare(other).unwrap_or(Ordering::Equal);
    Some(Ok(match (function, arguments) {
        ("isSorted", []) => {
            Value::Bool(items.windows(2).all(|pair| by_size(&pair[0], &pair[1]) != Ordering::Greater))
        }
        ("sum", []) => return Some(sum(&items)),
        ("min" | "max", []) => {
            let found = match function {
                "min" => items.iter().min_by(|one, other| by_size(one, other)),
                _ => items.iter().max_by(|one, other| by_size(one, other)),
            };
            match found {
                Some(value) => value.clone(),
                None => return Some(Failure::error(format!("{function} called on empty list"))),
            }
        }
        ("indexOf", [wanted]) => {
            Value::Int(items.iter().position(|item| item.equals(wanted)).map_or(-1, |at| at as i64))
        }
        ("lastIndexOf", [wanted]) => {
            Value::Int(items.iter().rposition(|item| item.equals(wanted)).map_or(-1, |at| at as i64))
        }
        ("join", []) => joined(&items, "")?,
        ("join", [separator]) => joined(&items, separator.as_text()?)?,
        ("reverse", []) => Value::list(items.iter().rev().cloned().collect()),
        ("first", []) => Value::Optional(items.first().cloned().map(Box::new)),
        ("last", []) => Value::Optional(items.last().cloned().map(Box::new)),
        ("distinct", []) => {
            let mut kept: Vec<Value<'a>> = Vec::new();
            for item in items.iter() {
                if !kept.iter().any(|other| other.equals(item)) {
                    kept.push(item.clone());
                }
            }
            Value::list(kept)
        }
        ("sort", []) => {
            let mut sorted = items.into_owned();
            sorted.sort_by(by_size);
            Value::list(sorted)
        }
        ("flatten", []) => Value::list(
            items
                .iter()
                .flat_map(|item| item.items().map_or_else(|| vec![item.clone()], |items| items.into_owned()))
                .collect(),
        ),
        ("slice", [start, end]) => {
            match (usize::try_from(start.as_index()?), usize::try_from(end.as_index()?)) {
                (Ok(start), Ok(end)) if start <= end && end <= items.len() => {
                    Value::list(items[start..end].to_vec())
                }
                _ => return Some(Failure::error("index out of bounds")),
            }
        }
        _ => return None,
    }))
}

fn joined<'a>(items: &[Value<'a>], separator: &str) -> Option<Value<'a>> {
    let texts: Option<Vec<&str>> = items.iter().map(Value::as_text).collect();
    Some(Value::text(texts?.join(separator)))
}

fn sum<'a>(items: &[Value<'a>]) -> Answer<'a> {
    use Value::*;
    items.iter().try_fold(Int(0), |total, item| {
        let sum = match (&total, item) {
            (Int(0), first) if !matches!(first, Int(_)) => Some(first.clone()),
            (Int(total), Int(item)) => total.checked_add(*item).map(Int),
            (Uint(total), Uint(item)) => total.checked_add(*item).map(Uint),
            (Double(total), Double(item)) => Some(Double(total + item)),
            (Duration(total), Duration(item)) => total.checked_add(*item).map(Duration),
            _ => return Failure::error("no such overload"),
        };
        sum.map_or_else(|| Failure::error("integer overflow"), Ok)
    })
}

fn quantity<'a>(function: &str, values: &[Value<'a>]) -> Option<Answer<'a>> {
    let (Value::Quantity(one), arguments) = values.split_first()? else { return None };
    let other = || match arguments {
        [Value::Quantity(other)] => Some(*other),
        [Value::Int(other)] => Some(Quantity::from_value(*other)),
        _ => None,
    };
    let is_whole = Quantity::from_value(one.value()) == *one;
    Some(Ok(match function {
        "isGreaterThan" => Value::Bool(*one > other()?),
        "isLessThan" => Value::Bool(*one < other()?),
        "compareTo" => Value::Int(one.cmp(&other()?) as i64),
        "add" => Value::Quantity(*one + other()?),
        "sub" => Value::Quantity(*one - other()?),
        "sign" => Value::Int(one.signum().into()),
        "isInteger" => Value::Bool(is_whole),
        "asInteger" if is_whole => Value::Int(one.value()),
        "asInteger" => return Some(Failure::error("cannot convert value to integer")),
        "asApproximateFloat" => Value::Double(one.as_f64()),
        _ => return None,
    }))
}

/// An address; those of version 4 in the clothes of version 6, or with a zone, are refused.
fn parse_ip(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>().ok().filter(|address| !is_mapped(*address))
}

/// A range, and the address that it is written with. A prefix length that begins with zeros is refused.
fn parse_cidr(text: &str) -> Option<(IpAddr, Network)> {
    let (address, length) = text.split_once('/')?;
    let is_plain = length == "0" || !length.starts_with('0');
    let range = text.parse::<Network>().ok().filter(|_| is_plain)?;
    Some((parse_ip(address)?, range))
}

fn address<'a>(function: &str, values: &[Value<'a>]) -> Option<Answer<'a>> {
    Some(Ok(match (function, values) {
        ("family", [Value::Ip(address)]) => Value::Int(if address.is_ipv4() { 4 } else { 6 }),
        ("isUnspecified", [Value::Ip(address)]) => Value::Bool(address.is_unspecified()),
        ("isLoopback", [Value::Ip(address)]) => Value::Bool(address.is_loopback()),
        ("isLinkLocalMulticast", [Value::Ip(address)]) => Value::Bool(is_link_local_multicast(*address)),
        ("isLinkLocalUnicast", [Value::Ip(address)]) => Value::Bool(is_link_local(*address)),
        ("isGlobalUnicast", [Value::Ip(address)]) => Value::Bool(
            !address.is_unspecified()
                && !address.is_loopback()
                && !address.is_multicast()
                && !is_link_local(*address)
                && *address != IpAddr::V4(std::net::Ipv4Addr::BROADCAST),
        ),
        ("containsIP", [Value::Cidr(_, range), other]) => {
            let other = match other {
                Value::Ip(other) => *other,
                Value::Text(text) => match parse_ip(text) {
                    Some(other) => other,
                    None => {
                        return Some(Failure::error(format!(
                            "IP Address {text:?} parse error during conversion from string"
                        )));
                    }
                },
                _ => return None,
            };
            Value::Bool(range.has(other))
        }
        ("containsCIDR", [Value::Cidr(_, range), other]) => {
            let other = match other {
                Value::Cidr(_, other) => *other,
                Value::Text(text) => match parse_cidr(text) {
                    Some((_, other)) => other,
                    None => {
                        return Some(Failure::error(format!(
                            "network address parse error during conversion from string: {text:?}"
                        )));
                    }
                },
                _ => return None,
            };
            Value::Bool(range.contains(&other))
        }
        ("ip", [Value::Cidr(address, _)]) => Value::Ip(*address),
        ("masked", [Value::Cidr(_, range)]) => Value::Cidr(range.first(), *range),
        ("prefixLength", [Value::Cidr(_, range)]) => Value::Int(range.prefix().into()),
        _ => return None,
    }))
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(four) => four.is_link_local(),
        IpAddr::V6(six) => six.is_unicast_link_local(),
    }
}

fn is_link_local_multicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(four) => four.octets()[..3] == [224, 0, 0],
        IpAddr::V6(six) => six.octets()[0] == 0xff && six.octets()[1] & 0x0f == 2,
    }
}

impl Url {
    /// An absolute URL, or an absolute path.
    fn parse(text: &str) -> Option<Url> {
        if text.is_empty() || text.contains([' ', '\n', '\t']) {
            return None;
        }
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest))
                if scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                    && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b)) =>
            {
                (scheme.to_ascii_lowercase(), rest)
            }
            Some(_) => return None,
            None if text.starts_with('/') => (String::new(), text),
            None => return None,
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let (before, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = match (scheme.is_empty(), before.find('/')) {
            (true, _) => ("", before),
            (false, Some(slash)) => before.split_at(slash),
            (false, None) => (before, ""),
        };
        let host = authority.rsplit('@').next().unwrap_or_default();
        let port = match host.rfind(':').filter(|colon| !host[*colon..].contains(']')) {
            Some(colon) => &host[colon + 1..],
            None => "",
        };
        if !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        Some(Url {
            text: text.into(),
            scheme,
            host: host.into(),
            port: port.into(),
            path: path.into(),
            query: query.into(),
        })
    }

    fn host_name(&self) -> &str {
        let name = match self.port.is_empty() {
            true => self.host.trim_end_matches(':'),
            false => &self.host[..self.host.len() - self.port.len() - 1],
        };
        name.trim_start_matches('[').trim_end_matches(']')
    }
}

fn url<'a>(function: &str, values: &[Value<'a>]) -> Option<Answer<'a>> {
    let [Value::Url(url)] = values else { return None };
    Some(Ok(match function {
        "getScheme" => Value::text(url.scheme.as_str()),
        "getHost" => Value::text(url.host.as_str()),
        "getHostname" => Value::text(url.host_name()),
        "getPort" => Value::text(url.port.as_str()),
        "getEscapedPath" => Value::text(url.path.as_str()),
        "getQuery" => {
            let mut query = std::collections::BTreeMap::<super::value::Key, Vec<Value<'a>>>::new();
            for pair in url.query.split('&').filter(|pair| !pair.is_empty()) {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                query.entry(super::value::Key::Text(key.into())).or_default().push(Value::text(value));
            }
            Value::Map(Arc::new(query.into_iter().map(|(key, values)| (key, Value::list(values))).collect()))
        }
        _ => return None,
    }))
}

impl Semver {
    fn parse(text: &str, is_lenient: bool) -> Option<Semver> {
        let text = if is_lenient { text.trim_start_matches('v') } else { text };
        let text = text.split('+').next()?;
        let (numbers, pre) = text.split_once('-').map_or((text, None), |(numbers, pre)| (numbers, Some(pre)));
        let parts: Vec<&str> = numbers.split('.').collect();
        if parts.len() > 3 || (parts.len() < 3 && !is_lenient) {
            return None;
        }
        let mut found = [0; 3];
        for (place, part) in found.iter_mut().zip(&parts) {
            let is_plain = is_lenient || *part == "0" || !part.starts_with('0');
            *place = part.parse().ok().filter(|_| is_plain && !part.starts_with('+'))?;
        }
        let pre: Vec<String> =
            pre.map(|pre| pre.split('.').map(str::to_string).collect()).unwrap_or_default();
        pre.iter().all(|part| !part.is_empty()).then_some(Semver { numbers: found, pre })
    }
}

impl Ord for Semver {
    fn cmp(&self, other: &Semver) -> Ordering {
        let pre = || match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => {
                let parts = self.pre.iter().zip(&other.pre).map(|(one, other)| {
                    match (one.parse::<u64>(), other.parse::<u64>()) {
                        (Ok(one), Ok(other)) => one.cmp(&other),
                        (Ok(_), Err(_)) => Ordering::Less,
                        (Err(_), Ok(_)) => Ordering::Greater,
                        (Err(_), Err(_)) => one.cmp(other),
                    }
                });
                let first = parts.into_iter().find(|order| order.is_ne());
                first.unwrap_or(self.pre.len().cmp(&other.pre.len()))
            }
        };
        self.numbers.cmp(&other.numbers).then_with(pre)
    }
}

impl PartialOrd for Semver {
    fn partial_cmp(&self, other: &Semver) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

fn semver<'a>(function: &str, values: &[Value<'a>]) -> Option<Answer<'a>> {
    let (Value::Semver(one), arguments) = values.split_first()? else { return None };
    let other = || match arguments {
        [Value::Semver(other)] => Some(other.clone()),
        _ => None,
    };
    Some(Ok(match function {
        "major" => Value::Int(one.numbers[0] as i64),
        "minor" => Value::Int(one.numbers[1] as i64),
        "patch" => Value::Int(one.numbers[2] as i64),
        "isGreaterThan" => Value::Bool(*one > other()?),
        "isLessThan" => Value::Bool(*one < other()?),
        "compareTo" => Value::Int(one.cmp(&other()?) as i64),
        _ => return None,
    }))
}

/// The formats that have names, and the rule behind each.
const FORMATS: [(&str, fn(&str) -> Result<(), String>); 12] = [
    ("dns1123Label", name::dns_label),
    ("dns1123Subdomain", name::dns_subdomain),
    ("dns1035Label", name::dns_1035_label),
    ("qualifiedName", name::qualified_name),
    ("dns1123LabelPrefix", |text| name::dns_label(&name::without_trailing_dash(text))),
    ("dns1123SubdomainPrefix", |text| name::dns_subdomain(&name::without_trailing_dash(text))),
    ("dns1035LabelPrefix", |text| name::dns_1035_label(&name::without_trailing_dash(text))),
    ("labelValue", name::label_value),
    ("uri", |text| Url::parse(text).map(drop).ok_or_else(|| "invalid URI for request".into())),
    ("uuid", |text| is_format("uuid", text)),
    ("byte", |text| is_format("byte", text)),
    ("datetime", |text| is_format("date-time", text)),
];

fn is_format(format: &str, text: &str) -> Result<(), String> {
    match crate::crd::has_format(format, text) {
        true => Ok(()),
        false => Err(format!("invalid {format}")),
    }
}

fn format<'a>(function: &str, values: &[Value<'a>]) -> Option<Answer<'a>> {
    let known = |name: &str| FORMATS.iter().find(|(known, _)| *known == name);
    Some(Ok(match (function, values) {
        ("format.named", [Value::Text(name)]) => {
            Value::Optional(known(name).map(|(name, _)| Box::new(Value::Format(name))))
        }
        ("validate", [Value::Format(name), Value::Text(text)]) => match known(name)?.1(text) {
            Ok(()) => Value::Optional(None),
            Err(message) => Value::Optional(Some(Box::new(Value::list(vec![Value::text(message)])))),
        },
        (function, []) => Value::Format(known(function.strip_prefix("format.")?)?.0),
        _ => return None,
    }))
}
