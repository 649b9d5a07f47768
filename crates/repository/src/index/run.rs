//! Runs: immutable files of sorted records.
//!
//! ```text
//! pages | first 8 bytes of the first id of each page, big-endian | filter | footer
//! footer: "BCRUN001", repository id (32), number of the run, of its pages, of its records, of the filter's words (8 each), CRC32 of
//!         everything after the pages (4)
//! ```

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use borg::{Id, RepositoryId};

use super::filter::Filter;
use super::page::{PAGE, Page, RECORDS, Record, encode};
use super::{damaged, failed};
use crate::{Entry, Result};

const MAGIC: &[u8; 8] = b"BCRUN001";
const FOOTER: usize = 76;

/// Where an open index has its runs.
pub(super) struct Place {
    pub(super) dir: PathBuf,
    pub(super) id: RepositoryId,
    /// False as soon as the directory may be opened again: its files are no longer ours to remove.
    pub(super) ours: AtomicBool,
}

/// An open run. Its file disappears with it, unless a checkpoint names it.
pub(super) struct Run {
    place: Arc<Place>,
    file: File,
    path: PathBuf,
    pub(super) number: u64,
    directory: Vec<u64>,
    filter: Option<Filter>,
    /// Records, removed ids included.
    pub(super) records: u64,
    /// CRC32 at the end of the file; with the number, it tells this run from every other.
    pub(super) sum: u32,
    /// Segments forgotten up to here were left out when it was written.
    pub(super) born: u64,
    named: AtomicBool,
    synced: AtomicBool,
    /// Syncing it failed once: nobody knows what of it is on the disk, whatever another sync says.
    lost: AtomicBool,
}

/// What a checkpoint notes of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) number: u64,
    pub(super) records: u64,
    pub(super) born: u64,
    pub(super) sum: u32,
}

/// The first 8 bytes of an id, which sort as ids do.
fn prefix(id: &Id) -> u64 {
    u64::from_be_bytes(std::array::from_fn(|at| id.0[at]))
}

pub(super) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("run-{number:08}"))
}

