//! `x-kubernetes-validations`: rules in CEL, compiled with the schema, checked within a budget.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::{Props, Rule, validate};
use crate::{
    FieldError, FieldErrorKind,
    cel::{self, CALL_LIMIT, Failure, ObjectType, Program, Type, Value},
};

/// How much all rules of one object may cost, as upstream.
const OBJECT_BUDGET: u64 = 10_000_000;
/// How much one rule may be estimated to cost.
const RULE_LIMIT: u64 = 10_000_000;
/// How much all rules of one schema may be estimated to cost.
const SCHEMA_LIMIT: u64 = 100_000_000;
/// The largest request, in bytes.
const MAX_REQUEST: u64 = 3 << 20;

/// The rules of a schema, in its shape; parts without rules are left out.
#[derive(Debug)]
pub(super) struct Rules {
    /// What `self` is.
    kind: Type,
    own: Vec<Compiled>,
    fields: BTreeMap<String, Rules>,
    values: Option<Box<Rules>>,
    items: Option<Box<Rules>>,
}

#[derive(Debug)]
struct Compiled {
    rule: Rule,
    program: Result<Program, String>,
    message: Option<Program>,
    is_transition: bool,
}

impl Rules {
    /// The rules of a whole object.
    pub(super) fn of(props: &Props) -> Option<Rules> {
        Rules::at(props, true)
    }

    fn at(props: &Props, is_root: bool) -> Option<Rules> {
        if !props.has_rules() {
            return None;
        }
        let kind = type_of(props, is_root).unwrap_or(Type::Dyn);
        let own = props.rules.iter().map(|rule| Compiled::new(rule, &kind)).collect();
        let fields = props.properties.iter();
        let fields = fields.filter_map(|(name, field)| Some((name.clone(), Rules::at(field, false)?)));
        Some(Rules {
            own,
            fields: fields.collect(),
            values: props.values().and_then(|values| Rules::at(values, false)).map(Box::new),
            items: props.item().and_then(|item| Rules::at(item, false)).map(Box::new),
            kind,
        })
    }
}

impl Compiled {
    fn new(rule: &Rule, kind: &Type) -> Compiled {
        let variables = variables(rule, kind);
        let program = cel::compile(&rule.rule, &variables);
        let is_transition = program.as_ref().is_ok_and(|program| program.mentions("oldSelf"));
        let message = match rule.message_expression.trim() {
            "" => None,
            expression => cel::compile(expression, &variables).ok(),
        };
        Compiled { rule: rule.clone(), program, message, is_transition }
    }
}

fn variables(rule: &Rule, kind: &Type) -> [(&'static str, Type); 2] {
    let old = match rule.optional_old_self {
        Some(true) => Type::Optional(kind.clone().into()),
        _ => kind.clone(),
    };
    [("self", kind.clone()), ("oldSelf", old)]
}

/// What is said about an object.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// Every rule that it breaks.
    pub(super) faults: Vec<FieldError>,
    /// Those that it broke before already, in a part that has not changed: nobody is held up by them.
    pub(super) tolerated: Vec<FieldError>,
}

/// Checks an object, which replaces `old`, against its rules.
pub(super) fn judge(value: &Json, old: Option<&Json>, rules: &Rules, props: &Props) -> Verdict {
    let mut check = Check { budget: OBJECT_BUDGET, verdict: Verdict::default() };
    check.node(value, Before { counterpart: old, is_same: old == Some(value) }, rules, props, "");
    check.verdict
}

struct Check {
    budget: u64,
    verdict: Verdict,
}

/// What a node was before the write.
#[derive(Clone, Copy)]
struct Before<'a> {
    counterpart: Option<&'a Json>,
    /// Whether it has not changed: itself or, when it has no counterpart, what it is part of.
    is_same: bool,
}

