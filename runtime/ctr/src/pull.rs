//! Bringing an image from a registry, with the user looking on.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use anyhow::{Context, Result};
use runtime::image::pull::Options;
use runtime::image::pull::progress::{Progress, State};
use runtime::image::{Image, Puller, Reference};
use tokio::sync::watch;

use crate::place::Place;
use crate::table::decimal;

/// How often the user is told how far it is.
const INTERVAL: Duration = Duration::from_millis(100);

/// Pulls an image.
pub async fn pull(place: &Place, name: &str) -> Result<Image> {
    let reference = Reference::parse(name)?;
    let (sender, progress) = watch::channel(Progress::default());
    let options = Options { progress: Some(sender), ..Options::default() };
    let puller = Puller::new(place.images()?, place.registries());
    eprintln!("Pulling {reference}");
    let image = {
        let pulling = puller.pull(&reference, &options);
        tokio::pin!(pulling);
        let mut shown = false;
        loop {
            tokio::select! {
                biased;
                image = &mut pulling => {
                    if shown {
                        tell("");
                    }
                    break image;
                }
                () = tokio::time::sleep(INTERVAL), if io::stderr().is_terminal() => {
                    tell(&line(&progress.borrow()));
                    shown = true;
                }
            }
        }
    };
    let image = image.with_context(|| format!("cannot pull {name}"))?;
    eprintln!("Pulled {reference}: {}", image.id);
    Ok(image)
}

/// Writes over the line before.
fn tell(text: &str) {
    let mut output = io::stderr();
    // Nobody can be told that telling has failed.
    write!(output, "\r\x1b[K{text}").and_then(|()| output.flush()).ok();
}

fn line(progress: &Progress) -> String {
    let (came, all) = progress.bytes();
    let is_here = |state: State| matches!(state, State::Done | State::Present);
    let here = progress.layers.iter().filter(|layer| is_here(layer.state)).count();
    format!("{here} of {} layers, {} of {}", progress.layers.len(), decimal(came), decimal(all))
}
