//! The services of another process, such as containerd or CRI-O, over its Unix socket.

use async_trait::async_trait;
use futures::StreamExt;
use tonic::transport::{Channel, Endpoint};

use crate::service::{image_calls, runtime_calls};
use crate::v1::image_service_client::ImageServiceClient;
use crate::v1::runtime_service_client::RuntimeServiceClient;
use crate::v1::*;
use crate::{Code, Error, EventStream, ImageService, MESSAGE_LIMIT, RuntimeService};

/// A runtime at the other end of a socket.
#[derive(Clone)]
pub struct Remote {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
}

impl Remote {
    /// Connects to `unix:///run/containerd/containerd.sock` and the like.
    pub async fn connect(endpoint: &str) -> Result<Remote, Error> {
        let channel = address(endpoint)?.connect().await.map_err(|error| unreachable(endpoint, &error))?;
        Ok(Remote::over(channel))
    }

    /// The runtime at this endpoint, whether it is up yet or not: each call connects again where need be, and
    /// fails as `Unavailable` while nobody is there.
    pub fn at(endpoint: &str) -> Result<Remote, Error> {
        Ok(Remote::over(address(endpoint)?.connect_lazy()))
    }

    fn over(channel: Channel) -> Remote {
        Remote {
            runtime: RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(MESSAGE_LIMIT),
            images: ImageServiceClient::new(channel).max_decoding_message_size(MESSAGE_LIMIT),
        }
    }
}

fn address(endpoint: &str) -> Result<Endpoint, Error> {
    Endpoint::from_shared(endpoint.to_owned()).map_err(|error| unreachable(endpoint, &error))
}

fn unreachable(endpoint: &str, error: &tonic::transport::Error) -> Error {
    Error::new(Code::Unavailable, format!("failed to connect to the runtime at {endpoint}: {error}"))
}

macro_rules! remote_runtime {
    ($($call:ident($request:ty) -> $response:ty;)*) => {
        #[async_trait]
        impl RuntimeService for Remote {
            $(
                async fn $call(&self, request: $request) -> Result<$response, Error> {
                    Ok(self.runtime.clone().$call(request).await?.into_inner())
                }
            )*

            async fn get_container_events(&self, request: GetEventsRequest) -> Result<EventStream, Error> {
                let events = self.runtime.clone().get_container_events(request).await?.into_inner();
                Ok(events.map(|event| event.map_err(Error::from)).boxed())
            }
        }
    };
}

macro_rules! remote_images {
    ($($call:ident($request:ty) -> $response:ty;)*) => {
        #[async_trait]
        impl ImageService for Remote {
            $(
                async fn $call(&self, request: $request) -> Result<$response, Error> {
                    Ok(self.images.clone().$call(request).await?.into_inner())
                }
            )*
        }
    };
}

runtime_calls!(remote_runtime);
image_calls!(remote_images);
