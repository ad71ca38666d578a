//! Writes of a controller: any kind, any scope, noted in the turn.
//!
//! Beside saving the two ways of addressing objects (with and without namespace), this is where a turn learns
//! what it did: each write becomes an action in the flight recorder and something that the cache must have seen
//! before the same object has its next turn.

use kube::{
    Client,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy},
    core::Request,
};
use serde::Serialize;

use crate::{
    ApiObject, ClientError, Informers, ObjectKey,
    cache::revision_of,
    turn::{self, Unseen, Write},
};

/// Makes a controller's writes.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    informers: Informers,
    /// Who writes, for managedFields.
    manager: &'static str,
}

impl Writer {
    /// A writer in the name of `manager` whose writes the given caches will see.
    pub fn new(client: Client, informers: Informers, manager: &'static str) -> Writer {
        Writer { client, informers, manager }
    }

    /// The client underneath.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Creates an object; returns it as stored.
    pub async fn create<K: ApiObject>(&self, object: &K) -> Result<K, ClientError> {
        let path = K::url_path(&(), object.meta().namespace.as_deref());
        let request =
            Request::new(path).create(&self.post(), body(object)?).map_err(ClientError::BuildRequest)?;
        let stored = self.client.request(request).await?;
        self.wrote("create", &stored, "");
        Ok(stored)
    }

    /// Replaces an object, on condition that its resourceVersion is still the same.
    pub async fn replace<K: ApiObject>(&self, object: &K) -> Result<K, ClientError> {
        let key = ObjectKey::of(object);
        let request = resource::<K>(&key)
            .replace(&key.name, &self.post(), body(object)?)
            .map_err(ClientError::BuildRequest)?;
        let stored = self.client.request(request).await?;
        self.wrote("update", &stored, "");
        Ok(stored)
    }

    /// Replaces an object's status, on condition that its resourceVersion is still the same.
    pub async fn replace_status<K: ApiObject>(&self, object: &K) -> Result<K, ClientError> {
        let key = ObjectKey::of(object);
        let request = resource::<K>(&key)
            .replace_subresource("status", &key.name, &self.post(), body(object)?)
            .map_err(ClientError::BuildRequest)?;
        let stored = self.client.request(request).await?;
        self.wrote("update status of", &stored, "");
        Ok(stored)
    }

    /// Changes what a JSON merge patch says.
    pub async fn merge<K: ApiObject>(
        &self,
        key: &ObjectKey,
        patch: impl Serialize,
    ) -> Result<K, ClientError> {
        self.patch(key, &Patch::Merge(patch)).await
    }

    /// Changes what any patch says.
    pub async fn patch<K: ApiObject, P: Serialize>(
        &self,
        key: &ObjectKey,
        patch: &Patch<P>,
    ) -> Result<K, ClientError> {
        let request = resource::<K>(key)
            .patch(&key.name, &self.patching(), patch)
            .map_err(ClientError::BuildRequest)?;
        let stored = self.client.request(request).await?;
        self.wrote("patch", &stored, "");
        Ok(stored)
    }

    /// Changes a subresource, such as `status`, as any patch says.
    pub async fn patch_subresource<K: ApiObject, P: Serialize>(
        &self,
        subresource: &str,
        key: &ObjectKey,
        patch: &Patch<P>,
    ) -> Result<K, ClientError> {
        let request = resource::<K>(key)
            .patch_subresource(subresource, &key.name, &self.patching(), patch)
            .map_err(ClientError::BuildRequest)?;
        let stored = self.client.request(request).await?;
        self.wrote("patch", &stored, subresource);
        Ok(stored)
    }

    /// Deletes an object on condition that it is still the one with this uid. That it is gone already is success.
    pub async fn delete<K: ApiObject>(&self, object: &K) -> Result<(), ClientError> {
        self.delete_with(object, DeleteParams::default()).await
    }

    /// The same; its dependents are left to the collector in the background.
    pub async fn delete_in_background<K: ApiObject>(&self, object: &K) -> Result<(), ClientError> {
        let propagation_policy = Some(PropagationPolicy::Background);
        self.delete_with(object, DeleteParams { propagation_policy, ..DeleteParams::default() }).await
    }

