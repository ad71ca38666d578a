//! What clients send and the API server reads, as targets for a fuzzer. None may panic, hang or grow without end, and
//! each holds what it reads against laws of its own, which are told with it.

mod bodies;
mod expressions;
mod patches;
mod texts;

#[cfg(test)]
#[path = "../../../fuzz/driver.rs"]
mod driver;

pub use bodies::{json, protobuf, yaml};
pub use expressions::cel;
pub use patches::patch;
pub use texts::{scalar, selector};

use crate::schema::{self, Schema};

fn pod() -> &'static Schema {
    schema::by_name("io.k8s.api.core.v1.Pod").expect("pods have a schema")
}

#[cfg(test)]
mod tests {
    use super::driver;

    #[test]
    fn every_json_body_is_read_or_refused() {
        driver::run("json", super::json);
    }

    #[test]
    fn every_yaml_body_is_read_or_refused() {
        driver::run("yaml", super::yaml);
    }

    #[test]
    fn every_patch_is_applied_or_refused() {
        driver::run("patch", super::patch);
    }

    #[test]
    fn every_selector_is_read_or_refused() {
        driver::run("selector", super::selector);
    }

    #[test]
    fn every_scalar_is_read_or_refused() {
        driver::run("scalar", super::scalar);
    }

    #[test]
    fn every_protobuf_body_is_read_or_refused() {
        driver::run("protobuf", super::protobuf);
    }

    #[test]
    fn every_expression_is_run_or_refused() {
        driver::run("cel", super::cel);
    }
}
