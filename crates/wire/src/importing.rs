//! Importing one archive: what a worker and a repository's owner say to each other behind [`crate::maintenance::Operation::Import`].
//!
//! ```text
//! worker  Maintain(Import), Uses*, Counted ->      <- Progress*, then Report (Imported or Refused) | Failed
//! ```
//!
//! The worker has read the archive's list of files, and says what that refers to; the owner, which parses none of it, looks at every one of
//! these objects itself before it believes that the repository has them.

use crate::WireError;
use model::ConfigName;
use serde::{Deserialize, Serialize};

/// Type bytes, besides those in [`crate::session::kind`].
pub mod kind {
    /// Worker: [`super::Use`]s, at most [`super::BATCH`] of them. Sorted by id, over all frames, each id once.
    pub const USES: u8 = 66;
    /// Worker: [`super::Counted`]; nothing more will come.
    pub const COUNTED: u8 = 67;
}

/// Uses in one frame at most.
pub const BATCH: usize = 20_000;

/// Which archive, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Take {
    /// Its name in the manifest.
    pub name: String,
    /// Its id, 64 hex digits.
    pub id: String,
    /// The config whose it is from then on.
    pub config: ConfigName,
    /// The job.
    pub job: u64,
    /// Who asked for it.
    pub by: String,
}

/// A chunk that the archive's files consist of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Use {
    /// The chunk.
    pub id: [u8; 32],
    /// Its plaintext size, as the list of files states it.
    pub size: u32,
    /// How often files have it; 0 if only parts of files do, which checkpoints leave behind.
    pub count: u64,
}

impl Use {
    /// Bytes of one.
    pub const SIZE: usize = 44;

    /// Appends them.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id);
        out.extend_from_slice(&self.size.to_le_bytes());
        out.extend_from_slice(&self.count.to_le_bytes());
    }

    /// Reads one.
    #[must_use]
    pub fn decode(bytes: &[u8; Use::SIZE]) -> Use {
        let (mut id, mut size, mut count) = ([0; 32], [0; 4], [0; 8]);
        id.copy_from_slice(&bytes[..32]);
        size.copy_from_slice(&bytes[32..36]);
        count.copy_from_slice(&bytes[36..]);
        Use { id, size: u32::from_le_bytes(size), count: u64::from_le_bytes(count) }
    }

    /// Reads a concatenation of them.
    pub fn decode_all(bytes: &[u8]) -> Result<impl ExactSizeIterator<Item = Use> + '_, WireError> {
        let (uses, rest) = bytes.as_chunks::<{ Use::SIZE }>();
        if !rest.is_empty() {
            return Err(WireError::Malformed("uses have 44 bytes each".into()));
        }
        Ok(uses.iter().map(Use::decode))
    }
}

/// What was counted in the list of files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// Regular files, hard links to them not counted.
    pub files: u64,
    /// Files of which a repair has replaced parts by zeros.
    pub repaired: u64,
}

/// An object that an archive needs and that cannot be relied on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unusable {
    /// Its id, 64 hex digits.
    pub id: String,
    /// Why, escaped for printing.
    pub why: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_travel() {
        let uses = [Use { id: [7; 32], size: 5, count: u64::MAX }, Use { id: [9; 32], size: u32::MAX, count: 0 }];
        let mut bytes = vec![];
        uses.iter().for_each(|one| one.encode(&mut bytes));
        assert_eq!(bytes.len(), 2 * Use::SIZE);
        assert_eq!(Use::decode_all(&bytes).unwrap().collect::<Vec<_>>(), uses);
        assert!(Use::decode_all(&bytes[1..]).is_err());
        const { assert!(BATCH * Use::SIZE < 1 << 20) };
    }
}
