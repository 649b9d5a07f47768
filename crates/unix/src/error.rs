//! What can go wrong when touching the machine.

use std::io;
use std::path::PathBuf;

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why something on the machine did not work. Every message says what was tried.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused.
    #[error("{doing}: {cause}")]
    Io {
        /// What was tried, as the beginning of a sentence ("cannot open /x").
        doing: String,
        /// The system's answer.
        cause: io::Error,
    },
    /// Another process answers on this socket.
    #[error("{} is in use: another process answers on it", .0.display())]
    SocketInUse(PathBuf),
    /// Something that is not a socket is where the socket should be.
    #[error("{} exists and is not a socket; move it away", .0.display())]
    NotASocket(PathBuf),
    /// An environment variable does not mean anything we understand.
    #[error("the environment variable {name} is not usable: {why}")]
    Environment {
        /// Its name.
        name: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A message on a socket carried descriptors that nobody expected, or too many.
    #[error("the peer sent more descriptors than the {max} expected")]
    TooManyDescriptors {
        /// The largest number the receiver allowed.
        max: usize,
    },
    /// A credential file is not protected as a secret has to be.
    #[error("the credential {} is not safe to use: {why}", path.display())]
    Credential {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The caller asked for something that cannot be.
    #[error("{0}")]
    Invalid(String),
    /// A signal ended the wait for input.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// The system refused `doing` ("cannot open /x").
    pub(crate) fn io(doing: impl Into<String>, cause: impl Into<io::Error>) -> Error {
        Error::Io { doing: doing.into(), cause: cause.into() }
    }

    /// The kind of the system's answer, if it was the system that refused.
    pub fn io_kind(&self) -> Option<io::ErrorKind> {
        match self {
            Error::Io { cause, .. } => Some(cause.kind()),
            _ => None,
        }
    }
}
