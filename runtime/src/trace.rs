//! Where the time of a start goes: steps with their beginning and end, from the call to the user's program.
//!
//! A pod or container is traced when its annotation [`ANNOTATION`] says so; without it a [`Recorder`] is a single
//! branch. The server, the shim and the process that becomes the container each write down their own steps by
//! the machine's monotonic clock, which is the same for all, and [`read`] puts them together.

use std::collections::HashMap;
use std::fmt::Write;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::shim::protocol::{read_json, write_json};
use crate::sys::clock::monotonic;

/// With the value `true` it has the steps of a sandbox or container recorded.
pub const ANNOTATION: &str = "coracle.dev/trace";

/// Who took a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Actor {
    /// The runtime.
    Server,
    /// The pod's shim.
    Shim,
    /// The process that becomes the container.
    Container,
}

/// Something that took time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Who.
    pub actor: Actor,
    /// What.
    pub name: String,
    /// Nanoseconds of the monotonic clock.
    pub begin: u64,
    /// Nanoseconds of the monotonic clock.
    pub end: u64,
}

/// Writes down the steps of one actor, one following the other.
#[derive(Debug, Default)]
pub struct Recorder(Option<Recording>);

#[derive(Debug)]
struct Recording {
    actor: Actor,
    last: u64,
    steps: Vec<Step>,
}

impl Recorder {
    /// Begins the first step now, if anybody wants to know.
    pub fn start(wanted: bool, actor: Actor) -> Recorder {
        Recorder(wanted.then(|| Recording { actor, last: monotonic(), steps: Vec::new() }))
    }

    /// Whether anybody wants to know.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// What began with the mark before, or with the start, ends now.
    pub fn mark(&mut self, name: &str) {
        let Some(recording) = &mut self.0 else { return };
        let (begin, end) = (recording.last, monotonic());
        recording.last = end;
        recording.steps.push(Step { actor: recording.actor, name: name.to_owned(), begin, end });
    }

    /// The next step begins now: what was since the last mark is not worth telling.
    pub fn skip(&mut self) {
        if let Some(recording) = &mut self.0 {
            recording.last = monotonic();
        }
    }

    /// The steps so far; nothing when nobody wants to know.
    pub fn take(&mut self) -> Option<Vec<Step>> {
        self.0.as_mut().map(|recording| std::mem::take(&mut recording.steps))
    }
}

/// Whether a sandbox or container is to be traced.
pub fn is_wanted(annotations: &HashMap<String, String>) -> bool {
    annotations.get(ANNOTATION).is_some_and(|value| value == "true")
}

/// Adds steps to those in a file.
pub fn append(file: &Path, steps: Vec<Step>) -> io::Result<()> {
    let mut all: Vec<Step> = read_json(file)?.unwrap_or_default();
    all.extend(steps);
    write_json(file, &all)
}

/// The steps in these files in the order of their beginning.
pub fn read(files: &[impl AsRef<Path>]) -> io::Result<Vec<Step>> {
    let mut all = Vec::new();
    for file in files {
        all.extend(read_json::<Vec<Step>>(file.as_ref())?.unwrap_or_default());
    }
    all.sort_by_key(|step| (step.begin, step.actor));
    Ok(all)
}

/// Steps in few bytes, for a message that has to be one.
pub(crate) fn pack(steps: &[Step]) -> String {
    steps.iter().fold(String::new(), |mut text, step| {
        // Writing to a string cannot fail.
        writeln!(text, "{} {} {}", step.name, step.begin, step.end).ok();
        text
    })
}

/// The steps of an actor from such a message; a line that is none is left out.
pub(crate) fn unpack(text: &str, actor: Actor) -> Vec<Step> {
    let step = |line: &str| {
        let mut words = line.split(' ');
        let (name, begin, end) = (words.next()?, words.next()?, words.next()?);
        Some(Step { actor, name: name.to_owned(), begin: begin.parse().ok()?, end: end.parse().ok()? })
    };
    text.lines().filter_map(step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_follow_each_other_and_survive_the_message() {
        let mut recorder = Recorder::start(true, Actor::Container);
        recorder.mark("MountRoot");
        recorder.mark("MountProc");
        let steps = recorder.take().unwrap();
        assert_eq!(steps[0].end, steps[1].begin);
        assert_eq!(unpack(&pack(&steps), Actor::Container), steps);
    }

    #[test]
    fn nothing_is_recorded_unless_wanted() {
        let wanted = |value: &str| is_wanted(&HashMap::from([(ANNOTATION.to_owned(), value.to_owned())]));
        assert!(wanted("true") && !wanted("false") && !is_wanted(&HashMap::new()));
        let mut recorder = Recorder::start(false, Actor::Server);
        recorder.mark("anything");
        assert_eq!(recorder.take(), None);
    }
}
