//! Items out of an item stream that arrives in chunks.

use super::{ChunkRef, Item, ItemError, Xattr, read_time};
use crate::msgpack::{self, Frames, Limits, Reader, shown};

/// What an item stream may contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ItemLimits {
    /// Accept only what `borg create` and `import-tar` write: `mode` is required, `chunks_healthy` and new-style msgpack
    /// strings are refused.
    pub strict: bool,
    /// Most bytes of one item. An item needs about 43 bytes for each chunk of its file.
    pub item: usize,
    /// Most chunks of one item.
    pub chunks: usize,
    /// Longest path and link target in bytes.
    pub path: usize,
    /// Most extended attributes of one item.
    pub xattrs: usize,
}

impl ItemLimits {
    /// For what a client has just made.
    pub const STRICT: ItemLimits = ItemLimits { strict: true, item: 16 << 20, chunks: 1 << 20, path: 64 << 10, xattrs: 1 << 16 };

    /// For what is in a repository already.
    pub const TOLERANT: ItemLimits = ItemLimits { strict: false, item: 64 << 20, chunks: 1 << 21, ..ItemLimits::STRICT };
}

/// Cuts an item stream into items. The stream is the concatenation of an archive's item chunks; where those were cut
/// means nothing.
#[derive(Debug)]
pub struct ItemParser {
    frames: Frames,
    reading: Limits,
    limits: ItemLimits,
    number: u64,
}

impl ItemParser {
    /// At the start of a stream.
    #[must_use]
    pub fn new(limits: ItemLimits) -> ItemParser {
        // 8 levels are twice of what items need. Values: two for each chunk's numbers, one for id and list, and some.
        let reading = Limits {
            depth: 8,
            elements: limits.chunks.max(limits.xattrs).max(64),
            raw: limits.item,
            values: limits.chunks.saturating_mul(8).saturating_add(limits.xattrs.saturating_mul(2)).saturating_add(256),
            old_spec_only: limits.strict,
        };
        ItemParser { frames: Frames::new(limits.item, reading), reading, limits, number: 0 }
    }

    /// Appends the next piece of the stream. Take all items out before the next piece, to keep memory bounded.
    pub fn push(&mut self, piece: &[u8]) {
        self.frames.push(piece);
    }

    /// How many items were handed out.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.number
    }

    /// The next complete item, `None` if more of the stream is needed. After an error the stream is beyond repair.
    pub fn next_item(&mut self) -> Result<Option<Item>, ItemError> {
        let (number, reading, limits) = (self.number, self.reading, self.limits);
        let Some(packed) = self.frames.next_frame()? else { return Ok(None) };
        let item = Fields { number, limits }.read(Reader::with_limits(packed, reading))?;
        self.number += 1;
        Ok(Some(item))
    }

    /// At the end of the stream: fails if it ends inside an item.
    pub fn finish(&self) -> Result<(), ItemError> {
        if self.frames.buffered() == 0 { Ok(()) } else { Err(ItemError::Cut { number: self.number }) }
    }
}

struct Fields {
    number: u64,
    limits: ItemLimits,
}

/// Why a field is not accepted, before it is known which item it belongs to.
enum Bad {
    Value(msgpack::Error),
    TooLarge(&'static str),
}

impl From<msgpack::Error> for Bad {
    fn from(error: msgpack::Error) -> Bad {
        Bad::Value(error)
    }
}

impl Fields {
    fn read(&self, mut reader: Reader<'_>) -> Result<Item, ItemError> {
        let number = self.number;
        let mut item = Item::default();
        let mut seen: Vec<&[u8]> = Vec::with_capacity(24);
        for _ in 0..reader.read_map_len()? {
            let field = reader.read_raw()?;
            if seen.contains(&field) {
                return Err(ItemError::Duplicate { number, field: shown(field) });
            }
            match self.field(&mut item, field, &mut reader) {
                Ok(true) => seen.push(field),
                Ok(false) => return Err(ItemError::Unknown { number, field: shown(field) }),
                Err(Bad::Value(error)) => return Err(ItemError::Field { number, field: shown(field), error }),
                Err(Bad::TooLarge(what)) => return Err(ItemError::TooLarge { number, what }),
            }
        }
        for (field, required) in [("path", true), ("mtime", true), ("mode", self.limits.strict)] {
            if required && !seen.contains(&field.as_bytes()) {
                return Err(ItemError::Missing { number, field });
            }
        }
        Ok(item)
    }

