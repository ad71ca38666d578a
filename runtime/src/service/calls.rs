//! CRI's calls on the runtime.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use cri::v1::*;
use cri::{Code, Error, EventStream, ImageService, RuntimeService};
use jiff::Timestamp;

use super::containers::container_status;
use super::sandboxes::sandbox_status;
use super::{Runtime, metrics, nanoseconds};
use crate::streaming;

const NAME: &str = "coracle";
const VERSION: &str = env!("CARGO_PKG_VERSION");

#[async_trait]
impl RuntimeService for Runtime {
    async fn version(&self, _: VersionRequest) -> Result<VersionResponse, Error> {
        Ok(VersionResponse {
            version: "0.1.0".to_owned(),
            runtime_name: NAME.to_owned(),
            runtime_version: VERSION.to_owned(),
            runtime_api_version: "v1".to_owned(),
        })
    }

    async fn status(&self, request: StatusRequest) -> Result<StatusResponse, Error> {
        Ok(self.shared.status(request.verbose))
    }

    async fn runtime_config(&self, _: RuntimeConfigRequest) -> Result<RuntimeConfigResponse, Error> {
        let linux = LinuxRuntimeConfiguration { cgroup_driver: CgroupDriver::Cgroupfs as i32 };
        Ok(RuntimeConfigResponse { linux: Some(linux) })
    }

    async fn update_runtime_config(
        &self,
        request: UpdateRuntimeConfigRequest,
    ) -> Result<UpdateRuntimeConfigResponse, Error> {
        let network = request.runtime_config.and_then(|config| config.network_config).unwrap_or_default();
        // With two families the first is ours.
        let cidr = network.pod_cidr.split(',').next().unwrap_or_default();
        if let Some(pods) = self.shared.config.network.as_ref().filter(|_| !cidr.is_empty()) {
            let cidr = cidr
                .parse()
                .map_err(|error| Error::invalid_argument(format!("pod CIDR {cidr:?}: {error}")))?;
            let set = pods.set_pod_cidr(cidr).await;
            set.map_err(|error| Error::unknown(format!("failed to set up the pod network: {error}")))?;
        }
        Ok(UpdateRuntimeConfigResponse {})
    }

    async fn run_pod_sandbox(&self, request: RunPodSandboxRequest) -> Result<RunPodSandboxResponse, Error> {
        let config = request.config.unwrap_or_default();
        let shared = self.shared.clone();
        let run = async move { shared.run_sandbox(config, request.runtime_handler).await };
        let pod_sandbox_id = to_its_end(run).await?;
        Ok(RunPodSandboxResponse { pod_sandbox_id })
    }

    async fn stop_pod_sandbox(
        &self,
        request: StopPodSandboxRequest,
    ) -> Result<StopPodSandboxResponse, Error> {
        let shared = self.shared.clone();
        to_its_end(async move { shared.stop_sandbox(&request.pod_sandbox_id).await }).await?;
        Ok(StopPodSandboxResponse {})
    }

    async fn remove_pod_sandbox(
        &self,
        request: RemovePodSandboxRequest,
    ) -> Result<RemovePodSandboxResponse, Error> {
        let shared = self.shared.clone();
        to_its_end(async move { shared.remove_sandbox(&request.pod_sandbox_id).await }).await?;
        Ok(RemovePodSandboxResponse {})
    }

    async fn pod_sandbox_status(
        &self,
        request: PodSandboxStatusRequest,
    ) -> Result<PodSandboxStatusResponse, Error> {
        let sandbox = self.shared.find_sandbox(&request.pod_sandbox_id)?;
        let containers = self.shared.containers_of(&sandbox.id);
        Ok(PodSandboxStatusResponse {
            status: Some(sandbox_status(&sandbox)),
            info: if request.verbose { self.shared.sandbox_info(&sandbox) } else { HashMap::new() },
            containers_statuses: containers.iter().map(|container| container_status(container)).collect(),
            timestamp: nanoseconds(Timestamp::now()),
        })
    }

    async fn list_pod_sandbox(
        &self,
        request: ListPodSandboxRequest,
    ) -> Result<ListPodSandboxResponse, Error> {
        Ok(ListPodSandboxResponse { items: self.shared.list_sandboxes(request.filter) })
    }

