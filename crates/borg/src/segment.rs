//! Segment files of a repository: a magic, then entries back to back (Borg 1.x: fact 9.2).
//!
//! An entry is a checksum, its size, a tag, and for PUT and DELETE an id; a PUT's data follows.

use crate::{Id, MAX_OBJECT};

/// What a segment begins with.
pub const MAGIC: [u8; 8] = *b"BORG_SEG";

/// What a segment of Borg's predecessor begins with.
pub const ATTIC_MAGIC: [u8; 8] = *b"ATTICSEG";

/// Bytes of the shortest entry, a COMMIT.
pub const HEADER: usize = 9;

/// Bytes of an entry before its data: header and id. A DELETE is nothing more.
pub const PUT_HEADER: usize = 41;

/// Bytes of the longest entry (Borg 1.x: `MAX_OBJECT_SIZE`).
pub const MAX_ENTRY: usize = MAX_OBJECT + PUT_HEADER;

/// A whole COMMIT entry.
pub const COMMIT: [u8; HEADER] = [0x40, 0xf4, 0x3c, 0x25, 9, 0, 0, 0, 2];

/// What an entry does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tag {
    /// Stores an object; what was stored under this id before is superseded.
    Put,
    /// Deletes an object.
    Delete,
    /// Everything before it holds.
    Commit,
}

/// Why bytes are no entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The size is none that an entry of this tag can have.
    #[error("an entry claims a size of {0} bytes")]
    Size(u32),
    /// The tag is unknown.
    #[error("an entry has the unknown tag {0}")]
    Tag(u8),
    /// The checksum is another one.
    #[error("the checksum of an entry is wrong")]
    Checksum,
    /// It is the entry of another object.
    #[error("an entry belongs to another object")]
    Id,
    /// The file ends within the entry.
    #[error("the file ends within an entry")]
    Short,
}

/// The first bytes of every entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// CRC-32 of everything behind it.
    pub crc: u32,
    /// Bytes of the whole entry.
    pub size: u32,
    /// What it does.
    pub tag: Tag,
}

impl Header {
    /// Reads the header at the beginning of `bytes`. Sizes that the tag cannot have are refused.
    pub fn parse(bytes: &[u8]) -> Result<Header, Malformed> {
        let Some(&[a, b, c, d, e, f, g, h, tag]) = bytes.first_chunk::<HEADER>() else { return Err(Malformed::Short) };
        let (crc, size) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
        let (tag, fits) = match tag {
            0 => (Tag::Put, (PUT_HEADER..=MAX_ENTRY).contains(&(size as usize))),
            1 => (Tag::Delete, size as usize == PUT_HEADER),
            2 => (Tag::Commit, size as usize == HEADER),
            _ => return Err(Malformed::Tag(tag)),
        };
        if !fits {
            return Err(Malformed::Size(size));
        }
        Ok(Header { crc, size, tag })
    }

    /// Bytes of a PUT's data.
    #[must_use]
    pub fn data(&self) -> u32 {
        self.size.saturating_sub(PUT_HEADER as u32)
    }
}

/// Bytes before the data of a PUT. `data` is no longer than [`MAX_OBJECT`].
#[must_use]
pub fn put_header(id: &Id, data: &[u8]) -> [u8; PUT_HEADER] {
    begin(data.len() + PUT_HEADER, 0, id, data)
}

/// A whole DELETE.
#[must_use]
pub fn delete(id: &Id) -> [u8; PUT_HEADER] {
    begin(PUT_HEADER, 1, id, &[])
}

fn begin(size: usize, tag: u8, id: &Id, data: &[u8]) -> [u8; PUT_HEADER] {
    let mut bytes = [0; PUT_HEADER];
    bytes[4..8].copy_from_slice(&(size as u32).to_le_bytes());
    bytes[8] = tag;
    bytes[9..].copy_from_slice(&id.0);
    let crc = checksum(&bytes[4..], data);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn checksum(head: &[u8], rest: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(rest);
    hasher.finalize()
}

/// Checks an entry that is complete: `head` is its header and id as far as it has one, `data` what follows.
pub fn verify(head: &[u8], data: &[u8]) -> Result<Header, Malformed> {
    let header = Header::parse(head)?;
    if head.len() + data.len() != header.size as usize {
        return Err(Malformed::Short);
    }
    if checksum(&head[4..], data) != header.crc { Err(Malformed::Checksum) } else { Ok(header) }
}

/// Checks that `head` and `data` are the PUT of that object.
pub fn verify_put(head: &[u8; PUT_HEADER], data: &[u8], id: &Id) -> Result<(), Malformed> {
    let header = verify(head, data)?;
    if header.tag != Tag::Put || head[HEADER..] != id.0 { Err(Malformed::Id) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_borgs() {
        assert_eq!(verify(&COMMIT, &[]).unwrap().tag, Tag::Commit);
        let id = Id([7; 32]);
        let put = put_header(&id, b"data");
        assert_eq!(Header::parse(&put).unwrap().data(), 4);
        verify_put(&put, b"data", &id).unwrap();
        assert_eq!(verify_put(&put, b"dataX", &id), Err(Malformed::Short));
        assert_eq!(verify_put(&put, b"Data", &id), Err(Malformed::Checksum));
        assert_eq!(verify_put(&put, b"data", &Id([8; 32])), Err(Malformed::Id));
        assert_eq!(verify_put(&delete(&id), b"", &id), Err(Malformed::Id));
        assert_eq!(verify(&delete(&id), b"").unwrap().tag, Tag::Delete);
    }

    #[test]
    fn sizes_and_tags_are_bounded() {
        let with = |size: u32, tag| {
            let mut bytes = COMMIT;
            bytes[4..8].copy_from_slice(&size.to_le_bytes());
            bytes[8] = tag;
            Header::parse(&bytes)
        };
        assert_eq!(with(9, 2).map(|h| h.tag), Ok(Tag::Commit));
        for (size, tag) in [(10, 2), (8, 2), (40, 1), (42, 1), (40, 0), (MAX_ENTRY as u32 + 1, 0), (0, 0)] {
            assert_eq!(with(size, tag), Err(Malformed::Size(size)));
        }
        assert_eq!(with(9, 3), Err(Malformed::Tag(3)));
        assert_eq!(with(MAX_ENTRY as u32, 0).unwrap().data() as usize, MAX_OBJECT);
        assert_eq!(Header::parse(&COMMIT[..8]), Err(Malformed::Short));
    }
}
