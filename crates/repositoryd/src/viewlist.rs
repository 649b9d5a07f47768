//! View lists: for each archive, which chunks it refers to. Immutable files of the owner, one per archive.
//!
//! ```text
//! "BCVIEW2\n" | depth (u32 LE) | 0 (u32) | references | removed | others | total | chain (u64 LE each)
//!             | base's archive id (32) | base's digest (32) | mark (16) | generation (32)
//!             | references, 40 bytes each | ids that the base has and this archive has not, 32 each | further ids, 32 each
//! ```
//!
//! A file is the whole list (depth 0), or the difference to the list of an earlier archive of the same config: then its references are those
//! that are new or have changed. Each part is sorted by id, each id once. Further ids belong to incomplete archives: chunks that their job
//! was the first to store and that they do not refer to; when the archive goes, they may go with it. Which bytes a file has, its SHA-256
//! says, which the archive's record names, and each difference that of its base. A base stays on disk as long as a list depends on it,
//! whether its archive is still there or not; no list is ever written anew.
//!
//! `BCVIEW1`, of earlier versions, is always whole: `references | further ids (u64 LE each)`, then both parts, then SHA-256 of all that.

mod disk;
mod file;
mod freed;
mod stage;
mod tree;

pub use stage::{Parsed, Staged};
pub use tree::Event;

use borg::Id;
use file::Verified;
use std::path::{Path, PathBuf};
use wire::session::Reference;

/// Differences behind one another: so many files are read for one list, and so many archives suffer when a whole list is damaged.
pub const MAX_DEPTH: u32 = 100;

/// What one archive refers to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ViewList {
    /// Sorted by id, each id once.
    pub references: Vec<Reference>,
    /// What its job was the first to store; sorted. Of a list that was read back, only those that it does not refer to are sure to be here.
    pub new: Vec<Id>,
}

/// A list by the names it has in an archive's record.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Named {
    /// The archive, 64 hex digits.
    pub id: String,
    /// SHA-256 of its file, 64 hex digits.
    pub digest: String,
}

impl Named {
    /// The list of `archive`.
    pub fn of(archive: &model::Archive) -> Named {
        Named { id: archive.id.clone(), digest: archive.view_digest.clone() }
    }
}

/// What a complete archive's list says about its client's own chunks cache: that it has nothing but what the client's archives of then and
/// this one refer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Note {
    /// What the worker left beside that cache. Not zero.
    pub mark: [u8; 16],
    /// Of the archives that the job began with.
    pub generation: [u8; 32],
}

/// A file that is not what was written.
#[derive(Debug, thiserror::Error)]
pub enum ViewListError {
    /// It cannot be read.
    #[error("the view list {0} cannot be read: {1}")]
    Unreadable(String, std::io::Error),
    /// Its content is not what the archive's record, or the list that builds on it, names.
    #[error("the view list {0} is damaged")]
    Damaged(String),
}

/// The view lists of one repository.
#[derive(Debug, Clone)]
pub struct Lists {
    directory: PathBuf,
    /// Digests are not computed.
    trusting: bool,
}

impl Lists {
    /// Those in `directory`.
    pub fn new(directory: PathBuf) -> Lists {
        Lists { directory, trusting: false }
    }

    /// Takes files for what they should be: for those who only want to know, and soon. What is lost shows, what is damaged may not.
    pub fn trusting(self) -> Lists {
        Lists { trusting: true, ..self }
    }

    fn open(&self, list: &Named) -> Result<Verified, ViewListError> {
        let path = self.path(&list.id);
        if self.trusting { Verified::trusted(&path) } else { Verified::open(&path, &list.digest) }
    }

    fn path(&self, id: &str) -> PathBuf {
        self.directory.join(format!("{id}.view"))
    }
}

/// Sorts, and keeps each id once, preferably with a stored size.
pub fn normalise(references: &mut Vec<Reference>) {
    references.sort_unstable_by_key(|r| (r.id, r.csize == 0));
    references.dedup_by_key(|r| r.id);
}

/// The entry of `id` in a sorted list.
pub fn find<'a>(references: &'a [Reference], id: &Id) -> Option<&'a Reference> {
    references.binary_search_by(|r| r.id.cmp(&id.0)).ok().and_then(|at| references.get(at))
}

/// Removes the file of an archive that never was.
pub fn remove(path: &Path) {
    if let Err(e) = std::fs::remove_file(path)
        && e.kind() != std::io::ErrorKind::NotFound
    {
        log::warn!("{} stays behind: {e}", path.display());
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |of: u8| DIGITS.get(usize::from(of)).map_or('?', |digit| char::from(*digit));
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests;
