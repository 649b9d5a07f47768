//! One file of a view list: its bytes, and reading them as a stream.

use super::{Named, Note, ViewListError, hex};
use borg::Id;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use wire::session::Reference;

const MAGIC: &[u8; 8] = b"BCVIEW2\n";
/// Bytes of the head of a file as they are written now.
pub const HEAD: usize = 168;

const FIRST_MAGIC: &[u8; 8] = b"BCVIEW1\n";
const FIRST_HEAD: usize = 24;
const FIRST_DIGEST: u64 = 32;

/// Entries of a large file that are read at once by who goes through all of them.
const TOGETHER: u64 = 4096;

/// Files up to this size are read at once and closed.
const SMALL: u64 = 64 << 10;

const ID: u64 = 32;
const REFERENCE: u64 = Reference::SIZE as u64;

/// What stands in front.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Head {
    /// The list that this one is the difference to; None: it is whole.
    pub base: Option<Named>,
    /// Differences from the whole list on to this one; 0: it is whole.
    pub depth: u32,
    /// References in the file: all, or those that the base does not have like that.
    pub references: u64,
    /// Ids that the base has and this list does not.
    pub removed: u64,
    /// Further ids.
    pub others: u64,
    /// References of the archive.
    pub total: u64,
    /// Bytes of all differences from the whole list on, this one included.
    pub chain: u64,
    /// See [`Note`].
    pub note: Option<Note>,
    pub(super) first: bool,
}

impl Head {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.depth.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        for count in [self.references, self.removed, self.others, self.total, self.chain] {
            bytes.extend_from_slice(&count.to_le_bytes());
        }
        let (id, digest) = match &self.base {
            Some(base) => (of_hex(&base.id), of_hex(&base.digest)),
            None => ([0; 32], [0; 32]),
        };
        bytes.extend_from_slice(&id);
        bytes.extend_from_slice(&digest);
        let note = self.note.unwrap_or(Note { mark: [0; 16], generation: [0; 32] });
        bytes.extend_from_slice(&note.mark);
        bytes.extend_from_slice(&note.generation);
        bytes
    }

    /// Reads the beginning of a file of `size` bytes; None if it is none of ours or of another size than it says.
    pub fn decode(bytes: &[u8], size: u64) -> Option<Head> {
        let mut rest = bytes.get(8..)?;
        let mut number = || {
            let (number, more) = rest.split_first_chunk::<8>()?;
            rest = more;
            Some(u64::from_le_bytes(*number))
        };
        if bytes.starts_with(FIRST_MAGIC) {
            let (references, others) = (number()?, number()?);
            let head = Head { references, others, total: references, first: true, ..Head::default() };
            return (head.end()?.checked_add(FIRST_DIGEST)? == size).then_some(head);
        }
        if !bytes.starts_with(MAGIC) || bytes.len() < HEAD {
            return None;
        }
        let depth = u32::try_from(number()?).ok()?;
        let [references, removed, others, total, chain] = [number()?, number()?, number()?, number()?, number()?];
        let (base, rest) = rest.split_first_chunk::<32>()?;
        let (digest, rest) = rest.split_first_chunk::<32>()?;
        let (mark, rest) = rest.split_first_chunk::<16>()?;
        let (generation, _) = rest.split_first_chunk::<32>()?;
        let base = (depth > 0).then(|| Named { id: hex(base), digest: hex(digest) });
        let note = (*mark != [0; 16]).then_some(Note { mark: *mark, generation: *generation });
        let head = Head { base, depth, references, removed, others, total, chain, note, first: false };
        let fits = head.end()? == size && (depth > 0 || (removed == 0 && total == references));
        fits.then_some(head)
    }

    fn at_references(&self) -> u64 {
        if self.first { FIRST_HEAD as u64 } else { HEAD as u64 }
    }

    fn at_removed(&self) -> Option<u64> {
        self.references.checked_mul(REFERENCE)?.checked_add(self.at_references())
    }

    fn at_others(&self) -> Option<u64> {
        self.removed.checked_mul(ID)?.checked_add(self.at_removed()?)
    }

    fn end(&self) -> Option<u64> {
        self.others.checked_mul(ID)?.checked_add(self.at_others()?)
    }
}

fn of_hex(text: &str) -> [u8; 32] {
    Id::from_hex(text).map_or([0; 32], |id| id.0)
}

