//! The engines under test, each of them able to be restarted and killed.

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use store::{Revision, Store, embedded::Embedded, etcd::Etcd};
use tempfile::TempDir;

/// Which engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Memory,
    Disk,
    Etcd,
}

/// A running engine.
pub struct Subject {
    pub kind: Kind,
    pub directory: TempDir,
    store: Option<Arc<dyn Store>>,
    etcd: Option<EtcdServer>,
}

impl Subject {
    /// None where the engine cannot be had, which is said aloud.
    pub async fn start(kind: Kind) -> Option<Subject> {
        let directory = tempfile::tempdir().unwrap();
        let mut subject = Subject { kind, directory, store: None, etcd: None };
        if kind == Kind::Etcd && !EtcdServer::is_installed() {
            assert!(std::env::var_os("CI").is_none(), "etcd is not installed");
            eprintln!("SKIPPED: etcd is not installed");
            return None;
        }
        subject.open().await;
        Some(subject)
    }

    async fn open(&mut self) {
        self.store = Some(match self.kind {
            Kind::Memory => Arc::new(Embedded::in_memory().unwrap()),
            Kind::Disk => Arc::new(Embedded::open(self.directory.path()).unwrap()),
            Kind::Etcd => {
                let server = EtcdServer::start(&self.directory);
                let store = Etcd::connect(std::slice::from_ref(&server.url), None).await.unwrap();
                self.etcd = Some(server);
                Arc::new(store)
            }
        });
    }

    pub fn store(&self) -> Arc<dyn Store> {
        self.store.clone().unwrap()
    }

    /// Stops the engine in order, as far as it knows such a thing, and starts it on the same data.
    pub async fn restart(&mut self) {
        assert_eq!(Arc::strong_count(self.store.as_ref().unwrap()), 1, "the store is still in use");
        self.store = None;
        self.etcd = None;
        self.open().await;
    }

    /// Ends the server with SIGKILL. Only where there is a server.
    pub fn kill_server(&mut self) {
        self.etcd.as_mut().unwrap().child.kill().unwrap();
    }
}

/// Where a store stands, for tests that need no more.
pub async fn now(store: &dyn Store) -> Revision {
    store.revision().await.unwrap()
}

/// An etcd on loopback; killed when dropped.
pub struct EtcdServer {
    child: Child,
    pub url: String,
}

impl EtcdServer {
    pub fn is_installed() -> bool {
        Command::new("etcd").arg("--version").stdout(Stdio::null()).status().is_ok()
    }

    fn start(directory: &TempDir) -> EtcdServer {
        EtcdServer::start_with(directory.path(), "http", &[])
    }

    /// Serves clients by `scheme`, with more arguments.
    pub fn start_with(data: &Path, scheme: &str, arguments: &[&str]) -> EtcdServer {
        // Another process may take a port before etcd does; it then exits and the next pair is tried.
        for _ in 0..10 {
            let url = format!("{scheme}://127.0.0.1:{}", free_port());
            let peer_url = format!("http://127.0.0.1:{}", free_port());
            let mut child = with_this_process("etcd")
                .args(["--logger", "zap", "--log-outputs", "stderr"])
                .args(["--heartbeat-interval", "10", "--election-timeout", "100"])
                .arg("--data-dir")
                .arg(data)
                .args(arguments)
                .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
                .args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url])
                .args(["--initial-cluster", &format!("default={peer_url}")])
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
            if log.any(|line| line.contains("serving client")) {
                // Its log must be read, or it would stop when the pipe is full.
                std::thread::spawn(move || log.for_each(drop));
                return EtcdServer { child, url };
            }
            child.wait().unwrap();
        }
        panic!("etcd does not start");
    }
}

/// A command that does not outlive this process, however that ends.
fn with_this_process(program: &str) -> Command {
    let mut command = Command::new(program);
    let parent = nix::unistd::getpid();
    // SAFETY: between fork and exec only system calls are made that a signal handler may make, too.
    unsafe {
        command.pre_exec(move || {
            nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
            // It may have ended before that.
            match nix::unistd::getppid() == parent {
                true => Ok(()),
                false => Err(std::io::Error::other("the test has gone")),
            }
        });
    }
    command
}

impl Drop for EtcdServer {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