    async fn update_pod_sandbox_resources(
        &self,
        request: UpdatePodSandboxResourcesRequest,
    ) -> Result<UpdatePodSandboxResourcesResponse, Error> {
        self.shared.update_sandbox(&request.pod_sandbox_id, request.overhead, request.resources)?;
        Ok(UpdatePodSandboxResourcesResponse {})
    }

    async fn create_container(
        &self,
        request: CreateContainerRequest,
    ) -> Result<CreateContainerResponse, Error> {
        let config = request.config.unwrap_or_default();
        let container_id = self.shared.create_container(&request.pod_sandbox_id, config).await?;
        Ok(CreateContainerResponse { container_id })
    }

    async fn start_container(&self, request: StartContainerRequest) -> Result<StartContainerResponse, Error> {
        let shared = self.shared.clone();
        to_its_end(async move { shared.start_container(&request.container_id).await }).await?;
        Ok(StartContainerResponse {})
    }

    async fn stop_container(&self, request: StopContainerRequest) -> Result<StopContainerResponse, Error> {
        let grace = Duration::from_secs(request.timeout.max(0) as u64);
        self.shared.stop_container(&request.container_id, grace).await?;
        Ok(StopContainerResponse {})
    }

    async fn remove_container(
        &self,
        request: RemoveContainerRequest,
    ) -> Result<RemoveContainerResponse, Error> {
        let shared = self.shared.clone();
        to_its_end(async move { shared.remove_container(&request.container_id).await }).await?;
        Ok(RemoveContainerResponse {})
    }

    async fn list_containers(&self, request: ListContainersRequest) -> Result<ListContainersResponse, Error> {
        Ok(ListContainersResponse { containers: self.shared.list_containers(request.filter) })
    }

    async fn container_status(
        &self,
        request: ContainerStatusRequest,
    ) -> Result<ContainerStatusResponse, Error> {
        let container = self.shared.find_container(&request.container_id)?;
        let info = if request.verbose { self.shared.container_info(&container)? } else { HashMap::new() };
        Ok(ContainerStatusResponse { status: Some(container_status(&container)), info })
    }

    async fn update_container_resources(
        &self,
        request: UpdateContainerResourcesRequest,
    ) -> Result<UpdateContainerResourcesResponse, Error> {
        self.shared.update_container(&request.container_id, request.linux)?;
        Ok(UpdateContainerResourcesResponse {})
    }

    async fn reopen_container_log(
        &self,
        request: ReopenContainerLogRequest,
    ) -> Result<ReopenContainerLogResponse, Error> {
        self.shared.reopen_log(&request.container_id).await?;
        Ok(ReopenContainerLogResponse {})
    }

    async fn exec_sync(&self, request: ExecSyncRequest) -> Result<ExecSyncResponse, Error> {
        self.shared.exec_sync(request).await
    }

    async fn exec(&self, request: ExecRequest) -> Result<ExecResponse, Error> {
        let container = self.shared.find_container(&request.container_id)?;
        if !container.is_running() {
            return Err(Error::failed_precondition(format!("container {:?} is not running", container.id)));
        }
        let url = self.streaming.exec(streaming::ExecRequest {
            container_id: container.id.clone(),
            command: request.cmd,
            tty: request.tty,
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
        });
        Ok(ExecResponse { url: url.map_err(too_many)? })
    }

    async fn attach(&self, request: AttachRequest) -> Result<AttachResponse, Error> {
        let container = self.shared.find_container(&request.container_id)?;
        if !container.is_running() {
            return Err(Error::failed_precondition(format!("container {:?} is not running", container.id)));
        }
        let url = self.streaming.attach(streaming::AttachRequest {
            container_id: container.id.clone(),
            tty: request.tty,
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
        });
        Ok(AttachResponse { url: url.map_err(too_many)? })
    }

