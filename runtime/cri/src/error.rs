//! Why a call was refused: a gRPC code that callers act on, and a sentence for people.

pub use tonic::Code;

/// The refusal of a CRI call.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What callers act on; `NotFound` above all.
    pub code: Code,
    /// What people read in Events and logs.
    pub message: String,
}

impl Error {
    /// A refusal with any code.
    pub fn new(code: Code, message: impl Into<String>) -> Error {
        Error { code, message: message.into() }
    }

    /// The sandbox, container or image is not there.
    pub fn not_found(message: impl Into<String>) -> Error {
        Error::new(Code::NotFound, message)
    }

    /// The request makes no sense, whatever the state.
    pub fn invalid_argument(message: impl Into<String>) -> Error {
        Error::new(Code::InvalidArgument, message)
    }

    /// The request does not fit the state of the object.
    pub fn failed_precondition(message: impl Into<String>) -> Error {
        Error::new(Code::FailedPrecondition, message)
    }

    /// Whatever else went wrong; containerd and CRI-O use this code for it.
    pub fn unknown(message: impl Into<String>) -> Error {
        Error::new(Code::Unknown, message)
    }

    /// This runtime does not have the call, named as its method here.
    pub fn unimplemented(call: &str) -> Error {
        let capital = |word: &str| word[..1].to_uppercase() + &word[1..];
        let method: String = call.split('_').filter(|word| !word.is_empty()).map(capital).collect();
        Error::new(Code::Unimplemented, format!("unknown method {method} for service runtime.v1"))
    }

    /// Whether the object named in the call does not exist.
    pub fn is_not_found(&self) -> bool {
        self.code == Code::NotFound
    }
}

impl From<tonic::Status> for Error {
    fn from(status: tonic::Status) -> Error {
        Error::new(status.code(), status.message())
    }
}

impl From<Error> for tonic::Status {
    fn from(error: Error) -> tonic::Status {
        tonic::Status::new(error.code, error.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_call_is_named_as_on_the_wire() {
        let error = Error::unimplemented("checkpoint_container");
        assert_eq!(error.message, "unknown method CheckpointContainer for service runtime.v1");
    }
}
