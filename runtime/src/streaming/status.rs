//! How a session's end is told to the client on the error stream.

use bytes::Bytes;
use serde_json::{Value, json};

use super::backend::BackendError;

/// How a session ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The process has exited with this code.
    Exited(i32),
    /// An attached process has exited, or the client has left it.
    Detached,
    /// The session could not be carried out; first what was tried.
    Failed(&'static str, BackendError),
}

impl Outcome {
    fn message(&self) -> Option<String> {
        match self {
            Outcome::Exited(0) | Outcome::Detached => None,
            Outcome::Exited(code) => {
                Some(format!("command terminated with non-zero exit code: exit status {code}"))
            }
            Outcome::Failed(what, error) => Some(format!("Internal error occurred: {what}: {error}")),
        }
    }

    /// From version 4 of the protocol on: always a Status.
    pub fn to_status(&self) -> Bytes {
        let details = match self {
            Outcome::Exited(code) => json!({
                "reason": "NonZeroExitCode",
                "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
            }),
            Outcome::Detached => Value::Null,
            Outcome::Failed(what, error) => json!({
                "reason": "InternalError",
                "details": {"causes": [{"message": format!("{what}: {error}")}]},
                "code": 500,
            }),
        };
        let mut status = json!({"metadata": {}, "status": "Success"});
        if let Some(message) = self.message() {
            status["status"] = "Failure".into();
            status["message"] = message.into();
            if let Value::Object(details) = details {
                for (name, value) in details {
                    status[name] = value;
                }
            }
        }
        Bytes::from(status.to_string())
    }

    /// Before version 4: a text, if something went wrong.
    pub fn to_text(&self) -> Bytes {
        self.message().unwrap_or_default().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_code_is_a_cause() {
        let status: Value = serde_json::from_slice(&Outcome::Exited(3).to_status()).unwrap();
        assert_eq!(
            status,
            json!({
                "metadata": {},
                "status": "Failure",
                "message": "command terminated with non-zero exit code: exit status 3",
                "reason": "NonZeroExitCode",
                "details": {"causes": [{"reason": "ExitCode", "message": "3"}]},
            })
        );
        assert_eq!(Outcome::Exited(3).to_text(), "command terminated with non-zero exit code: exit status 3");
    }

    #[test]
    fn success_says_no_more() {
        for outcome in [Outcome::Exited(0), Outcome::Detached] {
            let status: Value = serde_json::from_slice(&outcome.to_status()).unwrap();
            assert_eq!(status, json!({"metadata": {}, "status": "Success"}));
            assert!(outcome.to_text().is_empty());
        }
    }

    #[test]
    fn a_failure_tells_its_cause() {
        let error = BackendError::NotRunning { what: "container 42".into() };
        let outcome = Outcome::Failed("error executing command in container", error);
        let status: Value = serde_json::from_slice(&outcome.to_status()).unwrap();
        let cause = "error executing command in container: container 42 is not running";
        assert_eq!(status["message"], format!("Internal error occurred: {cause}"));
        assert_eq!(status["details"]["causes"][0]["message"], cause);
        assert_eq!((&status["reason"], &status["code"]), (&json!("InternalError"), &json!(500)));
    }
}
