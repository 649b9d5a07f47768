//! Items: what an archive says about one file, directory, link or device.

mod parser;

pub use parser::{ItemLimits, ItemParser};

use crate::Id;
use crate::msgpack::{self, Reader, Writer};

/// A piece of a file's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkRef {
    /// Object that holds it.
    pub id: Id,
    /// Bytes of plaintext.
    pub size: u32,
    /// Bytes as stored, envelope included; 0 where the writer did not know it.
    pub csize: u32,
}

/// An extended attribute: name and value; a value of nil means empty.
pub type Xattr = (Vec<u8>, Option<Vec<u8>>);

/// An item. Optional fields are absent in the stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Item {
    /// Path inside the archive, in the bytes of the client's file system; nothing about it is checked.
    pub path: Vec<u8>,
    /// File type and permissions as in `st_mode`. Always there in strict parsing.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<i64>,
    /// Group.
    pub gid: Option<i64>,
    /// Owner's name; `Some(None)` is an explicit nil.
    pub user: Option<Option<Vec<u8>>>,
    /// Group's name; `Some(None)` is an explicit nil.
    pub group: Option<Option<Vec<u8>>>,
    /// Modification time, nanoseconds since 1970.
    pub mtime: i128,
    /// Access time.
    pub atime: Option<i128>,
    /// Time of status change.
    pub ctime: Option<i128>,
    /// Time of creation.
    pub birthtime: Option<i128>,
    /// Sum of the chunks' plaintext sizes, as the client states it.
    pub size: Option<u64>,
    /// Content. `Some` and empty for empty files.
    pub chunks: Option<Vec<ChunkRef>>,
    /// Content before a repair replaced lost chunks by zeros; never accepted in strict parsing.
    pub chunks_healthy: Option<Vec<ChunkRef>>,
    /// Whether later items may refer to this one as their hard link.
    pub hardlink_master: Option<bool>,
    /// Target of a symbolic link, or path of the item this one is a hard link of.
    pub source: Option<Vec<u8>>,
    /// Device number.
    pub rdev: Option<u64>,
    /// BSD (and Linux) file flags.
    pub bsdflags: Option<u64>,
    /// Extended attributes, in the order of the stream.
    pub xattrs: Option<Vec<Xattr>>,
    /// POSIX access ACL, as text.
    pub acl_access: Option<Vec<u8>>,
    /// POSIX default ACL, as text.
    pub acl_default: Option<Vec<u8>>,
    /// macOS ACL, as text.
    pub acl_extended: Option<Vec<u8>>,
    /// NFSv4 ACL, as text.
    pub acl_nfs4: Option<Vec<u8>>,
    /// Number of a checkpoint's part file.
    pub part: Option<u64>,
}

/// An item stream that is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ItemError {
    /// The stream is no sequence of msgpack values within the limits.
    #[error("the item stream is malformed: {0}")]
    Stream(#[from] msgpack::Error),
    /// A field with the wrong type or range.
    #[error("item number {number}, field {field:?}: {error}")]
    Field {
        /// Position in the stream, counted from 0.
        number: u64,
        /// The field.
        field: String,
        /// What is wrong.
        error: msgpack::Error,
    },
    /// A field that is not known (or, in strict parsing, not written by `create`).
    #[error("item number {number} has the field {field:?}, which is not accepted")]
    Unknown {
        /// Position in the stream.
        number: u64,
        /// The field.
        field: String,
    },
    /// A field is there twice.
    #[error("item number {number} has the field {field:?} twice")]
    Duplicate {
        /// Position in the stream.
        number: u64,
        /// The field.
        field: String,
    },
    /// A required field is missing.
    #[error("item number {number} has no {field}")]
    Missing {
        /// Position in the stream.
        number: u64,
        /// The field.
        field: &'static str,
    },
    /// One of [`ItemLimits`] is exceeded.
    #[error("item number {number} has too many or too long {what}")]
    TooLarge {
        /// Position in the stream.
        number: u64,
        /// What there is too much of.
        what: &'static str,
    },
    /// The stream ends inside an item.
    #[error("the item stream ends inside item number {number}")]
    Cut {
        /// Position in the stream.
        number: u64,
    },
}

impl Item {
    /// Sum of the plaintext sizes of the content's chunks.
    #[must_use]
    pub fn content_size(&self) -> u64 {
        self.chunks.iter().flatten().map(|chunk| u64::from(chunk.size)).sum()
    }

