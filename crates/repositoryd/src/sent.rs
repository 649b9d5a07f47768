//! What one session sent: a table that stays small in memory however much that is.
//!
//! The first chunks are remembered in memory, and from then on all of them in a file without a name below the state's directory, which
//! vanishes with its descriptor. That file is a hash table of pages: an entry is in the page that its id leads to, or, where that is full, in
//! the first one behind it that was not. Nothing is ever taken out, so a page that is not full ends the search.

use crate::failures::of_state;
use borg::Id;
use model::Failure;
use repository::{IdHash, IdMap};
use std::fs::File;
use std::hash::BuildHasher;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Chunks that are remembered in memory, some 5 MB.
const IN_MEMORY: usize = 50_000;

const PAGE: usize = 4096;
/// Id, size, csize and marks.
const ENTRY: usize = 44;
const ENTRIES: usize = PAGE / ENTRY;
/// Pages of a new file: they are half full with what was in memory.
const PAGES: u64 = 1024;
/// Pages that are read at once.
const BATCH: usize = 64;

const IS_THERE: u32 = 1;
const IS_NEW: u32 = 2;

/// A chunk that a session sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// Its plaintext size.
    pub size: u32,
    /// Its size in an envelope of the client's key.
    pub csize: u32,
    /// Whether it was stored because of this session.
    pub new: bool,
}

/// All of them.
#[derive(Debug)]
pub struct SentTable {
    directory: PathBuf,
    in_memory: usize,
    memory: IdMap<Sent>,
    pages: Option<Pages>,
}

#[derive(Debug)]
struct Pages {
    file: File,
    hash: IdHash,
    count: u64,
    entries: u64,
}

/// Where an entry is, or where it is to be.
struct Place {
    offset: u64,
    sent: Option<Sent>,
}

impl SentTable {
    /// An empty one, whose file will be in that directory.
    pub fn new(directory: &Path) -> SentTable {
        SentTable { directory: directory.to_owned(), in_memory: IN_MEMORY, memory: IdMap::default(), pages: None }
    }

    /// What was sent under this id.
    pub fn get(&self, id: &Id) -> Result<Option<Sent>, Failure> {
        match &self.pages {
            None => Ok(self.memory.get(id).copied()),
            Some(pages) => self.checked(pages.find(id)).map(|place| place.sent),
        }
    }

    /// Adds a chunk; false if it is there already, and stays as it is.
    pub fn add(&mut self, id: Id, sent: Sent) -> Result<bool, Failure> {
        if self.pages.is_none() {
            if self.memory.len() < self.in_memory || self.memory.contains_key(&id) {
                let mut is_first = false;
                self.memory.entry(id).or_insert_with(|| {
                    is_first = true;
                    sent
                });
                return Ok(is_first);
            }
            let pages = self.spilled();
            self.pages = Some(self.checked(pages)?);
            self.memory = IdMap::default();
        }
        let grown = match &self.pages {
            Some(pages) if pages.is_full() => {
                Some(self.checked(tempfile::tempfile_in(&self.directory).and_then(|file| pages.grown(file)))?)
            }
            _ => None,
        };
        if grown.is_some() {
            self.pages = grown;
        }
        let added = self.pages.as_mut().map_or(Ok(false), |pages| pages.add(&id, sent));
        self.checked(added)
    }

    /// Notes that a chunk was stored because of this session.
    pub fn set_new(&mut self, id: &Id) -> Result<(), Failure> {
        let set = match &self.pages {
            None => {
                self.memory.entry(*id).and_modify(|sent| sent.new = true);
                Ok(())
            }
            Some(pages) => pages.set_new(id),
        };
        self.checked(set)
    }

    /// Calls `each` with all of them, in parts; ends with its first error.
    pub fn each(&self, mut each: impl FnMut(&[(Id, Sent)]) -> Result<(), Failure>) -> Result<(), Failure> {
        let mut at = 0;
        while let Some(part) = self.part(at)? {
            each(&part)?;
            at += 1;
        }
        Ok(())
    }

    /// One of the parts that all of them make together, for as long as nothing is added; None behind the last one.
    pub fn part(&self, at: u64) -> Result<Option<Vec<(Id, Sent)>>, Failure> {
        match &self.pages {
            None => Ok((at == 0).then(|| self.memory.iter().map(|(id, sent)| (*id, *sent)).collect())),
            Some(pages) => {
                let first = at.saturating_mul(BATCH as u64);
                if first >= pages.count {
                    return Ok(None);
                }
                let mut bytes = vec![0; BATCH * PAGE];
                let bytes = self.checked(pages.read_batch(first, &mut bytes))?;
                Ok(Some(bytes.as_chunks::<PAGE>().0.iter().flat_map(entries).collect()))
            }
        }
    }

