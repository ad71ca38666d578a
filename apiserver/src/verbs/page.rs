//! Where a list begins and ends: pages, continue tokens, and at which revision.

use std::sync::Arc;

use api::{Kind, Status};
use base64::{
    Engine, alphabet,
    engine::{GeneralPurpose, GeneralPurposeConfig},
    prelude::BASE64_URL_SAFE_NO_PAD,
};
use serde::{Deserialize, Serialize};
use store::Revision;

use crate::{
    answer::ListMeta,
    registry::{Registry, cache::Cache, entry::Entry, key, selection::Selection},
    request::{ListOptions, VersionMatch},
};

/// Reads tokens as Go does, which does not mind bits that are left over.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(base64::engine::DecodePaddingMode::RequireNone),
);
/// How many objects are read from the store at once while looking for those that are meant.
const CHUNK: usize = 1000;

/// Why a list cannot go on, and how it can all the same; upstream's words.
const INCONSISTENT: &str = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";

/// Where a list goes on; opaque to clients.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Token {
    #[serde(default)]
    v: String,
    /// The revision of the first page, and so of all; negative: the newest, whatever the pages before showed.
    #[serde(default)]
    rv: i64,
    /// The first key that may come next, without the kind's prefix.
    #[serde(default)]
    start: String,
}

impl Token {
    /// Behind the object whose key, without the kind's prefix, is `last`.
    fn behind(rv: i64, last: &str) -> Token {
        Token { v: "meta.k8s.io/v1".into(), rv, start: format!("{last}\0") }
    }

    fn encode(&self) -> Result<String, Status> {
        serde_json::to_vec(self).map(|json| BASE64_URL_SAFE_NO_PAD.encode(json)).map_err(Status::internal)
    }

