//! Decides whether a CronJob starts a Job now, and which old ones are forgotten.

use std::{sync::Arc, time::Duration};

use jiff::{Timestamp, tz::TimeZone};
use k8s_openapi::{
    api::{
        batch::v1::{CronJob, CronJobStatus, Job},
        core::v1::ObjectReference,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{Resource, ResourceExt};

use super::schedule::Schedule;

/// Looking for missed times ends after so many.
const MOST_MISSED: usize = 100;

/// What a pass does.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    pub status: CronJobStatus,
    /// Start a Job for this time.
    pub start: Option<Timestamp>,
    /// Running Jobs that give way to the new one, and finished ones beyond the history limits.
    pub delete: Vec<Arc<Job>>,
    /// What to tell: whether it is a warning, the reason, the message.
    pub tell: Vec<(bool, &'static str, String)>,
    /// When to look again.
    pub next: Option<Duration>,
}

/// What one pass does. `jobs` are those that the CronJob controls.
pub fn plan(cron: &CronJob, schedule: &Schedule, zone: &TimeZone, jobs: &[Arc<Job>], now: Timestamp) -> Plan {
    let mut plan = Plan { status: cron.status.clone().unwrap_or_default(), ..Plan::default() };
    follow(cron, jobs, &mut plan);
    forget(cron, jobs, &mut plan);
    let spec = &cron.spec;
    if spec.suspend.unwrap_or_default() || cron.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let until_next = schedule.next(now, zone).map(|next| Duration::try_from(next.duration_since(now)));
    plan.next = until_next.map(|left| left.unwrap_or_default());
    let Some((due, missed)) = last_due(cron, schedule, zone, now) else { return plan };
    if missed > MOST_MISSED {
        let text =
            "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
        plan.tell.push((true, "TooManyMissedTimes", text.into()));
    }
    let deadline = spec.starting_deadline_seconds;
    if deadline.is_some_and(|deadline| now.duration_since(due).as_secs() > deadline) {
        plan.tell.push((true, "MissSchedule", format!("Missed scheduled time to start a job: {due}")));
        return plan;
    }
    let running: Vec<&Arc<Job>> = jobs.iter().filter(|job| !is_finished(job)).collect();
    match spec.concurrency_policy.as_deref() {
        Some("Forbid") if !running.is_empty() => {
            let text = "Not starting job because prior execution is running and concurrency policy is Forbid";
            plan.tell.push((false, "JobAlreadyActive", text.into()));
            return plan;
        }
        Some("Replace") => plan.delete.extend(running.into_iter().cloned()),
        _ => {}
    }
    plan.status.last_schedule_time = Some(Time(due));
    plan.start = Some(due);
    plan
}

/// The latest time that was due and has not been served, and how many were.
fn last_due(
    cron: &CronJob,
    schedule: &Schedule,
    zone: &TimeZone,
    now: Timestamp,
) -> Option<(Timestamp, usize)> {
    let served = cron.status.as_ref().and_then(|status| status.last_schedule_time.as_ref());
    let created = cron.metadata.creation_timestamp.as_ref();
    let mut earliest = served.or(created)?.0;
    if let Some(deadline) = cron.spec.starting_deadline_seconds {
        let reach = jiff::SignedDuration::from_secs(deadline);
        earliest = earliest.max(now.checked_sub(reach).unwrap_or(earliest));
    }
    let mut due = None;
    let mut missed = 0;
    let mut from = earliest;
    while let Some(next) = schedule.next(from, zone).filter(|next| *next <= now) {
        missed += 1;
        due = Some(next);
        from = next;
        if missed > MOST_MISSED {
            // A long outage: the latest one is all that matters.
            let recent = now.checked_sub(jiff::SignedDuration::from_hours(24)).unwrap_or(from);
            if recent > from {
                from = recent;
            }
        }
        if missed > MOST_MISSED + 24 * 60 {
            break;
        }
    }
    due.map(|due| (due, missed))
}

/// Keeps the list of running Jobs.
fn follow(cron: &CronJob, jobs: &[Arc<Job>], plan: &mut Plan) {
    let was_active = cron.status.as_ref().and_then(|status| status.active.clone()).unwrap_or_default();
    for job in jobs.iter().filter(|job| is_finished(job)) {
        if !was_active.iter().any(|reference| reference.uid == job.metadata.uid) {
            continue;
        }
        let how = if has_condition(job, "Complete") { "Complete" } else { "Failed" };
        let text = format!("Saw completed job: {}, condition: {how}", job.name_any());
        plan.tell.push((false, "SawCompletedJob", text));
        if let Some(at) = job.status.as_ref().and_then(|status| status.completion_time.clone())
            && plan.status.last_successful_time.as_ref().is_none_or(|last| last.0 < at.0)
        {
            plan.status.last_successful_time = Some(at);
        }
    }
    let active: Vec<ObjectReference> =
        jobs.iter().filter(|job| !is_finished(job)).map(|job| reference(job)).collect();
    plan.status.active = (!active.is_empty()).then_some(active);
}

/// Deletes finished Jobs beyond the history limits, oldest first.
fn forget(cron: &CronJob, jobs: &[Arc<Job>], plan: &mut Plan) {
    let limits = [
        ("Complete", cron.spec.successful_jobs_history_limit.unwrap_or(3)),
        ("Failed", cron.spec.failed_jobs_history_limit.unwrap_or(1)),
    ];
    for (condition, limit) in limits {
        let mut finished: Vec<_> = jobs.iter().filter(|job| has_condition(job, condition)).cloned().collect();
        finished.sort_by_key(|job| {
            (
                job.status.as_ref().and_then(|status| status.start_time.as_ref().map(|time| time.0)),
                job.name_any(),
            )
        });
        let surplus = finished.len().saturating_sub(usize::try_from(limit).unwrap_or_default());
        plan.delete.extend(finished.into_iter().take(surplus));
    }
}

/// A reference to a Job as the status lists it.
pub fn reference(job: &Job) -> ObjectReference {
    ObjectReference { resource_version: job.resource_version(), ..job.object_ref(&()) }
}

fn is_finished(job: &Job) -> bool {
    has_condition(job, "Complete") || has_condition(job, "Failed")
}

fn has_condition(job: &Job, kind: &str) -> bool {
    let conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == kind && condition.status == "True")
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::batch::v1::{CronJobSpec, JobCondition, JobStatus};
    use kube::api::ObjectMeta;

    use super::*;

    fn cron(policy: &str) -> CronJob {
        CronJob {
            metadata: ObjectMeta { creation_timestamp: Some(Time(at(0))), ..ObjectMeta::default() },
            spec: CronJobSpec {
                schedule: "*/10 * * * *".into(),
                concurrency_policy: Some(policy.into()),
                ..CronJobSpec::default()
            },
            status: None,
        }
    }

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(minute * 60).unwrap()
    }

    fn job(name: &str, condition: Option<&str>) -> Arc<Job> {
        let condition = condition.map(|kind| {
            vec![JobCondition { type_: kind.into(), status: "True".into(), ..JobCondition::default() }]
        });
        Arc::new(Job {
            metadata: ObjectMeta { name: Some(name.into()), uid: Some(name.into()), ..ObjectMeta::default() },
            status: Some(JobStatus { conditions: condition, ..JobStatus::default() }),
            spec: None,
        })
    }

    fn run(cron: &CronJob, jobs: &[Arc<Job>], minute: i64) -> Plan {
        plan(cron, &Schedule::parse(&cron.spec.schedule).unwrap(), &TimeZone::UTC, jobs, at(minute))
    }

    #[test]
    fn a_job_starts_when_it_is_due_and_only_once() {
        let mut cron = cron("Allow");
        assert_eq!(run(&cron, &[], 9).start, None);
        assert_eq!(run(&cron, &[], 9).next, Some(Duration::from_secs(60)));
        let due = run(&cron, &[], 11);
        assert_eq!(due.start, Some(at(10)));
        cron.status = Some(due.status);
        assert_eq!(run(&cron, &[], 11).start, None);
        assert_eq!(
            run(&cron, &[], 45).start,
            Some(at(40)),
            "of several that were missed the last one counts"
        );
    }

    #[test]
    fn the_concurrency_policy_decides_about_running_jobs() {
        let running = [job("a", None)];
        assert_eq!(run(&cron("Allow"), &running, 10).start, Some(at(10)));
        assert_eq!(run(&cron("Forbid"), &running, 10).start, None);
        let replaced = run(&cron("Replace"), &running, 10);
        assert_eq!((replaced.start, replaced.delete), (Some(at(10)), running.to_vec()));
    }

    #[test]
    fn a_start_that_comes_too_late_is_missed() {
        let mut cron = cron("Allow");
        cron.spec.starting_deadline_seconds = Some(100);
        assert_eq!(run(&cron, &[], 11).start, Some(at(10)));
        assert_eq!(run(&cron, &[], 15).start, None);
    }

    #[test]
    fn history_is_kept_to_its_limits() {
        let jobs: Vec<_> = ["a", "b", "c", "d"].iter().map(|name| job(name, Some("Complete"))).collect();
        assert_eq!(run(&cron("Allow"), &jobs, 5).delete, jobs[..1]);
    }
}
