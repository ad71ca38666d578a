//! Decides which pods a Job still needs, what has been done, and when it is over.
//!
//! Every pod carries a finalizer until its end has been counted, in two steps, so that no end is counted twice or
//! lost whatever is interrupted: first its uid is written into `uncountedTerminatedPods`, then the finalizer goes,
//! then the uid becomes one more in `succeeded` or `failed`.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        batch::v1::{Job, JobCondition, JobSpec, JobStatus, UncountedTerminatedPods},
        core::v1::Pod,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::ResourceExt;

use super::indexes;
use crate::pods::{PodExt, unless_zero};

pub const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
pub const INDEX: &str = "batch.kubernetes.io/job-completion-index";
const FIRST_BACK_OFF: Duration = Duration::from_secs(10);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(600);

/// What a pass does. The status is written before finalizers are removed.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    pub status: JobStatus,
    /// Pods whose end the status has noted.
    pub release: Vec<Arc<Pod>>,
    pub delete: Vec<Arc<Pod>>,
    /// One for each pod to create: its completion index, where the Job counts by index.
    pub create: Vec<Option<i32>>,
    /// What to tell about the Job: a reason and a message.
    pub tell: Option<Ending>,
    /// When time alone will change something.
    pub next: Option<Duration>,
}

/// How a Job comes to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    pub succeeded: bool,
    pub reason: &'static str,
    pub message: String,
}

/// What one pass does for a Job with these pods.
pub fn plan(job: &Job, pods: &[Arc<Pod>], now: Timestamp) -> Plan {
    let empty = JobSpec::default();
    let spec = job.spec.as_ref().unwrap_or(&empty);
    let old = job.status.clone().unwrap_or_default();
    if is_finished(&old) || job.metadata.deletion_timestamp.is_some() {
        // Nothing more will be counted.
        return Plan { status: old, release: tracked(pods), ..Plan::default() };
    }
    let mut plan =
        Plan { status: JobStatus { uncounted_terminated_pods: None, ..old.clone() }, ..Plan::default() };
    let suspended = spec.suspend.unwrap_or_default();
    let resumes = !suspended && condition_is_true(&old, "Suspended");
    if !suspended && (old.start_time.is_none() || resumes) {
        plan.status.start_time = Some(Time(now));
    }
    let tally = count(spec, &old, pods, &mut plan);
    let active: Vec<&Arc<Pod>> = pods.iter().filter(|pod| pod.is_active()).collect();
    let ending = ending(spec, &plan.status, &tally, pods, active.len(), now);

    match &ending {
        Some(ending) => {
            plan.delete.extend(active.iter().map(|pod| (*pod).clone()));
            announce(&mut plan.status, ending, now);
            let is_over = active.is_empty()
                && plan.status.uncounted_terminated_pods.is_none()
                && pods.iter().all(|pod| pod.is_finished() || !pod.is_terminating());
            if is_over {
                conclude(&mut plan.status, ending, now);
                plan.tell = Some(ending.clone());
            }
        }
        None if suspended => {
            plan.delete.extend(active.iter().map(|pod| (*pod).clone()));
            set_condition(&mut plan.status, "Suspended", "True", "JobSuspended", "Job suspended", now);
            plan.status.start_time = None;
        }
        None => {
            if resumes {
                set_condition(&mut plan.status, "Suspended", "False", "JobResumed", "Job resumed", now);
            }
            staff(spec, &tally, &active, pods, now, &mut plan);
        }
    }
    let gone = plan.delete.len();
    let present = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    plan.status.active = unless_zero(present(active.len() - gone));
    plan.status.ready = Some(present(active.iter().filter(|pod| pod.is_ready()).count()));
    plan.status.terminating =
        Some(present(pods.iter().filter(|pod| pod.is_terminating() && !pod.is_finished()).count()));
    if let (Some(limit), Some(start), None) = (spec.active_deadline_seconds, &plan.status.start_time, &ending)
    {
        let left = Duration::from_secs(limit.max(0).unsigned_abs()).saturating_sub(elapsed(start.0, now));
        plan.next = Some(plan.next.map_or(left, |next| next.min(left)));
    }
    plan
}

/// What has been done so far, the ends that are yet to be written into the totals included.
struct Tally {
    succeeded: i32,
    failed: i32,
    /// The indexes that are done, where the Job counts by index.
    completed: BTreeSet<i32>,
}

