//! The file `chunks` of a client's cache: a hash table from chunk id to reference count, size and stored size.

use std::io::{self, Write};

use crate::Id;

const MAGIC: &[u8; 8] = b"BORG_IDX";
const HEADER: usize = 18;
const KEY: usize = 32;
const VALUE: usize = 12;
const BUCKET: usize = KEY + VALUE;

/// First number of the value of a bucket that was never used.
const EMPTY: u32 = 0xffff_ffff;
/// First number of the value of a bucket whose entry was deleted.
const DELETED: u32 = 0xffff_fffe;

/// Table sizes of Borg 1.x: prime numbers, growing by less and less.
const SIZES: [u32; 44] = [
    1031,
    2053,
    4099,
    8209,
    16411,
    32771,
    65537,
    131_101,
    262_147,
    445_649,
    757_607,
    1_287_917,
    2_189_459,
    3_065_243,
    4_291_319,
    6_007_867,
    8_410_991,
    11_775_359,
    16_485_527,
    23_079_703,
    27_695_653,
    33_234_787,
    39_881_729,
    47_858_071,
    57_429_683,
    68_915_617,
    82_698_751,
    99_238_507,
    119_086_189,
    144_378_011,
    157_223_263,
    173_476_439,
    190_253_911,
    209_915_011,
    230_493_629,
    253_169_431,
    278_728_861,
    306_647_623,
    337_318_939,
    370_742_809,
    408_229_973,
    449_387_209,
    493_428_073,
    543_105_119,
];

/// An index that cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// Writing failed.
    #[error("writing the chunks index failed: {0}")]
    Write(#[from] io::Error),
    /// The same id twice.
    #[error("chunk {0} is listed twice")]
    Duplicate(Id),
    /// A reference count above [`super::REFCOUNT_STICKY`].
    #[error("chunk {0} has a reference count that is reserved")]
    Refcount(Id),
    /// More than Borg's tables hold.
    #[error("{0} chunks are more than a chunks index can hold")]
    TooMany(usize),
    /// Not a chunks index, or its length does not match its header.
    #[error("this is not a chunks index: {0}")]
    Malformed(&'static str),
}

/// One chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexEntry {
    /// Id.
    pub id: Id,
    /// References; 0 counts as absent.
    pub refcount: u32,
    /// Bytes of plaintext.
    pub size: u32,
    /// Bytes as stored, envelope included.
    pub csize: u32,
}

/// Number of buckets for so many entries: Borg's smallest table that is at most three quarters full.
#[must_use]
pub fn buckets_for(entries: usize) -> Option<u32> {
    let needed = u64::try_from(entries).ok()?.checked_mul(4)?;
    SIZES.into_iter().find(|size| u64::from(*size) * 3 >= needed)
}

fn home(id: &Id, buckets: u32) -> u32 {
    let [a, b, c, d, ..] = id.0;
    u32::from_le_bytes([a, b, c, d]) % buckets
}

/// An entry as it is written: id, reference count, size, stored size.
type Entry = (Id, u32, u32, u32);

/// Writes an index of `(id, reference count, size, stored size)`.
///
/// Needs 48 bytes of memory for each entry; [`write_chunks_index_of`] does without the entries.
pub fn write_chunks_index(entries: impl IntoIterator<Item = (Id, u32, u32, u32)>, out: impl Write) -> Result<(), IndexError> {
    let entries: Vec<Entry> = entries.into_iter().collect();
    write_chunks_index_of(&entries, |entry| *entry, out)
}

/// The same of whatever has such entries.
///
/// Needs 4 bytes of memory for each entry and none for the table, which is written in one pass: in the order of the places that entries hash
/// to, they fall into place one after the other, and only those that run over the end come first.
pub fn write_chunks_index_of<E>(entries: &[E], entry: impl Fn(&E) -> (Id, u32, u32, u32), mut out: impl Write) -> Result<(), IndexError> {
    let buckets = buckets_for(entries.len()).ok_or(IndexError::TooMany(entries.len()))?;
    if let Some((id, ..)) = entries.iter().map(&entry).find(|(_, refcount, ..)| *refcount > super::REFCOUNT_STICKY) {
        return Err(IndexError::Refcount(id));
    }
    // `buckets_for` has bounded how many there are.
    let mut order: Vec<u32> = (0..entries.len() as u32).collect();
    let at = |number: &u32| entry(&entries[*number as usize]);
    order.sort_unstable_by_key(|number| {
        let (id, ..) = at(number);
        (home(&id, buckets), id)
    });
    if let Some(pair) = order.windows(2).find(|pair| at(&pair[0]).0 == at(&pair[1]).0) {
        return Err(IndexError::Duplicate(at(&pair[0]).0));
    }

    let (ordered, wrapped) = order.split_at(order.len() - overrun(order.iter().map(|number| at(number).0), buckets));
    out.write_all(MAGIC)?;
    // At most three quarters of 543 million: both fit into the i32 of the format.
    out.write_all(&(entries.len() as u32).to_le_bytes())?;
    out.write_all(&buckets.to_le_bytes())?;
    out.write_all(&[KEY as u8, VALUE as u8])?;
    let (mut ordered, mut wrapped) = (ordered.iter().map(at).peekable(), wrapped.iter().map(at));
    for bucket in 0..buckets {
        let next = match ordered.next_if(|(id, ..)| home(id, buckets) <= bucket) {
            Some(entry) => Some(entry),
            None => wrapped.next(),
        };
        out.write_all(&next.as_ref().map_or_else(empty, packed))?;
    }
    Ok(())
}