    fn spilled(&self) -> std::io::Result<Pages> {
        let mut pages = Pages::create(tempfile::tempfile_in(&self.directory)?, IdHash::default(), PAGES)?;
        self.memory.iter().try_for_each(|(id, sent)| pages.add(id, *sent).map(drop))?;
        Ok(pages)
    }

    fn checked<T>(&self, done: std::io::Result<T>) -> Result<T, Failure> {
        done.map_err(|cause| {
            let doing = format!("the list in {} of what a client has sent fails", self.directory.display());
            of_state(&unix::Error::Io { doing, cause })
        })
    }
}

impl Pages {
    fn create(file: File, hash: IdHash, count: u64) -> std::io::Result<Pages> {
        file.set_len(count * PAGE as u64)?;
        Ok(Pages { file, hash, count, entries: 0 })
    }

    /// Two thirds: so hardly any page is.
    fn is_full(&self) -> bool {
        self.entries * 3 >= self.count * ENTRIES as u64 * 2
    }

    fn home(&self, id: &Id) -> u64 {
        ((u128::from(self.hash.hash_one(id)) * u128::from(self.count)) >> 64) as u64
    }

    fn find(&self, id: &Id) -> std::io::Result<Place> {
        let mut bytes = [0; PAGE];
        let home = self.home(id);
        for page in (home..self.count).chain(0..home) {
            self.file.read_exact_at(&mut bytes, page * PAGE as u64)?;
            for (at, entry) in bytes.as_chunks::<ENTRY>().0.iter().enumerate() {
                let offset = page * PAGE as u64 + (at * ENTRY) as u64;
                match decode(entry) {
                    None => return Ok(Place { offset, sent: None }),
                    Some((found, sent)) if found == *id => return Ok(Place { offset, sent: Some(sent) }),
                    Some(_) => {}
                }
            }
        }
        Err(std::io::Error::other("a table has no room"))
    }

    fn add(&mut self, id: &Id, sent: Sent) -> std::io::Result<bool> {
        let place = self.find(id)?;
        if place.sent.is_some() {
            return Ok(false);
        }
        self.file.write_all_at(&encode(id, sent), place.offset)?;
        self.entries += 1;
        Ok(true)
    }

    fn set_new(&self, id: &Id) -> std::io::Result<()> {
        match self.find(id)? {
            Place { offset, sent: Some(sent) } => self.file.write_all_at(&encode(id, Sent { new: true, ..sent }), offset),
            Place { .. } => Ok(()),
        }
    }

    fn read_batch<'a>(&self, first: u64, bytes: &'a mut [u8]) -> std::io::Result<&'a [u8]> {
        let count = (self.count - first).min(BATCH as u64) as usize;
        let bytes = &mut bytes[..count * PAGE];
        self.file.read_exact_at(bytes, first * PAGE as u64)?;
        Ok(bytes)
    }

    /// The same with twice as many pages, of which each gets what half a page had: both files are gone through once.
    fn grown(&self, file: File) -> std::io::Result<Pages> {
        let mut grown = Pages::create(file, self.hash, self.count * 2)?;
        let mut bytes = vec![0; BATCH * PAGE];
        let mut strays = vec![];
        for first in (0..self.count).step_by(BATCH) {
            let bytes = self.read_batch(first, &mut bytes)?;
            let mut out = vec![0; bytes.len() * 2];
            let pages = out.as_chunks_mut::<PAGE>().0;
            let mut filled = vec![0; pages.len()];
            for (id, sent) in bytes.as_chunks::<PAGE>().0.iter().flat_map(entries) {
                // It may have come from a page that was full, and that page may be in another batch.
                let at = usize::try_from(grown.home(&id).wrapping_sub(first * 2)).unwrap_or(usize::MAX);
                match filled.get_mut(at) {
                    Some(count) if *count < ENTRIES => {
                        pages[at][*count * ENTRY..][..ENTRY].copy_from_slice(&encode(&id, sent));
                        *count += 1;
                        grown.entries += 1;
                    }
                    _ => strays.push((id, sent)),
                }
            }
            grown.file.write_all_at(&out, first * 2 * PAGE as u64)?;
        }
        for (id, sent) in strays {
            grown.add(&id, sent)?;
        }
        Ok(grown)
    }
}

