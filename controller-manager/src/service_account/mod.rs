//! Puts into every namespace what pods there take for granted: the ServiceAccount `default` and the ConfigMap
//! `kube-root-ca.crt` with the cluster's CA.

mod tokens;

use std::{collections::BTreeMap, sync::Arc};

use client::{ApiObject, Cache, ClientError, Next, ObjectKey, Reconcile, Runner, Tolerate, Writer, turn};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use kube::api::ObjectMeta;

use crate::Context;
pub use tokens::TokenSigner;

const ACCOUNT: &str = "default";
const CA_CONFIG_MAP: &str = "kube-root-ca.crt";
const CA_KEY: &str = "ca.crt";
const CA_DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.";

/// Starts the controllers of accounts and, with a `signer`, of their Secrets.
pub fn start(context: &mut Context, root_ca_pem: String, signer: Option<TokenSigner>) {
    if let Some(signer) = signer {
        tokens::start(context, signer, root_ca_pem.clone());
    }
    let namespaces = context.cache::<Namespace>();
    let (accounts, config_maps) = (context.cache::<ServiceAccount>(), context.cache::<ConfigMap>());
    let controller = NamespaceFurniture {
        namespaces: namespaces.clone(),
        accounts: accounts.clone(),
        config_maps: config_maps.clone(),
        account_writer: context.writer("service-account-controller"),
        config_map_writer: context.writer("root-ca-cert-publisher"),
        root_ca_pem,
    };
    let runner = Runner::new("serviceaccount", controller)
        .watch(&namespaces)
        .watch_map(&accounts, |change| match &*change.key().name == ACCOUNT && change.after().is_none() {
            true => vec![namespace_of(change.key())],
            false => Vec::new(),
        })
        .watch_map(&config_maps, |change| {
            match &*change.key().name == CA_CONFIG_MAP && change.before().is_some() {
                true => vec![namespace_of(change.key())],
                false => Vec::new(),
            }
        });
    context.run(runner);
}

struct NamespaceFurniture {
    namespaces: Arc<Cache<Namespace>>,
    accounts: Arc<Cache<ServiceAccount>>,
    config_maps: Arc<Cache<ConfigMap>>,
    account_writer: Writer,
    config_map_writer: Writer,
    root_ca_pem: String,
}

impl Reconcile for NamespaceFurniture {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ClientError> {
        let namespace = &*key.name;
        let gone = self
            .namespaces
            .get_key(key)
            .is_none_or(|namespace| namespace.metadata.deletion_timestamp.is_some());
        if gone {
            return Ok(Next::OnChange);
        }
        let has_account = self.accounts.get(namespace, ACCOUNT).is_some();
        let config_map = self.config_maps.get(namespace, CA_CONFIG_MAP);
        let there = |is_there: bool| if is_there { "there" } else { "missing" };
        turn::describe(
            "a default ServiceAccount and the root CA",
            format!("account {}, CA {}", there(has_account), there(config_map.is_some())),
        );
        if !has_account {
            let account =
                ServiceAccount { metadata: metadata(namespace, ACCOUNT), ..ServiceAccount::default() };
            create(&self.account_writer, &account).await?;
        }
        match config_map {
            None => create(&self.config_map_writer, &self.config_map(namespace)).await?,
            Some(present) if present.data != self.config_map(namespace).data => {
                let restored = ConfigMap { data: self.config_map(namespace).data, ..(*present).clone() };
                self.config_map_writer.replace(&restored).await.or_not_found().map(drop).or_conflict()?;
            }
            Some(_) => {}
        }
        Ok(Next::OnChange)
    }
}

impl NamespaceFurniture {
    fn config_map(&self, namespace: &str) -> ConfigMap {
        let mut metadata = metadata(namespace, CA_CONFIG_MAP);
        metadata.annotations =
            Some([("kubernetes.io/description".to_string(), CA_DESCRIPTION.to_string())].into());
        let data = BTreeMap::from([(CA_KEY.to_string(), self.root_ca_pem.clone())]);
        ConfigMap { metadata, data: Some(data), ..ConfigMap::default() }
    }
}

async fn create<K: ApiObject>(writer: &Writer, object: &K) -> Result<(), ClientError> {
    match writer.create(object).await.or_already_exists() {
        // The namespace is going, or gone: nothing belongs there any more, and its deletion wakes us.
        Err(ClientError::Api(status)) if status.code == 403 || status.code == 404 => Ok(()),
        created => created.map(drop),
    }
}

fn metadata(namespace: &str, name: &str) -> ObjectMeta {
    ObjectMeta { namespace: Some(namespace.into()), name: Some(name.into()), ..ObjectMeta::default() }
}

fn namespace_of(key: ObjectKey) -> ObjectKey {
    ObjectKey::cluster(&key.namespace)
}
