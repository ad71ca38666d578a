//! What every controller is given: caches to read, a writer, an event recorder, and turns.

use std::sync::Arc;

use client::{ApiObject, Cache, FlightRecorder, Informers, Reconcile, Runner, Writer, events::Recorder};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What controllers are built from.
pub struct Context {
    client: kube::Client,
    informers: Informers,
    flight: FlightRecorder,
    stop: CancellationToken,
    running: JoinSet<()>,
}

impl Context {
    /// A context in which nothing runs yet.
    pub fn new(client: kube::Client, flight: FlightRecorder, stop: CancellationToken) -> Context {
        let informers = Informers::new(client.clone(), stop.clone());
        Context { client, informers, flight, stop, running: JoinSet::new() }
    }

    /// The cache of a kind.
    pub fn cache<K: ApiObject>(&self) -> Arc<Cache<K>> {
        self.informers.cache()
    }

    /// A writer under the name that upstream's controller manager writes under.
    pub fn writer(&self) -> Writer {
        Writer::new(self.client.clone(), self.informers.clone(), "kube-controller-manager")
    }

    /// The client, for what is neither cached nor a plain write.
    pub fn client(&self) -> kube::Client {
        self.client.clone()
    }

    /// Says when everything shall stop.
    pub fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// An event recorder in the name of a controller.
    pub fn recorder(&self, component: &'static str) -> Recorder {
        Recorder::new(self.client.clone(), component, None)
    }

    /// Gives a controller its turns from now on.
    pub fn run<R: Reconcile>(&mut self, runner: Runner<R>) {
        self.running.spawn(runner.run(self.flight.clone(), self.stop.clone()));
    }

    /// Runs a task beside the controllers; it must end with the stop token.
    pub fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.running.spawn(task);
    }

    /// Waits until everything has stopped; a controller that panicked stops all.
    pub async fn join(mut self) {
        while let Some(ended) = self.running.join_next().await {
            if let Err(error) = ended {
                tracing::error!(error = &error as &dyn std::error::Error, "a controller crashed");
                self.stop.cancel();
            }
        }
    }
}
