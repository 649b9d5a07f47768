//! The messages between BorgCube's processes: typed, bounded, versioned.
//!
//! | module | who speaks | form |
//! |---|---|---|
//! | [`control`] | people and status pages with `borgcubed` | Varlink (NUL-framed JSON) |
//! | [`worker`] | `borgcubed` with its workers | NUL-framed JSON over a socket pair |
//! | [`session`] | sessions and workers with a repository's owner | length-prefixed binary frames |
//! | [`reading`] | people with a repository's owner, about one archive | the same frames |
//! | [`tool`] | `borgcube repository add` with `borgcube-repositoryd` | one JSON document |
//!
//! *Is not*: sockets or policy. Everything here works on `impl Read` and `impl Write`.
//! *May be used by*: every program.

pub mod answers;
pub mod configuration;
pub mod control;
pub mod frame;
pub mod importing;
pub mod json;
pub mod maintenance;
pub mod reading;
pub mod retention;
pub mod scheduling;
pub mod session;
pub mod space;
pub mod tool;
pub mod web;
pub mod worker;

/// Why a message could not be passed on.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The other side is gone.
    #[error("the other side closed the connection")]
    Closed,
    /// Reading or writing failed.
    #[error("the connection failed: {0}")]
    Io(#[from] std::io::Error),
    /// A message is larger than either side ever sends.
    #[error("a message of {size} bytes is larger than the limit of {limit}")]
    TooLarge {
        /// Its size.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// A message does not have the form it should have: different versions of BorgCube, most likely.
    #[error("a message is not understood: {0}")]
    Malformed(String),
}
