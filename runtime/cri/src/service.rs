//! The two services as traits, and the one list of calls that the trait, the client and the server share.

use async_trait::async_trait;
use futures::stream::BoxStream;

use crate::Error;
use crate::v1::*;

/// What happens to containers, as it happens.
pub type EventStream = BoxStream<'static, Result<ContainerEventResponse, Error>>;

/// Hands every unary call of the RuntimeService, with its request and response, to the macro `$then`.
macro_rules! runtime_calls {
    ($then:ident) => {
        $then! {
            version(VersionRequest) -> VersionResponse;
            run_pod_sandbox(RunPodSandboxRequest) -> RunPodSandboxResponse;
            stop_pod_sandbox(StopPodSandboxRequest) -> StopPodSandboxResponse;
            remove_pod_sandbox(RemovePodSandboxRequest) -> RemovePodSandboxResponse;
            pod_sandbox_status(PodSandboxStatusRequest) -> PodSandboxStatusResponse;
            list_pod_sandbox(ListPodSandboxRequest) -> ListPodSandboxResponse;
            update_pod_sandbox_resources(UpdatePodSandboxResourcesRequest) -> UpdatePodSandboxResourcesResponse;
            create_container(CreateContainerRequest) -> CreateContainerResponse;
            start_container(StartContainerRequest) -> StartContainerResponse;
            stop_container(StopContainerRequest) -> StopContainerResponse;
            remove_container(RemoveContainerRequest) -> RemoveContainerResponse;
            list_containers(ListContainersRequest) -> ListContainersResponse;
            container_status(ContainerStatusRequest) -> ContainerStatusResponse;
            update_container_resources(UpdateContainerResourcesRequest) -> UpdateContainerResourcesResponse;
            reopen_container_log(ReopenContainerLogRequest) -> ReopenContainerLogResponse;
            exec_sync(ExecSyncRequest) -> ExecSyncResponse;
            exec(ExecRequest) -> ExecResponse;
            attach(AttachRequest) -> AttachResponse;
            port_forward(PortForwardRequest) -> PortForwardResponse;
            container_stats(ContainerStatsRequest) -> ContainerStatsResponse;
            list_container_stats(ListContainerStatsRequest) -> ListContainerStatsResponse;
            pod_sandbox_stats(PodSandboxStatsRequest) -> PodSandboxStatsResponse;
            list_pod_sandbox_stats(ListPodSandboxStatsRequest) -> ListPodSandboxStatsResponse;
            update_runtime_config(UpdateRuntimeConfigRequest) -> UpdateRuntimeConfigResponse;
            status(StatusRequest) -> StatusResponse;
            checkpoint_container(CheckpointContainerRequest) -> CheckpointContainerResponse;
            list_metric_descriptors(ListMetricDescriptorsRequest) -> ListMetricDescriptorsResponse;
            list_pod_sandbox_metrics(ListPodSandboxMetricsRequest) -> ListPodSandboxMetricsResponse;
            runtime_config(RuntimeConfigRequest) -> RuntimeConfigResponse;
        }
    };
}

/// Hands every call of the ImageService to the macro `$then`.
macro_rules! image_calls {
    ($then:ident) => {
        $then! {
            list_images(ListImagesRequest) -> ListImagesResponse;
            image_status(ImageStatusRequest) -> ImageStatusResponse;
            pull_image(PullImageRequest) -> PullImageResponse;
            remove_image(RemoveImageRequest) -> RemoveImageResponse;
            image_fs_info(ImageFsInfoRequest) -> ImageFsInfoResponse;
        }
    };
}

pub(crate) use {image_calls, runtime_calls};

macro_rules! runtime_trait {
    ($($call:ident($request:ty) -> $response:ty;)*) => {
        /// Sandboxes, containers and what happens in them.
        ///
        /// A call that an implementation leaves out answers `Unimplemented`, as over the wire.
        #[async_trait]
        pub trait RuntimeService: Send + Sync + 'static {
            $(
                #[doc = concat!("The rpc `", stringify!($call), "` of runtime.v1.")]
                async fn $call(&self, _request: $request) -> Result<$response, Error> {
                    Err(Error::unimplemented(stringify!($call)))
                }
            )*

            /// Starts a stream of everything that happens to containers from now on.
            async fn get_container_events(&self, _request: GetEventsRequest) -> Result<EventStream, Error> {
                Err(Error::unimplemented("get_container_events"))
            }
        }
    };
}

macro_rules! image_trait {
    ($($call:ident($request:ty) -> $response:ty;)*) => {
        /// The images that containers are made from.
        ///
        /// A call that an implementation leaves out answers `Unimplemented`, as over the wire.
        #[async_trait]
        pub trait ImageService: Send + Sync + 'static {
            $(
                #[doc = concat!("The rpc `", stringify!($call), "` of runtime.v1.")]
                async fn $call(&self, _request: $request) -> Result<$response, Error> {
                    Err(Error::unimplemented(stringify!($call)))
                }
            )*
        }
    };
}

runtime_calls!(runtime_trait);
image_calls!(image_trait);
