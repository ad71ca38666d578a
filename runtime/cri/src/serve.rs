//! Any implementation of the two services, offered as gRPC on a Unix socket.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{BoxStream, unfold};
use tokio::net::UnixStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use crate::service::{image_calls, runtime_calls};
use crate::v1::image_service_server::ImageServiceServer;
use crate::v1::runtime_service_server::RuntimeServiceServer;
use crate::v1::*;
use crate::{Error, ImageService, MESSAGE_LIMIT, RuntimeService, Socket};

/// How many entries of a streamed list go into one message.
const PART: usize = 200;

/// How long to wait when a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers CRI calls on `socket` until `stop` is done.
pub async fn serve(
    socket: Socket,
    runtime: Arc<dyn RuntimeService>,
    images: Arc<dyn ImageService>,
    stop: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let connections = unfold(socket, |socket| async {
        let connection = accept(&socket).await;
        Some((Ok::<_, io::Error>(connection), socket))
    });
    Server::builder()
        .add_service(
            RuntimeServiceServer::new(ServedRuntime(runtime)).max_decoding_message_size(MESSAGE_LIMIT),
        )
        .add_service(ImageServiceServer::new(ServedImages(images)).max_decoding_message_size(MESSAGE_LIMIT))
        .serve_with_incoming_shutdown(connections, stop)
        .await
}