/// Moves ends on by one step: seen, noted, released, counted.
fn count(spec: &JobSpec, old: &JobStatus, pods: &[Arc<Pod>], plan: &mut Plan) -> Tally {
    let is_indexed = is_indexed(spec);
    let completions = spec.completions.unwrap_or_default();
    let mut completed = indexes::parse(old.completed_indexes.as_deref().unwrap_or_default(), completions);
    let (mut succeeded, mut failed) = (old.succeeded.unwrap_or_default(), old.failed.unwrap_or_default());
    let noted = old.uncounted_terminated_pods.clone().unwrap_or_default();
    let still_tracked: HashSet<String> =
        pods.iter().filter(|pod| is_tracked(pod)).filter_map(|pod| pod.uid()).collect();

    let mut uncounted = UncountedTerminatedPods::default();
    for uid in noted.succeeded.into_iter().flatten() {
        match still_tracked.contains(&uid) {
            true => uncounted.succeeded.get_or_insert_default().push(uid),
            false => succeeded += 1,
        }
    }
    for uid in noted.failed.into_iter().flatten() {
        match still_tracked.contains(&uid) {
            true => uncounted.failed.get_or_insert_default().push(uid),
            false => failed += 1,
        }
    }
    for pod in pods.iter().filter(|pod| is_tracked(pod)) {
        let uid = pod.uid().unwrap_or_default();
        let is_noted =
            [&uncounted.succeeded, &uncounted.failed].into_iter().flatten().any(|list| list.contains(&uid));
        if pod.phase() == "Succeeded" {
            if is_indexed {
                completed.extend(index(pod).filter(|index| *index < completions));
            } else if !is_noted {
                uncounted.succeeded.get_or_insert_default().push(uid);
            }
            plan.release.push(pod.clone());
        } else if pod.phase() == "Failed" || pod.is_terminating() {
            if !is_noted {
                uncounted.failed.get_or_insert_default().push(uid);
            }
            plan.release.push(pod.clone());
        }
    }
    let waiting =
        |list: &Option<Vec<String>>| i32::try_from(list.as_ref().map_or(0, Vec::len)).unwrap_or(i32::MAX);
    let tally = Tally {
        succeeded: if is_indexed {
            completed.len().try_into().unwrap_or(i32::MAX)
        } else {
            succeeded + waiting(&uncounted.succeeded)
        },
        failed: failed + waiting(&uncounted.failed),
        completed,
    };
    if is_indexed {
        succeeded = tally.succeeded;
        plan.status.completed_indexes =
            Some(indexes::render(&tally.completed)).filter(|indexes| !indexes.is_empty());
    }
    plan.status.succeeded = unless_zero(succeeded);
    plan.status.failed = unless_zero(failed);
    plan.status.uncounted_terminated_pods =
        (uncounted != UncountedTerminatedPods::default()).then_some(uncounted);
    tally
}

/// Whether, and how, the Job ends. What has been announced is not taken back.
fn ending(
    spec: &JobSpec,
    status: &JobStatus,
    tally: &Tally,
    pods: &[Arc<Pod>],
    active: usize,
    now: Timestamp,
) -> Option<Ending> {
    let fails =
        |reason: &'static str, message: &str| Ending { succeeded: false, reason, message: message.into() };
    let announced = status.conditions.iter().flatten().find(|condition| {
        condition.status == "True"
            && matches!(condition.type_.as_str(), "FailureTarget" | "SuccessCriteriaMet")
    });
    let limit = spec.backoff_limit.unwrap_or(6);
    let over_limit = || fails("BackoffLimitExceeded", "Job has reached the specified backoff limit");
    let too_late = || fails("DeadlineExceeded", "Job was active longer than specified deadline");
    let complete = || Ending {
        succeeded: true,
        reason: "CompletionsReached",
        message: "Reached expected number of succeeded pods".into(),
    };
    if let Some(announced) = announced {
        return Some(match announced.reason.as_deref() {
            Some("BackoffLimitExceeded") => over_limit(),
            Some("DeadlineExceeded") => too_late(),
            _ => complete(),
        });
    }
    if tally.failed > limit || restarts_exceed(spec, pods, limit) {
        return Some(over_limit());
    }
    if let (Some(deadline), Some(start)) = (spec.active_deadline_seconds, &status.start_time)
        && elapsed(start.0, now) >= Duration::from_secs(deadline.max(0).unsigned_abs())
    {
        return Some(too_late());
    }
    let is_complete = match spec.completions {
        Some(completions) => tally.succeeded >= completions,
        // A work queue: one that succeeds means that all is done, once the others have ended too.
        None => tally.succeeded > 0 && active == 0,
    };
    is_complete.then(complete)
}