impl<'a> Before<'a> {
    fn below(self, counterpart: Option<&'a Json>, value: &Json) -> Before<'a> {
        let is_same = counterpart.map_or(self.is_same, |counterpart| counterpart == value);
        Before { counterpart, is_same }
    }
}

impl Check {
    /// Checks a value and what is below; `None` when there is no budget left.
    fn node(
        &mut self,
        value: &Json,
        before: Before<'_>,
        rules: &Rules,
        props: &Props,
        path: &str,
    ) -> Option<()> {
        if value.is_null() {
            return Some(());
        }
        for compiled in &rules.own {
            self.rule(value, before, compiled, rules, props, path)?;
        }
        match value {
            Json::Object(map) => {
                for (name, value) in map {
                    let below = rules.fields.get(name).or(rules.values.as_deref());
                    if let (Some(rules), Some(props)) = (below, props.field(name)) {
                        let before = before.below(before.counterpart.and_then(|old| old.get(name)), value);
                        self.node(value, before, rules, props, &validate::join(path, name))?;
                    }
                }
            }
            Json::Array(items) => {
                let (Some(rules), Some(item)) = (rules.items.as_deref(), props.item()) else {
                    return Some(());
                };
                let counterparts = validate::Counterparts::of(before.counterpart, props);
                for (index, value) in items.iter().enumerate() {
                    let before = before.below(counterparts.get(value), value);
                    self.node(value, before, rules, item, &format!("{path}[{index}]"))?;
                }
            }
            _ => {}
        }
        Some(())
    }

    fn rule(
        &mut self,
        value: &Json,
        before: Before<'_>,
        compiled: &Compiled,
        rules: &Rules,
        props: &Props,
        path: &str,
    ) -> Option<()> {
        let (rule, old) = (&compiled.rule, before.counterpart);
        let is_optional = rule.optional_old_self == Some(true);
        if compiled.is_transition && old.is_none() && !is_optional {
            return Some(());
        }
        let kind = if props.is_int_or_string { "" } else { props.kind.as_str() };
        let shown = format!("{kind:?}");
        let invalid = |detail: String| FieldError::new(FieldErrorKind::Invalid, path, shown.clone(), detail);
        let program = match &compiled.program {
            Ok(program) => program,
            Err(why) => {
                self.verdict.faults.push(invalid(format!("rule compile error: compilation failed: {why}")));
                return Some(());
            }
        };
        let old_self = old.map(|old| Value::from_json(old, &rules.kind));
        let mut variables = vec![("self", Value::from_json(value, &rules.kind))];
        match (is_optional, old_self) {
            (true, old_self) => variables.push(("oldSelf", Value::Optional(old_self.map(Box::new)))),
            (false, Some(old_self)) => variables.push(("oldSelf", old_self)),
            (false, None) => {}
        }
        let mut spent = 0;
        let result = program.run(&variables, CALL_LIMIT, &mut spent);
        let text = if rule.message.is_empty() { rule.rule.trim() } else { rule.message.trim() };
        if matches!(result, Err(Failure::TooExpensive)) {
            self.verdict.faults.push(invalid(format!(
                "'operation cancelled: actual cost limit exceeded': no further validation rules will be run due to call cost exceeds limit for rule: {text}"
            )));
            return None;
        }
        let Some(left) = self.budget.checked_sub(spent) else {
            self.verdict.faults.push(invalid(
                "validation failed due to running out of cost budget, no further validation rules will be run"
                    .into(),
            ));
            return None;
        };
        self.budget = left;
        match result {
            Ok(Value::Bool(true)) => {}
            Ok(_) => {
                let (detail, goes_on) = match self.message(compiled, &variables) {
                    Ok(message) => (Ok(message), Some(())),
                    Err(exhausted) => (Err(exhausted), None),
                };
                let fault = match detail {
                    Ok(message) => broken(rule, path, value, message),
                    Err(exhausted) => invalid(exhausted),
                };
                match before.is_same && !compiled.is_transition {
                    true => self.verdict.tolerated.push(fault),
                    false => self.verdict.faults.push(fault),
                }
                return goes_on;
            }
            Err(Failure::Error(why)) if why.starts_with("no such overload") => self.verdict.faults.push(invalid(format!(
                "'{why}': call arguments did not match a supported operator, function or macro signature for rule: {text}"
            ))),
            Err(failure) => self.verdict.faults.push(invalid(format!("{failure} evaluating rule: {text}"))),
        }
        Some(())
    }

