//! Debian's docker-registry on a port of its own, and a connection to it that breaks.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
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
    gate: Arc<Gate>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

/// How many bytes may pass in all; whoever comes then waits until more may.
struct Gate {
    most: Mutex<u64>,
    raised: Condvar,
}

impl Gate {
    fn wait(&self, passed: u64) {
        drop(self.raised.wait_while(self.most.lock().unwrap(), |most| passed >= *most).unwrap());
    }
}

impl Breaking {
    /// Lets no more than this pass, on all connections together, until they are cut.
    pub fn hold_after(&self, most: u64) {
        *self.gate.most.lock().unwrap() = most;
    }

    /// Ends all connections; new ones may pass what they like.
    pub fn cut(&self) {
        for client in self.open.lock().unwrap().drain(..) {
            shut(&client);
        }
        *self.gate.most.lock().unwrap() = u64::MAX;
        self.gate.raised.notify_all();
    }

    pub fn before(server: SocketAddr, after: u64) -> Breaking {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, bytes) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicU64::new(0)));
        let gate = Arc::new(Gate { most: Mutex::new(u64::MAX), raised: Condvar::new() });
        let open = Arc::new(Mutex::new(Vec::new()));
        let (counted, sum, kept, ends) = (connections.clone(), bytes.clone(), gate.clone(), open.clone());
        std::thread::spawn(move || {
            for client in listener.incoming() {
                counted.fetch_add(1, Ordering::SeqCst);
                let (client, server) = (client.unwrap(), TcpStream::connect(server).unwrap());
                let (sum, kept) = (sum.clone(), kept.clone());
                ends.lock().unwrap().push(client.try_clone().unwrap());
                let (mut up_from, mut up_to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                // Either direction may end first; both end with the break.
                std::thread::spawn(move || std::io::copy(&mut up_from, &mut up_to).is_ok());
                std::thread::spawn(move || pass(server, client, after, &sum, &kept));
            }
        });
        Breaking { address, connections, bytes, gate, open }
    }
}

fn pass(mut server: TcpStream, mut client: TcpStream, mut left: u64, sum: &AtomicU64, gate: &Gate) {
    let mut buffer = [0; 8192];
    while left > 0 {
        gate.wait(sum.load(Ordering::SeqCst));
        let most = usize::try_from(left).unwrap().min(buffer.len());
        let Ok(length @ 1..) = server.read(&mut buffer[..most]) else { break };
        if client.write_all(&buffer[..length]).is_err() {
            break;
        }
        sum.fetch_add(length as u64, Ordering::SeqCst);
        left -= length as u64;
    }
    shut(&server);
    shut(&client);
}

/// A proxy that leads every tunnel to one server.
pub struct Tunnels {
    pub address: SocketAddr,
    /// What it was asked.
    pub asked: Arc<Mutex<Vec<String>>>,
}

impl Tunnels {
    pub fn to(server: SocketAddr) -> Tunnels {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heads = asked.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (mut client, server) = (client.unwrap(), TcpStream::connect(server).unwrap());
                let (mut head, mut byte) = (Vec::new(), [0]);
                while !head.ends_with(b"\r\n\r\n") && client.read(&mut byte).is_ok_and(|length| length == 1) {
                    head.push(byte[0]);
                }
                heads.lock().unwrap().push(String::from_utf8(head).unwrap());
                client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").unwrap();
                let gate = Gate { most: Mutex::new(u64::MAX), raised: Condvar::new() };
                let (mut up_from, mut up_to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || std::io::copy(&mut up_from, &mut up_to).is_ok());
                std::thread::spawn(move || pass(server, client, u64::MAX, &AtomicU64::new(0), &gate));
            }
        });
        Tunnels { address, asked }
    }
}

/// Ends a connection, which may have ended by itself.
fn shut(end: &TcpStream) {
    match end.shutdown(Shutdown::Both) {
        Err(error) if error.kind() != std::io::ErrorKind::NotConnected => panic!("{error}"),
        _ => {}
    }
}