    async fn port_forward(&self, request: PortForwardRequest) -> Result<PortForwardResponse, Error> {
        let sandbox = self.shared.find_sandbox(&request.pod_sandbox_id)?;
        if !sandbox.is_ready() {
            return Err(Error::failed_precondition(format!(
                "sandbox container {:?} is not running",
                sandbox.id
            )));
        }
        let ports = request.port.into_iter().map(u16::try_from).collect::<Result<_, _>>();
        let ports = ports.map_err(|_| Error::invalid_argument("a port is a number from 1 to 65535"))?;
        let url = self
            .streaming
            .port_forward(streaming::PortForwardRequest { sandbox_id: sandbox.id.clone(), ports });
        Ok(PortForwardResponse { url: url.map_err(too_many)? })
    }

    async fn container_stats(&self, request: ContainerStatsRequest) -> Result<ContainerStatsResponse, Error> {
        let container = self.shared.find_container(&request.container_id)?;
        Ok(ContainerStatsResponse { stats: Some(self.shared.container_stats(container).await?) })
    }

    async fn list_container_stats(
        &self,
        request: ListContainerStatsRequest,
    ) -> Result<ListContainerStatsResponse, Error> {
        Ok(ListContainerStatsResponse { stats: self.shared.list_container_stats(request.filter).await? })
    }

    async fn pod_sandbox_stats(
        &self,
        request: PodSandboxStatsRequest,
    ) -> Result<PodSandboxStatsResponse, Error> {
        let sandbox = self.shared.find_sandbox(&request.pod_sandbox_id)?;
        Ok(PodSandboxStatsResponse { stats: Some(self.shared.sandbox_stats(sandbox).await?) })
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: ListPodSandboxStatsRequest,
    ) -> Result<ListPodSandboxStatsResponse, Error> {
        Ok(ListPodSandboxStatsResponse { stats: self.shared.list_sandbox_stats(request.filter).await? })
    }

    async fn get_container_events(&self, _: GetEventsRequest) -> Result<EventStream, Error> {
        Ok(self.shared.events.listen())
    }

    async fn list_metric_descriptors(
        &self,
        _: ListMetricDescriptorsRequest,
    ) -> Result<ListMetricDescriptorsResponse, Error> {
        Ok(ListMetricDescriptorsResponse { descriptors: metrics::descriptors() })
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _: ListPodSandboxMetricsRequest,
    ) -> Result<ListPodSandboxMetricsResponse, Error> {
        Ok(ListPodSandboxMetricsResponse { pod_metrics: self.shared.list_metrics().await? })
    }
}

#[async_trait]
impl ImageService for Runtime {
    async fn list_images(&self, request: ListImagesRequest) -> Result<ListImagesResponse, Error> {
        Ok(ListImagesResponse { images: self.shared.list_images(request.filter)? })
    }

    async fn image_status(&self, request: ImageStatusRequest) -> Result<ImageStatusResponse, Error> {
        self.shared.image_status(request.image, request.verbose)
    }

    async fn pull_image(&self, request: PullImageRequest) -> Result<PullImageResponse, Error> {
        Ok(PullImageResponse { image_ref: self.shared.pull_image(request.image, request.auth).await? })
    }

    async fn remove_image(&self, request: RemoveImageRequest) -> Result<RemoveImageResponse, Error> {
        let shared = self.shared.clone();
        let removed = tokio::task::spawn_blocking(move || shared.remove_image(request.image)).await;
        removed.map_err(|error| Error::unknown(error.to_string()))??;
        Ok(RemoveImageResponse {})
    }

    async fn image_fs_info(&self, _: ImageFsInfoRequest) -> Result<ImageFsInfoResponse, Error> {
        let shared = self.shared.clone();
        let measured = tokio::task::spawn_blocking(move || shared.image_fs_info()).await;
        measured.map_err(|error| Error::unknown(error.to_string()))?
    }
}

/// Carries a change out, also when the caller has left meanwhile: what is half made would be nobody's. A stop is not
/// one of these, who takes it back does not want the container killed.
async fn to_its_end<T: Send + 'static>(
    change: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    tokio::spawn(change).await.map_err(|error| Error::unknown(error.to_string()))?
}

fn too_many(error: streaming::TooManyRequests) -> Error {
    Error::new(Code::ResourceExhausted, error.to_string())
}