    /// False for a field that is not accepted.
    fn field(&self, item: &mut Item, name: &[u8], reader: &mut Reader<'_>) -> Result<bool, Bad> {
        match name {
            b"path" => item.path = self.path(reader)?,
            b"mode" => item.mode = Some(reader.read_u32()?),
            b"uid" => item.uid = Some(reader.read_int()?),
            b"gid" => item.gid = Some(reader.read_int()?),
            b"user" => item.user = Some(nullable(reader)?),
            b"group" => item.group = Some(nullable(reader)?),
            b"mtime" => item.mtime = read_time(reader)?,
            b"atime" => item.atime = Some(read_time(reader)?),
            b"ctime" => item.ctime = Some(read_time(reader)?),
            b"birthtime" => item.birthtime = Some(read_time(reader)?),
            b"size" => item.size = Some(reader.read_uint()?),
            b"chunks" => item.chunks = Some(self.chunks(reader)?),
            b"chunks_healthy" if !self.limits.strict => item.chunks_healthy = Some(self.chunks(reader)?),
            b"hardlink_master" => item.hardlink_master = Some(reader.read_bool()?),
            b"source" => item.source = Some(self.path(reader)?),
            b"rdev" => item.rdev = Some(reader.read_uint()?),
            b"bsdflags" => item.bsdflags = Some(reader.read_uint()?),
            b"xattrs" => item.xattrs = Some(self.xattrs(reader)?),
            b"acl_access" => item.acl_access = Some(reader.read_raw()?.to_vec()),
            b"acl_default" => item.acl_default = Some(reader.read_raw()?.to_vec()),
            b"acl_extended" => item.acl_extended = Some(reader.read_raw()?.to_vec()),
            b"acl_nfs4" => item.acl_nfs4 = Some(reader.read_raw()?.to_vec()),
            b"part" => item.part = Some(reader.read_uint()?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn path(&self, reader: &mut Reader<'_>) -> Result<Vec<u8>, Bad> {
        let path = reader.read_raw()?;
        if path.len() > self.limits.path { Err(Bad::TooLarge("bytes in a path")) } else { Ok(path.to_vec()) }
    }

    fn chunks(&self, reader: &mut Reader<'_>) -> Result<Vec<ChunkRef>, Bad> {
        let count = reader.read_array_len()?;
        if count > self.limits.chunks {
            return Err(Bad::TooLarge("chunks"));
        }
        // Each takes 36 bytes at least, so that what is reserved stays in proportion to what was received.
        let mut chunks = Vec::with_capacity(count.min(reader.rest().len() / 36));
        for _ in 0..count {
            if reader.read_array_len()? != 3 {
                let error = msgpack::Error::Type { expected: "an array of three", found: "one of another length" };
                return Err(Bad::Value(error));
            }
            chunks.push(ChunkRef { id: reader.read_id()?, size: reader.read_u32()?, csize: reader.read_u32()? });
        }
        Ok(chunks)
    }

    fn xattrs(&self, reader: &mut Reader<'_>) -> Result<Vec<Xattr>, Bad> {
        let count = reader.read_map_len()?;
        if count > self.limits.xattrs {
            return Err(Bad::TooLarge("extended attributes"));
        }
        (0..count).map(|_| Ok((reader.read_raw()?.to_vec(), nullable(reader)?))).collect()
    }
}

fn nullable(reader: &mut Reader<'_>) -> Result<Option<Vec<u8>>, Bad> {
    if reader.read_nil_if_next()? { Ok(None) } else { Ok(Some(reader.read_raw()?.to_vec())) }
}
