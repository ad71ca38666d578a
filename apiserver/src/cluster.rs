//! The hooks of a whole cluster's server, put together: authentication, RBAC and Node authorization, admission,
//! allocation, reviews and the way to the kubelets.

use std::{path::PathBuf, sync::Arc};

use axum::Router;

use crate::{
    admission::Admission,
    alloc::{Allocator, PortRange},
    authn::{
        Authenticator, TokenAuthority, Trust, discovery,
        front_proxy::FrontProxies,
        token_file::{TokenFile, TokenFileError},
    },
    authz::Authorizer,
    hooks::Hooks,
    pki::{ClientAuthority, Pki, PkiError},
    proxy::Kubelets,
    registry::Registry,
    reviews::Answers,
};

/// What the hooks need to know about the cluster.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// Who issues service-account tokens, and for whom.
    pub tokens: TokenAuthority,
    /// The node ports of Services; their addresses come out of the ServiceCIDRs.
    pub node_ports: PortRange,
    /// Where clients reach this server, such as `https://192.0.2.7:6443`.
    pub server_url: String,
    /// Who may speak for others; nobody, where this is none.
    pub front_proxies: Option<FrontProxies>,
    /// Tokens that were handed out by hand (`--token-auth-file`).
    pub token_file: Option<PathBuf>,
    /// Whether requests without credentials are `system:anonymous`'s (`--anonymous-auth`), or refused.
    pub has_anonymous: bool,
}

/// Why there are no hooks.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The cluster's keys and certificates are of no use.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The token file is of no use.
    #[error(transparent)]
    TokenFile(#[from] TokenFileError),
}

/// The hooks, and the routes of key discovery for [`crate::Config::extra`].
pub fn hooks(
    registry: &Arc<Registry>,
    pki: &Pki,
    config: &ClusterConfig,
) -> Result<(Hooks, Router), SetupError> {
    let key = pki.token_key();
    let authorizer = Authorizer::new(registry.clone());
    let trust = Trust {
        clients: ClientAuthority::from_pem(pki.ca_certificate())?,
        front_proxies: config.front_proxies.clone(),
        tokens: config.token_file.as_deref().map(TokenFile::read).transpose()?.unwrap_or_default(),
        has_anonymous: config.has_anonymous,
    };
    let authenticator = Authenticator::new(registry.clone(), key.clone(), config.tokens.clone(), trust);
    let kubelets = Kubelets::new(pki.kubelet_client_config()?);
    let answers = Answers::new(authenticator.clone(), authorizer.clone(), key.clone(), kubelets);
    let hooks = Hooks {
        authenticator: Box::new(authenticator),
        authorizer: Box::new(authorizer.clone()),
        admission: Box::new(Admission::new(authorizer)),
        allocator: Box::new(Allocator::new(registry.clone(), config.node_ports)),
        answers: Box::new(answers),
    };
    Ok((hooks, discovery::router(&config.tokens, key, &config.server_url)))
}
