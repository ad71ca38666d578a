//! kubectl of a certain release, whatever the machine has.

use std::{
    path::Path,
    process::{Child, Command},
};

use crate::{Cluster, Said};

/// The release that goes with the server.
pub const CURRENT: &str = "37";

/// One release's kubectl, on a cluster.
pub struct Kubectl<'a> {
    cluster: &'a Cluster,
    program: String,
}

impl<'a> Kubectl<'a> {
    /// The one of this minor release.
    pub fn new(cluster: &'a Cluster, release: &str) -> Kubectl<'a> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/kubectl");
        let found = Command::new(script).args(["kubectl", release]).output().expect("scripts/kubectl runs");
        assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
        let program = String::from_utf8_lossy(&found.stdout).trim().to_string();
        Kubectl { cluster, program }
    }

    /// Runs it; words are split at blanks.
    pub fn run(&self, words: &str) -> Said {
        self.with(words, "")
    }

    /// The same with standard input.
    pub fn with(&self, words: &str, input: &str) -> Said {
        self.cluster.client_with(&self.program, &words.split_whitespace().collect::<Vec<_>>(), input)
    }

    /// The same, left running.
    pub fn child(&self, words: &str) -> Child {
        self.cluster.client_child(&self.program, &words.split_whitespace().collect::<Vec<_>>())
    }
}