    /// What to say: what the expression makes, else the message, else the rule; an error when there is nothing left to
    /// make it with.
    fn message<'a>(
        &mut self,
        compiled: &Compiled,
        variables: &[(&'a str, Value<'a>)],
    ) -> Result<String, String> {
        let rule = &compiled.rule;
        if let Some(program) = &compiled.message {
            let mut spent = 0;
            let made = program.run(variables, CALL_LIMIT, &mut spent);
            if matches!(made, Err(Failure::TooExpensive)) {
                return Err(format!(
                    "no further validation rules will be run due to call cost exceeds limit for messageExpression: {:?}",
                    rule.message_expression
                ));
            }
            let Some(left) = self.budget.checked_sub(spent) else {
                return Err("messageExpression evaluation failed due to running out of cost budget, no further validation rules will be run".into());
            };
            self.budget = left;
            let made = made.ok().and_then(|value| value.as_text().map(|text| text.trim().to_string()));
            if let Some(made) =
                made.filter(|made| !made.is_empty() && !made.contains('\n') && made.len() <= 5 << 10)
            {
                return Ok(made);
            }
        }
        Ok(match rule.message.trim() {
            "" => format!("failed rule: {}", rule.rule.trim()),
            message => message.to_string(),
        })
    }
}

/// The value itself is shown when it is short enough to be one.
fn broken(rule: &Rule, path: &str, value: &Json, message: String) -> FieldError {
    let shown = if value.is_object() || value.is_array() { String::new() } else { value.to_string() };
    let place = rule.field_path.trim_start_matches('.');
    let path = match place {
        "" => path.to_string(),
        place => validate::join(path, place),
    };
    let path = if path.is_empty() { "<nil>".to_string() } else { path };
    match rule.reason.as_deref() {
        Some("FieldValueForbidden") => FieldError::forbidden(path, message),
        Some("FieldValueRequired") => FieldError::required(path, message),
        Some("FieldValueDuplicate") => FieldError::new(FieldErrorKind::Duplicate, path, shown, ""),
        _ => FieldError::new(FieldErrorKind::Invalid, path, shown, message),
    }
}

/// What an expression sees of a custom resource as a whole, of whose metadata it may use no more than the names.
pub(crate) fn resource_type(props: &Props) -> Type {
    object_type(props, true)
}

/// What an expression sees of a value; `None`: nothing that it could name.
fn type_of(props: &Props, is_resource: bool) -> Option<Type> {
    if props.is_int_or_string {
        return Some(Type::Dyn);
    }
    let is_resource = is_resource || props.is_embedded;
    Some(match (props.kind.as_str(), props.format.as_str()) {
        ("object", _) => match props.values() {
            Some(values) => {
                let value = type_of(values, false)?;
                let most = (MAX_REQUEST - 2) / (smallest(values) + 6);
                Type::Map(Type::TEXT.into(), value.into(), size(props.max_properties, most))
            }
            None => object_type(props, is_resource),
        },
        ("array", _) => {
            let item = props.item()?;
            let most = (MAX_REQUEST - 2) / (smallest(item) + 1);
            Type::List(type_of(item, false)?.into(), size(props.max_items, most))
        }
        ("string", "byte") => Type::Bytes(size(props.max_length, MAX_REQUEST - 2)),
        ("string", "date" | "date-time") => Type::Timestamp,
        ("string", "duration") => Type::Duration,
        ("string", _) => Type::Text(text_size(props)),
        ("integer", _) => Type::Int,
        ("number", _) => Type::Double,
        ("boolean", _) => Type::Bool,
        _ => return None,
    })
}

fn text_size(props: &Props) -> u64 {
    let longest = props
        .choices
        .as_ref()
        .and_then(|choices| choices.iter().map(|choice| choice.as_str().map_or(0, str::len) as u64).max());
    longest.unwrap_or_else(|| size(props.max_length, MAX_REQUEST - 2))
}

fn size(given: Option<i64>, otherwise: u64) -> u64 {
    given.and_then(|given| u64::try_from(given).ok()).map_or(otherwise, |given| given.min(otherwise))
}

fn object_type(props: &Props, is_resource: bool) -> Type {
    let mut fields = BTreeMap::new();
    for (name, field) in &props.properties {
        if let (Some(escaped), Some(kind)) = (cel::field_name(name), type_of(field, false)) {
            fields.insert(escaped, (name.clone(), kind));
        }
    }
    if is_resource {
        let text = |name: &str| (name.to_string(), (name.to_string(), Type::TEXT));
        fields.extend([text("apiVersion"), text("kind")]);
        let metadata =
            ObjectType { name: "object".into(), fields: [text("name"), text("generateName")].into() };
        fields.insert("metadata".into(), ("metadata".into(), Type::Object(metadata.into())));
    }
    Type::Object(ObjectType { name: "object".into(), fields }.into())
}