/// With `restartPolicy: OnFailure` a pod fails in place: its restarts are what counts.
fn restarts_exceed(spec: &JobSpec, pods: &[Arc<Pod>], limit: i32) -> bool {
    let policy = spec.template.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
    let restarts = || {
        let statuses = pods.iter().filter(|pod| !pod.is_finished()).filter_map(|pod| pod.status.as_ref());
        let containers = statuses.flat_map(|status| {
            status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten())
        });
        containers.map(|container| container.restart_count).sum::<i32>()
    };
    policy == Some("OnFailure") && if limit == 0 { restarts() > 0 } else { restarts() >= limit }
}

/// Brings the number of active pods to what is wanted.
fn staff(
    spec: &JobSpec,
    tally: &Tally,
    active: &[&Arc<Pod>],
    pods: &[Arc<Pod>],
    now: Timestamp,
    plan: &mut Plan,
) {
    let parallelism = spec.parallelism.unwrap_or(1).max(0);
    let running = i32::try_from(active.len()).unwrap_or(i32::MAX);
    let wanted = match spec.completions {
        Some(completions) => parallelism.min(completions - tally.succeeded),
        None if tally.succeeded > 0 => running.min(parallelism),
        None => parallelism,
    };
    if running > wanted {
        let surplus = usize::try_from(running - wanted).unwrap_or_default();
        let mut by_use: Vec<&Arc<Pod>> = active.to_vec();
        by_use.sort_by_key(|pod| {
            (!pod.node().is_empty(), pod.phase() == "Running", pod.is_ready(), pod.created_at())
        });
        plan.delete.extend(by_use.into_iter().take(surplus).cloned());
    }
    let missing = usize::try_from(wanted - running).unwrap_or_default();
    if missing == 0 {
        return;
    }
    let wait = back_off(pods, now);
    if !wait.is_zero() {
        plan.next = Some(wait);
    } else if is_indexed(spec) {
        let taken: HashSet<i32> = active.iter().filter_map(|pod| index(pod)).collect();
        let open = (0..spec.completions.unwrap_or_default())
            .filter(|index| !taken.contains(index) && !tally.completed.contains(index));
        plan.create = open.take(missing).map(Some).collect();
    } else {
        plan.create = vec![None; missing];
    }
}

/// How long to wait after pods that failed one after the other: 10 s, 20 s, 40 s, up to 10 minutes.
fn back_off(pods: &[Arc<Pod>], now: Timestamp) -> Duration {
    let ended = |phase: &'static str| {
        pods.iter().filter(move |pod| pod.phase() == phase).filter_map(|pod| ended_at(pod))
    };
    let last_success = ended("Succeeded").max();
    let failures: Vec<Timestamp> =
        ended("Failed").filter(|at| last_success.is_none_or(|success| *at > success)).collect();
    let Some(last) = failures.iter().max() else { return Duration::ZERO };
    let doublings = u32::try_from(failures.len() - 1).unwrap_or(u32::MAX);
    let pause = FIRST_BACK_OFF.saturating_mul(2u32.saturating_pow(doublings)).min(LONGEST_BACK_OFF);
    pause.saturating_sub(elapsed(*last, now))
}

/// When a pod's last container ended, or, where none ran, when its conditions last changed.
fn ended_at(pod: &Pod) -> Option<Timestamp> {
    let status = pod.status.as_ref()?;
    let containers = status.container_statuses.iter().flatten();
    let ends =
        containers.filter_map(|status| status.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref());
    let changes =
        status.conditions.iter().flatten().filter_map(|condition| condition.last_transition_time.as_ref());
    ends.max().or(changes.max()).map(|time| time.0)
}

/// Says how the Job will end, while its last pods are still going.
fn announce(status: &mut JobStatus, ending: &Ending, now: Timestamp) {
    let kind = if ending.succeeded { "SuccessCriteriaMet" } else { "FailureTarget" };
    set_condition(status, kind, "True", ending.reason, &ending.message, now);
}