impl Run {
    /// Opens a run that a checkpoint names. Pages are not read.
    pub(super) fn open(place: &Arc<Place>, name: Name, oldest: bool) -> Result<Run> {
        let path = path(&place.dir, name.number);
        let mut file = File::open(&path).map_err(|error| failed("opening", &path, &error))?;
        let length = file.metadata().map_err(|error| failed("opening", &path, &error))?.len();
        let bad = || damaged(&path);
        let mut footer = [0; FOOTER];
        let start = length.checked_sub(FOOTER as u64).ok_or_else(bad)?;
        file.read_exact_at(&mut footer, start).map_err(|error| failed("reading", &path, &error))?;
        let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| footer[at + i]));
        let (pages, records, words) = (number(48), number(56), number(64));
        let sum = u32::from_le_bytes([footer[72], footer[73], footer[74], footer[75]]);
        let known = footer.starts_with(MAGIC) && footer[8..40] == place.id.0 && number(40) == name.number;
        let tail = pages.checked_mul(8).and_then(|bytes| bytes.checked_add(words.checked_mul(8)?));
        let expected = tail.and_then(|tail| pages.checked_mul(PAGE as u64)?.checked_add(tail)?.checked_add(FOOTER as u64));
        if !known || expected != Some(length) || records != name.records || sum != name.sum || pages != records.div_ceil(RECORDS as u64) {
            return Err(bad());
        }
        std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(pages * PAGE as u64)).map_err(|error| failed("reading", &path, &error))?;
        // Bounded by the file's length, which was compared above.
        let mut tail = vec![0; ((pages + words) * 8) as usize];
        file.read_exact(&mut tail).map_err(|error| failed("reading", &path, &error))?;
        let mut hash = crc32fast::Hasher::new();
        hash.update(&tail);
        hash.update(&footer[..72]);
        if hash.finalize() != sum {
            return Err(bad());
        }
        let (directory, filter) = tail.split_at(pages as usize * 8);
        let directory = directory.as_chunks().0.iter().map(|bytes| u64::from_be_bytes(*bytes)).collect();
        // Whatever is not in the other runs is looked for in the oldest one: there it would save least and cost most.
        let filter = if oldest { None } else { Filter::from_words(filter.as_chunks().0.iter().map(|b| u64::from_le_bytes(*b)).collect()) };
        let named = AtomicBool::new(true);
        let (synced, lost) = (AtomicBool::new(true), AtomicBool::new(false));
        let place = Arc::clone(place);
        Ok(Run { place, file, path, number: name.number, directory, filter, records, sum, born: name.born, named, synced, lost })
    }

    pub(super) fn name(&self) -> Name {
        Name { number: self.number, records: self.records, born: self.born, sum: self.sum }
    }

    /// A checkpoint names it, or no longer.
    pub(super) fn set_named(&self, named: bool) {
        self.named.store(named, Ordering::Release);
    }

    /// Makes it durable, except for its name in the directory.
    pub(super) fn sync(&self) -> Result<()> {
        if self.synced.load(Ordering::Acquire) {
            return Ok(());
        }
        if self.lost.load(Ordering::Acquire) {
            return Err(damaged(&self.path));
        }
        if let Err(error) = self.file.sync_data() {
            log::error!("{} cannot be synced: {error}", self.path.display());
            self.lost.store(true, Ordering::Release);
            return Err(damaged(&self.path));
        }
        self.synced.store(true, Ordering::Release);
        Ok(())
    }

    /// Asks for its pages to be read ahead.
    pub(super) fn will_need(&self) {
        if let Err(error) = unix::machine::read_ahead(&self.file) {
            log::debug!("{}: no reading ahead: {error}", self.path.display());
        }
    }

    pub(super) fn pages(&self) -> usize {
        self.directory.len()
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads whole pages from page `first` on.
    fn read(&self, first: usize, bytes: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(bytes, first as u64 * PAGE as u64).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => damaged(&self.path),
            _ => failed("reading", &self.path, &error),
        })
    }

    fn parse<'a>(&self, bytes: &'a [u8; PAGE], number: usize) -> Result<Page<'a>> {
        let page = Page::parse(bytes, self.number as u32, number as u32).ok_or_else(|| damaged(&self.path))?;
        // The directory led here: what it says must be what is here.
        if prefix(&page.first()) == self.directory[number] { Ok(page) } else { Err(damaged(&self.path)) }
    }

    /// `None` if this run says nothing about the id, `Some(None)` if it was removed.
    pub(super) fn find(&self, id: &Id) -> Result<Option<Option<Entry>>> {
        if self.filter.as_ref().is_some_and(|filter| !filter.may_have(id)) {
            return Ok(None);
        }
        let key = prefix(id);
        // The page is the last one whose first id is not larger. If several pages begin with the same 8 bytes, only their whole
        // first ids tell: `low` certainly begins early enough, `high` certainly too late.
        let mut high = self.directory.partition_point(|first| *first <= key);
        let mut low = self.directory[..high].partition_point(|first| *first < key).saturating_sub(1);
        if high == 0 {
            return Ok(None);
        }
        let mut bytes = [0; PAGE];
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            self.read(middle, &mut bytes)?;
            if self.parse(&bytes, middle)?.first() <= *id {
                low = middle;
            } else {
                high = middle;
            }
        }
        self.read(low, &mut bytes)?;
        Ok(self.parse(&bytes, low)?.find(id))
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if !*self.named.get_mut()
            && self.place.ours.load(Ordering::Acquire)
            && let Err(error) = fs::remove_file(&self.path)
        {
            // Opening the index removes what no checkpoint names.
            log::debug!("{}: not removed: {error}", self.path.display());
        }
    }
}

/// Writes a run.
pub(super) struct Writer {
    run: Run,
    page: Vec<Record>,
    buffer: Vec<u8>,
    written: u64,
}

/// Pages that are written or read at once.
const BATCH: usize = 32;

impl Writer {
    /// `expected`: no fewer records than will come. `oldest`: nothing older will ever be below it.
    pub(super) fn create(place: &Arc<Place>, number: u64, born: u64, expected: u64, oldest: bool) -> Result<Writer> {
        let path = path(&place.dir, number);
        let file =
            File::options().read(true).write(true).create_new(true).open(&path).map_err(|error| failed("creating", &path, &error))?;
        let (named, synced, lost) = (AtomicBool::new(false), AtomicBool::new(false), AtomicBool::new(false));
        let filter = (!oldest).then(|| Filter::for_ids(expected));
        let place = Arc::clone(place);
        let run = Run { place, file, path, number, directory: Vec::new(), filter, records: 0, sum: 0, born, named, synced, lost };
        Ok(Writer { run, page: Vec::with_capacity(RECORDS), buffer: Vec::with_capacity(BATCH * PAGE), written: 0 })
    }

    /// The next record; ids ascend.
    pub(super) fn push(&mut self, record: Record) -> Result<()> {
        if let Some(filter) = &mut self.run.filter {
            filter.add(&record.0);
        }
        self.page.push(record);
        if self.page.len() == RECORDS { self.end_page() } else { Ok(()) }
    }