/// The fewest bytes that a value takes in JSON.
fn smallest(props: &Props) -> u64 {
    match props.kind.as_str() {
        "string" => 2 + props.min_length.and_then(|length| u64::try_from(length).ok()).unwrap_or(0),
        "boolean" => 4,
        "array" => 2,
        "object" => {
            let required = props.required.iter().filter_map(|name| {
                Some(props.properties.get(name)?).map(|field| smallest(field) + name.len() as u64 + 4)
            });
            2 + required.sum::<u64>()
        }
        _ => 1,
    }
}

/// Faults of the rules themselves: those that do not compile, and those that may cost too much.
pub fn validate_schema_rules(props: &Props, source: &Json, path: &str) -> Vec<FieldError> {
    let mut schema = SchemaCheck { total: 0, faults: Vec::new(), costs: Vec::new() };
    schema.node(props, source, path, true, Place { times: 1, uncorrelatable: None });
    let mut faults = schema.faults;
    if schema.total > SCHEMA_LIMIT {
        // The most expensive ones are named, so that one knows where to begin.
        schema.costs.sort_by_key(|(_, cost)| std::cmp::Reverse(*cost));
        for (path, _) in schema.costs.into_iter().take(4).filter(|(_, cost)| *cost >= SCHEMA_LIMIT / 100) {
            let share =
                "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
            faults.push(FieldError::forbidden(path, share));
        }
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        faults.push(FieldError::forbidden(path, exceeds(what, schema.total, SCHEMA_LIMIT)));
    }
    faults
}

struct SchemaCheck {
    total: u64,
    faults: Vec<FieldError>,
    costs: Vec<(String, u64)>,
}

/// What a rule's cost and the variables it may use depend on, beside its own node.
#[derive(Clone, Copy)]
struct Place<'a> {
    /// How often the node can occur in one object.
    times: u64,
    /// The list around it whose items cannot be told from what they were.
    uncorrelatable: Option<&'a str>,
}

impl SchemaCheck {
    fn node(&mut self, props: &Props, source: &Json, path: &str, is_root: bool, place: Place<'_>) {
        let kind = type_of(props, is_root);
        for (index, rule) in props.rules.iter().enumerate() {
            let path = format!("{path}.x-kubernetes-validations[{index}]");
            let source = &source["x-kubernetes-validations"][index];
            self.rule(rule, kind.as_ref(), source, &path, place, props);
        }
        for (name, field) in &props.properties {
            let source = &source["properties"][name];
            self.node(field, source, &format!("{path}.properties[{name}]"), false, place);
        }
        let most = kind.as_ref().map_or(1, |kind| match kind {
            Type::List(_, max) | Type::Map(_, _, max) => *max,
            _ => 1,
        });
        let times = place.times.saturating_mul(most).min(MAX_REQUEST);
        let place = Place { times, ..place };
        if let Some(values) = props.values() {
            self.node(
                values,
                &source["additionalProperties"],
                &format!("{path}.additionalProperties"),
                false,
                place,
            );
        }
        if let Some(item) = props.item() {
            let is_map = props.list_type.as_deref() == Some("map");
            let uncorrelatable = place.uncorrelatable.or((!is_map).then_some(path));
            let place = Place { uncorrelatable, ..place };
            self.node(item, &source["items"], &format!("{path}.items"), false, place);
        }
    }

