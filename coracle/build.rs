//! How the binary is linked.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // At a fixed address. One that can be anywhere has to be adjusted to its place at every start, and each of its
    // processes then has a copy of its own of all that was adjusted: 4.5 MB for every pod's shim, and a millisecond.
    if std::env::var("CARGO_CFG_TARGET_FEATURE").is_ok_and(|features| features.contains("crt-static")) {
        println!("cargo:rustc-link-arg-bins=-static");
        println!("cargo:rustc-link-arg-bins=-no-pie");
    }
}
