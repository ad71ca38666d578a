//! What every controller is given: caches to read, a writer, an event recorder, and turns.

use std::sync::Arc;

use client::{ApiObject, Cache, FlightRecorder, Informers, Reconcile, Runner, Writer, events::Recorder};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Makes a client in the name of a controller, such as `deployment-controller`.
pub type Clients = Box<dyn Fn(&str) -> kube::Client + Send>;

/// What controllers are built from.
pub struct Context {
    clients: Clients,
    informers: Informers,
    flight: FlightRecorder,
    stop: CancellationToken,
    running: JoinSet<()>,
}

impl Context {
    /// A context in which nothing runs yet. All caches are filled through `reader`.
    pub fn new(
        reader: kube::Client,
        clients: Clients,
        flight: FlightRecorder,
        stop: CancellationToken,
    ) -> Context {
        let informers = Informers::new(reader, stop.clone());
        Context { clients, informers, flight, stop, running: JoinSet::new() }
    }

    /// The cache of a kind.
    pub fn cache<K: ApiObject>(&self) -> Arc<Cache<K>> {
        self.informers.cache()
    }

    /// A writer with a controller's rights; managedFields name the controller manager, as upstream's do.
    pub fn writer(&self, controller: &str) -> Writer {
        Writer::new(self.client(controller), self.informers.clone(), "kube-controller-manager")
    }

    /// A client with a controller's rights, for what is neither cached nor a plain write.
    pub fn client(&self, controller: &str) -> kube::Client {
        (self.clients)(controller)
    }

    /// Says when everything shall stop.
    pub fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// An event recorder with a controller's rights; `component` is what events say that they come from.
    pub fn recorder(&self, controller: &str, component: &'static str) -> Recorder {
        Recorder::new(self.client(controller), component, None)
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
