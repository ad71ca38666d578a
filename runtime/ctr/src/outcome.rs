//! How a command ends when it cannot do what it was asked.

/// An error and the exit code that it means.
#[derive(Debug)]
pub struct Failure {
    /// Docker's: 125 when we could not, 126 when the program could not be run, 127 when it is not there. Zero
    /// until the command says which.
    pub code: u8,
    /// What went wrong.
    pub error: anyhow::Error,
}

/// Ours was the failure, not the container's.
pub const OURS: u8 = 125;

impl Failure {
    /// A failure with this exit code.
    pub fn new(code: u8, error: anyhow::Error) -> Failure {
        Failure { code, error }
    }

    /// A program that could not be started, by the words of the runtime.
    pub fn of_start(message: &str) -> Failure {
        Failure::new(start_code(message), anyhow::anyhow!("{message}"))
    }

    /// The same with a code, where it has none yet.
    pub fn or_code(self, code: u8) -> Failure {
        Failure { code: if self.code == 0 { code } else { self.code }, ..self }
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure { code: 0, error: error.into() }
    }
}

/// As a shell tells them apart: there is no such program, it may not be run, or we could not come that far.
pub fn start_code(message: &str) -> u8 {
    if message.contains("executable file not found") || message.contains(": no such file or directory") {
        return 127;
    }
    let cannot_be_run = ["permission denied", "exec format error", "is a directory", "not a directory"];
    if message.contains("exec: ") && cannot_be_run.iter().any(|words| message.contains(words)) {
        126
    } else {
        OURS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_a_shell() {
        let code = |words: &str| start_code(&format!("unable to start container process: {words}"));
        assert_eq!(code(r#"exec: "nope": executable file not found in $PATH"#), 127);
        assert_eq!(code(r#"exec: "/no/such": stat /no/such: no such file or directory"#), 127);
        assert_eq!(code(r#"exec: "/etc/passwd": permission denied"#), 126);
        assert_eq!(code("failed to mount /proc: operation not permitted"), 125);
    }
}
