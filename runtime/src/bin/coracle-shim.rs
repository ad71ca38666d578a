//! The shim alone, for the tests of this crate; everywhere else it is `coracle shim`.

fn main() -> std::process::ExitCode {
    runtime::shim::main()
}
