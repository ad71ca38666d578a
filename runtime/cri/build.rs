//! Generates the messages, the client and the server from our own description of the protocol.

fn main() -> std::io::Result<()> {
    tonic_prost_build::configure()
        // Verbose answers tell what was asked for, as JSON.
        .type_attribute(".", "#[derive(serde::Serialize)]")
        .compile_protos(&["proto/runtime.v1.proto"], &["proto"])
}
