//! Every way in which a command can fail: a kind that decides the exit code, one sentence, and what to do next.

use serde_json::json;
use std::io::{self, Write};
use std::process::ExitCode;
use wire::WireError;
use wire::control::{ControlError, ErrorKind};

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What kind of failure; each has an exit code of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Anything that has no kind of its own.
    Failed,
    /// The command makes no sense as it was written.
    Usage,
    /// There is no such thing.
    NotFound,
    /// There is such a thing already, or something else stands in the way.
    Conflict,
    /// The system or the server says no to this user.
    Permission,
    /// `borgcubed` does not answer.
    Unreachable,
    /// The job that was waited for has failed.
    JobFailed,
    /// The job that was waited for was cancelled.
    JobCancelled,
    /// A person pressed Ctrl-C.
    Interrupted,
    /// Nobody reads our output any more: no failure at all.
    BrokenPipe,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 10] = [
        Kind::Failed,
        Kind::Usage,
        Kind::NotFound,
        Kind::Conflict,
        Kind::Permission,
        Kind::Unreachable,
        Kind::JobFailed,
        Kind::JobCancelled,
        Kind::Interrupted,
        Kind::BrokenPipe,
    ];

    /// The exit code. Stable: scripts compare it.
    pub fn code(self) -> u8 {
        match self {
            Kind::BrokenPipe => 0,
            Kind::Failed => 1,
            Kind::Usage => 2,
            Kind::NotFound => 3,
            Kind::Conflict => 4,
            Kind::Permission => 5,
            Kind::Unreachable => 6,
            Kind::JobFailed => 10,
            Kind::JobCancelled => 11,
            Kind::Interrupted => 130,
        }
    }

    /// The word in JSON. Stable.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Failed => "failed",
            Kind::Usage => "usage",
            Kind::NotFound => "not-found",
            Kind::Conflict => "conflict",
            Kind::Permission => "permission",
            Kind::Unreachable => "unreachable",
            Kind::JobFailed => "job-failed",
            Kind::JobCancelled => "job-cancelled",
            Kind::Interrupted => "interrupted",
            Kind::BrokenPipe => "broken-pipe",
        }
    }
}

/// What `borgcube --help` says about exit codes.
pub const EXIT_CODES: &str = "\
Exit codes:
    0  success
    1  failed
    2  usage: the command makes no sense as written
    3  not found
    4  conflict: exists already, or something else stands in the way
    5  permission denied
    6  borgcubed is not reachable
    7  borgcube diff: the server differs from the file
   10  the job that was waited for has failed
   11  the job that was waited for was cancelled
  130  interrupted by Ctrl-C; a job that was waited for goes on";

/// A failure, as a person sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    kind: Kind,
    message: String,
    hints: Vec<String>,
}

impl Error {
    /// A failure of this kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> Error {
        Error { kind, message: message.into(), hints: vec![] }
    }

    /// [`Kind::Failed`].
    pub fn failed(message: impl Into<String>) -> Error {
        Error::new(Kind::Failed, message)
    }

    /// [`Kind::Usage`].
    pub fn usage(message: impl Into<String>) -> Error {
        Error::new(Kind::Usage, message)
    }

    /// [`Kind::NotFound`].
    pub fn not_found(message: impl Into<String>) -> Error {
        Error::new(Kind::NotFound, message)
    }

    /// [`Kind::Conflict`].
    pub fn conflict(message: impl Into<String>) -> Error {
        Error::new(Kind::Conflict, message)
    }

    /// With one more sentence about what to do next.
    pub fn hint(mut self, hint: impl Into<String>) -> Error {
        self.hints.push(hint.into());
        self
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The sentence.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do next.
    pub fn hints(&self) -> &[String] {
        &self.hints
    }

    /// As people read it.
    pub fn to_text(&self) -> String {
        let mut text = format!("borgcube: {}\n", self.message);
        for hint in &self.hints {
            text.push_str(&format!("  {hint}\n"));
        }
        text
    }

    /// As programs read it.
    pub fn to_json(&self) -> String {
        let error = json!({"kind": self.kind.word(), "code": self.kind.code(), "message": self.message, "hint": self.hints.join(" ")});
        format!("{}\n", json!({ "error": error }))
    }

    /// Writes it to standard error and gives the exit code.
    pub fn report(&self, json: bool) -> ExitCode {
        if self.kind != Kind::BrokenPipe {
            let text = if json { self.to_json() } else { self.to_text() };
            // When standard error is gone, too, the exit code still tells.
            let _ = io::stderr().write_all(text.as_bytes());
        }
        ExitCode::from(self.kind.code())
    }
}

impl From<ControlError> for Error {
    fn from(error: ControlError) -> Error {
        let kind = match error.kind {
            ErrorKind::NotFound => Kind::NotFound,
            ErrorKind::AlreadyExists | ErrorKind::Conflict => Kind::Conflict,
            ErrorKind::InvalidArgument => Kind::Usage,
            ErrorKind::PermissionDenied | ErrorKind::Unauthenticated => Kind::Permission,
            ErrorKind::Stopping => Kind::Unreachable,
            ErrorKind::Internal => Kind::Failed,
        };
        Error::new(kind, crate::output::shown(&error.message))
    }
}

impl From<WireError> for Error {
    fn from(error: WireError) -> Error {
        let kind = match error {
            WireError::Closed | WireError::Io(_) => Kind::Unreachable,
            WireError::TooLarge { .. } | WireError::Malformed(_) => Kind::Failed,
        };
        Error::new(kind, format!("talking to borgcubed failed: {error}"))
    }
}

impl From<unix::Error> for Error {
    fn from(error: unix::Error) -> Error {
        let kind = match error.io_kind() {
            Some(io::ErrorKind::PermissionDenied) => Kind::Permission,
            Some(io::ErrorKind::NotFound) => Kind::NotFound,
            _ if matches!(error, unix::Error::Interrupted) => Kind::Interrupted,
            _ => Kind::Failed,
        };
        Error::new(kind, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exit_code_is_in_the_help() {
        for kind in Kind::ALL {
            assert!(EXIT_CODES.lines().any(|l| l.trim_start().starts_with(&format!("{}  ", kind.code()))), "{kind:?}");
        }
    }

    #[test]
    fn texts() {
        let error = Error::not_found("there is no client x").hint("See borgcube client list.");
        assert_eq!(error.to_text(), "borgcube: there is no client x\n  See borgcube client list.\n");
        let json: serde_json::Value = serde_json::from_str(&error.to_json()).unwrap();
        let want =
            json!({"error": {"kind": "not-found", "code": 3, "message": "there is no client x", "hint": "See borgcube client list."}});
        assert_eq!(json, want);
    }

    #[test]
    fn what_the_server_says_has_its_exit_code() {
        let code = |kind| Error::from(ControlError::new(kind, "x")).kind().code();
        assert_eq!(code(ErrorKind::NotFound), 3);
        assert_eq!(code(ErrorKind::AlreadyExists), 4);
        assert_eq!(code(ErrorKind::Conflict), 4);
        assert_eq!(code(ErrorKind::InvalidArgument), 2);
        assert_eq!(code(ErrorKind::PermissionDenied), 5);
        assert_eq!(code(ErrorKind::Stopping), 6);
        assert_eq!(code(ErrorKind::Internal), 1);
    }
}
