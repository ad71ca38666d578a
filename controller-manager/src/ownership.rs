//! Which objects a controller may call its own: those that it controls and that its selector matches, and
//! orphans that match, which it adopts. What it controls but no longer matches is released.

use std::sync::Arc;

use client::{
    ApiObject, Cache, Change, ClientError, ObjectKey, Tolerate, Writer, cache::controller_of, turn,
};
use futures::future::try_join_all;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, OwnerReference};
use kube::{
    ResourceExt,
    api::Patch,
    core::{Selector, SelectorExt},
};
use serde_json::json;

/// What a controller has and what it should have.
pub struct Claims<K> {
    /// Controlled and matching.
    pub kept: Vec<Arc<K>>,
    /// Matching, and nobody's.
    pub adopt: Vec<Arc<K>>,
    /// Controlled, but no longer matching.
    pub release: Vec<Arc<K>>,
}

/// Sorts `candidates` by what they are to the owner. An owner that is being deleted adopts and releases nothing.
pub fn claim<O: ApiObject, K: ApiObject>(
    owner: &O,
    selector: &Selector,
    candidates: Vec<Arc<K>>,
) -> Claims<K> {
    let uid = owner.meta().uid.as_deref().unwrap_or_default();
    let terminating = owner.meta().deletion_timestamp.is_some();
    let mut claims = Claims { kept: Vec::new(), adopt: Vec::new(), release: Vec::new() };
    for object in candidates {
        let matches = selector.matches(object.labels());
        let bucket = match controller_of(&*object) {
            Some(controller) if controller.uid != uid => continue,
            Some(_) if matches => &mut claims.kept,
            Some(_) if terminating || object.meta().deletion_timestamp.is_some() => continue,
            Some(_) => &mut claims.release,
            None if !matches || terminating || object.meta().deletion_timestamp.is_some() => continue,
            None => &mut claims.adopt,
        };
        bucket.push(object);
    }
    claims
}

/// All objects that concern an owner, with adoptions and releases carried out.
pub async fn claimed<O: ApiObject, K: ApiObject>(
    writer: &Writer,
    owner: &O,
    selector: &Selector,
    cache: &Cache<K>,
) -> Result<Vec<Arc<K>>, ClientError> {
    claimed_with(writer, owner, selector, cache, &[]).await
}

/// The same where what is owned has `finalizers`: they come with an adoption and go with a release.
pub async fn claimed_with<O: ApiObject, K: ApiObject>(
    writer: &Writer,
    owner: &O,
    selector: &Selector,
    cache: &Cache<K>,
    finalizers: &[&str],
) -> Result<Vec<Arc<K>>, ClientError> {
    let namespace = owner.meta().namespace.as_deref().unwrap_or_default();
    let mut candidates = cache.owned_by(owner.meta().uid.as_deref().unwrap_or_default());
    candidates.extend(orphans(cache, namespace));
    let Claims { mut kept, adopt, release } = claim(owner, selector, candidates);
    try_join_all(release.iter().map(|object| let_go(writer, owner, &**object, finalizers))).await?;
    let adopted = try_join_all(adopt.iter().map(|object| take(writer, owner, &**object, finalizers))).await?;
    kept.extend(adopted.into_iter().flatten().map(Arc::new));
    kept.sort_by_cached_key(|object| ObjectKey::of(&**object));
    Ok(kept)
}

/// The owners that may want to adopt a changed orphan: wakes those in its namespace that select it.
pub fn would_adopt<O: ApiObject, K: ApiObject>(
    change: &Change<K>,
    owners: &Cache<O>,
    selector_of: impl Fn(&O) -> Option<Selector>,
) -> Vec<ObjectKey> {
    let Some(object) = change.after() else { return Vec::new() };
    if controller_of(&**object).is_some() {
        return Vec::new();
    }
    let namespace = change.key().namespace;
    let selects = |owner: &O| selector_of(owner).is_some_and(|selector| selector.matches(object.labels()));
    owners.in_namespace_where(&namespace, selects).iter().map(|owner| ObjectKey::of(&**owner)).collect()
}

