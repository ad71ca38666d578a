//! Starts each CronJob's Jobs when they are due, to the minute, by one timer each and no polling.

mod plan;
mod schedule;

use std::sync::Arc;

use client::{
    Cache, ClientError, Next, ObjectKey, Reconcile, Runner, Tolerate, Writer, events::Recorder, message, turn,
};
use jiff::{Timestamp, tz::TimeZone};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use kube::{ResourceExt, api::ObjectMeta};
use plan::Plan;
use schedule::Schedule;

use crate::{Context, ownership};

const TIME_ANNOTATION: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

/// Starts the controller.
pub fn start(context: &mut Context) {
    let (crons, jobs) = (context.cache::<CronJob>(), context.cache::<Job>());
    let controller = CronJobs {
        crons: crons.clone(),
        jobs: jobs.clone(),
        writer: context.writer("cronjob-controller"),
        events: context.recorder("cronjob-controller", "cronjob-controller"),
    };
    context.run(Runner::new("cronjob", controller).watch(&crons).watch_owned(&jobs, "CronJob"));
}

struct CronJobs {
    crons: Arc<Cache<CronJob>>,
    jobs: Arc<Cache<Job>>,
    writer: Writer,
    events: Recorder,
}

impl Reconcile for CronJobs {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ClientError> {
        let Some(cron) = self.crons.get_key(key) else { return Ok(Next::OnChange) };
        let schedule = match Schedule::parse(&cron.spec.schedule) {
            Ok(schedule) => schedule,
            Err(why) => {
                let text = format!("unparseable schedule: {} : {why}", cron.spec.schedule);
                self.events.warning(&*cron, "UnparseableSchedule", text);
                return Ok(Next::OnChange);
            }
        };
        let zone = match cron.spec.time_zone.as_deref().map(TimeZone::get) {
            None => TimeZone::UTC,
            Some(Ok(zone)) => zone,
            Some(Err(why)) => {
                let name = cron.spec.time_zone.as_deref().unwrap_or_default();
                self.events.warning(&*cron, "UnknownTimeZone", format!("invalid timeZone: {name:?}: {why}"));
                return Ok(Next::OnChange);
            }
        };
        let jobs = self.jobs.owned_by(&cron.uid().unwrap_or_default());
        let plan = plan::plan(&cron, &schedule, &zone, &jobs, Timestamp::now());
        turn::describe(format!("a job at {}", cron.spec.schedule), format!("{} jobs so far", jobs.len()));
        let next = plan.next;
        self.carry_out(&cron, plan).await?;
        Ok(next.map_or(Next::OnChange, Next::After))
    }
}

impl CronJobs {
    async fn carry_out(&self, cron: &CronJob, plan: Plan) -> Result<(), ClientError> {
        let Plan { mut status, start, delete, tell, next: _ } = plan;
        for (is_warning, reason, text) in tell {
            match is_warning {
                true => self.events.warning(cron, reason, text),
                false => self.events.normal(cron, reason, text),
            }
        }
        for job in delete {
            self.writer.delete_in_background(&*job).await?;
            self.events.normal(cron, "SuccessfulDelete", format!("Deleted job {}", job.name_any()));
        }
        if let Some(due) = start
            && let Some(job) = self.create(cron, due).await?
        {
            status.active.get_or_insert_default().push(plan::reference(&job));
        }
        if cron.status.as_ref() != Some(&status) {
            let updated = CronJob { status: Some(status), ..cron.clone() };
            self.writer.replace_status(&updated).await.or_not_found()?;
        }
        Ok(())
    }

    /// The name says which time it is for: a Job that exists already is the one that we meant to create.
    async fn create(&self, cron: &CronJob, due: Timestamp) -> Result<Option<Job>, ClientError> {
        match self.writer.create(&job(cron, due)).await.or_already_exists() {
            Ok(created) => {
                if let Some(job) = &created {
                    self.events.normal(cron, "SuccessfulCreate", format!("Created job {}", job.name_any()));
                }
                Ok(created)
            }
            Err(error) => {
                self.events.warning(cron, "FailedCreate", format!("Error creating job: {}", message(&error)));
                Err(error)
            }
        }
    }
}

fn job(cron: &CronJob, due: Timestamp) -> Job {
    let template = &cron.spec.job_template;
    let given = template.metadata.clone().unwrap_or_default();
    let mut annotations = given.annotations.unwrap_or_default();
    // To the second, as all times of the API.
    annotations.insert(TIME_ANNOTATION.into(), due.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    let metadata = ObjectMeta {
        name: Some(format!("{}-{}", cron.name_any(), due.as_second() / 60)),
        namespace: cron.namespace(),
        labels: given.labels,
        annotations: Some(annotations),
        owner_references: Some(vec![ownership::owner_reference(cron)]),
        ..ObjectMeta::default()
    };
    Job { metadata, spec: template.spec.clone(), status: None }
}