fn encode(id: &Id, sent: Sent) -> [u8; ENTRY] {
    let mut entry = [0; ENTRY];
    entry[..32].copy_from_slice(&id.0);
    let marks = if sent.new { IS_THERE | IS_NEW } else { IS_THERE };
    for (place, number) in entry[32..].as_chunks_mut::<4>().0.iter_mut().zip([sent.size, sent.csize, marks]) {
        *place = number.to_le_bytes();
    }
    entry
}

fn decode(entry: &[u8; ENTRY]) -> Option<(Id, Sent)> {
    let (id, numbers) = entry.split_first_chunk::<32>()?;
    let [size, csize, marks] = *numbers.as_chunks::<4>().0 else { return None };
    let marks = u32::from_le_bytes(marks);
    let sent = Sent { size: u32::from_le_bytes(size), csize: u32::from_le_bytes(csize), new: marks & IS_NEW != 0 };
    (marks & IS_THERE != 0).then_some((Id(*id), sent))
}

fn entries(page: &[u8; PAGE]) -> impl Iterator<Item = (Id, Sent)> {
    page.as_chunks::<ENTRY>().0.iter().map_while(decode)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn id(n: u32) -> Id {
        Id(std::array::from_fn(|at| n.wrapping_mul(2_654_435_761).to_le_bytes()[at % 4] ^ at as u8))
    }

    fn sent(n: u32) -> Sent {
        Sent { size: n, csize: n + 1, new: false }
    }

    fn all(table: &SentTable) -> HashMap<Id, Sent> {
        let (mut all, mut count) = (HashMap::new(), 0);
        let each = table.each(|part| {
            count += part.len();
            all.extend(part.iter().copied());
            Ok(())
        });
        each.unwrap();
        assert_eq!(all.len(), count);
        all
    }

    #[test]
    fn what_does_not_fit_into_memory_is_in_a_file_and_nothing_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let mut table = SentTable { in_memory: 1000, ..SentTable::new(dir.path()) };
        // Grows twice: 1024 pages have 92 entries each.
        for n in 0..150_000 {
            assert!(table.add(id(n), sent(n)).unwrap());
            if n % 1000 < 3 {
                table.set_new(&id(n)).unwrap();
                assert!(!table.add(id(n), sent(7)).unwrap());
            }
            assert!(table.memory.len() <= 1000 && (table.pages.is_none() || table.memory.capacity() == 0));
        }
        assert_eq!(table.pages.as_ref().unwrap().count, 4096);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "it has no name");
        for n in 0..150_000 {
            assert_eq!(table.get(&id(n)).unwrap(), Some(Sent { new: n % 1000 < 3, ..sent(n) }));
        }
        assert_eq!(table.get(&id(150_000)).unwrap(), None);
        let all = all(&table);
        assert!(all.len() == 150_000 && (0..150_000).all(|n| all.contains_key(&id(n))));
    }

    #[test]
    fn few_stay_in_memory() {
        let mut table = SentTable::new(Path::new("/nonexistent"));
        assert!(table.add(id(1), sent(1)).unwrap() && !table.add(id(1), sent(2)).unwrap());
        table.set_new(&id(1)).unwrap();
        table.set_new(&id(2)).unwrap();
        assert_eq!(all(&table), HashMap::from([(id(1), Sent { new: true, ..sent(1) })]));
        // A file that cannot be made is an error with a name, and the table stays as it was.
        table.in_memory = 1;
        let failure = table.add(id(2), sent(2)).unwrap_err();
        assert!(failure.message.contains("/nonexistent"), "{}", failure.message);
        assert_eq!((table.get(&id(1)).unwrap().map(|sent| sent.size), table.get(&id(2)).unwrap()), (Some(1), None));
    }

    #[test]
    fn pages_that_are_full_lead_on() {
        let dir = tempfile::tempdir().unwrap();
        let file = || tempfile::tempfile_in(dir.path()).unwrap();
        let mut pages = Pages::create(file(), IdHash::default(), 2).unwrap();
        for n in 0..2 * ENTRIES as u32 - 1 {
            assert!(pages.add(&id(n), sent(n)).unwrap());
        }
        let grown = pages.grown(file()).unwrap();
        assert_eq!((grown.count, grown.entries), (4, pages.entries));
        for n in 0..2 * ENTRIES as u32 - 1 {
            assert_eq!((pages.find(&id(n)).unwrap().sent, grown.find(&id(n)).unwrap().sent), (Some(sent(n)), Some(sent(n))));
        }
        assert!(pages.add(&id(900), sent(9)).unwrap());
        assert!(pages.find(&id(901)).is_err(), "it never is so full");
    }
}