/// A selector as something that matches; `None` when it is malformed, or empty, which controllers refuse.
pub fn selector(selector: &LabelSelector) -> Option<Selector> {
    Selector::try_from(selector.clone()).ok().filter(|selector| !selector.selects_all())
}

/// The reference that an object carries to the owner that controls it.
pub fn owner_reference<O: ApiObject>(owner: &O) -> OwnerReference {
    OwnerReference {
        api_version: O::api_version(&()).into_owned(),
        kind: O::kind(&()).into_owned(),
        name: owner.name_any(),
        uid: owner.uid().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

fn orphans<K: ApiObject>(cache: &Cache<K>, namespace: &str) -> Vec<Arc<K>> {
    let without_controller = |object: &K| match controller_of(object) {
        Some(_) => Vec::new(),
        None => vec![object.namespace().unwrap_or_default()],
    };
    cache.by_index("orphan", without_controller, namespace)
}

async fn take<O: ApiObject, K: ApiObject>(
    writer: &Writer,
    owner: &O,
    object: &K,
    finalizers: &[&str],
) -> Result<Option<K>, ClientError> {
    let mut patch = json!({"metadata": {"uid": object.uid(), "ownerReferences": [owner_reference(owner)]}});
    if !finalizers.is_empty() {
        patch["metadata"]["finalizers"] = json!(finalizers);
    }
    let key = ObjectKey::of(object);
    let taken = writer.patch(&key, &Patch::Strategic(patch)).await.or_not_found()?;
    if taken.is_some() {
        turn::meant(format!("adopt {} {key}", K::kind(&())));
    }
    Ok(taken)
}

async fn let_go<O: ApiObject, K: ApiObject>(
    writer: &Writer,
    owner: &O,
    object: &K,
    finalizers: &[&str],
) -> Result<(), ClientError> {
    let reference = json!({"$patch": "delete", "uid": owner.uid()});
    let mut patch = json!({"metadata": {"uid": object.uid(), "ownerReferences": [reference]}});
    if !finalizers.is_empty() {
        patch["metadata"]["$deleteFromPrimitiveList/finalizers"] = json!(finalizers);
    }
    let key = ObjectKey::of(object);
    if writer.patch::<K, _>(&key, &Patch::Strategic(patch)).await.or_not_found()?.is_some() {
        turn::meant(format!("release {} {key}", K::kind(&())));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::{apps::v1::ReplicaSet, core::v1::Pod};
    use kube::api::ObjectMeta;

    use super::*;

    fn set(name: &str) -> ReplicaSet {
        let metadata =
            ObjectMeta { name: Some(name.into()), uid: Some(name.into()), ..ObjectMeta::default() };
        ReplicaSet { metadata, ..ReplicaSet::default() }
    }

    fn pod(name: &str, app: &str, owner: Option<&ReplicaSet>) -> Arc<Pod> {
        let metadata = ObjectMeta {
            name: Some(name.into()),
            labels: Some([("app".to_string(), app.to_string())].into()),
            owner_references: owner.map(|owner| vec![owner_reference(owner)]),
            ..ObjectMeta::default()
        };
        Arc::new(Pod { metadata, ..Pod::default() })
    }

    fn names(pods: &[Arc<Pod>]) -> Vec<String> {
        pods.iter().map(|pod| pod.name_any()).collect()
    }

    #[test]
    fn own_matching_pods_are_kept_and_orphans_adopted() {
        let (mine, other) = (set("mine"), set("other"));
        let candidates = vec![
            pod("kept", "web", Some(&mine)),
            pod("relabelled", "db", Some(&mine)),
            pod("orphan", "web", None),
            pod("stranger", "db", None),
            pod("theirs", "web", Some(&other)),
        ];
        let claims = claim(&mine, &Selector::from_iter([("app", "web")]), candidates.clone());
        assert_eq!(names(&claims.kept), ["kept"]);
        assert_eq!(names(&claims.adopt), ["orphan"]);
        assert_eq!(names(&claims.release), ["relabelled"]);

        let mut dying = mine;
        dying.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH));
        let claims = claim(&dying, &Selector::from_iter([("app", "web")]), candidates);
        assert!(claims.adopt.is_empty() && claims.release.is_empty());
    }
}
