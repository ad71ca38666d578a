//! Decides what brings a Deployment's ReplicaSets closer to what it asks for: one step at a time, so that never
//! too many pods are there and never too few are available.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{Deployment, DeploymentStatus, ReplicaSet},
    core::v1::Pod,
};
use kube::ResourceExt;

use super::{
    sets::{self, Size},
    status::{self, Conditions},
};
use crate::pods::PodExt;

/// What a pass does, and what the status is then.
#[derive(Debug)]
pub struct Plan {
    /// In this order.
    pub actions: Vec<Action>,
    /// The new status.
    pub status: DeploymentStatus,
    /// When time alone will change something.
    pub next: Option<Duration>,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Create the set for the present template.
    Create(Box<ReplicaSet>),
    /// Change a set's annotations and `minReadySeconds`.
    Update { set: Arc<ReplicaSet>, annotations: BTreeMap<String, String>, min_ready_seconds: Option<i32> },
    /// Change a set's number of replicas; the annotations remember for which size of the Deployment.
    Scale { set: Arc<ReplicaSet>, to: i32, annotations: BTreeMap<String, String> },
    /// Delete a set that only history knows.
    Delete(Arc<ReplicaSet>),
    /// Note on the Deployment which revision is the present one.
    SetRevision(String),
}

/// What one pass does. `sets` are all that the Deployment controls, `pods` all of theirs (needed for Recreate only).
pub fn plan(deployment: &Deployment, sets: &[Arc<ReplicaSet>], pods: &[Arc<Pod>], now: Timestamp) -> Plan {
    let mut pass = Pass::new(deployment, sets, now);
    if deployment.metadata.deletion_timestamp.is_some() {
        return pass.finish();
    }
    pass.note_pause();
    let paused = deployment.spec.paused.unwrap_or_default();
    if paused || pass.was_scaled() {
        pass.refresh_new();
        pass.scale();
        if paused {
            pass.clean_up();
        }
        return pass.finish();
    }
    match sets::is_recreate(deployment) {
        true => pass.recreate(pods),
        false => pass.roll(),
    }
    pass.finish_rollout()
}

/// A pass in progress: the sets as they will be after the actions decided so far.
struct Pass<'a> {
    deployment: &'a Deployment,
    size: Size,
    new: Option<Arc<ReplicaSet>>,
    /// All others, oldest first.
    old: Vec<Arc<ReplicaSet>>,
    conditions: Conditions,
    actions: Vec<Action>,
}

