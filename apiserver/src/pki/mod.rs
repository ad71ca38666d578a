//! The cluster's keys and certificates: made at first start, kept under the data directory, renewed at start.
//!
//! One CA (ECDSA P-256, ten years) signs everything that components show each other; a second one,
//! the front-proxy CA, signs only what an aggregating proxy shows. Leaves live a year and are made anew when
//! less than a quarter of that is left, when the names they must carry change, or when they are not the
//! CA's. Service-account tokens are signed with a key of their own (see [`TokenKey`]).
//!
//! Every file is 0600, written beside its place and renamed into it, the key before its certificate; a lock file
//! keeps two processes from making two CAs. File names are kubeadm's.

mod certificate;
mod clients;
mod files;
mod token_key;

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use rustls::{
    RootCertStore,
    crypto::CryptoProvider,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

pub use certificate::Identity;
use certificate::{Authority, Usage};
use clients::AnyClient;
pub use clients::ClientAuthority;
pub use token_key::TokenKey;

/// A certificate and its key, both PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertifiedPair {
    /// The certificate.
    pub certificate: String,
    /// The private key, PKCS#8.
    pub key: String,
}

/// The names under which the API server is reached.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// The machine's host name.
    pub hostname: String,
    /// The machine's addresses, and any further one that clients use.
    pub addresses: Vec<IpAddr>,
    /// The first address of the Service range, where the `kubernetes` Service lives.
    pub service_address: Option<IpAddr>,
    /// `cluster.local` unless configured otherwise.
    pub cluster_domain: String,
    /// Further DNS names that clients use.
    pub extra: Vec<String>,
}

/// Why keys or certificates could not be had.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file could not be read or written.
    #[error("failed to {what} {}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file does not hold what its name says.
    #[error("{} does not hold {expected}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What was expected.
        expected: &'static str,
    },
    /// A CA certificate is there without its key, so nothing can be signed.
    #[error("{} is missing, but its certificate is there; restore the key or remove both", path.display())]
    MissingKey {
        /// Where the key should be.
        path: PathBuf,
    },
    /// A certificate could not be made.
    #[error("failed to issue a certificate for {subject}")]
    Issue {
        /// Whose certificate.
        subject: String,
        /// Why.
        source: rcgen::Error,
    },
    /// TLS refuses the certificates.
    #[error("failed to set up TLS for {what}: {reason}")]
    Tls {
        /// What for.
        what: &'static str,
        /// Why.
        reason: String,
    },
}

/// All keys and certificates of one cluster, loaded.
pub struct Pki {
    dir: PathBuf,
    authority: Authority,
    front_proxy: Authority,
    serving: CertifiedPair,
    kubelet_client: CertifiedPair,
    front_proxy_client: CertifiedPair,
    token_key: Arc<TokenKey>,
}

impl Pki {
    /// Loads the keys and certificates in `dir`, making and renewing what is needed.
    pub fn load_or_create(dir: &Path, names: &Names) -> Result<Pki, PkiError> {
        files::create_dir(dir)?;
        let _held_until_loaded = files::lock(dir)?;
        let now = Timestamp::now();
        let authority = Authority::load_or_create(dir, "ca", "kubernetes", now)?;
        let front_proxy = Authority::load_or_create(dir, "front-proxy-ca", "front-proxy-ca", now)?;
        let serving = Identity::new("kube-apiserver").reached_as(names.all());
        let kubelet_client = Identity::new("kube-apiserver-kubelet-client").in_groups(["system:masters"]);
        let front_proxy_client = Identity::new("front-proxy-client");
        let front_proxy_client =
            front_proxy.load_or_issue(dir, "front-proxy-client", &front_proxy_client, Usage::Client, now)?;
        let pki = Pki {
            serving: authority.load_or_issue(dir, "apiserver", &serving, Usage::Server, now)?,
            kubelet_client: authority.load_or_issue(
                dir,
                "apiserver-kubelet-client",
                &kubelet_client,
                Usage::Client,
                now,
            )?,
            front_proxy_client,
            token_key: Arc::new(TokenKey::load_or_create(dir)?),
            dir: dir.to_path_buf(),
            authority,
            front_proxy,
        };
        files::sync(dir)?;
        Ok(pki)
    }

