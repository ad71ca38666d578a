//! Runs each Job's pods until enough have succeeded, or too many failed; deletes it afterwards where it says so.

mod indexes;
mod plan;

use std::{sync::Arc, time::Duration};

use client::{
    Cache, ClientError, Next, ObjectKey, Reconcile, Runner, Tolerate, Writer, cache::controller_of,
    events::Recorder, message, turn,
};
use futures::future::{join_all, try_join_all};
use jiff::Timestamp;
use k8s_openapi::api::{
    batch::v1::{Job, JobSpec},
    core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod},
};
use kube::ResourceExt;
use plan::{FINALIZER, INDEX, Plan};
use serde_json::json;

use crate::{Context, ownership, pods};

/// Starts the controller.
pub fn start(context: &mut Context) {
    let (jobs, pods) = (context.cache::<Job>(), context.cache::<Pod>());
    let controller = Jobs {
        jobs: jobs.clone(),
        pods: pods.clone(),
        writer: context.writer("job-controller"),
        cleaner: context.writer("ttl-after-finished-controller"),
        events: context.recorder("job-controller", "job-controller"),
    };
    let adopters = jobs.clone();
    let runner = Runner::new("job", controller)
        .concurrency(5)
        .watch(&jobs)
        .watch_owned(&pods, "Job")
        .watch_map(&pods, move |change| ownership::would_adopt(change, &adopters, selector))
        .watch_map(&pods, |change| {
            change.after().filter(|pod| is_lost(pod)).map(|pod| ObjectKey::of(&**pod)).into_iter().collect()
        });
    context.run(runner);
}

fn selector(job: &Job) -> Option<kube::core::Selector> {
    ownership::selector(job.spec.as_ref()?.selector.as_ref()?)
}

/// Whether the pod still waits to be counted, but belongs to nobody who would.
fn is_lost(pod: &Pod) -> bool {
    controller_of(pod).is_none() && plan::is_tracked(pod)
}

struct Jobs {
    jobs: Arc<Cache<Job>>,
    pods: Arc<Cache<Pod>>,
    writer: Writer,
    /// Upstream has a controller of its own for finished jobs that are to go, and so a role for it.
    cleaner: Writer,
    events: Recorder,
}

impl Reconcile for Jobs {
    /// The key is a Job's, or that of a pod that is lost.
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ClientError> {
        if let Some(lost) = self.pods.get_key(key).filter(|pod| is_lost(pod)) {
            self.release(&[lost]).await?;
        }
        let Some(job) = self.jobs.get_key(key) else {
            self.release(&plan::tracked(&self.left_behind(key))).await?;
            return Ok(Next::OnChange);
        };
        let Some(selector) = selector(&job) else { return Ok(Next::OnChange) };
        if job
            .spec
            .as_ref()
            .and_then(|spec| spec.managed_by.as_deref())
            .is_some_and(|by| by != "kubernetes.io/job-controller")
        {
            return Ok(Next::OnChange);
        }
        let pods = ownership::claimed_with(&self.writer, &*job, &selector, &self.pods, &[FINALIZER]).await?;
        let now = Timestamp::now();
        let plan = plan::plan(&job, &pods, now);
        turn::describe(
            format!("{} completions", job.spec.as_ref().and_then(|spec| spec.completions).unwrap_or(1)),
            format!(
                "{} active, {} succeeded, {} failed",
                plan.status.active.unwrap_or_default(),
                plan.status.succeeded.unwrap_or_default(),
                plan.status.failed.unwrap_or_default()
            ),
        );
        let next = plan.next;
        self.carry_out(&job, plan).await?;
        Ok(match self.time_to_live(&job, now) {
            Some(left) if left.is_zero() => {
                self.cleaner.delete_in_background(&*job).await?;
                Next::OnChange
            }
            left => left.into_iter().chain(next).min().map_or(Next::OnChange, Next::After),
        })
    }
}