/// Reads only the head. `Ok(None)`: the file is damaged.
pub fn head(path: &Path) -> std::io::Result<Option<Head>> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    let mut bytes = Vec::with_capacity(HEAD);
    file.by_ref().take(HEAD as u64).read_to_end(&mut bytes)?;
    Ok(Head::decode(&bytes, size))
}

/// A file whose bytes are those of its digest.
pub struct Verified {
    /// Its head.
    pub head: Head,
    path: PathBuf,
    /// Its content, if it is small.
    small: Option<Arc<[u8]>>,
}

impl Verified {
    /// Reads all of it once.
    pub fn open(path: &Path, digest: &str) -> Result<Verified, ViewListError> {
        let unreadable = |e| ViewListError::Unreadable(path.display().to_string(), e);
        let damaged = || ViewListError::Damaged(path.display().to_string());
        let mut file = File::open(path).map_err(unreadable)?;
        let size = file.metadata().map_err(unreadable)?.len();
        let mut hash = Sha256::new();
        let (mut front, mut small) = (vec![], None);
        if size <= SMALL {
            file.read_to_end(&mut front).map_err(unreadable)?;
            hash.update(&front);
        } else {
            let mut buffer = vec![0; 256 << 10];
            loop {
                match file.read(&mut buffer).map_err(unreadable)? {
                    0 => break,
                    n => {
                        hash.update(&buffer[..n]);
                        if front.len() < HEAD {
                            front.extend_from_slice(&buffer[..n.min(HEAD)]);
                        }
                    }
                }
            }
        }
        if hex(&hash.finalize()) != digest {
            return Err(damaged());
        }
        let head = Head::decode(&front, size).ok_or_else(damaged)?;
        if size <= SMALL {
            small = Some(Arc::from(front));
        }
        Ok(Verified { head, path: path.to_owned(), small })
    }

    /// The same without looking whether its bytes are those of its digest: of a large one, only the head is read.
    pub fn trusted(path: &Path) -> Result<Verified, ViewListError> {
        let unreadable = |e| ViewListError::Unreadable(path.display().to_string(), e);
        let file = File::open(path).map_err(unreadable)?;
        let size = file.metadata().map_err(unreadable)?.len();
        let mut front = Vec::with_capacity(usize::try_from(size.min(SMALL)).unwrap_or(0));
        let wanted = if size <= SMALL { size } else { HEAD as u64 };
        file.take(wanted).read_to_end(&mut front).map_err(unreadable)?;
        let head = Head::decode(&front, size).ok_or_else(|| ViewListError::Damaged(path.display().to_string()))?;
        let small = (size <= SMALL).then(|| Arc::from(front));
        Ok(Verified { head, path: path.to_owned(), small })
    }

    /// The same of bytes that are in memory; None if they are no such file.
    pub fn in_memory(bytes: &[u8]) -> Option<Verified> {
        let head = Head::decode(bytes.get(..HEAD).unwrap_or(bytes), bytes.len() as u64)?;
        Some(Verified { head, path: PathBuf::from("in memory"), small: Some(Arc::from(bytes)) })
    }

    /// Its references.
    pub fn references(&self) -> Result<Stream, ViewListError> {
        self.stream(Some(self.head.at_references()), self.head.references, Reference::SIZE)
    }

    /// What the base has and it has not.
    pub fn removed(&self) -> Result<Stream, ViewListError> {
        self.stream(self.head.at_removed(), self.head.removed, 32)
    }

    /// Further ids.
    pub fn others(&self) -> Result<Stream, ViewListError> {
        self.stream(self.head.at_others(), self.head.others, 32)
    }

    /// Goes through the ids of its references: what [`Verified::references`] gives, several times as fast.
    pub fn each_reference(&self, each: &mut impl FnMut(&Id)) -> Result<(), ViewListError> {
        self.each::<{ Reference::SIZE }>(Some(self.head.at_references()), self.head.references, each)
    }

    /// The same with what [`Verified::removed`] gives.
    pub fn each_removed(&self, each: &mut impl FnMut(&Id)) -> Result<(), ViewListError> {
        self.each::<{ ID as usize }>(self.head.at_removed(), self.head.removed, each)
    }

