//! Objects that a check has found damaged or missing. They count as absent, whatever the index says: no view, no cache and no
//! new archive relies on one of them, and a client that still has what was in it sends it again. Then it is stored anew, and sound, for all
//! archives that refer to it.
//!
//! ```text
//! "BCSPOIL1" | ids (32 bytes each), sorted | SHA-256 of all that
//! ```

use borg::Id;
use repository::IdSet;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 8] = b"BCSPOIL1";

/// More ids than this are never written, see [`Spoiled::MOST`].
const MOST_BYTES: u64 = (Spoiled::MOST as u64 + 2) * 32;

/// The ids, and the file that has them.
#[derive(Debug, Default, Clone)]
pub struct Spoiled {
    path: Option<PathBuf>,
    ids: IdSet,
}

impl Spoiled {
    /// More damaged objects than this are a repository that is lost; the others are not remembered. (128 MiB of ids.)
    pub const MOST: usize = 4 << 20;

    /// What was written last.
    pub fn open(directory: &Path) -> Spoiled {
        let path = directory.join("damaged");
        let ids = match unix::files::read_small(&path, MOST_BYTES) {
            Ok(None) => IdSet::default(),
            Ok(Some(bytes)) => parse(&bytes).unwrap_or_else(|| {
                log::error!("{} is damaged: check the repository again, so that it is known which objects are", path.display());
                IdSet::default()
            }),
            Err(e) => {
                log::error!("{}: {e}: check the repository again, so that it is known which objects are damaged", path.display());
                IdSet::default()
            }
        };
        Spoiled { path: Some(path), ids }
    }

    /// Whether it is one of them.
    pub fn contains(&self, id: &Id) -> bool {
        !self.ids.is_empty() && self.ids.contains(id)
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether any of them is one that this wants.
    pub fn any(&self, wanted: impl Fn(&Id) -> bool) -> bool {
        self.ids.iter().any(wanted)
    }

    /// All of them, sorted.
    pub fn ids(&self) -> Vec<Id> {
        let mut ids: Vec<Id> = self.ids.iter().copied().collect();
        ids.sort_unstable();
        ids
    }

    /// It is sound again; true if it was not.
    pub fn remove(&mut self, id: &Id) -> bool {
        !self.ids.is_empty() && self.ids.remove(id)
    }

    /// From now on it is these.
    pub fn replace(&mut self, ids: impl IntoIterator<Item = Id>) {
        self.ids = ids.into_iter().take(Spoiled::MOST).collect();
    }

    /// Writes them, durably.
    pub fn save(&self) -> unix::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let mut bytes = MAGIC.to_vec();
        self.ids().iter().for_each(|id| bytes.extend_from_slice(&id.0));
        let digest = Sha256::digest(&bytes);
        bytes.extend_from_slice(&digest);
        unix::files::write_private(path, &bytes)
    }
}

fn parse(bytes: &[u8]) -> Option<IdSet> {
    let (content, digest) = bytes.split_last_chunk::<32>()?;
    let (ids, rest) = content.strip_prefix(MAGIC)?.as_chunks::<32>();
    (rest.is_empty() && Sha256::digest(content).as_slice() == digest).then(|| ids.iter().map(|id| Id(*id)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let mut spoiled = Spoiled::open(dir.path());
        assert_eq!(spoiled.len(), 0);
        spoiled.replace([Id([2; 32]), Id([1; 32])]);
        spoiled.save().unwrap();
        let mut again = Spoiled::open(dir.path());
        assert_eq!(again.ids(), [Id([1; 32]), Id([2; 32])]);
        assert!(again.remove(&Id([1; 32])) && !again.remove(&Id([1; 32])) && !again.contains(&Id([1; 32])));
        let path = dir.path().join("damaged");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[20] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(Spoiled::open(dir.path()).len(), 0);
    }
}
