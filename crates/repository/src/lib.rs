//! A Borg 1.x repository, reached through a `borg serve` child: on this machine, or over ssh on another one.
//!
//! *Is*: one open repository with Borg's own lock held by that child, its objects as opaque envelopes, pipelined writing, one commit.
//! *Is not*: keys, manifests or any opinion about what is stored; and no trait, because there is one way to reach a repository.
//! *May be used by*: `repositoryd` alone.

mod connection;
mod diagnostics;
mod error;
mod location;
mod repository;

pub use error::{Error, Result};
pub use location::Location;
pub use repository::{OpenOptions, Repository};
