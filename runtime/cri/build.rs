//! Generates the messages, the client and the server from our own description of the protocol.

fn main() -> std::io::Result<()> {
    tonic_prost_build::configure().compile_protos(&["proto/runtime.v1.proto"], &["proto"])
}