impl<'a> Pass<'a> {
    fn new(deployment: &'a Deployment, all: &[Arc<ReplicaSet>], now: Timestamp) -> Pass<'a> {
        let mut old = all.to_vec();
        old.sort_by_cached_key(|set| {
            (set.metadata.creation_timestamp.as_ref().map(|time| time.0), set.metadata.name.clone())
        });
        let new = sets::current(deployment, &old).cloned();
        old.retain(|set| new.as_ref().is_none_or(|new| !Arc::ptr_eq(new, set)));
        let conditions = Conditions::of(deployment, now);
        Pass { deployment, size: Size::of(deployment), new, old, conditions, actions: Vec::new() }
    }

    /// The Progressing clock stands still while a Deployment is paused.
    fn note_pause(&mut self) {
        if status::progress_deadline(self.deployment).is_none() {
            return;
        }
        let reason = self.conditions.reason("Progressing");
        if reason == Some("ProgressDeadlineExceeded") {
            return;
        }
        match (self.deployment.spec.paused.unwrap_or_default(), reason == Some("DeploymentPaused")) {
            (true, false) => {
                self.conditions.set("Progressing", "Unknown", "DeploymentPaused", "Deployment is paused");
            }
            (false, true) => {
                self.conditions.set("Progressing", "Unknown", "DeploymentResumed", "Deployment is resumed");
            }
            _ => {}
        }
    }

    /// Whether the number of replicas was changed since the sets were last scaled.
    fn was_scaled(&self) -> bool {
        let active = self.all().into_iter().filter(|set| sets::replicas(set) > 0);
        active.filter_map(|set| sets::desired_replicas(&set)).any(|desired| desired != self.size.replicas)
    }

    fn roll(&mut self) {
        self.require_new();
        if self.grow_new() || self.shrink_old() {
            return;
        }
        self.clean_up_if_complete();
    }

    /// All old pods go before the first new one comes.
    fn recreate(&mut self, pods: &[Arc<Pod>]) {
        self.refresh_new();
        let active: Vec<_> = self.old.iter().filter(|set| sets::replicas(set) > 0).cloned().collect();
        if !active.is_empty() {
            active.into_iter().for_each(|set| self.resize(set, 0));
            return;
        }
        let new_uid = self.new.as_ref().and_then(|set| set.uid());
        let is_new =
            |pod: &Pod| pod.owner_references().iter().any(|owner| Some(&owner.uid) == new_uid.as_ref());
        if pods.iter().any(|pod| !pod.is_finished() && !is_new(pod)) {
            return;
        }
        self.require_new();
        self.grow_new();
        self.clean_up_if_complete();
    }

    /// Brings the annotations of the new set, if it is there, and the Deployment's revision up to date.
    fn refresh_new(&mut self) {
        let Some(new) = self.new.clone() else { return };
        let annotations = sets::outdated_annotations(self.deployment, &new, self.next_revision());
        let min_ready_seconds = self.deployment.spec.min_ready_seconds;
        let refreshed = with_annotations(&new, &annotations);
        let revision = refreshed.annotations().get(sets::REVISION).cloned().unwrap_or_default();
        if !annotations.is_empty()
            || new.spec.min_ready_seconds.unwrap_or_default() != min_ready_seconds.unwrap_or_default()
        {
            self.actions.push(Action::Update { set: new, annotations, min_ready_seconds });
            self.new = Some(Arc::new(refreshed));
        }
        self.set_revision(revision);
        if status::progress_deadline(self.deployment).is_some()
            && self.conditions.get("Progressing").is_none()
        {
            let text = format!(
                "Found new replica set \"{}\"",
                self.new.as_ref().map_or(String::new(), |set| set.name_any())
            );
            self.conditions.set("Progressing", "True", "FoundNewReplicaSet", text);
        }
    }

    /// The same, and creates the set where it is missing.
    fn require_new(&mut self) {
        if self.new.is_some() {
            // Recreate has refreshed it already; a second time finds nothing to change.
            return self.refresh_new();
        }
        let revision = self.next_revision();
        let set = sets::new_set(self.deployment, self.size, self.new_size(0), revision);
        if status::progress_deadline(self.deployment).is_some() {
            let text = format!("Created new replica set \"{}\"", set.name_any());
            self.conditions.set("Progressing", "True", "NewReplicaSetCreated", text);
        }
        self.actions.push(Action::Create(Box::new(set.clone())));
        self.new = Some(Arc::new(set));
        self.set_revision(revision.to_string());
    }

    fn next_revision(&self) -> i64 {
        self.old.iter().map(|set| sets::revision(set.annotations())).max().unwrap_or_default() + 1
    }

    fn set_revision(&mut self, revision: String) {
        if self.deployment.annotations().get(sets::REVISION) != Some(&revision) {
            self.actions.push(Action::SetRevision(revision));
        }
    }

    /// Whether the new set was scaled.
    fn grow_new(&mut self) -> bool {
        let Some(new) = self.new.clone() else { return false };
        let present = sets::replicas(&new);
        let wanted = match present > self.size.replicas {
            true => self.size.replicas,
            false => self.new_size(present),
        };
        if wanted != present {
            self.resize(new, wanted);
        }
        wanted != present
    }

    /// How many replicas the new set may have, which has `present` now.
    fn new_size(&self, present: i32) -> i32 {
        if sets::is_recreate(self.deployment) {
            return self.size.replicas;
        }
        let total: i32 = self.all().iter().map(|set| sets::replicas(set)).sum();
        let room = (self.size.most() - total).max(0);
        present + room.min(self.size.replicas - present).max(0)
    }

    /// Whether any old set was scaled. Those pods go first that are of no use, and then as many as are to spare.
    fn shrink_old(&mut self) -> bool {
        let before = self.actions.len();
        let total = |sets: &[Arc<ReplicaSet>]| sets.iter().map(|set| sets::replicas(set)).sum::<i32>();
        if total(&self.old) == 0 {
            return false;
        }
        let new_unavailable = self.new.as_ref().map_or(0, |set| sets::replicas(set) - sets::available(set));
        let most = total(&self.all()) - self.size.least_available() - new_unavailable;
        if most <= 0 {
            return false;
        }
        let mut left = most;
        for index in 0..self.old.len() {
            let set = self.old[index].clone();
            let useless = sets::replicas(&set) - sets::available(&set);
            let fewer = useless.min(left).max(0);
            if fewer > 0 {
                left -= fewer;
                self.resize_old(index, sets::replicas(&set) - fewer);
            }
        }
        let available: i32 = self.all().iter().map(|set| sets::available(set)).sum();
        let mut spare = available - self.size.least_available();
        for index in 0..self.old.len() {
            let fewer = sets::replicas(&self.old[index]).min(spare);
            if fewer > 0 {
                spare -= fewer;
                self.resize_old(index, sets::replicas(&self.old[index]) - fewer);
            }
        }
        self.merge_scalings(before);
        self.actions.len() > before
    }

    /// Follows a change of `spec.replicas`: the only active set takes all of it; in the middle of a rollout each
    /// takes its share.
    fn scale(&mut self) {
        let active: Vec<_> = self.all().into_iter().filter(|set| sets::replicas(set) > 0).collect();
        if active.len() <= 1 {
            let latest =
                active.first().cloned().or_else(|| self.new.clone()).or_else(|| self.old.last().cloned());
            if let Some(set) = latest {
                self.resize_to_size(set, self.size.replicas);
            }
            return;
        }
        if self.new.as_ref().is_some_and(|new| self.is_saturated(new)) {
            let old = self.old.iter().filter(|set| sets::replicas(set) > 0).cloned().collect::<Vec<_>>();
            old.into_iter().for_each(|set| self.resize(set, 0));
            return;
        }
        if !sets::is_recreate(self.deployment) {
            self.scale_in_proportion(active);
        }
    }

    fn is_saturated(&self, new: &ReplicaSet) -> bool {
        let wanted = self.size.replicas;
        sets::replicas(new) == wanted
            && sets::desired_replicas(new) == Some(wanted)
            && sets::available(new) == wanted
    }

    fn scale_in_proportion(&mut self, mut active: Vec<Arc<ReplicaSet>>) {
        let present: i32 = active.iter().map(|set| sets::replicas(set)).sum();
        let allowed = if self.size.replicas > 0 { self.size.most() } else { 0 };
        let change = allowed - present;
        // The greatest first; of equal ones the newest when there is something to give, else the oldest.
        active.sort_by_key(|set| set.metadata.creation_timestamp.as_ref().map(|time| time.0));
        if change > 0 {
            active.reverse();
        }
        active.sort_by_key(|set| std::cmp::Reverse(sets::replicas(set)));
        let mut given = 0;
        let mut sizes = Vec::with_capacity(active.len());
        for set in &active {
            let left = change - given;
            let share = match left.signum() {
                1 => self.share(set).clamp(0, left),
                -1 => self.share(set).clamp(left, 0),
                _ => 0,
            };
            given += share;
            sizes.push(sets::replicas(set) + share);
        }
        if let Some(first) = sizes.first_mut() {
            *first = (*first + change - given).max(0);
        }
        active.into_iter().zip(sizes).for_each(|(set, size)| self.resize_to_size(set, size));
    }

    /// By how much a set changes so that its part of the whole stays the same.
    fn share(&self, set: &ReplicaSet) -> i32 {
        let present = sets::replicas(set);
        if self.size.replicas == 0 {
            return -present;
        }
        let whole_before = sets::max_replicas(set)
            .or(self.deployment.status.as_ref().and_then(|status| status.replicas))
            .filter(|replicas| *replicas > 0);
        let Some(whole_before) = whole_before else { return 0 };
        let exact = f64::from(present) * f64::from(self.size.most()) / f64::from(whole_before);
        // Both factors are replica counts: the rounded quotient is one too.
        exact.round() as i32 - present
    }

    fn clean_up_if_complete(&mut self) {
        let all = self.all();
        let now =
            status::calculate(self.deployment, self.new.as_deref(), &all, self.size, self.conditions.clone());
        if status::is_complete(self.deployment, &now) {
            self.clean_up();
        }
    }

    /// Deletes the oldest revisions beyond the history limit; only sets that are empty, and known to be.
    fn clean_up(&mut self) {
        let Some(limit) = self.deployment.spec.revision_history_limit else { return };
        let mut history: Vec<_> =
            self.old.iter().filter(|set| set.metadata.deletion_timestamp.is_none()).cloned().collect();
        history.sort_by_key(|set| sets::revision(set.annotations()));
        let surplus = history.len().saturating_sub(limit.max(0).unsigned_abs() as usize);
        let is_empty = |set: &ReplicaSet| {
            let status = set.status.as_ref();
            sets::replicas(set) == 0
                && status.is_some_and(|status| status.replicas == 0)
                && set.metadata.generation <= status.and_then(|status| status.observed_generation)
        };
        let deletions = history.into_iter().take(surplus).filter(|set| is_empty(set)).map(Action::Delete);
        self.actions.extend(deletions);
    }

    fn resize_old(&mut self, index: usize, to: i32) {
        let set = self.old[index].clone();
        self.old[index] = Arc::new(with_replicas(&set, to));
        self.resize(set, to);
    }

    fn resize(&mut self, set: Arc<ReplicaSet>, to: i32) {
        self.actions.push(Action::Scale { set, to, annotations: self.size.annotations() });
    }

    /// Scales a set, or notes on one of the right number already for which size of the Deployment that is.
    fn resize_to_size(&mut self, set: Arc<ReplicaSet>, to: i32) {
        let is_noted =
            self.size.annotations().iter().all(|(key, value)| set.annotations().get(key) == Some(value));
        if sets::replicas(&set) != to || !is_noted {
            self.resize(set, to);
        }
    }

    /// A set that was scaled twice in this pass is scaled once, from where it is to where it shall be.
    fn merge_scalings(&mut self, from: usize) {
        let later = self.actions.split_off(from);
        for action in later {
            let earlier = self.actions[from..].iter_mut().find(|other| match (other, &action) {
                (Action::Scale { set, .. }, Action::Scale { set: same, .. }) => {
                    set.name_any() == same.name_any()
                }
                _ => false,
            });
            match (earlier, action) {
                (Some(Action::Scale { to, .. }), Action::Scale { to: newer, .. }) => *to = newer,
                (_, action) => self.actions.push(action),
            }
        }
    }

    fn all(&self) -> Vec<Arc<ReplicaSet>> {
        self.old.iter().chain(&self.new).cloned().collect()
    }

    fn finish(self) -> Plan {
        let all = self.all();
        let status =
            status::calculate(self.deployment, self.new.as_deref(), &all, self.size, self.conditions);
        Plan { actions: self.actions, status, next: None }
    }

    fn finish_rollout(self) -> Plan {
        let all = self.all();
        let (status, next) =
            status::calculate_rollout(self.deployment, self.new.as_deref(), &all, self.size, self.conditions);
        Plan { actions: self.actions, status, next }
    }
}

fn with_replicas(set: &ReplicaSet, replicas: i32) -> ReplicaSet {
    let mut set = set.clone();
    set.spec.replicas = Some(replicas);
    set
}

fn with_annotations(set: &ReplicaSet, annotations: &BTreeMap<String, String>) -> ReplicaSet {
    let mut set = set.clone();
    set.annotations_mut().extend(annotations.iter().map(|(key, value)| (key.clone(), value.clone())));
    set
}
