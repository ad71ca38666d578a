//! Where a list begins and ends: pages, continue tokens, and at which revision.

use std::sync::Arc;

use api::{Kind, Status};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use store::Revision;

use crate::{
    answer::ListMeta,
    registry::{Registry, cache::Cache, entry::Entry, key, selection::Selection},
    request::{ListOptions, VersionMatch},
};

/// How many objects are read from the store at once while looking for those that are meant.
const CHUNK: usize = 1000;

/// Where a list goes on; opaque to clients.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Token {
    v: String,
    /// The revision of the first page, and so of all.
    rv: u64,
    /// The last key of the page before, without the kind's prefix.
    start: String,
}

impl Token {
    fn encode(rv: Revision, start: &str) -> Result<String, Status> {
        let token = Token { v: "meta.k8s.io/v1".into(), rv: rv.0, start: start.into() };
        serde_json::to_vec(&token).map(|json| BASE64_URL_SAFE_NO_PAD.encode(json)).map_err(Status::internal)
    }

    fn decode(text: &str) -> Result<Token, Status> {
        let invalid = || Status::bad_request("continue key is not valid");
        let json = BASE64_URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|_| invalid())?;
        let token: Token = serde_json::from_slice(&json).map_err(|_| invalid())?;
        if token.v != "meta.k8s.io/v1" {
            return Err(invalid());
        }
        if token.rv == 0 || token.start.split('/').any(|part| part == "..") {
            return Err(invalid());
        }
        Ok(token)
    }
}

/// A page of objects.
pub(super) struct Page {
    pub(super) entries: Vec<Arc<Entry>>,
    pub(super) meta: ListMeta,
}

/// What is listed.
pub(super) struct Listing<'a> {
    pub(super) registry: &'a Registry,
    pub(super) kind: &'static Kind,
    pub(super) namespace: &'a str,
    pub(super) selection: &'a Selection,
    pub(super) options: &'a ListOptions,
}

impl Listing<'_> {
    /// The page that the options ask for.
    pub(super) async fn page(&self) -> Result<Page, Status> {
        if let Some(token) = &self.options.continue_token {
            if self.options.resource_version.is_some_and(|version| version != 0) {
                return Err(Status::bad_request(
                    "specifying resource version is not allowed when using continue",
                ));
            }
            let token = Token::decode(token)?;
            return self.page_at(Revision(token.rv), Some(&token.start)).await;
        }
        match (self.options.resource_version, self.options.version_match) {
            (None, _) => Ok(self.newest(&*self.registry.fresh_cache(self.kind).await?)?),
            (Some(0), _) => Ok(self.newest(&*self.registry.cache(self.kind).await?)?),
            (Some(version), Some(VersionMatch::Exact)) => self.page_at(Revision(version), None).await,
            // A version with a limit has always meant exactly that version.
            (Some(version), None) if self.options.limit > 0 => self.page_at(Revision(version), None).await,
            (Some(version), _) => {
                let cache = self.registry.fresh_cache(self.kind).await?;
                cache.reach(Revision(version)).await?;
                self.newest(&cache)
            }
        }
    }

    fn newest(&self, cache: &Cache) -> Result<Page, Status> {
        let (entries, revision) = cache.list(&self.prefix());
        self.cut(entries, revision)
    }

    /// A page of an earlier state. As long as nothing has changed since, the cache still has it.
    async fn page_at(&self, revision: Revision, after: Option<&str>) -> Result<Page, Status> {
        let cache = self.registry.fresh_cache(self.kind).await?;
        if revision <= cache.revision()
            && cache.changes_after(revision, 1).is_ok_and(|(changes, _)| changes.is_empty())
        {
            let (mut entries, _) = cache.list(&self.prefix());
            if let Some(after) = after.map(|after| self.key_prefix() + after) {
                entries.retain(|entry| **entry.key() > *after);
            }
            // Only if nothing changed between the two looks at the cache.
            if cache.changes_after(revision, 1).is_ok_and(|(changes, _)| changes.is_empty()) {
                return self.cut(entries, revision);
            }
        }
        self.stored_page(revision, after).await
    }

    async fn stored_page(&self, revision: Revision, after: Option<&str>) -> Result<Page, Status> {
        let prefix = self.prefix();
        let mut after = after.map(|after| self.key_prefix() + after);
        let mut found = Vec::new();
        loop {
            let chunk = self.registry.range_at(self.kind, &prefix, after.as_deref(), Some(revision), CHUNK);
            let (entries, range) = chunk.await?;
            after = entries.last().map(|entry| entry.key().to_string());
            found.extend(entries.into_iter().filter(|entry| self.selection.matches(entry)));
            let is_enough = self.options.limit > 0 && found.len() > self.options.limit;
            if !range.more || after.is_none() {
                return self.cut(found, revision);
            }
            if is_enough {
                // How many are left is not known without reading them all.
                let mut page = self.cut(found, revision)?;
                page.meta.remaining = None;
                return Ok(page);
            }
        }
    }

    /// Applies selectors and limit.
    fn cut(&self, mut entries: Vec<Arc<Entry>>, revision: Revision) -> Result<Page, Status> {
        if !self.selection.is_everything() {
            entries.retain(|entry| self.selection.matches(entry));
        }
        let mut meta = ListMeta { revision, ..ListMeta::default() };
        let limit = self.options.limit;
        if limit > 0 && entries.len() > limit {
            if self.selection.is_everything() {
                meta.remaining = Some((entries.len() - limit) as u64);
            }
            entries.truncate(limit);
            let last = entries.last().map(|entry| entry.key()[self.key_prefix().len()..].to_string());
            meta.continue_token = Some(Token::encode(revision, &last.unwrap_or_default())?);
        }
        Ok(Page { entries, meta })
    }

    fn prefix(&self) -> String {
        key::prefix(self.kind, self.namespace)
    }

    fn key_prefix(&self) -> String {
        key::kind_prefix(self.kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_the_round_trip_and_nonsense_is_refused() {
        let text = Token::encode(Revision(7), "default/web").unwrap();
        let token = Token::decode(&text).unwrap();
        assert_eq!((token.rv, token.start.as_str()), (7, "default/web"));
        for text in ["", "abc", "e30", &BASE64_URL_SAFE_NO_PAD.encode(r#"{"v":"x","rv":1,"start":"a"}"#)] {
            assert_eq!(Token::decode(text).unwrap_err().code, 400, "{text}");
        }
    }
}
