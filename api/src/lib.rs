//! The Kubernetes vocabulary: what kinds there are, what their objects look like, which are valid.
//!
//! Pure: no I/O, no clock, no randomness; `now` and names are arguments. Everything that the API
//! server needs to know about a kind is a row in [`kinds`], beside it a [`Strategy`] for what is special.
//!
//! A write passes through the modules in this order: [`decode`] reads the body against the [`schema`],
//! [`patch`] makes the new object out of the old one, the kind's [`Strategy`] sets defaults, [`meta`] and the
//! strategy validate, in terms of [`name`], [`network`], [`quantity`] and [`selector`]. What is wrong is a [`FieldError`]
//! or a [`Status`]. [`table`] and [`openapi`] tell people and clients what there is. [`scan`] looks at
//! JSON that nobody needs to build.

pub mod cel;
pub mod crd;
pub mod decode;
pub mod field;
pub mod fields;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
pub mod kind;
pub mod kinds;
pub mod meta;
pub mod name;
pub mod network;
pub mod object;
pub mod openapi;
pub mod patch;
pub mod policy;
pub mod protobuf;
pub mod quantity;
pub mod scan;
pub mod schema;
pub mod selector;
pub mod status;
pub mod strategies;
pub mod sysctl;
pub mod table;
pub mod time;

pub use field::{FieldError, FieldErrorKind};
pub use kind::{Kind, Scale, Scope, Strategy, Verbs};
pub use object::{Object, items};
pub use quantity::Quantity;
pub use status::Status;
pub use strategies::resources::is_extended_resource;