    fn decode(text: &str) -> Result<Token, Status> {
        let invalid = |why: &str| Status::bad_request(format!("invalid continue token: {why}"));
        let unreadable = |why: &str| invalid(&format!("continue key is not valid: {why}"));
        let json =
            LENIENT.decode(text.trim_end_matches('=')).map_err(|error| unreadable(&error.to_string()))?;
        let value = api::decode::json(&json).map_err(|why| unreadable(&why))?;
        let token: Token = serde_json::from_value(value).map_err(|error| unreadable(&error.to_string()))?;
        if token.v != "meta.k8s.io/v1" {
            return Err(invalid(&format!("server does not recognize this encoded version {}", token.v)));
        }
        if token.rv == 0 {
            let why = "incorrect encoded start resourceVersion (version meta.k8s.io/v1)";
            return Err(unreadable(why));
        }
        if token.start.is_empty() {
            return Err(unreadable("encoded start key empty (version meta.k8s.io/v1)"));
        }
        // Nothing that would lead out of the kind's own keys.
        let path = token.start.strip_prefix('/').unwrap_or(&token.start);
        if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(unreadable(&token.start));
        }
        Ok(token)
    }

    /// The key, without the kind's prefix, behind which the page begins.
    fn last(&self) -> &str {
        let start = self.start.strip_prefix('/').unwrap_or(&self.start);
        start.strip_suffix('\0').unwrap_or(start)
    }

    /// 410 with a token that goes on from here at the newest state.
    fn expired(&self) -> Status {
        let list_continue = Token::behind(-1, self.last()).encode().ok().map(Into::into);
        Status { list_continue, ..Status::expired(INCONSISTENT) }
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
            let token = Token::decode(token)?;
            if self.options.resource_version.is_some_and(|version| version != 0) {
                return Err(Status::bad_request(
                    "specifying resource version is not allowed when using continue",
                ));
            }
            return self.page_behind(&token).await;
        }
        match (self.options.resource_version, self.options.version_match) {
            (None, _) => self.newest(&*self.registry.fresh_cache(self.kind).await?).await,
            (Some(0), _) => self.newest(&*self.registry.cache(self.kind).await?).await,
            (Some(version), Some(VersionMatch::Exact)) => self.page_at(Revision(version), None).await,
            // A version with a limit has always meant exactly that version.
            (Some(version), None) if self.options.limit > 0 => self.page_at(Revision(version), None).await,
            (Some(version), _) => {
                let cache = self.registry.fresh_cache(self.kind).await?;
                cache.reach(Revision(version)).await?;
                self.newest(&cache).await
            }
        }
    }

    async fn newest(&self, cache: &Cache) -> Result<Page, Status> {
        let (entries, revision) = cache.list(&self.prefix());
        self.cut(self.meant(entries).await?, revision)
    }

    async fn page_behind(&self, token: &Token) -> Result<Page, Status> {
        match u64::try_from(token.rv) {
            Ok(revision) => match self.page_at(Revision(revision), Some(token.last())).await {
                Err(status) if status.reason == "Expired" => Err(token.expired()),
                page => page,
            },
            Err(_) => {
                let cache = self.registry.fresh_cache(self.kind).await?;
                let (mut entries, revision) = cache.list(&self.prefix());
                self.skip(&mut entries, token.last());
                self.cut(self.meant(entries).await?, revision)
            }
        }
    }

    fn skip(&self, entries: &mut Vec<Arc<Entry>>, last: &str) {
        let last = self.key_prefix() + last;
        let first = entries.partition_point(|entry| **entry.key() <= *last);
        entries.drain(..first);
    }

    /// A page of an earlier state. As long as nothing has changed since, the cache still has it.
    async fn page_at(&self, revision: Revision, after: Option<&str>) -> Result<Page, Status> {
        let cache = self.registry.fresh_cache(self.kind).await?;
        if revision <= cache.revision()
            && cache.changes_after(revision, 1).is_ok_and(|(changes, _)| changes.is_empty())
        {
            let (mut entries, _) = cache.list(&self.prefix());
            if let Some(after) = after {
                self.skip(&mut entries, after);
            }
            // Only if nothing changed between the two looks at the cache.
            if cache.changes_after(revision, 1).is_ok_and(|(changes, _)| changes.is_empty()) {
                return self.cut(self.meant(entries).await?, revision);
            }
        }
        self.stored_page(revision, after).await
    }

    async fn stored_page(&self, revision: Revision, after: Option<&str>) -> Result<Page, Status> {
        let prefix = self.prefix();
        let limit = self.options.limit;
        let chunk = if limit > 0 && self.selection.is_everything() {
            CHUNK.min(limit.saturating_add(1))
        } else {
            CHUNK
        };
        let mut after = after.map(|after| self.key_prefix() + after);
        let mut found = Vec::new();
        let mut count = None;
        loop {
            let range = self.registry.range_at(self.kind, &prefix, after.as_deref(), Some(revision), chunk);
            let (entries, range) = range.await?;
            count.get_or_insert(range.count);
            after = entries.last().map(|entry| entry.key().to_string());
            found.extend(self.meant(entries).await?);
            let is_enough = limit > 0 && found.len() > limit;
            if is_enough || !range.more || after.is_none() {
                let mut page = self.cut(found, revision)?;
                // Not all that are left have been read.
                let left = count.unwrap_or_default().saturating_sub(limit as u64);
                page.meta.remaining = page.meta.remaining.map(|_| left);
                return Ok(page);
            }
        }
    }

    /// Those that the selectors mean; where they must be converted to be known, no more than tell that the page is full.
    async fn meant(&self, mut entries: Vec<Arc<Entry>>) -> Result<Vec<Arc<Entry>>, Status> {
        if self.selection.needs_conversion() {
            return self.meant_when_converted(entries).await;
        }
        if !self.selection.is_everything() {
            entries.retain(|entry| self.selection.matches(entry));
        }
        Ok(entries)
    }

    /// Converts a page's worth at first, then more and more: a selector that means few takes no more calls for it.
    async fn meant_when_converted(&self, entries: Vec<Arc<Entry>>) -> Result<Vec<Arc<Entry>>, Status> {
        let full = match self.options.limit {
            0 => usize::MAX,
            limit => limit.saturating_add(1),
        };
        let mut chunk = full;
        let mut rest = entries.into_iter().filter(|entry| self.selection.may_match(entry));
        let mut meant = Vec::new();
        while meant.len() < full {
            let next: Vec<_> = rest.by_ref().take(chunk).collect();
            if next.is_empty() {
                break;
            }
            let shown = self.registry.shown(self.kind, next).await?;
            meant.extend(shown.into_iter().filter(|entry| self.selection.matches(entry)));
            chunk = chunk.saturating_mul(2).min(CHUNK);
        }
        Ok(meant)
    }

    /// Applies the limit.
    fn cut(&self, mut entries: Vec<Arc<Entry>>, revision: Revision) -> Result<Page, Status> {
        let mut meta = ListMeta { revision, ..ListMeta::default() };
        let limit = self.options.limit;
        if limit > 0 && entries.len() > limit {
            if self.selection.is_everything() {
                meta.remaining = Some((entries.len() - limit) as u64);
            }
            entries.truncate(limit);
            let last = entries.last().map_or("", |entry| &entry.key()[self.key_prefix().len()..]);
            let revision = i64::try_from(revision.0).map_err(Status::internal)?;
            meta.continue_token = Some(Token::behind(revision, last).encode()?);
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
        let text = Token::behind(7, "default/web").encode().unwrap();
        let token = Token::decode(&text).unwrap();
        assert_eq!((token.rv, token.last()), (7, "default/web"));
        let json = |json: &str| BASE64_URL_SAFE_NO_PAD.encode(json);
        for (text, message) in [
            (
                "bad".to_string(),
                "continue key is not valid: invalid character 'm' looking for beginning of value",
            ),
            (json("{}"), "server does not recognize this encoded version "),
            (json(r#"{"v":"x","rv":1,"start":"a"}"#), "server does not recognize this encoded version x"),
            (
                json(r#"{"v":"meta.k8s.io/v1","rv":0,"start":"a"}"#),
                "continue key is not valid: incorrect encoded start resourceVersion (version meta.k8s.io/v1)",
            ),
            (
                json(r#"{"v":"meta.k8s.io/v1","rv":1}"#),
                "continue key is not valid: encoded start key empty (version meta.k8s.io/v1)",
            ),
            (
                json(r#"{"v":"meta.k8s.io/v1","rv":1,"start":"../nodes/x"}"#),
                "continue key is not valid: ../nodes/x",
            ),
        ] {
            let status = Token::decode(&text).unwrap_err();
            assert_eq!(status.code, 400, "{text}");
            let expected = format!("invalid continue token: {message}");
            assert!(status.message.starts_with(&expected), "{}", status.message);
        }
    }

    #[test]
    fn a_token_that_has_expired_comes_with_one_that_has_not() {
        let status = Token::behind(7, "default/web").expired();
        assert_eq!((status.code, status.reason), (410, "Expired"));
        let next = Token::decode(&status.list_continue.unwrap()).unwrap();
        assert_eq!((next.rv, next.last()), (-1, "default/web"));
    }
}
