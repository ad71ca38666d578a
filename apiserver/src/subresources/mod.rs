//! Subresources that are more than a part of their object: a view of it (`scale`), or an act (`binding`, `eviction`).

pub(crate) mod binding;
pub(crate) mod eviction;
pub(crate) mod scale;