/// The next client. A machine that has run out of descriptors has some again later.
async fn accept(socket: &Socket) -> UnixStream {
    loop {
        match socket.listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// A long list in messages of [`PART`] entries; an empty one is no message at all.
fn in_parts<T, R>(entries: Vec<T>, message: impl Fn(Vec<T>) -> R + Send + 'static) -> Response<Parts<R>>
where
    T: Send + 'static,
    R: Send + 'static,
{
    let parts = unfold((entries, message), |(mut entries, message)| async {
        if entries.is_empty() {
            return None;
        }
        let rest = entries.split_off(PART.min(entries.len()));
        Some((Ok(message(entries)), (rest, message)))
    });
    Response::new(parts.boxed())
}

/// A list under way.
type Parts<R> = BoxStream<'static, Result<R, Status>>;

struct ServedRuntime(Arc<dyn RuntimeService>);
struct ServedImages(Arc<dyn ImageService>);

macro_rules! served_runtime {
    ($($call:ident($request:ty) -> $response:ty;)*) => {
        #[async_trait]
        impl runtime_service_server::RuntimeService for ServedRuntime {
            $(
                async fn $call(&self, request: Request<$request>) -> Result<Response<$response>, Status> {
                    Ok(Response::new(self.0.$call(request.into_inner()).await?))
                }
            )*

            type GetContainerEventsStream = Parts<ContainerEventResponse>;

            async fn get_container_events(
                &self,
                request: Request<GetEventsRequest>,
            ) -> Result<Response<Self::GetContainerEventsStream>, Status> {
                let events = self.0.get_container_events(request.into_inner()).await?;
                Ok(Response::new(events.map(|event| event.map_err(|error: Error| error.into())).boxed()))
            }

            type StreamPodSandboxesStream = Parts<StreamPodSandboxesResponse>;

            async fn stream_pod_sandboxes(
                &self,
                request: Request<StreamPodSandboxesRequest>,
            ) -> Result<Response<Self::StreamPodSandboxesStream>, Status> {
                let request = ListPodSandboxRequest { filter: request.into_inner().filter };
                let pod_sandboxes = self.0.list_pod_sandbox(request).await?.items;
                Ok(in_parts(pod_sandboxes, |pod_sandboxes| StreamPodSandboxesResponse { pod_sandboxes }))
            }

            type StreamContainersStream = Parts<StreamContainersResponse>;

            async fn stream_containers(
                &self,
                request: Request<StreamContainersRequest>,
            ) -> Result<Response<Self::StreamContainersStream>, Status> {
                let request = ListContainersRequest { filter: request.into_inner().filter };
                let containers = self.0.list_containers(request).await?.containers;
                Ok(in_parts(containers, |containers| StreamContainersResponse { containers }))
            }

            type StreamContainerStatsStream = Parts<StreamContainerStatsResponse>;

            async fn stream_container_stats(
                &self,
                request: Request<StreamContainerStatsRequest>,
            ) -> Result<Response<Self::StreamContainerStatsStream>, Status> {
                let request = ListContainerStatsRequest { filter: request.into_inner().filter };
                let container_stats = self.0.list_container_stats(request).await?.stats;
                Ok(in_parts(container_stats, |container_stats| StreamContainerStatsResponse { container_stats }))
            }

            type StreamPodSandboxStatsStream = Parts<StreamPodSandboxStatsResponse>;

            async fn stream_pod_sandbox_stats(
                &self,
                request: Request<StreamPodSandboxStatsRequest>,
            ) -> Result<Response<Self::StreamPodSandboxStatsStream>, Status> {
                let request = ListPodSandboxStatsRequest { filter: request.into_inner().filter };
                let pod_sandbox_stats = self.0.list_pod_sandbox_stats(request).await?.stats;
                Ok(in_parts(pod_sandbox_stats, |pod_sandbox_stats| StreamPodSandboxStatsResponse { pod_sandbox_stats }))
            }

            type StreamPodSandboxMetricsStream = Parts<StreamPodSandboxMetricsResponse>;

            async fn stream_pod_sandbox_metrics(
                &self,
                _: Request<StreamPodSandboxMetricsRequest>,
            ) -> Result<Response<Self::StreamPodSandboxMetricsStream>, Status> {
                let request = ListPodSandboxMetricsRequest {};
                let pod_sandbox_metrics = self.0.list_pod_sandbox_metrics(request).await?.pod_metrics;
                Ok(in_parts(pod_sandbox_metrics, |pod_sandbox_metrics| StreamPodSandboxMetricsResponse { pod_sandbox_metrics }))
            }
        }
    };
}

macro_rules! served_images {
    ($($call:ident($request:ty) -> $response:ty;)*) => {
        #[async_trait]
        impl image_service_server::ImageService for ServedImages {
            $(
                async fn $call(&self, request: Request<$request>) -> Result<Response<$response>, Status> {
                    Ok(Response::new(self.0.$call(request.into_inner()).await?))
                }
            )*

            type StreamImagesStream = Parts<StreamImagesResponse>;

            async fn stream_images(
                &self,
                request: Request<StreamImagesRequest>,
            ) -> Result<Response<Self::StreamImagesStream>, Status> {
                let request = ListImagesRequest { filter: request.into_inner().filter };
                let images = self.0.list_images(request).await?.images;
                Ok(in_parts(images, |images| StreamImagesResponse { images }))
            }
        }
    };
}

runtime_calls!(served_runtime);
image_calls!(served_images);

#[cfg(test)]
mod tests {
    use crate::v1::runtime_service_server::RuntimeService as _;

    use super::*;

    struct Crowd(usize);

    #[async_trait]
    impl RuntimeService for Crowd {
        async fn list_containers(
            &self,
            request: ListContainersRequest,
        ) -> Result<ListContainersResponse, Error> {
            assert_eq!(request.filter.unwrap().id, "c");
            let container = |number| Container { id: format!("c{number}"), ..Default::default() };
            Ok(ListContainersResponse { containers: (0..self.0).map(container).collect() })
        }
    }

    #[tokio::test]
    async fn long_lists_come_in_parts_and_whole() {
        for (length, parts) in
            [(0, vec![]), (1, vec![1]), (PART, vec![PART]), (2 * PART + 1, vec![PART, PART, 1])]
        {
            let served = ServedRuntime(Arc::new(Crowd(length)));
            let filter = Some(ContainerFilter { id: "c".into(), ..Default::default() });
            let streamed = served.stream_containers(Request::new(StreamContainersRequest { filter })).await;
            let messages: Vec<_> =
                streamed.unwrap().into_inner().map(|part| part.unwrap().containers).collect().await;
            assert_eq!(messages.iter().map(Vec::len).collect::<Vec<_>>(), parts);
            let ids: Vec<String> = messages.into_iter().flatten().map(|container| container.id).collect();
            assert_eq!(ids, (0..length).map(|number| format!("c{number}")).collect::<Vec<_>>());
        }
    }
}