    /// Appends the item in the form Borg writes: fields sorted, absent ones left out.
    pub fn write(&self, writer: &mut Writer) {
        let mut fields = Writer::new();
        let mut count = 0;
        let mut field = |name: &str, write: &dyn Fn(&mut Writer)| {
            count += 1;
            fields.raw(name.as_bytes());
            write(&mut fields);
        };
        let mut raw = |name: &str, value: &Option<Vec<u8>>| {
            if let Some(bytes) = value {
                field(name, &|w| w.raw(bytes));
            }
        };
        raw("acl_access", &self.acl_access);
        raw("acl_default", &self.acl_default);
        raw("acl_extended", &self.acl_extended);
        raw("acl_nfs4", &self.acl_nfs4);
        let chunk_list = |w: &mut Writer, chunks: &[ChunkRef]| {
            w.array(chunks.len());
            for chunk in chunks {
                w.array(3);
                w.raw(&chunk.id.0);
                w.uint(u64::from(chunk.size));
                w.uint(u64::from(chunk.csize));
            }
        };
        let mut some = |name: &str, present: bool, write: &dyn Fn(&mut Writer)| {
            if present {
                field(name, write);
            }
        };
        some("atime", self.atime.is_some(), &|w| write_time(w, self.atime.unwrap_or_default()));
        some("birthtime", self.birthtime.is_some(), &|w| write_time(w, self.birthtime.unwrap_or_default()));
        some("bsdflags", self.bsdflags.is_some(), &|w| w.uint(self.bsdflags.unwrap_or_default()));
        some("chunks", self.chunks.is_some(), &|w| chunk_list(w, self.chunks.as_deref().unwrap_or_default()));
        some("chunks_healthy", self.chunks_healthy.is_some(), &|w| {
            chunk_list(w, self.chunks_healthy.as_deref().unwrap_or_default());
        });
        some("ctime", self.ctime.is_some(), &|w| write_time(w, self.ctime.unwrap_or_default()));
        some("gid", self.gid.is_some(), &|w| w.int(self.gid.unwrap_or_default()));
        some("group", self.group.is_some(), &|w| write_name(w, self.group.as_ref()));
        some("hardlink_master", self.hardlink_master.is_some(), &|w| w.bool(self.hardlink_master.unwrap_or_default()));
        some("mode", self.mode.is_some(), &|w| w.uint(u64::from(self.mode.unwrap_or_default())));
        some("mtime", true, &|w| write_time(w, self.mtime));
        some("part", self.part.is_some(), &|w| w.uint(self.part.unwrap_or_default()));
        some("path", true, &|w| w.raw(&self.path));
        some("rdev", self.rdev.is_some(), &|w| w.uint(self.rdev.unwrap_or_default()));
        some("size", self.size.is_some(), &|w| w.uint(self.size.unwrap_or_default()));
        some("source", self.source.is_some(), &|w| w.raw(self.source.as_deref().unwrap_or_default()));
        some("uid", self.uid.is_some(), &|w| w.int(self.uid.unwrap_or_default()));
        some("user", self.user.is_some(), &|w| write_name(w, self.user.as_ref()));
        some("xattrs", self.xattrs.is_some(), &|w| {
            let attributes = self.xattrs.as_deref().unwrap_or_default();
            w.map(attributes.len());
            for (name, value) in attributes {
                w.raw(name);
                match value {
                    Some(bytes) => w.raw(bytes),
                    None => w.nil(),
                }
            }
        });
        writer.map(count);
        writer.bytes_of_raw(fields.bytes());
    }
}

fn write_name(writer: &mut Writer, name: Option<&Option<Vec<u8>>>) {
    match name {
        Some(Some(bytes)) => writer.raw(bytes),
        _ => writer.nil(),
    }
}

/// Times beyond 63 bits are written as little-endian bytes (Borg 1.x).
fn write_time(writer: &mut Writer, time: i128) {
    match i64::try_from(time) {
        Ok(time) => writer.int(time),
        Err(_) => writer.raw(&time.to_le_bytes()),
    }
}

fn read_time(reader: &mut Reader<'_>) -> msgpack::Result<i128> {
    let Ok(bytes) = reader.clone().read_raw() else { return reader.read_int().map(i128::from) };
    reader.skip_value()?;
    let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut number = [if negative { 0xff } else { 0 }; 16];
    number.get_mut(..bytes.len()).ok_or(msgpack::Error::Range)?.copy_from_slice(bytes);
    Ok(i128::from_le_bytes(number))
}