fn conclude(status: &mut JobStatus, ending: &Ending, now: Timestamp) {
    let kind = if ending.succeeded { "Complete" } else { "Failed" };
    set_condition(status, kind, "True", ending.reason, &ending.message, now);
    if ending.succeeded {
        status.completion_time = Some(Time(now));
    }
}

fn set_condition(
    status: &mut JobStatus,
    kind: &str,
    value: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let conditions = status.conditions.get_or_insert_default();
    if conditions.iter().any(|condition| condition.type_ == kind && condition.status == value) {
        return;
    }
    conditions.retain(|condition| condition.type_ != kind);
    conditions.push(JobCondition {
        type_: kind.into(),
        status: value.into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    });
}

/// Whether a Job is over.
pub fn is_finished(status: &JobStatus) -> bool {
    condition_is_true(status, "Complete") || condition_is_true(status, "Failed")
}

/// The pods that carry our finalizer.
pub fn tracked(pods: &[Arc<Pod>]) -> Vec<Arc<Pod>> {
    pods.iter().filter(|pod| is_tracked(pod)).cloned().collect()
}

/// Whether a Job counts its completions by index.
pub fn is_indexed(spec: &JobSpec) -> bool {
    spec.completion_mode.as_deref() == Some("Indexed")
}

/// Whether a pod carries our finalizer: it waits to be counted.
pub fn is_tracked(pod: &Pod) -> bool {
    pod.finalizers().iter().any(|finalizer| finalizer == FINALIZER)
}

fn index(pod: &Pod) -> Option<i32> {
    pod.annotations().get(INDEX)?.parse().ok()
}

fn condition_is_true(status: &JobStatus, kind: &str) -> bool {
    let mut conditions = status.conditions.iter().flatten();
    conditions.any(|condition| condition.type_ == kind && condition.status == "True")
}

