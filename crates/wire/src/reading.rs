//! Reading one archive: what a person and a repository's owner say to each other behind [`crate::maintenance::Operation::Read`].
//!
//! ```text
//! person  Maintain(Read) ->              <- Readable, then Metadata | Failed
//!         Fetch* ->                      <- for each id, in order: Object | Lacking      (Failed at any time: nothing more comes)
//! ```
//!
//! The owner opens envelopes and looks into none of them: payloads come still compressed, and whoever asked decompresses them, recomputes their
//! ids and parses what they say. What the reader gets for that is the key of chunk ids, which every client of the repository has as well.
//! A connection has no state besides the archive's name, so that a reader whose connection broke goes on with another one.

use crate::WireError;
use serde::{Deserialize, Serialize};

/// Type bytes, besides those in [`crate::session::kind`] (`FAILED`, `OBJECT`).
pub mod kind {
    /// Person: ids of 32 bytes each, at most [`super::MAX_FETCH`] of them.
    pub const FETCH: u8 = 65;
    /// Owner: [`super::Readable`].
    pub const READABLE: u8 = 0xc3;
    /// Owner: the archive's metadata as Borg packed it, decompressed; its id and its signature hold.
    pub const METADATA: u8 = 0xc4;
    /// Owner: [`super::Lacking`]: no such object, or none that can be used.
    pub const LACKING: u8 = 0xc5;
}

/// Ids in one [`kind::FETCH`] at most.
pub const MAX_FETCH: usize = 1000;

/// The archive that was asked for.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readable {
    /// Its name, as text; what is no UTF-8 has marks in its place.
    pub name: String,
    /// Borg's archive id, 64 hex digits.
    pub id: String,
    /// The repository's id, 64 hex digits.
    pub repository_id: String,
    /// Whether its metadata is signed with the repository's key. Archives of Borg before 1.0.9 are not.
    pub is_signed: bool,
    /// Borg's type byte of the repository's key.
    pub key_type: u8,
    /// What ids of chunks are computed with, in hex digits; empty without encryption.
    pub id_key: String,
}

impl std::fmt::Debug for Readable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Readable").field("name", &self.name).field("id", &self.id).finish_non_exhaustive()
    }
}

/// Why there is no object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Reason {
    /// It is not in the repository.
    Missing = 1,
    /// It is there, and is not what was written.
    Damaged = 2,
    /// It does not belong to the archive.
    Foreign = 3,
}

/// `id (32) | reason (u8) | a sentence, escaped for printing`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lacking<'a> {
    /// The object.
    pub id: [u8; 32],
    /// Why.
    pub reason: Reason,
    /// More about it; may be empty.
    pub sentence: &'a str,
}

impl<'a> Lacking<'a> {
    /// The bytes before the sentence.
    #[must_use]
    pub fn head(&self) -> [u8; 33] {
        let mut head = [self.reason as u8; 33];
        head[..32].copy_from_slice(&self.id);
        head
    }

    /// Reads the payload of a frame.
    pub fn decode(payload: &'a [u8]) -> Result<Lacking<'a>, WireError> {
        let (id, rest) = crate::session::split_id(payload)?;
        let (reason, sentence) = rest.split_first().ok_or_else(|| WireError::Malformed("no reason why there is no object".into()))?;
        let reason = match reason {
            1 => Reason::Missing,
            2 => Reason::Damaged,
            3 => Reason::Foreign,
            other => return Err(WireError::Malformed(format!("{other} is no reason why there is no object"))),
        };
        let sentence = std::str::from_utf8(sentence).map_err(|e| WireError::Malformed(e.to_string()))?;
        Ok(Lacking { id, reason, sentence })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lacking_travels() {
        for reason in [Reason::Missing, Reason::Damaged, Reason::Foreign] {
            let lacking = Lacking { id: [7; 32], reason, sentence: "its checksum is wrong" };
            let bytes = [&lacking.head()[..], lacking.sentence.as_bytes()].concat();
            assert_eq!(Lacking::decode(&bytes).unwrap(), lacking);
            assert_eq!(Lacking::decode(&bytes[..33]).unwrap().sentence, "");
            assert!(Lacking::decode(&bytes[..32]).is_err());
        }
        assert!(Lacking::decode(&[0; 40]).is_err());
        assert!(Lacking::decode(&[&[1; 33][..], b"\xff"].concat()).is_err());
    }

    #[test]
    fn the_key_of_ids_is_not_printed() {
        let readable =
            Readable { name: "a".into(), id: "b".into(), repository_id: "c".into(), is_signed: true, key_type: 3, id_key: "5ec4e7".into() };
        assert!(!format!("{readable:?}").contains("5ec4e7"));
    }
}
