//! Borg's own index of a repository, `index.T`: a hash table from id to segment and offset.

use std::fs::File;
use std::io::{BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use borg::Id;
use borg::cache::buckets_for;
pub use borg::integrity::Digests;

use super::failed;
use crate::{Entry, Error, Result};

const MAGIC: &[u8; 8] = b"BORG_IDX";
const HEADER: usize = 18;
const KEY: usize = 32;
const VALUE: usize = 8;
const BUCKET: usize = KEY + VALUE;
const EMPTY: u32 = 0xffff_ffff;
const DELETED: u32 = 0xffff_fffe;
/// The largest number of a segment that is none of the above (Borg 1.x: MAX_VALUE).
const LARGEST: u32 = 0xffff_fbff;

/// Buckets that are filled at once: 48 MiB.
const RANGE: u32 = 48 * 1024 * 1024 / BUCKET as u32;

type Bucket = [u8; BUCKET];

fn empty() -> Bucket {
    let mut bucket = [0; BUCKET];
    bucket[KEY..KEY + 4].copy_from_slice(&EMPTY.to_le_bytes());
    bucket
}

fn is_empty(bucket: &Bucket) -> bool {
    segment(bucket) == EMPTY
}

fn segment(bucket: &Bucket) -> u32 {
    u32::from_le_bytes([bucket[32], bucket[33], bucket[34], bucket[35]])
}

fn home(id: &Id, buckets: u32) -> u32 {
    u32::from_le_bytes([id.0[0], id.0[1], id.0[2], id.0[3]]) % buckets
}

fn duplicate(bucket: &Bucket) -> Error {
    let id = Id(std::array::from_fn(|at| bucket[at]));
    Error::Index(format!("object {id} is in the index twice"))
}

/// Puts a bucket into the first empty place from `at` on; false if there is none.
fn place(table: &mut [Bucket], at: usize, bucket: &Bucket) -> Result<bool> {
    for place in &mut table[at..] {
        if is_empty(place) {
            *place = *bucket;
            return Ok(true);
        }
        if place[..KEY] == bucket[..KEY] {
            return Err(duplicate(bucket));
        }
    }
    Ok(false)
}

/// Writes Borg's index of a repository with `count` objects, and returns the digests that belong into `integrity.T`. The digests are of
/// the file's name, without `.tmp` at its end if there is one.
///
/// The table is filled range by range, so that memory is bounded; `entries` is asked for all of them once for each range, about 1.2
/// million buckets. What does not fit into a range goes into the next one, and what does not fit into the last one into the first.
pub fn write_borg_index<I>(count: u64, entries: impl Fn() -> Result<I>, path: &Path) -> Result<Digests>
where
    I: Iterator<Item = Result<(Id, Entry)>>,
{
    let buckets = usize::try_from(count).ok().and_then(buckets_for);
    let buckets = buckets.ok_or_else(|| Error::Index(format!("{count} objects are more than Borg's index can hold")))?;
    write_table(count, entries, path, buckets, RANGE)
}

fn write_table<I>(count: u64, entries: impl Fn() -> Result<I>, path: &Path, buckets: u32, range: u32) -> Result<Digests>
where
    I: Iterator<Item = Result<(Id, Entry)>>,
{
    let broken = |error: std::io::Error| failed("writing", path, &error);
    let file = File::options().read(true).write(true).create(true).truncate(true).open(path).map_err(broken)?;
    let mut header = MAGIC.to_vec();
    header.extend_from_slice(&(count as u32).to_le_bytes());
    header.extend_from_slice(&buckets.to_le_bytes());
    header.extend_from_slice(&[KEY as u8, VALUE as u8]);
    file.write_all_at(&header, 0).map_err(broken)?;

    let start = digests_of(path, &header);
    let mut digests = start.clone();
    let (mut seen, mut over) = (0, Vec::<Bucket>::new());
    let mut table = vec![empty(); range.min(buckets) as usize];
    let mut first = 0;
    while first < buckets {
        let length = (buckets - first).min(range);
        table.truncate(length as usize);
        table.fill(empty());
        let mut next = Vec::new();
        for bucket in over {
            if !place(&mut table, 0, &bucket)? {
                next.push(bucket);
            }
        }
        for item in entries()? {
            let (id, entry) = item?;
            let at = home(&id, buckets);
            if !(first..first + length).contains(&at) {
                continue;
            }
            if entry.segment > LARGEST {
                return Err(Error::Index(format!("object {id} is in segment {}, which Borg cannot index", entry.segment)));
            }
            seen += 1;
            let mut bucket = [0; BUCKET];
            bucket[..KEY].copy_from_slice(&id.0);
            bucket[32..36].copy_from_slice(&entry.segment.to_le_bytes());
            bucket[36..].copy_from_slice(&entry.offset.to_le_bytes());
            if !place(&mut table, (at - first) as usize, &bucket)? {
                next.push(bucket);
            }
        }
        over = next;
        digests.update(table.as_flattened());
        file.write_all_at(table.as_flattened(), offset(first)).map_err(broken)?;
        first += length;
    }
    if seen != count {
        return Err(Error::Index(format!("{count} objects were to be written to {}, but there are {seen}", path.display())));
    }
    if !over.is_empty() {
        // Those that ran over the end go on at the beginning, which is written already.
        digests = start;
        table.resize(range.min(buckets) as usize, empty());
        let mut first = 0;
        while first < buckets {
            table.truncate((buckets - first) as usize);
            file.read_exact_at(table.as_flattened_mut(), offset(first)).map_err(broken)?;
            if !over.is_empty() {
                let mut next = Vec::new();
                for bucket in over {
                    if !place(&mut table, 0, &bucket)? {
                        next.push(bucket);
                    }
                }
                over = next;
                file.write_all_at(table.as_flattened(), offset(first)).map_err(broken)?;
            }
            digests.update(table.as_flattened());
            first += table.len() as u32;
        }
        if !over.is_empty() {
            return Err(Error::Index(format!("{count} objects do not fit into {buckets} buckets")));
        }
    }
    digests.end_part("final");
    file.sync_all().map_err(broken)?;
    Ok(digests)
}

fn offset(bucket: u32) -> u64 {
    HEADER as u64 + u64::from(bucket) * BUCKET as u64
}

fn digests_of(path: &Path, header: &[u8]) -> Digests {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut digests = Digests::new(name.strip_suffix(".tmp").unwrap_or(&name));
    digests.update(header);
    digests.end_part("HashHeader");
    digests
}

/// Reads Borg's index of a repository from beginning to end, in the order of its table.
pub struct BorgIndex {
    reader: BufReader<File>,
    path: std::path::PathBuf,
    left: u32,
    /// Objects, as the header says.
    pub count: u32,
    /// Buckets, as the header says.
    pub buckets: u32,
}

impl BorgIndex {
    /// Checks header and length.
    pub fn open(path: &Path) -> Result<BorgIndex> {
        let broken = |error: std::io::Error| failed("reading", path, &error);
        let bad = || Error::Index(format!("{} is no index of a Borg repository", path.display()));
        let file = File::open(path).map_err(broken)?;
        let length = file.metadata().map_err(broken)?.len();
        let mut reader = BufReader::with_capacity(1 << 20, file);
        let mut header = [0; HEADER];
        reader.read_exact(&mut header).map_err(|_| bad())?;
        let number = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let (count, buckets) = (number(8), number(12));
        let fits = header[16] == KEY as u8 && header[17] == VALUE as u8 && length == offset(buckets) && count <= buckets;
        if !header.starts_with(MAGIC) || !fits {
            return Err(bad());
        }
        Ok(BorgIndex { reader, path: path.to_owned(), left: buckets, count, buckets })
    }
}

impl Iterator for BorgIndex {
    /// Id, segment and offset.
    type Item = Result<(Id, u32, u32)>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut bucket = [0; BUCKET];
        while self.left > 0 {
            self.left -= 1;
            if let Err(error) = self.reader.read_exact(&mut bucket) {
                self.left = 0;
                return Some(Err(failed("reading", &self.path, &error)));
            }
            if segment(&bucket) < DELETED {
                let offset = u32::from_le_bytes([bucket[36], bucket[37], bucket[38], bucket[39]]);
                return Some(Ok((Id(std::array::from_fn(|at| bucket[at])), segment(&bucket), offset)));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn check(homes: &[u32], buckets: u32, range: u32) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index.5.tmp");
        let entries: Vec<(Id, Entry)> = homes
            .iter()
            .enumerate()
            .map(|(n, home)| {
                let mut id = [n as u8; 32];
                id[..4].copy_from_slice(&home.to_le_bytes());
                (Id(id), Entry { segment: n as u32, offset: 8 + n as u32, size: 1, csize: 2 })
            })
            .collect();
        let all = || Ok(entries.iter().map(|entry| Ok(*entry)));
        let digests = write_table(entries.len() as u64, all, &path, buckets, range).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(digests.to_json(), borg::integrity::of_index("index.5", &bytes));
        let read: BTreeMap<Id, (u32, u32)> = BorgIndex::open(&path)
            .unwrap()
            .map(|item| item.map(|(id, segment, offset)| (id, (segment, offset))))
            .collect::<Result<_>>()
            .unwrap();
        assert_eq!(read, entries.iter().map(|(id, e)| (*id, (e.segment, e.offset))).collect());
        // As Borg looks it up: from its home on, until a bucket was never used.
        let table = bytes[HEADER..].as_chunks::<BUCKET>().0;
        for (id, entry) in &entries {
            let home = home(id, buckets) as usize;
            let mut chain = table[home..].iter().chain(&table[..home]).take_while(|bucket| !is_empty(bucket));
            let found = chain.find(|bucket| bucket[..KEY] == id.0).unwrap_or_else(|| panic!("{id} not found, {homes:?} {buckets} {range}"));
            assert_eq!(segment(found), entry.segment);
        }
    }

    #[test]
    fn every_id_is_found_however_the_table_is_cut() {
        for range in 1..=9 {
            check(&[], 7, range);
            check(&[3], 7, range);
            check(&[6, 6, 6, 6], 7, range);
            check(&[6, 6, 6, 6, 6, 6, 6], 7, range);
            check(&[0, 1, 2, 3, 4, 5, 6], 7, range);
            check(&[6, 5, 6, 5, 6, 0, 0], 7, range);
            check(&[5, 0, 5, 5, 3, 5], 7, range);
            check(&[0], 1, range);
        }
    }

    proptest::proptest! {
        #[test]
        fn every_id_is_found_in_any_table(homes in proptest::collection::vec(0u32..1000, 0..40), more in 0u32..5, range in 1u32..50) {
            let buckets = homes.len() as u32 + more;
            if buckets > 0 {
                check(&homes, buckets, range);
            }
        }
    }

    #[test]
    fn wrong_counts_and_duplicates_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index.1");
        let entry = (Id([1; 32]), Entry { segment: 0, offset: 8, size: 0, csize: 0 });
        let write = |count, entries: Vec<(Id, Entry)>| write_borg_index(count, || Ok(entries.clone().into_iter().map(Ok)), &path);
        assert!(write(1, vec![entry]).is_ok());
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 18 + 40 * 1031);
        assert!(write(2, vec![entry]).is_err());
        assert!(write(2, vec![entry, entry]).is_err());
        assert!(write(u64::from(u32::MAX), vec![]).is_err());
        assert!(write(1, vec![(entry.0, Entry { segment: 0xffff_fc00, ..entry.1 })]).is_err());
    }

    #[test]
    fn what_is_no_index_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index.1");
        write_borg_index(0, || Ok(std::iter::empty()), &path).unwrap();
        let good = std::fs::read(&path).unwrap();
        assert_eq!(BorgIndex::open(&path).unwrap().count(), 0);
        for (at, byte) in [(0, b'X'), (8, 0xff), (12, 0), (16, 20), (17, 12)] {
            let mut bad = good.clone();
            bad[at] = byte;
            if at == 8 {
                bad[11] = 1;
            }
            std::fs::write(&path, bad).unwrap();
            assert!(BorgIndex::open(&path).is_err(), "byte {at}");
        }
        std::fs::write(&path, &good[..good.len() - 1]).unwrap();
        assert!(BorgIndex::open(&path).is_err());
    }
}