    /// The same with options of one's own; the uid condition is added where there is none.
    pub async fn delete_with<K: ApiObject>(
        &self,
        object: &K,
        mut how: DeleteParams,
    ) -> Result<(), ClientError> {
        let key = ObjectKey::of(object);
        let uid = object.meta().uid.clone();
        how.preconditions.get_or_insert(Preconditions { uid: uid.clone(), resource_version: None });
        let request = resource::<K>(&key).delete(&key.name, &how).map_err(ClientError::BuildRequest)?;
        // The answer is the object, or a Status when it is gone: neither tells us more than we know.
        match self.client.request_text(request).await {
            Ok(_) => {}
            Err(error) if is_not_found(&error) => return Ok(()),
            Err(error) => return Err(error),
        }
        turn::acted(format!("delete {} {key}", K::kind(&())));
        if let Some(cache) = self.informers.peek::<K>() {
            turn::expect(Unseen::new(cache, Write::Deleted { key, uid }));
        }
        Ok(())
    }

    fn wrote<K: ApiObject>(&self, verb: &str, stored: &K, subresource: &str) {
        let of = if subresource.is_empty() { "" } else { " of " };
        turn::acted(format!("{verb} {subresource}{of}{} {}", K::kind(&()), ObjectKey::of(stored)));
        if let Some(cache) = self.informers.peek::<K>() {
            turn::expect(Unseen::new(cache, Write::Stored(revision_of(stored))));
        }
    }

    fn post(&self) -> PostParams {
        PostParams { field_manager: Some(self.manager.into()), ..PostParams::default() }
    }

    fn patching(&self) -> PatchParams {
        PatchParams { field_manager: Some(self.manager.into()), ..PatchParams::default() }
    }
}

/// Answers that are no failure to everybody.
pub trait Tolerate<T> {
    /// `None` where the object does not exist.
    fn or_not_found(self) -> Result<Option<T>, ClientError>;
    /// `None` where the object exists already.
    fn or_already_exists(self) -> Result<Option<T>, ClientError>;
    /// `None` where somebody else wrote first; their write brings the next turn.
    fn or_conflict(self) -> Result<Option<T>, ClientError>;
}

impl<T> Tolerate<T> for Result<T, ClientError> {
    fn or_not_found(self) -> Result<Option<T>, ClientError> {
        self.map(Some).or_else(|error| if is_not_found(&error) { Ok(None) } else { Err(error) })
    }

    fn or_already_exists(self) -> Result<Option<T>, ClientError> {
        self.map(Some).or_else(|error| if is_already_exists(&error) { Ok(None) } else { Err(error) })
    }

    fn or_conflict(self) -> Result<Option<T>, ClientError> {
        self.map(Some).or_else(|error| if is_conflict(&error) { Ok(None) } else { Err(error) })
    }
}

/// Whether the server says that there is no such object.
pub fn is_not_found(error: &ClientError) -> bool {
    matches!(error, ClientError::Api(status) if status.is_not_found())
}

/// Whether the server says that the object exists.
pub fn is_already_exists(error: &ClientError) -> bool {
    matches!(error, ClientError::Api(status) if status.is_already_exists())
}

/// Whether the server says that somebody else wrote first, or that a later object has taken the name: a uid that is
/// no longer right is a conflict in a PUT or a deletion, and the change of what cannot change in a PATCH.
pub fn is_conflict(error: &ClientError) -> bool {
    matches!(error, ClientError::Api(status) if status.is_conflict() || changes_uid(status))
}

fn changes_uid(status: &kube::error::Status) -> bool {
    let mut causes = status.details.iter().flat_map(|details| &details.causes);
    status.code == 422 && causes.any(|cause| cause.field == "metadata.uid")
}

/// What the server said, without the wrapping; the text that upstream puts in events and conditions.
pub fn message(error: &ClientError) -> String {
    match error {
        ClientError::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

fn resource<K: ApiObject>(key: &ObjectKey) -> Request {
    Request::new(K::url_path(&(), key.namespace()))
}

fn body<K: Serialize>(object: &K) -> Result<Vec<u8>, ClientError> {
    serde_json::to_vec(object).map_err(ClientError::SerdeError)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn another_object_of_the_same_name_is_a_conflict() {
        let refused = |code: u16, reason: &str, field: &str| {
            let causes =
                json!([{"reason": "FieldValueInvalid", "message": "field is immutable", "field": field}]);
            let status = json!({"code": code, "reason": reason, "details": {"causes": causes}});
            is_conflict(&ClientError::Api(serde_json::from_value(status).unwrap()))
        };
        assert!(refused(409, "Conflict", ""));
        assert!(refused(422, "Invalid", "metadata.uid"));
        assert!(!refused(422, "Invalid", "spec.replicas"));
        assert!(!refused(404, "NotFound", "metadata.uid"));
    }
}
