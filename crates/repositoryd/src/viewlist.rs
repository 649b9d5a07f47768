//! View lists: for each archive, which chunks it refers to. Immutable files of the owner, one per archive.
//!
//! ```text
//! "BCVIEW1\n" | references (u64 LE) | new chunks (u64 LE) | references, 40 bytes each | ids of new chunks, 32 bytes each | SHA-256 of all that
//! ```
//!
//! References are sorted by id, each id once. The new chunks are those among them that this archive's job was the first to store: when an
//! incomplete archive goes, they are what may go with it.

use crate::failures::of_state;
use borg::Id;
use model::Failure;
use sha2::{Digest, Sha256};
use std::path::Path;
use wire::session::Reference;

const MAGIC: &[u8; 8] = b"BCVIEW1\n";
const HEAD: usize = 24;
const DIGEST: usize = 32;

/// What one archive refers to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ViewList {
    /// Sorted by id, each id once.
    pub references: Vec<Reference>,
    /// Sorted.
    pub new: Vec<Id>,
}

/// A file that is not what was written.
#[derive(Debug, thiserror::Error)]
pub enum ViewListError {
    /// It cannot be read.
    #[error("the view list {0} cannot be read: {1}")]
    Unreadable(String, std::io::Error),
    /// Its content is not what the archive's record names.
    #[error("the view list {0} is damaged")]
    Damaged(String),
}

impl ViewList {
    /// Writes the file durably; returns the digest for the archive's record.
    pub fn write(&self, path: &Path) -> Result<String, Failure> {
        let (bytes, digest) = self.encode();
        unix::files::write_private(path, &bytes).map_err(|e| of_state(&e))?;
        Ok(digest)
    }

    /// Reads a file whose digest is known from the archive's record.
    pub fn read(path: &Path, digest: &str) -> Result<ViewList, ViewListError> {
        let bytes = std::fs::read(path).map_err(|e| ViewListError::Unreadable(path.display().to_string(), e))?;
        decode(&bytes).filter(|_| hex(&Sha256::digest(&bytes)) == digest).ok_or_else(|| ViewListError::Damaged(path.display().to_string()))
    }

    fn encode(&self) -> (Vec<u8>, String) {
        let mut bytes = Vec::with_capacity(HEAD + self.references.len() * Reference::SIZE + self.new.len() * 32 + DIGEST);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&(self.references.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&(self.new.len() as u64).to_le_bytes());
        self.references.iter().for_each(|reference| reference.encode(&mut bytes));
        self.new.iter().for_each(|id| bytes.extend_from_slice(&id.0));
        let mut hash = Sha256::new();
        hash.update(&bytes);
        let inner: [u8; DIGEST] = hash.clone().finalize().into();
        bytes.extend_from_slice(&inner);
        hash.update(inner);
        let digest = hex(&hash.finalize());
        (bytes, digest)
    }
}

fn decode(bytes: &[u8]) -> Option<ViewList> {
    let (content, digest) = bytes.split_last_chunk::<DIGEST>()?;
    let rest = content.strip_prefix(MAGIC)?;
    let (references, rest) = rest.split_first_chunk::<8>()?;
    let (new, rest) = rest.split_first_chunk::<8>()?;
    let count = |bytes: &[u8; 8]| usize::try_from(u64::from_le_bytes(*bytes)).ok();
    let split = count(references)?.checked_mul(Reference::SIZE)?;
    let expected = split.checked_add(count(new)?.checked_mul(32)?)?;
    if rest.len() != expected || Sha256::digest(content)[..] != digest[..] {
        return None;
    }
    let (references, new) = rest.split_at(split);
    let references: Vec<_> = Reference::decode_all(references).ok()?.collect();
    let new: Vec<_> = new.as_chunks::<32>().0.iter().map(|id| Id(*id)).collect();
    let sorted = references.is_sorted_by(|a, b| a.id < b.id) && new.is_sorted_by(|a, b| a < b);
    sorted.then_some(ViewList { references, new })
}

