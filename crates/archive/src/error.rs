//! Why reading an archive ends before its end.

use borg::archive::ArchiveError;
use model::Failure;
use wire::WireError;

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What ends the work. What is wrong with a single file does not: see [`crate::Complain`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The repository's owner refuses, or cannot.
    #[error("{}", .0.line())]
    Owner(Failure),
    /// Nobody can be asked.
    #[error("{0}")]
    Connect(unix::Error),
    /// Nobody answers any more, and nobody did for a while.
    #[error("{0}")]
    Unreachable(String),
    /// An answer makes no sense.
    #[error("the repository's owner is not understood: {0}")]
    Wire(#[from] WireError),
    /// The archive's metadata makes no sense.
    #[error("{0}")]
    Metadata(#[from] ArchiveError),
    /// A pattern makes no sense.
    #[error("the pattern {0:?} is not usable: {1}")]
    Pattern(String, String),
    /// Where the result goes cannot take it.
    #[error("cannot write: {0}")]
    Output(std::io::Error),
    /// The target directory cannot be used.
    #[error("{0}")]
    Target(unix::Error),
    /// Something in the archive is larger than this program deals with.
    #[error("{0}")]
    TooLarge(String),
    /// Its list of files is not whole, or has something in it that is not understood.
    #[error("{0}")]
    Incomplete(String),
    /// There is no room, or the disk fails, beside the work.
    #[error("cannot write what does not fit into memory: {0}")]
    Scratch(std::io::Error),
    /// A thread cannot be started, or a socket not be doubled.
    #[error("the system refuses: {0}")]
    System(std::io::Error),
}