    /// TLS as the API server speaks it: clients may show certificates, which are judged for each request. `authorities` are
    /// named to clients as those whose certificates are of use.
    pub fn server_config(&self, authorities: &[ClientAuthority]) -> Result<rustls::ServerConfig, PkiError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = Arc::new(AnyClient::new(provider.clone(), authorities));
        serving_config(provider, verifier, &self.serving)
    }

    /// TLS for another server of this cluster, such as the kubelet's, with `pair` as its certificate. Client certificates are
    /// optional, and verified against the CA.
    pub fn server_config_with(&self, pair: &CertifiedPair) -> Result<rustls::ServerConfig, PkiError> {
        let tls = |reason: String| PkiError::Tls { what: "serving", reason };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(self.roots()?.into(), provider.clone())
            .allow_unauthenticated()
            .build()
            .map_err(|error| tls(error.to_string()))?;
        serving_config(provider, verifier, pair)
    }

    /// TLS towards kubelets: shows the kubelet-client certificate and trusts the cluster's CA alone.
    pub fn kubelet_client_config(&self) -> Result<rustls::ClientConfig, PkiError> {
        let tls = |reason: String| PkiError::Tls { what: "kubelet connections", reason };
        let (chain, key) = parse(&self.kubelet_client)?;
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| tls(error.to_string()))?
            .with_root_certificates(self.roots()?)
            .with_client_auth_cert(chain, key)
            .map_err(|error| tls(error.to_string()))
    }

    /// A fresh client certificate: `cn` is the user, `orgs` the groups.
    pub fn issue_client(&self, cn: &str, orgs: &[&str]) -> Result<(String, String), PkiError> {
        let identity = Identity::new(cn).in_groups(orgs.iter().copied());
        let pair = self.authority.issue(&identity, Usage::Client, Timestamp::now())?;
        Ok((pair.certificate, pair.key))
    }

    /// A client certificate kept under `file` and issued anew only when it must be.
    pub fn client(&self, file: &str, cn: &str, orgs: &[&str]) -> Result<CertifiedPair, PkiError> {
        let identity = Identity::new(cn).in_groups(orgs.iter().copied());
        self.keep(file, &identity, Usage::Client)
    }

    /// The certificate that the kubelet of `node` serves with, kept until its addresses change.
    pub fn kubelet_serving(&self, node: &str, addresses: &[IpAddr]) -> Result<CertifiedPair, PkiError> {
        let names = std::iter::once(node.to_string()).chain(addresses.iter().map(IpAddr::to_string));
        let identity =
            Identity::new(format!("system:node:{node}")).in_groups(["system:nodes"]).reached_as(names);
        self.keep(&format!("kubelet-{node}"), &identity, Usage::Server)
    }

    /// A kubeconfig for the cluster's administrator, in group `system:masters`.
    pub fn admin_kubeconfig(&self, server_url: &str) -> Result<String, PkiError> {
        let pair = self.client("admin", "kubernetes-admin", &["system:masters"])?;
        Ok(self.kubeconfig(server_url, "kubernetes-admin", &pair))
    }

    /// A kubeconfig with one context, `coracle`, in which `user` shows `pair`.
    pub fn kubeconfig(&self, server_url: &str, user: &str, pair: &CertifiedPair) -> String {
        let encode = |text: &str| base64::Engine::encode(&base64::prelude::BASE64_STANDARD, text);
        let (ca, certificate, key) =
            (encode(self.ca_certificate()), encode(&pair.certificate), encode(&pair.key));
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: coracle\npreferences: {{}}\n\
             clusters:\n- name: coracle\n  cluster:\n    server: {server_url}\n    certificate-authority-data: {ca}\n\
             contexts:\n- name: coracle\n  context:\n    cluster: coracle\n    user: {user}\n\
             users:\n- name: {user}\n  user:\n    client-certificate-data: {certificate}\n    client-key-data: {key}\n"
        )
    }

    /// The CA's certificate, PEM: what clients and pods trust.
    pub fn ca_certificate(&self) -> &str {
        &self.authority.certificate
    }

    /// The CA's key and certificate, for the controller that signs certificate requests.
    pub fn ca_pair(&self) -> CertifiedPair {
        CertifiedPair { certificate: self.authority.certificate.clone(), key: self.authority.key_pem() }
    }

    /// The front-proxy CA's certificate, PEM.
    pub fn front_proxy_ca_certificate(&self) -> &str {
        &self.front_proxy.certificate
    }

    /// What the API server shows to extension API servers.
    pub fn front_proxy_client(&self) -> &CertifiedPair {
        &self.front_proxy_client
    }

    /// What signs service-account tokens.
    pub fn token_key(&self) -> Arc<TokenKey> {
        self.token_key.clone()
    }

    fn keep(&self, file: &str, identity: &Identity, usage: Usage) -> Result<CertifiedPair, PkiError> {
        let _held_until_written = files::lock(&self.dir)?;
        let pair = self.authority.load_or_issue(&self.dir, file, identity, usage, Timestamp::now())?;
        files::sync(&self.dir)?;
        Ok(pair)
    }

    fn roots(&self) -> Result<RootCertStore, PkiError> {
        let tls = |reason: String| PkiError::Tls { what: "the cluster's CA", reason };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(self.authority.certificate.as_bytes()) {
            let certificate = certificate.map_err(|error| tls(error.to_string()))?;
            roots.add(certificate).map_err(|error| tls(error.to_string()))?;
        }
        Ok(roots)
    }
}

impl Names {
    fn all(&self) -> impl Iterator<Item = String> {
        let domain = &self.cluster_domain;
        let fixed = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost", "127.0.0.1"];
        let qualified = (!domain.is_empty()).then(|| format!("kubernetes.default.svc.{domain}"));
        let addresses = self.addresses.iter().chain(&self.service_address).map(IpAddr::to_string);
        let host = (!self.hostname.is_empty()).then(|| self.hostname.clone());
        fixed
            .map(str::to_string)
            .into_iter()
            .chain(qualified)
            .chain(host)
            .chain(self.extra.clone())
            .chain(addresses)
    }
}

fn serving_config(
    provider: Arc<CryptoProvider>,
    verifier: Arc<dyn ClientCertVerifier>,
    pair: &CertifiedPair,
) -> Result<rustls::ServerConfig, PkiError> {
    let tls = |reason: String| PkiError::Tls { what: "serving", reason };
    let (chain, key) = parse(pair)?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| tls(error.to_string()))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|error| tls(error.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn parse(pair: &CertifiedPair) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), PkiError> {
    let tls = |error: rustls_pki_types::pem::Error| PkiError::Tls {
        what: "a certificate",
        reason: error.to_string(),
    };
    let chain = CertificateDer::pem_slice_iter(pair.certificate.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(tls)?;
    Ok((chain, PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).map_err(tls)?))
}

#[cfg(test)]
mod tests;