    fn each<const WIDTH: usize>(&self, at: Option<u64>, count: u64, each: &mut impl FnMut(&Id)) -> Result<(), ViewListError> {
        if count == 0 {
            return Ok(());
        }
        let damaged = || ViewListError::Damaged(self.path.display().to_string());
        let unreadable = |e| ViewListError::Unreadable(self.path.display().to_string(), e);
        let at = at.ok_or_else(damaged)?;
        let bytes = |count: u64| usize::try_from(count).ok()?.checked_mul(WIDTH);
        let mut order = Order::default();
        if let Some(small) = &self.small {
            let begin = usize::try_from(at).ok();
            let end = begin.zip(bytes(count)).and_then(|(begin, bytes)| begin.checked_add(bytes));
            let part = begin.zip(end).and_then(|(begin, end)| small.get(begin..end)).ok_or_else(damaged)?;
            return if order.each::<WIDTH>(part, each) { Ok(()) } else { Err(damaged()) };
        }
        let mut file = File::open(&self.path).map_err(unreadable)?;
        file.seek(SeekFrom::Start(at)).map_err(unreadable)?;
        let mut buffer = vec![0; bytes(count.min(TOGETHER)).ok_or_else(damaged)?];
        let mut left = count;
        while left > 0 {
            let now = left.min(TOGETHER);
            let part = bytes(now).and_then(|bytes| buffer.get_mut(..bytes)).ok_or_else(damaged)?;
            file.read_exact(part).map_err(unreadable)?;
            if !order.each::<WIDTH>(part, each) {
                return Err(damaged());
            }
            left -= now;
        }
        Ok(())
    }

    fn stream(&self, at: Option<u64>, count: u64, width: usize) -> Result<Stream, ViewListError> {
        let unreadable = |e| ViewListError::Unreadable(self.path.display().to_string(), e);
        let at = at.ok_or_else(|| ViewListError::Damaged(self.path.display().to_string()))?;
        let source = match &self.small {
            Some(bytes) => Source::Small(Arc::clone(bytes), usize::try_from(at).unwrap_or(usize::MAX)),
            None if count == 0 => Source::Small(Arc::from([]), 0),
            None => {
                let mut file = File::open(&self.path).map_err(unreadable)?;
                file.seek(SeekFrom::Start(at)).map_err(unreadable)?;
                Source::Large(BufReader::with_capacity(SMALL as usize, file))
            }
        };
        Ok(Stream { source, left: count, width, last: None, path: self.path.clone() })
    }
}

/// Sees that each id comes after the one before.
#[derive(Default)]
struct Order {
    last: Option<Id>,
    /// How the last one begins; most of them differ there.
    begin: u64,
}

impl Order {
    /// The ids of these entries, in their order; false at one that is not behind the one before.
    fn each<const WIDTH: usize>(&mut self, entries: &[u8], each: &mut impl FnMut(&Id)) -> bool {
        for entry in entries.as_chunks::<WIDTH>().0 {
            let Some((id, begin)) = entry.first_chunk::<32>().zip(entry.first_chunk::<8>()) else { return false };
            let (id, begin) = (Id(*id), u64::from_be_bytes(*begin));
            if begin <= self.begin && self.last.is_some_and(|last| last >= id) {
                return false;
            }
            (self.last, self.begin) = (Some(id), begin);
            each(&id);
        }
        true
    }
}

enum Source {
    Small(Arc<[u8]>, usize),
    Large(BufReader<File>),
}

/// Entries of one part of a file, in the order of their ids, each id once.
pub struct Stream {
    source: Source,
    left: u64,
    width: usize,
    last: Option<[u8; 32]>,
    path: PathBuf,
}

impl Stream {
    /// The next entry; ids come with zero sizes.
    pub fn next(&mut self) -> Result<Option<Reference>, ViewListError> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        let mut entry = [0; Reference::SIZE];
        let into = &mut entry[..self.width];
        match &mut self.source {
            Source::Large(file) => file.read_exact(into).map_err(|e| ViewListError::Unreadable(self.path.display().to_string(), e))?,
            Source::Small(bytes, at) => {
                let end = at.saturating_add(self.width);
                into.copy_from_slice(bytes.get(*at..end).ok_or_else(|| ViewListError::Damaged(self.path.display().to_string()))?);
                *at = end;
            }
        }
        let number = |at: usize| u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]]);
        let (size, csize) = (number(32), number(36));
        let id = entry.first_chunk::<32>().copied().unwrap_or_default();
        if self.last.is_some_and(|last| last >= id) {
            return Err(ViewListError::Damaged(self.path.display().to_string()));
        }
        self.last = Some(id);
        Ok(Some(Reference { id, size, csize }))
    }
}
