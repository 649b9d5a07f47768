//! What repositories take up, for the control socket.

use model::Timestamp;
use model::space::Space;
use serde::{Deserialize, Serialize};

/// What a repository takes up, and the archives that share it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositorySpace {
    /// The newest measurement. None: there was none, because its owner has not opened it since it was added, or because another `borg serve` has the files.
    pub space: Option<Space>,
    /// Sums over a page of its archives.
    pub archives: ArchiveSums,
    /// Where the next page begins. None: that was the last one.
    #[serde(default)]
    pub next: Option<ArchivePlace>,
}

/// Sums over archives that are restore points.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveSums {
    /// How many.
    pub count: u64,
    /// Bytes of their files.
    pub original_size: u64,
    /// The same, compressed, as their clients said.
    pub compressed_size: u64,
}

impl ArchiveSums {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: ArchiveSums) -> ArchiveSums {
        ArchiveSums {
            count: self.count.saturating_add(other.count),
            original_size: self.original_size.saturating_add(other.original_size),
            compressed_size: self.compressed_size.saturating_add(other.compressed_size),
        }
    }
}

/// An archive's place among those of its repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchivePlace {
    /// When it began.
    pub start: Timestamp,
    /// Its id.
    pub id: String,
}