fn elapsed(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{PodCondition, PodStatus};
    use proptest::prelude::*;

    use super::*;

    /// A Job and its pods, without an API server.
    struct World {
        job: Job,
        pods: Vec<Arc<Pod>>,
        made: usize,
        second: i64,
    }

    impl World {
        fn new(completions: Option<i32>, parallelism: i32, backoff_limit: i32) -> World {
            let spec = JobSpec {
                completions,
                parallelism: Some(parallelism),
                backoff_limit: Some(backoff_limit),
                ..JobSpec::default()
            };
            World { job: Job { spec: Some(spec), ..Job::default() }, pods: Vec::new(), made: 0, second: 1000 }
        }

        fn spec(&mut self) -> &mut JobSpec {
            self.job.spec.as_mut().unwrap()
        }

        fn pass(&mut self) -> Plan {
            self.second += 700; // longer than any back-off
            let plan = plan(&self.job, &self.pods, Timestamp::from_second(self.second).unwrap());
            self.job.status = Some(plan.status.clone());
            for pod in &mut self.pods {
                if plan.release.contains(pod) {
                    Arc::make_mut(pod).metadata.finalizers = None;
                }
            }
            self.pods.retain(|pod| !plan.delete.iter().any(|gone| gone.metadata.uid == pod.metadata.uid));
            for index in &plan.create {
                self.made += 1;
                let mut pod = Pod { status: Some(PodStatus::default()), ..Pod::default() };
                pod.metadata.uid = Some(format!("uid-{}", self.made));
                pod.metadata.finalizers = Some(vec![FINALIZER.into()]);
                if let Some(index) = index {
                    pod.metadata.annotations = Some([(INDEX.to_string(), index.to_string())].into());
                }
                self.pods.push(Arc::new(pod));
            }
            plan
        }

        fn end(&mut self, which: usize, phase: &str) {
            let ended = PodCondition {
                last_transition_time: Some(Time(Timestamp::from_second(self.second).unwrap())),
                ..PodCondition::default()
            };
            let status = Arc::make_mut(&mut self.pods[which]).status.as_mut().unwrap();
            status.phase = Some(phase.into());
            status.conditions = Some(vec![ended]);
        }

        fn status(&self) -> &JobStatus {
            self.job.status.as_ref().unwrap()
        }

        fn is(&self, kind: &str) -> bool {
            condition_is_true(self.status(), kind)
        }
    }

    #[test]
    fn a_job_is_complete_when_enough_pods_have_succeeded() {
        let mut world = World::new(Some(2), 1, 6);
        assert_eq!(world.pass().create.len(), 1);
        assert_eq!(world.pass().create.len(), 0);
        world.end(0, "Succeeded");
        assert_eq!(world.pass().create.len(), 1, "one at a time");
        world.end(1, "Succeeded");
        (0..3).for_each(|_| drop(world.pass()));
        assert!(world.is("Complete") && world.is("SuccessCriteriaMet"));
        assert_eq!((world.status().succeeded, world.status().failed), (Some(2), None));
        assert!(world.status().completion_time.is_some());
    }

    #[test]
    fn an_end_is_counted_once_even_if_the_pod_is_deleted_meanwhile() {
        let mut world = World::new(Some(2), 1, 6);
        world.pass();
        world.end(0, "Succeeded");
        world.pass();
        assert_eq!(
            world.status().uncounted_terminated_pods.as_ref().unwrap().succeeded.as_ref().unwrap().len(),
            1
        );
        world.pods.remove(0);
        world.pass();
        world.pass();
        assert_eq!(world.status().succeeded, Some(1));
    }

    #[test]
    fn a_job_fails_when_its_backoff_limit_is_exceeded() {
        let mut world = World::new(Some(1), 1, 1);
        for _ in 0..2 {
            world.pass();
            let last = world.pods.len() - 1;
            world.end(last, "Failed");
        }
        (0..3).for_each(|_| drop(world.pass()));
        assert!(world.is("Failed") && !world.is("Complete"));
        assert_eq!(world.status().failed, Some(2));
    }

    #[test]
    fn a_failed_pod_is_replaced_only_after_a_pause() {
        let mut world = World::new(Some(1), 1, 6);
        world.pass();
        world.end(0, "Failed");
        let soon = Timestamp::from_second(world.second + 1).unwrap();
        let plan = plan(&world.job, &world.pods, soon);
        assert_eq!((plan.create.len(), plan.next), (0, Some(Duration::from_secs(9))));
    }

    #[test]
    fn a_deadline_ends_the_job_and_its_pods() {
        let mut world = World::new(Some(1), 1, 6);
        world.spec().active_deadline_seconds = Some(60);
        world.pass();
        assert_eq!(world.pass().delete.len(), 1);
        world.pass();
        assert!(world.is("Failed"));
        assert_eq!(
            world.status().conditions.as_ref().unwrap()[0].reason.as_deref(),
            Some("DeadlineExceeded")
        );
    }

    #[test]
    fn a_suspended_job_has_no_pods_until_it_is_resumed() {
        let mut world = World::new(Some(1), 1, 6);
        world.pass();
        world.spec().suspend = Some(true);
        world.pass();
        assert!(world.pods.is_empty() && world.is("Suspended"));
        world.spec().suspend = None;
        assert_eq!(world.pass().create.len(), 1);
        assert!(!world.is("Suspended"));
    }

    #[test]
    fn an_indexed_job_does_each_index_once() {
        let mut world = World::new(Some(3), 2, 6);
        world.spec().completion_mode = Some("Indexed".into());
        assert_eq!(world.pass().create, [Some(0), Some(1)]);
        world.end(1, "Succeeded");
        assert_eq!(world.pass().create, [Some(2)]);
        world.end(0, "Failed");
        assert_eq!(world.pass().create, [Some(0)]);
        assert_eq!(world.status().completed_indexes.as_deref(), Some("1"));
    }

    proptest! {
        /// However pods end, the Job ends, and nothing is counted twice.
        #[test]
        fn passes_settle(completions in 1i32..5, parallelism in 1i32..4, ends in proptest::collection::vec(any::<bool>(), 30)) {
            let mut world = World::new(Some(completions), parallelism, 3);
            let mut ended = (0, 0);
            for succeeds in ends {
                world.pass();
                let running = world.pods.iter().position(|pod| pod.is_active());
                if let Some(which) = running {
                    world.end(which, if succeeds { "Succeeded" } else { "Failed" });
                    if succeeds { ended.0 += 1 } else { ended.1 += 1 }
                }
            }
            (0..4).for_each(|_| drop(world.pass()));
            prop_assert!(is_finished(world.status()));
            let counted = (world.status().succeeded.unwrap_or_default(), world.status().failed.unwrap_or_default());
            prop_assert!(counted.0 <= ended.0 && counted.1 <= ended.1 + parallelism, "{counted:?} of {ended:?}");
            prop_assert_eq!(world.is("Complete"), counted.0 >= completions);
        }
    }
}