    fn end_page(&mut self) -> Result<()> {
        let Some((first, _)) = self.page.first() else { return Ok(()) };
        let number = self.run.directory.len();
        self.run.directory.push(prefix(first));
        self.run.records += self.page.len() as u64;
        self.buffer.extend_from_slice(&encode(&self.page, self.run.number as u32, number as u32));
        self.page.clear();
        if self.buffer.len() >= BATCH * PAGE { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        let Run { file, path, .. } = &self.run;
        file.write_all_at(&self.buffer, self.written).map_err(|error| failed("writing", path, &error))?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Makes durable what is written so far, so that little is left for whoever waits for it.
    pub(super) fn sync(&self) -> Result<()> {
        self.run.file.sync_data().map_err(|error| failed("writing", &self.run.path, &error))
    }

    /// `None` if there were no records; no file stays then.
    pub(super) fn finish(mut self) -> Result<Option<Arc<Run>>> {
        self.end_page()?;
        if self.run.directory.is_empty() {
            return Ok(None);
        }
        self.flush()?;
        let words = self.run.filter.as_ref().map_or(&[][..], Filter::words);
        let mut tail: Vec<u8> = Vec::with_capacity((self.run.directory.len() + words.len()) * 8 + FOOTER);
        self.run.directory.iter().for_each(|first| tail.extend_from_slice(&first.to_be_bytes()));
        words.iter().for_each(|word| tail.extend_from_slice(&word.to_le_bytes()));
        tail.extend_from_slice(MAGIC);
        tail.extend_from_slice(&self.run.place.id.0);
        let numbers = [self.run.number, self.run.directory.len() as u64, self.run.records, words.len() as u64];
        numbers.iter().for_each(|number| tail.extend_from_slice(&number.to_le_bytes()));
        self.run.sum = crc32fast::hash(&tail);
        tail.extend_from_slice(&self.run.sum.to_le_bytes());
        self.buffer = tail;
        self.flush()?;
        self.run.directory.shrink_to_fit();
        Ok(Some(Arc::new(self.run)))
    }
}

/// Walks through a run in order.
pub(super) struct Cursor {
    run: Arc<Run>,
    buffer: Vec<u8>,
    /// The next page that is not in the buffer.
    next: usize,
    /// Page in the buffer, and record in it.
    at: (usize, usize),
    records: Vec<Record>,
}

impl Cursor {
    pub(super) fn new(run: Arc<Run>) -> Cursor {
        Cursor { run, buffer: Vec::new(), next: 0, at: (0, 0), records: Vec::with_capacity(RECORDS) }
    }

    pub(super) fn born(&self) -> u64 {
        self.run.born
    }

    pub(super) fn next(&mut self) -> Result<Option<Record>> {
        if self.at.1 == self.records.len() && !self.next_page()? {
            return Ok(None);
        }
        let record = self.records[self.at.1];
        self.at.1 += 1;
        Ok(Some(record))
    }

    fn next_page(&mut self) -> Result<bool> {
        if self.at.0 * PAGE == self.buffer.len() {
            let pages = BATCH.min(self.run.pages() - self.next);
            if pages == 0 {
                return Ok(false);
            }
            self.buffer.resize(pages * PAGE, 0);
            self.run.read(self.next, &mut self.buffer)?;
            self.next += pages;
            self.at.0 = 0;
        }
        let pages = self.buffer.as_chunks::<PAGE>().0;
        let page = self.run.parse(&pages[self.at.0], self.next - pages.len() + self.at.0)?;
        self.records.clear();
        self.records.extend((0..page.len()).map(|at| page.record(at)));
        self.at = (self.at.0 + 1, 0);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_synced_once_is_not_said_to_be_synced_later() {
        let dir = tempfile::tempdir().unwrap();
        let place = Arc::new(Place { dir: dir.path().to_owned(), id: RepositoryId([3; 32]), ours: AtomicBool::new(true) });
        let mut writer = Writer::create(&place, 1, 0, 1, true).unwrap();
        writer.push((Id([1; 32]), None)).unwrap();
        let run = writer.finish().unwrap().unwrap();
        let mut run = Arc::into_inner(run).unwrap();
        // What cannot be synced; and then, as after an error of a disk, what can.
        let file = std::mem::replace(&mut run.file, File::open("/dev/null").unwrap());
        assert!(matches!(run.sync(), Err(crate::Error::IndexDamaged(_))));
        run.file = file;
        assert!(matches!(run.sync(), Err(crate::Error::IndexDamaged(_))));
    }
}
