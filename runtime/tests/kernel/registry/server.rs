//! Debian's docker-registry on a port of its own, and a connection to it that breaks.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::tool;

/// A running registry; it ends with the test.
pub struct Registry {
    child: Child,
    pub address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Registry {
    /// Anybody may read and write, without TLS.
    pub fn open() -> Registry {
        Registry::start(tempfile::tempdir().unwrap(), "", "")
    }

    /// Only `me` with the password `secret`.
    pub fn with_password() -> Registry {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("htpasswd");
        fs::write(&file, tool("htpasswd", &["-nbB", "me", "secret"])).unwrap();
        let auth = format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", file.display());
        Registry::start(directory, "", &auth)
    }

    /// With TLS by this certificate and key.
    pub fn with_tls(certificate: &Path, key: &Path) -> Registry {
        let (certificate, key) = (certificate.display(), key.display());
        let directory = tempfile::tempdir().unwrap();
        Registry::start(directory, &format!(", tls: {{certificate: {certificate}, key: {key}}}"), "")
    }

    fn start(directory: tempfile::TempDir, http: &str, more: &str) -> Registry {
        let root = directory.path().join("data");
        // Free a moment ago; nobody else on this machine asks for ports at random.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"{address}\"{http}}}\n{more}",
            root.display()
        );
        let file = directory.path().join("config.yml");
        fs::write(&file, config).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry is installed");
        let registry = Registry { child, address, _directory: directory };
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < deadline, "the registry does not start");
            std::thread::yield_now();
        }
        registry
    }

    /// The full name of something here.
    pub fn name(&self, image: &str) -> String {
        format!("{}/{image}", self.address)
    }

    /// Puts an OCI archive there by skopeo.
    pub fn fill(&self, archive: &Path, image: &str, more: &[&str]) {
        let from = format!("oci-archive:{}", archive.display());
        let to = format!("docker://{}", self.name(image));
        let arguments = ["copy", "--quiet", "--dest-tls-verify=false"];
        tool("skopeo", &[&arguments[..], more, &[&from, &to]].concat());
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// A way to a server on which every connection breaks after some bytes of answers.
pub struct Breaking {
    pub address: SocketAddr,
    pub connections: Arc<AtomicUsize>,
    pub bytes: Arc<AtomicU64>,
}

impl Breaking {
    pub fn before(server: SocketAddr, after: u64) -> Breaking {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, bytes) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicU64::new(0)));
        let (counted, sum) = (connections.clone(), bytes.clone());
        std::thread::spawn(move || {
            for client in listener.incoming() {
                counted.fetch_add(1, Ordering::SeqCst);
                let (client, server, sum) =
                    (client.unwrap(), TcpStream::connect(server).unwrap(), sum.clone());
                let (mut up_from, mut up_to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                // Either direction may end first; both end with the break.
                std::thread::spawn(move || std::io::copy(&mut up_from, &mut up_to).is_ok());
                std::thread::spawn(move || pass(server, client, after, &sum));
            }
        });
        Breaking { address, connections, bytes }
    }
}

fn pass(mut server: TcpStream, mut client: TcpStream, mut left: u64, sum: &AtomicU64) {
    let mut buffer = [0; 8192];
    while left > 0 {
        let most = usize::try_from(left).unwrap().min(buffer.len());
        let Ok(length @ 1..) = server.read(&mut buffer[..most]) else { break };
        if client.write_all(&buffer[..length]).is_err() {
            break;
        }
        sum.fetch_add(length as u64, Ordering::SeqCst);
        left -= length as u64;
    }
    for end in [server, client] {
        // It may have gone by itself.
        end.shutdown(Shutdown::Both)
            .or_else(|error| match error.kind() {
                std::io::ErrorKind::NotConnected => Ok(()),
                _ => Err(error),
            })
            .unwrap();
    }
}
