//! Levels and schemas as their objects have them, ready for requests.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use api::Object;
use http::HeaderValue;

use super::{
    classify::Schema,
    level::Level,
    metrics::{self, Flow},
    objects,
    queues::Discipline,
    share::{self, Bounds, Claim, Forecast},
};
use crate::request::{RequestInfo, User};

/// How many queues a level has at most.
const MOST_QUEUES: usize = 4096;

/// Everything that decides about a request.
pub(super) struct Config {
    /// In the order in which they are asked.
    pub(super) schemas: Vec<Served>,
    pub(super) levels: BTreeMap<String, Known>,
}

/// A schema and where it leads.
pub(super) struct Served {
    pub(super) schema: Schema,
    pub(super) level: Arc<Level>,
    pub(super) work: Arc<Work>,
    pub(super) schema_uid: Option<HeaderValue>,
    pub(super) level_uid: Option<HeaderValue>,
}

/// A level and what it has.
pub(super) struct Known {
    pub(super) level: Arc<Level>,
    pub(super) bounds: Bounds,
    pub(super) forecast: Forecast,
    uid: String,
}

/// What requests of one schema have in common while they are at work.
pub(super) struct Work {
    pub(super) name: Arc<str>,
    pub(super) metrics: Flow,
}

impl Work {
    pub(super) fn named(level: &str, schema: &str) -> Work {
        Work { name: schema.into(), metrics: Flow::of(level, schema) }
    }

    /// Which queues a flow of this schema may use.
    pub(super) fn hash(&self, flow: &str) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.name, flow).hash(&mut hasher);
        hasher.finish()
    }
}

impl Config {
    /// What the objects say. Levels that there were before go on with whom they serve.
    pub(super) fn of(schemas: &[Object], levels: &[Object], seats: u32, before: Option<&Config>) -> Config {
        let (levels, schemas) = (with_mandatory(levels, "levels"), with_mandatory(schemas, "schemas"));
        let claims: Vec<Claim> = levels.iter().map(claim).collect();
        let bounds = share::bounds(&claims, seats);
        let known = levels.iter().zip(bounds).map(|(object, bounds)| {
            let known = before.and_then(|before| before.levels.get(object.name()));
            (object.name().to_string(), Known::of(object, bounds, known))
        });
        let levels: BTreeMap<String, Known> = known.collect();
        let mut schemas: Vec<Served> =
            schemas.iter().filter_map(|object| Served::of(Schema::of(object), &levels)).collect();
        schemas.sort_by(|one, other| {
            (one.schema.precedence, &one.schema.name).cmp(&(other.schema.precedence, &other.schema.name))
        });
        Config { schemas, levels }
    }

    /// The first schema that means a request; the last one means all.
    pub(super) fn classify(&self, user: &User, info: &RequestInfo) -> Option<&Served> {
        self.schemas.iter().find(|served| served.schema.matches(user, info)).or(self.schemas.last())
    }

    /// Shares seats out anew, as they were asked for since the last time; false: nobody wants any.
    pub(super) fn lend(&mut self) -> bool {
        let mut limited: Vec<&mut Known> =
            self.levels.values_mut().filter(|known| !known.level.is_exempt()).collect();
        let mut is_busy = false;
        for known in &mut limited {
            let demand = known.level.demand();
            is_busy |= demand.highest > 0.0;
            known.forecast = known.forecast.after(demand);
        }
        let wanted: Vec<(Bounds, Forecast)> =
            limited.iter().map(|known| (known.bounds, known.forecast)).collect();
        for (known, seats) in limited.iter().zip(share::lend(&wanted)) {
            known.limit_to(seats);
        }
        is_busy
    }

    /// Everybody has his own again.
    pub(super) fn take_back(&mut self) {
        for known in self.levels.values_mut().filter(|known| !known.level.is_exempt()) {
            known.forecast = Forecast::default();
            known.limit_to(known.bounds.nominal);
        }
    }

    /// Begins to measure what is asked for.
    pub(super) fn begin_period(&self) {
        for known in self.levels.values() {
            known.level.demand();
        }
    }
}

impl Known {
    fn of(object: &Object, bounds: Bounds, before: Option<&Known>) -> Known {
        let (name, uid) = (object.name(), object.uid().to_string());
        let discipline = discipline(object);
        let known = match (before, discipline) {
            (Some(before), None) if before.level.is_exempt() => {
                Known { level: before.level.clone(), bounds, forecast: before.forecast, uid }
            }
            (Some(before), Some(discipline)) if !before.level.is_exempt() => {
                before.level.reconfigure(discipline);
                let known = Known { level: before.level.clone(), bounds, forecast: before.forecast, uid };
                if before.bounds != bounds {
                    known.limit_to(bounds.nominal);
                }
                return known;
            }
            (_, Some(discipline)) => {
                let level = Level::limited(name, discipline, bounds.nominal);
                Known { level: Arc::new(level), bounds, forecast: Forecast::default(), uid }
            }
            (_, None) => {
                let level = Arc::new(Level::exempt(name));
                Known { level, bounds, forecast: Forecast::default(), uid }
            }
        };
        metrics::limits(name, bounds, bounds.nominal);
        known
    }

    fn limit_to(&self, seats: u32) {
        self.level.limit_to(seats);
        metrics::limits(&self.level.name, self.bounds, seats);
    }
}

