//! Which taints a pod bears.

use k8s_openapi::api::core::v1::{Taint, Toleration};

/// Whether a toleration covers a taint.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let given = |field: &Option<String>| field.clone().filter(|text| !text.is_empty());
    let effect_fits = given(&toleration.effect).is_none_or(|effect| effect == taint.effect);
    let key_fits = given(&toleration.key).is_none_or(|key| key == taint.key);
    let value = taint.value.as_deref().unwrap_or_default();
    let tolerated = toleration.value.as_deref().unwrap_or_default();
    let value_fits = match toleration.operator.as_deref().unwrap_or_default() {
        "" | "Equal" => tolerated == value,
        "Exists" => true,
        "Lt" => compare(value, tolerated).is_some_and(|ordering| ordering.is_lt()),
        "Gt" => compare(value, tolerated).is_some_and(|ordering| ordering.is_gt()),
        _ => false,
    };
    effect_fits && key_fits && value_fits
}

/// The first of `taints` that none of `tolerations` covers.
pub fn first_untolerated<'a>(taints: &'a [Taint], tolerations: &[Toleration]) -> Option<&'a Taint> {
    taints.iter().find(|taint| !tolerations.iter().any(|toleration| tolerates(toleration, taint)))
}

fn compare(a: &str, b: &str) -> Option<std::cmp::Ordering> {
    Some(a.parse::<i64>().ok()?.cmp(&b.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toleration(key: &str, operator: &str, value: &str, effect: &str) -> Toleration {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_string());
        Toleration {
            key: text(key),
            operator: text(operator),
            value: text(value),
            effect: text(effect),
            toleration_seconds: None,
        }
    }

    #[test]
    fn a_toleration_covers_what_it_names() {
        let taint = Taint {
            key: "dedicated".into(),
            value: Some("db".into()),
            effect: "NoExecute".into(),
            time_added: None,
        };
        for (toleration, expected) in [
            (toleration("dedicated", "", "db", ""), true),
            (toleration("dedicated", "Equal", "web", ""), false),
            (toleration("dedicated", "Exists", "", "NoExecute"), true),
            (toleration("dedicated", "Exists", "", "NoSchedule"), false),
            (toleration("", "Exists", "", ""), true),
            (toleration("other", "Exists", "", ""), false),
        ] {
            assert_eq!(tolerates(&toleration, &taint), expected, "{toleration:?}");
        }
    }
}