/// How many of these, sorted by home, find no bucket between their home and the end of the table.
fn overrun(ids: impl Iterator<Item = Id>, buckets: u32) -> usize {
    let mut free = 0u64;
    let mut over = 0;
    for id in ids {
        free = free.max(u64::from(home(&id, buckets))) + 1;
        if free > u64::from(buckets) {
            over += 1;
        }
    }
    over
}

fn packed((id, refcount, size, csize): &Entry) -> [u8; BUCKET] {
    let mut bucket = [0; BUCKET];
    bucket[..32].copy_from_slice(&id.0);
    bucket[32..36].copy_from_slice(&refcount.to_le_bytes());
    bucket[36..40].copy_from_slice(&size.to_le_bytes());
    bucket[40..44].copy_from_slice(&csize.to_le_bytes());
    bucket
}

fn empty() -> [u8; BUCKET] {
    let mut bucket = [0; BUCKET];
    bucket[32..36].copy_from_slice(&EMPTY.to_le_bytes());
    bucket
}

/// A chunks index in memory, as Borg reads it.
#[derive(Debug, Clone, Copy)]
pub struct ChunksIndex<'a> {
    buckets: &'a [[u8; BUCKET]],
}

impl<'a> ChunksIndex<'a> {
    /// Checks header and length.
    pub fn parse(file: &'a [u8]) -> Result<ChunksIndex<'a>, IndexError> {
        let (header, table) = file.split_first_chunk::<HEADER>().ok_or(IndexError::Malformed("too short"))?;
        if !header.starts_with(MAGIC) {
            return Err(IndexError::Malformed("wrong magic"));
        }
        if header[16] != KEY as u8 || header[17] != VALUE as u8 {
            return Err(IndexError::Malformed("other key or value size"));
        }
        let number = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let (buckets, rest) = table.as_chunks::<BUCKET>();
        if !rest.is_empty() || buckets.len() as u64 != u64::from(number(12)) || buckets.is_empty() {
            return Err(IndexError::Malformed("length does not match the header"));
        }
        let index = ChunksIndex { buckets };
        if index.iter().count() as u64 != u64::from(number(8)) {
            return Err(IndexError::Malformed("number of entries does not match the header"));
        }
        Ok(index)
    }

    /// Number of buckets.
    #[must_use]
    pub fn buckets(&self) -> usize {
        self.buckets.len()
    }

    /// All entries, in the order of the table.
    pub fn iter(&self) -> impl Iterator<Item = IndexEntry> + 'a {
        self.buckets.iter().map(unpacked).filter(|entry| entry.refcount < DELETED)
    }

    /// Looks an entry up the way Borg does: from its home on, until a bucket that was never used.
    #[must_use]
    pub fn get(&self, id: &Id) -> Option<IndexEntry> {
        let buckets = u32::try_from(self.buckets.len()).ok()?;
        let (before, after) = self.buckets.split_at_checked(home(id, buckets) as usize)?;
        let chain = after.iter().chain(before).map(unpacked).take_while(|entry| entry.refcount != EMPTY);
        chain.filter(|entry| entry.refcount != DELETED).find(|entry| entry.id == *id)
    }
}

fn unpacked(bucket: &[u8; BUCKET]) -> IndexEntry {
    let number = |at: usize| u32::from_le_bytes([bucket[at], bucket[at + 1], bucket[at + 2], bucket[at + 3]]);
    let mut id = [0; 32];
    id.copy_from_slice(&bucket[..32]);
    IndexEntry { id: Id(id), refcount: number(32), size: number(36), csize: number(40) }
}