impl Served {
    /// `None` where it leads to no level.
    fn of(schema: Schema, levels: &BTreeMap<String, Known>) -> Option<Served> {
        let known = levels.get(&schema.level)?;
        let header = |uid: &str| HeaderValue::from_str(uid).ok().filter(|uid| !uid.is_empty());
        let (schema_uid, level_uid) = (header(&schema.uid), header(&known.uid));
        let work = Arc::new(Work::named(&schema.level, &schema.name));
        Some(Served { level: known.level.clone(), work, schema_uid, level_uid, schema })
    }
}

/// The objects, and of those that must be there the ones that are not.
fn with_mandatory(objects: &[Object], what: &str) -> Vec<Object> {
    let mut all = objects.to_vec();
    let kind = if what == "levels" { objects::level_kind() } else { objects::schema_kind() };
    let mandatory = objects::all().into_iter().filter(|wanted| wanted.is_mandatory);
    for wanted in mandatory.filter(|wanted| wanted.kind.plural == kind.plural) {
        if !all.iter().any(|object| object.name() == wanted.object.name()) {
            all.push(wanted.object);
        }
    }
    all
}

/// `None`: exempt.
fn discipline(level: &Object) -> Option<Discipline> {
    if level.text(&["spec", "type"]) == "Exempt" {
        return None;
    }
    let response = ["spec", "limited", "limitResponse"];
    let number = |name: &str, default: usize| {
        let number = level.number(&[response[0], response[1], response[2], "queuing", name]);
        number.and_then(|number| usize::try_from(number).ok()).unwrap_or(default)
    };
    Some(match level.text(&["spec", "limited", "limitResponse", "type"]) {
        "Queue" => Discipline::Queue {
            // Queues are made at once; beyond this many one more makes no collision rarer.
            queues: number("queues", 64).min(MOST_QUEUES),
            hand: number("handSize", 8).min(MOST_QUEUES),
            length: number("queueLengthLimit", 50),
        },
        _ => Discipline::Reject,
    })
}

fn claim(level: &Object) -> Claim {
    let (part, default) =
        if level.text(&["spec", "type"]) == "Exempt" { ("exempt", 0) } else { ("limited", 30) };
    let number =
        |name: &str| level.number(&["spec", part, name]).and_then(|number| u32::try_from(number).ok());
    Claim {
        shares: number("nominalConcurrencyShares").unwrap_or(default),
        lendable_percent: number("lendablePercent").unwrap_or_default(),
        borrowing_percent: number("borrowingLimitPercent"),
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::request::Query;

    fn suggested() -> Config {
        let (levels, schemas): (Vec<_>, Vec<_>) =
            objects::all().into_iter().partition(|wanted| wanted.kind.plural == objects::level_kind().plural);
        let objects = |all: Vec<objects::Wanted>| -> Vec<Object> {
            all.into_iter().map(|wanted| wanted.object).collect()
        };
        Config::of(&objects(schemas), &objects(levels), 600, None)
    }

    fn schema_of(config: &Config, user: &User, method: Method, uri: &str) -> String {
        let uri = uri.parse().unwrap();
        let info = RequestInfo::read(&method, &uri, &Query::of(&uri).unwrap());
        config.classify(user, &info).unwrap().schema.name.clone()
    }

    #[test]
    fn the_first_schema_that_means_a_request_has_it() {
        let config = suggested();
        let node = User::new("system:node:n", &["system:nodes", "system:authenticated"]);
        let admin = User::new("admin", &["system:masters", "system:authenticated"]);
        let manager = User::new("system:kube-controller-manager", &["system:authenticated"]);
        let account = User::new(
            "system:serviceaccount:default:builder",
            &["system:serviceaccounts", "system:authenticated"],
        );
        let somebody = User::new("alice", &["system:authenticated"]);
        let pods = "/api/v1/namespaces/a/pods";
        let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n";
        for (user, method, uri, schema) in [
            (&admin, Method::POST, pods, "exempt"),
            (&somebody, Method::GET, "/healthz", "probes"),
            (&somebody, Method::GET, pods, "global-default"),
            (&account, Method::GET, pods, "service-accounts"),
            (&node, Method::PUT, leases, "system-node-high"),
            (&node, Method::GET, pods, "system-nodes"),
            (&manager, Method::PUT, leases, "system-leader-election"),
            (&manager, Method::PUT, "/api/v1/namespaces/a/endpoints/x", "endpoint-controller"),
            (&manager, Method::POST, pods, "kube-controller-manager"),
            (&User::new("stranger", &[]), Method::GET, pods, "catch-all"),
        ] {
            assert_eq!(schema_of(&config, user, method, uri), schema, "{} {uri}", user.name);
        }
    }

    #[test]
    fn levels_have_their_share_of_all_seats() {
        let config = suggested();
        let seats = |name: &str| config.levels[name].bounds.nominal;
        assert_eq!((seats("system"), seats("workload-low"), seats("catch-all")), (74, 245, 13));
        assert!(config.levels["exempt"].level.is_exempt());
    }

    #[test]
    fn what_must_be_there_is_there_without_objects() {
        let config = Config::of(&[], &[], 600, None);
        assert_eq!(
            config.schemas.iter().map(|served| &*served.schema.name).collect::<Vec<_>>(),
            ["exempt", "catch-all"]
        );
        assert_eq!(config.levels["catch-all"].bounds.nominal, 600);
    }

    #[test]
    fn a_level_goes_on_when_its_object_changes() {
        let before = suggested();
        let after = Config::of(&[], &[], 100, Some(&before));
        assert!(Arc::ptr_eq(&before.levels["catch-all"].level, &after.levels["catch-all"].level));
    }
}