    fn rule(
        &mut self,
        rule: &Rule,
        kind: Option<&Type>,
        source: &Json,
        path: &str,
        Place { times, uncorrelatable }: Place<'_>,
        props: &Props,
    ) {
        let place = |field: &str| format!("{path}.{field}");
        if rule.rule.trim().is_empty() {
            self.faults.push(FieldError::required(place("rule"), "rule is not specified"));
            return;
        }
        self.texts(rule, path, props);
        let kind = kind.unwrap_or(&Type::Dyn);
        let variables = variables(rule, kind);
        match cel::compile(&rule.rule, &variables) {
            Err(why) => {
                let detail = format!("compilation failed: {why}");
                self.faults.push(FieldError::invalid(place("rule"), source, detail));
            }
            Ok(program) => {
                if !matches!(program.result(), Type::Bool | Type::Dyn) {
                    let detail = "cel expression must evaluate to a bool";
                    self.faults.push(FieldError::invalid(place("rule"), source, detail));
                }
                let asks_for_old = program.mentions("oldSelf");
                if let (true, Some(list)) = (asks_for_old, uncorrelatable) {
                    let detail = format!(
                        "oldSelf cannot be used on the uncorrelatable portion of the schema within {list}"
                    );
                    self.faults.push(FieldError::invalid(place("rule"), &rule.rule.as_str().into(), detail));
                }
                if let (false, Some(given)) = (asks_for_old, rule.optional_old_self) {
                    let detail = "may not be set if oldSelf is not used in rule";
                    self.faults.push(FieldError::invalid(place("optionalOldSelf"), &given.into(), detail));
                }
                let cost = program.cost(&variables).saturating_mul(times);
                if cost > RULE_LIMIT {
                    let detail = exceeds("estimated rule cost", cost, RULE_LIMIT);
                    self.faults.push(FieldError::forbidden(place("rule"), detail));
                }
                self.total = self.total.saturating_add(cost);
                self.costs.push((place("rule"), cost));
            }
        }
        if !rule.message_expression.trim().is_empty() {
            match cel::compile(&rule.message_expression, &variables) {
                Err(why) => {
                    let detail = format!("messageExpression compilation failed: {why}");
                    self.faults.push(FieldError::invalid(place("messageExpression"), source, detail));
                }
                Ok(program) if !matches!(program.result(), Type::Text(_) | Type::Dyn) => {
                    let detail = "messageExpression must evaluate to a string";
                    self.faults.push(FieldError::invalid(place("messageExpression"), source, detail));
                }
                Ok(program) => {
                    let cost = program.cost(&variables);
                    if cost > RULE_LIMIT {
                        let detail = exceeds("estimated messageExpression cost", cost, RULE_LIMIT);
                        self.faults.push(FieldError::forbidden(place("messageExpression"), detail));
                    }
                    self.total = self.total.saturating_add(cost);
                    self.costs.push((place("messageExpression"), cost));
                }
            }
        }
    }

    fn texts(&mut self, rule: &Rule, path: &str, props: &Props) {
        let message = rule.message.trim();
        if !rule.message.is_empty() && message.is_empty() {
            let detail = "message must be non-empty if specified";
            self.faults.push(FieldError::invalid(
                format!("{path}.message"),
                &rule.message.as_str().into(),
                detail,
            ));
        } else if message.contains(['\n', '\r']) {
            let detail = "message must not contain line breaks";
            self.faults.push(FieldError::invalid(
                format!("{path}.message"),
                &rule.message.as_str().into(),
                detail,
            ));
        } else if message.is_empty() && rule.rule.trim().contains(['\n', '\r']) {
            let detail = "message must be specified if rule contains line breaks";
            self.faults.push(FieldError::required(format!("{path}.message"), detail));
        }
        if !rule.message_expression.is_empty() && rule.message_expression.trim().is_empty() {
            let detail = "messageExpression must be non-empty if specified";
            self.faults.push(FieldError::required(format!("{path}.messageExpression"), detail));
        }
        for (is_wrong, detail) in [
            (rule.field_path.trim().is_empty(), "must be non-empty if specified"),
            (rule.field_path.contains(['\n', '\r']), "must not contain line breaks"),
            (!is_field(&rule.field_path, props), "must be a valid path"),
        ] {
            if is_wrong && !rule.field_path.is_empty() {
                let path = format!("{path}.fieldPath");
                self.faults.push(FieldError::invalid(path, &rule.field_path.as_str().into(), detail));
            }
        }
        const REASONS: [&str; 4] =
            ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
        if let Some(reason) = rule.reason.as_deref().filter(|reason| !REASONS.contains(reason)) {
            self.faults.push(FieldError::not_supported(format!("{path}.reason"), &reason.into(), &REASONS));
        }
    }
}

/// Whether a path leads to a field of the schema.
fn is_field(path: &str, props: &Props) -> bool {
    let Some(names) = super::Path::parse(path).ok().and_then(|path| path.fields()) else { return false };
    let found = names.iter().try_fold(props, |props, name| props.field(name));
    found.is_some() && !names.is_empty()
}

fn exceeds(what: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let factor = match factor {
        factor if factor > 100.0 => "more than 100x".to_string(),
        factor if factor < 1.5 => format!("{factor:.6}x"),
        factor => format!("{factor:.1}x"),
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    )
}

#[cfg(test)]
mod tests;
