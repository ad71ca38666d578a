//! What tokens a kubelet gets: those that pods on its node need, for the audiences that these pods name.

use api::kinds::built_in as kind;
use api::{Object, Status, items};
use serde_json::Value;

use crate::{
    authz::{Authorizer, Question, node_of},
    registry::Registry,
    request::{RequestInfo, User},
};

/// The verb that lets a kubelet ask for an audience (the resource) that no pod names.
const AUDIENCE_VERB: &str = "request-serviceaccounts-token-audience";

/// Refuses a kubelet's request for a token that its pods do not ask for.
pub(super) async fn check(
    registry: &Registry,
    authorizer: &Authorizer,
    user: &User,
    info: &RequestInfo,
    request: &Object,
) -> Result<(), Status> {
    let Some(node) = node_of(user) else { return Ok(()) };
    let refused = |why: &str| Err(Status::forbidden("", "serviceaccounts", &info.name, why));
    let reference = |field: &str| request.text(&["spec", "boundObjectRef", field]);
    if reference("kind") != "Pod" || reference("apiVersion") != "v1" || reference("name").is_empty() {
        return refused("node requested token not bound to a pod");
    }
    if reference("uid").is_empty() {
        return refused("node requested token with a pod binding without a uid");
    }
    let pod = registry.get(kind("", "pods"), &info.namespace, reference("name")).await?;
    if pod.uid() != reference("uid") {
        return refused(&format!(
            "the UID in the bound object reference ({}) does not match the UID in record. The object might have been deleted \
             and then recreated",
            reference("uid")
        ));
    }
    if pod.text(&["spec", "nodeName"]) != node {
        return refused("node requested token bound to a pod scheduled on a different node");
    }
    let audience = match request.list(&["spec", "audiences"]) {
        [] => "",
        [one] => one.as_str().unwrap_or_default(),
        _ => return refused("node may only request 0 or 1 audiences"),
    };
    if wants(&pod, audience) || driver_wants(registry, &pod, audience).await? {
        return Ok(());
    }
    let question = Question {
        is_resource: true,
        verb: AUDIENCE_VERB,
        resource: audience,
        namespace: &info.namespace,
        name: &info.name,
        ..Question::default()
    };
    if authorizer.decide(user, &question).await?.allowed {
        return Ok(());
    }
    refused(&format!(
        "audience {audience:?} not found in pod spec volume, {} is not authorized to request tokens for this audience",
        user.name
    ))
}

/// Whether the pod itself has a volume with a token for this audience.
fn wants(pod: &Object, audience: &str) -> bool {
    let volumes = pod.list(&["spec", "volumes"]).iter();
    volumes.flat_map(|volume| items(&volume["projected"]["sources"])).any(|source| {
        let token = &source["serviceAccountToken"];
        token.is_object() && token["audience"].as_str().unwrap_or_default() == audience
    })
}

/// Whether the driver of one of the pod's volumes has to have tokens for this audience.
async fn driver_wants(registry: &Registry, pod: &Object, audience: &str) -> Result<bool, Status> {
    for volume in pod.list(&["spec", "volumes"]) {
        let driver = match volume["csi"]["driver"].as_str() {
            Some(driver) => Some(driver.to_string()),
            None => driver_of_claim(registry, pod, volume).await?,
        };
        let Some(driver) = driver else { continue };
        let driver = registry.find(kind("storage.k8s.io", "csidrivers"), "", &driver).await?;
        let is_wanted = |request: &Value| request["audience"].as_str().unwrap_or_default() == audience;
        if driver.is_some_and(|driver| driver.list(&["spec", "tokenRequests"]).iter().any(is_wanted)) {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn driver_of_claim(
    registry: &Registry,
    pod: &Object,
    volume: &Value,
) -> Result<Option<String>, Status> {
    let own = || format!("{}-{}", pod.name(), volume["name"].as_str().unwrap_or_default());
    let named = volume["persistentVolumeClaim"]["claimName"].as_str().map(str::to_string);
    let Some(claim) = named.or_else(|| volume["ephemeral"].is_object().then(own)) else { return Ok(None) };
    let claim = registry.find(kind("", "persistentvolumeclaims"), pod.namespace(), &claim).await?;
    let Some(claim) = claim else { return Ok(None) };
    let volume = claim.text(&["spec", "volumeName"]);
    if volume.is_empty() {
        return Ok(None);
    }
    let volume = registry.find(kind("", "persistentvolumes"), "", volume).await?;
    let driver = volume.map(|volume| volume.text(&["spec", "csi", "driver"]).to_string());
    Ok(driver.filter(|driver| !driver.is_empty()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_names_its_audiences() {
        let sources = json!([{"serviceAccountToken": {"path": "token"}}, {"serviceAccountToken": {"audience": "vault"}}]);
        let volumes = json!([{"name": "v", "projected": {"sources": sources}}]);
        let pod = Object::from_value(json!({"spec": {"volumes": volumes}})).unwrap();
        assert!(wants(&pod, "") && wants(&pod, "vault") && !wants(&pod, "bank"));
        assert!(!wants(&Object::default(), ""));
    }
}
