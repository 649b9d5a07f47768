//! A Borg 1.x repository: on this machine read and written by ourselves, on another one reached through a `borg serve` child over ssh.
//!
//! *Is*: one open repository under Borg's own lock, its objects as opaque envelopes, one log of puts and deletes, one commit; a [`Reader`]
//! that other threads use beside the one that writes.
//! *Is not*: keys, manifests or any opinion about what is stored; and no trait, because both ways are one enum.
//! *May be used by*: `repositoryd` alone.

mod entry;
mod error;
mod ids;
pub mod index;
mod local;
mod location;
mod options;
mod repository;
mod served;

pub use entry::Entry;
pub use error::{Error, Result};
pub use ids::{IdHash, IdHasher, IdMap, IdSet};
pub use local::{CheckOptions, CheckReport, Compaction, Finding, Local, Reader, Segment, Slice, Step, Usage, Verify};
pub use location::{Location, SSH};
pub use options::{OpenOptions, Reserve};
pub use repository::Repository;
pub use served::Served;
