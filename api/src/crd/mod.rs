//! CustomResourceDefinitions: what a definition may say, and what its objects are held to.
//!
//! [`Definition`] turns a CustomResourceDefinition into rows of the table of kinds, one a version. What is special
//! about a custom resource is data: its [`Props`] drive pruning, defaults, validation and rules, and are told to
//! everything generic (strict decoding, server-side apply, OpenAPI) as a [`crate::schema::Schema`].

mod columns;
mod definition;
mod formats;
mod names;
mod paths;
mod props;
mod prune;
mod publish;
mod rules;
mod strategy;
mod structural;
mod tree;
mod validate;
mod versions;

pub use columns::CustomColumn;
pub use definition::{Conversion, Definition, Version};
pub(crate) use formats::knows_format;
pub(crate) use names::{APPROVAL, is_protected};
pub use names::{Conditions, conditions, set_condition};
pub use props::{Additional, Items, Pattern, Props, Rule};
pub use publish::definition as published;
pub use rules::validate_schema_rules;
pub use structural::{Exemptions, validate_definition_schema, validate_pattern};
pub use versions::by_priority;

/// The finalizer that holds a definition until its objects are gone.
pub const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// Whether a text has a format; unknown formats mean nothing.
pub(crate) fn has_format(format: &str, text: &str) -> bool {
    formats::check(format, text) != Some(false)
}

pub(crate) use paths::Path;
pub(crate) use rules::resource_type;