/// Sorts, and keeps each id once, preferably with a stored size.
pub fn normalise(references: &mut Vec<Reference>) {
    references.sort_unstable_by_key(|r| (r.id, r.csize == 0));
    references.dedup_by_key(|r| r.id);
}

/// The union of two sorted lists; where both have an id, `a`'s entry counts.
pub fn merge(a: Vec<Reference>, b: Vec<Reference>) -> Vec<Reference> {
    if a.is_empty() {
        return b;
    }
    let mut out = Vec::with_capacity(a.len().max(b.len()));
    let (mut a, mut b) = (a.into_iter().peekable(), b.into_iter().peekable());
    loop {
        let next = match (a.peek(), b.peek()) {
            (Some(x), Some(y)) if x.id == y.id => {
                b.next();
                a.next()
            }
            (Some(x), Some(y)) if x.id < y.id => a.next(),
            (Some(_), None) => a.next(),
            (_, Some(_)) => b.next(),
            (None, None) => return out,
        };
        out.extend(next);
    }
}

/// The entry of `id` in a sorted list.
pub fn find<'a>(references: &'a [Reference], id: &Id) -> Option<&'a Reference> {
    references.binary_search_by(|r| r.id.cmp(&id.0)).ok().and_then(|at| references.get(at))
}

/// The union of the view lists of several archives, given with the digests of their records. A list that is gone or damaged costs its
/// client an upload, and nothing else.
pub fn union<'a>(lists: impl IntoIterator<Item = (std::path::PathBuf, &'a str)>) -> Vec<Reference> {
    let mut view = vec![];
    for (path, digest) in lists {
        match ViewList::read(&path, digest) {
            Ok(list) => view = merge(view, list.references),
            Err(e) => log::warn!("{e}; its archive does not count for the client's view"),
        }
    }
    view
}

/// Removes the file of an archive that is gone.
pub fn remove(path: &Path) {
    if let Err(e) = std::fs::remove_file(path)
        && e.kind() != std::io::ErrorKind::NotFound
    {
        log::warn!("{} stays behind: {e}", path.display());
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(n: u8, csize: u32) -> Reference {
        Reference { id: [n; 32], size: u32::from(n), csize }
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.view");
        let list = ViewList { references: vec![reference(1, 5), reference(9, 0)], new: vec![Id([9; 32])] };
        let digest = list.write(&path).unwrap();
        assert_eq!(ViewList::read(&path, &digest).unwrap(), list);
        assert!(matches!(ViewList::read(&path, &"0".repeat(64)), Err(ViewListError::Damaged(_))));
        let good = std::fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_eq!(decode(&bad), None, "byte {at}");
            assert_eq!(decode(&good[..at]), None);
        }
        remove(&path);
        remove(&path);
        assert!(matches!(ViewList::read(&path, &digest), Err(ViewListError::Unreadable(..))));
    }

    #[test]
    fn lists_that_are_not_sorted_are_not_read() {
        let unsorted = ViewList { references: vec![reference(9, 0), reference(1, 0)], new: vec![] };
        assert_eq!(decode(&unsorted.encode().0), None);
        let twice = ViewList { references: vec![reference(1, 0), reference(1, 0)], new: vec![] };
        assert_eq!(decode(&twice.encode().0), None);
    }

    #[test]
    fn unions() {
        let a = vec![reference(1, 10), reference(3, 30)];
        let b = vec![reference(1, 11), reference(2, 20), reference(4, 40)];
        let both = merge(a.clone(), b.clone());
        assert_eq!(both, [reference(1, 10), reference(2, 20), reference(3, 30), reference(4, 40)]);
        assert_eq!(merge(vec![], b.clone()), b);
        assert_eq!(find(&both, &Id([2; 32])), Some(&reference(2, 20)));
        assert_eq!(find(&both, &Id([7; 32])), None);
        let mut many = vec![reference(2, 0), reference(1, 0), reference(2, 7)];
        normalise(&mut many);
        assert_eq!(many, [reference(1, 0), reference(2, 7)]);
    }
}
