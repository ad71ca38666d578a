//! How far a pull is: the latest state, for whoever looks, as often as he looks.

use tokio::sync::watch;

use crate::image::Reference;
use crate::image::manifest::Descriptor;

/// A pull as it stands.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// The whole name of the image.
    pub reference: String,
    /// Its layers, lowest first.
    pub layers: Vec<Layer>,
}

impl Progress {
    /// Bytes that have come, and bytes that there are.
    pub fn bytes(&self) -> (u64, u64) {
        self.layers.iter().fold((0, 0), |(came, all), layer| (came + layer.received, all + layer.size))
    }
}

/// A layer on its way.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Of the packed bytes.
    pub digest: String,
    /// How many they are.
    pub size: u64,
    /// How many of them are here.
    pub received: u64,
    /// Where it stands.
    pub state: State,
}

/// Where a layer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has not begun, or somebody else fetches it.
    Waiting,
    /// It comes, and is unpacked while it comes.
    Downloading,
    /// All of it has come.
    Unpacking,
    /// It is here.
    Done,
    /// It was here before.
    Present,
}

/// Tells how far a pull is, if anybody wants to know.
#[derive(Clone)]
pub(super) struct Report {
    sender: Option<watch::Sender<Progress>>,
}

/// Tells about one layer.
#[derive(Clone)]
pub(super) struct LayerReport {
    report: Report,
    number: usize,
}

impl Report {
    pub(super) fn begin(
        sender: Option<watch::Sender<Progress>>,
        reference: &Reference,
        layers: &[Descriptor],
    ) -> Report {
        if let Some(sender) = &sender {
            let waiting = |layer: &Descriptor| Layer {
                digest: layer.digest.clone(),
                size: layer.size,
                received: 0,
                state: State::Waiting,
            };
            let layers = layers.iter().map(waiting).collect();
            sender.send_replace(Progress { reference: reference.to_string(), layers });
        }
        Report { sender }
    }

    pub(super) fn layer(&self, number: usize) -> LayerReport {
        LayerReport { report: self.clone(), number }
    }
}

impl LayerReport {
    pub(super) fn received(&self, bytes: u64) {
        self.change(|layer| {
            layer.received = bytes;
            layer.state = State::Downloading;
        });
    }

    pub(super) fn is(&self, state: State) {
        self.change(|layer| {
            layer.state = state;
            if matches!(state, State::Done | State::Present) {
                layer.received = layer.size;
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut Layer)) {
        let Some(sender) = &self.report.sender else { return };
        sender.send_modify(|progress| {
            if let Some(layer) = progress.layers.get_mut(self.number) {
                change(layer);
            }
        });
    }
}