impl Jobs {
    async fn carry_out(&self, job: &Job, plan: Plan) -> Result<(), ClientError> {
        let Plan { status, release, delete, create, tell, next: _ } = plan;
        let old = job.status.clone().unwrap_or_default();
        if status != old {
            let updated = Job { status: Some(status), ..job.clone() };
            // Nothing may be released, or created, on the ground of a status that was not written.
            if self.writer.replace_status(&updated).await.or_not_found()?.is_none() {
                return Ok(());
            }
        }
        if let Some(ending) = tell {
            match ending.succeeded {
                true => self.events.normal(job, "Completed", "Job completed"),
                false => self.events.warning(job, ending.reason, ending.message),
            }
        }
        self.release(&release).await?;
        let deletions = delete.iter().map(|pod| async {
            self.writer.delete(&**pod).await?;
            self.events.normal(job, "SuccessfulDelete", format!("Deleted pod: {}", pod.name_any()));
            Ok(())
        });
        let creations = create.into_iter().map(|index| self.create(job, index));
        let (deleted, created): (Vec<Result<(), ClientError>>, Vec<_>) =
            futures::join!(join_all(deletions), join_all(creations));
        deleted.into_iter().chain(created).collect()
    }

    async fn create(&self, job: &Job, index: Option<i32>) -> Result<(), ClientError> {
        let Some(spec) = &job.spec else { return Ok(()) };
        match self.writer.create(&pod(job, spec, index)).await {
            Ok(created) => {
                self.events.normal(job, "SuccessfulCreate", format!("Created pod: {}", created.name_any()));
                Ok(())
            }
            Err(error) => {
                self.events.warning(job, "FailedCreate", format!("Error creating: {}", message(&error)));
                Err(error)
            }
        }
    }

    /// Takes our finalizer off pods.
    async fn release(&self, pods: &[Arc<Pod>]) -> Result<(), ClientError> {
        let releases = pods.iter().map(|pod| async {
            let left: Vec<_> = pod.finalizers().iter().filter(|name| *name != FINALIZER).collect();
            let metadata =
                json!({"uid": pod.uid(), "resourceVersion": pod.resource_version(), "finalizers": left});
            let patch = json!({"metadata": metadata});
            self.writer.merge::<Pod>(&ObjectKey::of(&**pod), patch).await.or_not_found().map(drop)
        });
        try_join_all(releases).await.map(drop)
    }

    /// The pods of a Job that is gone.
    fn left_behind(&self, key: &ObjectKey) -> Vec<Arc<Pod>> {
        self.pods.in_namespace_where(&key.namespace, |pod| {
            controller_of(pod).is_some_and(|owner| owner.kind == "Job" && *owner.name == *key.name)
        })
    }

    /// How long a finished Job is kept; `None` when for ever, or when it is not finished.
    fn time_to_live(&self, job: &Job, now: Timestamp) -> Option<Duration> {
        let limit = job.spec.as_ref()?.ttl_seconds_after_finished?;
        let conditions = job.status.as_ref()?.conditions.as_ref()?;
        let is_end = |kind: &str, status: &str| matches!(kind, "Complete" | "Failed") && status == "True";
        let ended = conditions.iter().find(|condition| is_end(&condition.type_, &condition.status))?;
        let since = ended.last_transition_time.as_ref()?.0;
        let elapsed = Duration::try_from(now.duration_since(since)).unwrap_or_default();
        Some(pods::seconds(Some(limit)).saturating_sub(elapsed))
    }
}

/// A pod of the Job; with an index it also knows which.
fn pod(job: &Job, spec: &JobSpec, index: Option<i32>) -> Pod {
    let namespace = job.namespace().unwrap_or_default();
    let mut pod = pods::from_template(&spec.template, &namespace, ownership::owner_reference(job));
    pod.metadata.finalizers.get_or_insert_default().push(FINALIZER.into());
    let Some(index) = index else { return pod };
    let name = format!("{}-{index}", job.name_any());
    pod.metadata.generate_name = Some(format!("{name}-"));
    pod.annotations_mut().insert(INDEX.into(), index.to_string());
    pod.labels_mut().insert(INDEX.into(), index.to_string());
    if let Some(pod_spec) = &mut pod.spec {
        pod_spec.hostname.get_or_insert(name);
        let field_path = format!("metadata.annotations['{INDEX}']");
        let field_ref = ObjectFieldSelector { api_version: None, field_path };
        let variable = EnvVar {
            name: "JOB_COMPLETION_INDEX".into(),
            value_from: Some(EnvVarSource { field_ref: Some(field_ref), ..EnvVarSource::default() }),
            ..EnvVar::default()
        };
        let containers = pod_spec.init_containers.iter_mut().flatten().chain(&mut pod_spec.containers);
        for container in containers {
            container.env.get_or_insert_default().push(variable.clone());
        }
    }
    pod
}
