//! Any implementation of the two services, offered as gRPC on a Unix socket.

use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{BoxStream, unfold};
use tokio::net::UnixListener;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use crate::service::{image_calls, runtime_calls};
use crate::v1::image_service_server::ImageServiceServer;
use crate::v1::runtime_service_server::RuntimeServiceServer;
use crate::v1::*;
use crate::{Error, ImageService, RuntimeService};

/// Answers CRI calls on `socket` until `stop` is done.
pub async fn serve(
    socket: UnixListener,
    runtime: Arc<dyn RuntimeService>,
    images: Arc<dyn ImageService>,
    stop: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let connections = unfold(socket, |socket| async {
        let connection = socket.accept().await.map(|(stream, _)| stream);
        Some((connection, socket))
    });
    Server::builder()
        .add_service(RuntimeServiceServer::new(ServedRuntime(runtime)))
        .add_service(ImageServiceServer::new(ServedImages(images)))
        .serve_with_incoming_shutdown(connections, stop)
        .await
}

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

            type GetContainerEventsStream = BoxStream<'static, Result<ContainerEventResponse, Status>>;

            async fn get_container_events(
                &self,
                request: Request<GetEventsRequest>,
            ) -> Result<Response<Self::GetContainerEventsStream>, Status> {
                let events = self.0.get_container_events(request.into_inner()).await?;
                Ok(Response::new(events.map(|event| event.map_err(|error: Error| error.into())).boxed()))
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
        }
    };
}

runtime_calls!(served_runtime);
image_calls!(served_images);
