//! Decides how long a pod may stay on a node that has taints of effect NoExecute.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Taint, Toleration};

use crate::tolerations::tolerates;

/// What becomes of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It stays.
    Stays,
    /// It may stay so long, from when the taints were noticed.
    StaysFor(Duration),
}

/// What becomes of a pod with these tolerations under these taints, all of effect NoExecute.
pub fn fate(tolerations: &[Toleration], taints: &[Taint]) -> Fate {
    let mut shortest = Fate::Stays;
    for taint in taints {
        let used: Vec<_> = tolerations.iter().filter(|toleration| tolerates(toleration, taint)).collect();
        if used.is_empty() {
            return Fate::StaysFor(Duration::ZERO);
        }
        for seconds in used.iter().filter_map(|toleration| toleration.toleration_seconds) {
            let limit = Duration::from_secs(seconds.max(0).unsigned_abs());
            shortest = match shortest {
                Fate::StaysFor(other) if other <= limit => shortest,
                _ => Fate::StaysFor(limit),
            };
        }
    }
    shortest
}

/// A node's taints of effect NoExecute.
pub fn no_execute(node: &Node) -> Vec<Taint> {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    taints.filter(|taint| taint.effect == "NoExecute").cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taint(key: &str) -> Taint {
        Taint { key: key.into(), effect: "NoExecute".into(), ..Taint::default() }
    }

    fn toleration(key: &str, seconds: Option<i64>) -> Toleration {
        Toleration {
            key: Some(key.into()),
            operator: Some("Exists".into()),
            toleration_seconds: seconds,
            ..Toleration::default()
        }
    }

    #[test]
    fn a_pod_stays_as_long_as_all_taints_let_it() {
        let now = Fate::StaysFor(Duration::ZERO);
        assert_eq!(fate(&[], &[]), Fate::Stays);
        assert_eq!(fate(&[], &[taint("a")]), now);
        assert_eq!(fate(&[toleration("a", None)], &[taint("a")]), Fate::Stays);
        assert_eq!(fate(&[toleration("a", None)], &[taint("a"), taint("b")]), now);
        let both = [toleration("a", Some(300)), toleration("b", Some(20))];
        assert_eq!(fate(&both, &[taint("a"), taint("b")]), Fate::StaysFor(Duration::from_secs(20)));
        assert_eq!(fate(&[toleration("a", Some(-1))], &[taint("a")]), now);
    }
}
