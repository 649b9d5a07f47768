//! Reading segments without their data: which is the last committed one, and what is where (Borg 1.x: fact 9.3).

use super::shared::Shared;
use super::storage::{Stamp, Storage};
use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::index::SegmentState;
use borg::Id;
use borg::segment::{COMMIT, HEADER, Header, MAGIC, PUT_HEADER, Tag, verify};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// What is read at once where entries are small.
const WINDOW: usize = 256 << 10;

/// What is read at once where the next entry is far away.
const GLANCE: usize = 4 << 10;

/// One entry of a segment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub(super) offset: u32,
    pub(super) header: Header,
    /// Zero for a COMMIT.
    pub(super) id: Id,
}

/// The entries of a segment, by their headers alone.
pub(super) struct Entries<'a> {
    file: &'a File,
    segment: u32,
    size: u64,
    at: u64,
    window: Vec<u8>,
    begin: u64,
    failed: bool,
}

impl<'a> Entries<'a> {
    /// From the magic on. `size` is where the segment ends for us.
    pub(super) fn new(file: &'a File, segment: u32, size: u64) -> Entries<'a> {
        Entries::new_at(file, segment, size, 0)
    }

    /// From where another one was.
    pub(super) fn new_at(file: &'a File, segment: u32, size: u64, at: u64) -> Entries<'a> {
        Entries { file, segment, size, at, window: vec![], begin: 0, failed: false }
    }

    /// Where the next entry begins.
    pub(super) fn position(&self) -> u64 {
        self.at
    }

    fn step(&mut self) -> Result<Option<Found>> {
        let (segment, at) = (self.segment, self.at);
        let damaged = |why: &dyn std::fmt::Display| Error::Damaged(format!("segment {segment} at {at}: {why}"));
        if at == 0 {
            if self.bytes(MAGIC.len())? != MAGIC {
                return Err(damaged(&"it does not begin as a segment does"));
            }
            self.at = MAGIC.len() as u64;
            return self.step();
        }
        if at == self.size {
            return Ok(None);
        }
        let header = Header::parse(self.bytes(HEADER)?).map_err(|e| damaged(&e))?;
        if at + u64::from(header.size) > self.size {
            return Err(damaged(&borg::segment::Malformed::Short));
        }
        let mut id = Id([0; 32]);
        match header.tag {
            Tag::Put => id.0.copy_from_slice(&self.bytes(PUT_HEADER)?[HEADER..]),
            Tag::Delete => {
                let bytes = self.bytes(PUT_HEADER)?;
                verify(bytes, &[]).map_err(|e| damaged(&e))?;
                id.0.copy_from_slice(&bytes[HEADER..]);
            }
            Tag::Commit => {
                verify(self.bytes(HEADER)?, &[]).map_err(|e| damaged(&e))?;
            }
        }
        let offset = u32::try_from(at).map_err(|_| damaged(&"it is too long"))?;
        self.at = at + u64::from(header.size);
        Ok(Some(Found { offset, header, id }))
    }

    /// So many bytes from where we are.
    fn bytes(&mut self, count: usize) -> Result<&[u8]> {
        let inside = self.at.checked_sub(self.begin).and_then(|begin| usize::try_from(begin).ok());
        let inside = inside.filter(|begin| begin + count <= self.window.len());
        let begin = match inside {
            Some(begin) => begin,
            None => {
                let far = self.at.saturating_sub(self.begin + self.window.len() as u64) > 0;
                let want = if far { GLANCE } else { WINDOW };
                let want = want.min(usize::try_from(self.size.saturating_sub(self.at)).unwrap_or(want));
                let failed = |e: &dyn std::fmt::Display| Error::Damaged(format!("segment {} at {}: {e}", self.segment, self.at));
                if want < count {
                    return Err(failed(&borg::segment::Malformed::Short));
                }
                self.window.resize(want, 0);
                self.file.read_exact_at(&mut self.window, self.at).map_err(|e| failed(&e))?;
                self.begin = self.at;
                0
            }
        };
        Ok(&self.window[begin..begin + count])
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<Found>;

    fn next(&mut self) -> Option<Result<Found>> {
        if self.failed {
            return None;
        }
        let found = self.step();
        self.failed = found.is_err();
        found.transpose()
    }
}

/// Borg 1.x: a segment is committed if it ends with a COMMIT, is sound from beginning to end, and has nothing but COMMITs after the first.
/// Why it is not, if it is not.
pub(super) fn uncommitted(storage: &Storage, segment: u32, size: u64) -> Result<Option<String>> {
    let because = |why: &dyn std::fmt::Display| Ok(Some(why.to_string()));
    if size < (MAGIC.len() + HEADER) as u64 {
        return because(&format!("it has {size} bytes only"));
    }
    let Some(file) = storage.open(segment)? else { return because(&"it is gone") };
    let mut last = [0; HEADER];
    if let Err(error) = file.read_exact_at(&mut last, size - HEADER as u64) {
        return because(&error);
    }
    if last != COMMIT {
        return because(&"it does not end with a COMMIT");
    }
    let (mut committed, mut data) = (false, vec![]);
    for found in Entries::new(&file, segment, size) {
        let Found { offset, header, id } = match found {
            Ok(found) => found,
            Err(error) => return because(&error),
        };
        if committed && header.tag != Tag::Commit {
            return because(&format!("a COMMIT is followed by something else at {offset}"));
        }
        committed |= header.tag == Tag::Commit;
        if header.tag == Tag::Put {
            data.resize(header.size as usize, 0);
            let sound = file.read_exact_at(&mut data, offset.into()).map_err(|e| e.to_string());
            let sound = sound.and_then(|()| verify(&data[..PUT_HEADER], &data[PUT_HEADER..]).map_err(|e| e.to_string()));
            if let Err(why) = sound {
                return because(&format!("object {id} at {offset}: {why}"));
            }
        }
    }
    if committed { Ok(None) } else { because(&"it has no COMMIT") }
}

/// The number of the newest committed segment: the transaction that holds.
pub(super) fn newest_commit(storage: &Storage, segments: &[(u32, Stamp)]) -> Result<Option<u32>> {
    for (segment, stamp) in segments.iter().rev() {
        if uncommitted(storage, *segment, stamp.size)?.is_none() {
            return Ok(Some(*segment));
        }
    }
    Ok(None)
}

/// Statistics of all segments.
pub(super) type Statistics = BTreeMap<u32, SegmentState>;

/// Applies the entries of committed segments to the index, in their order.
pub(super) fn replay(shared: &Shared, statistics: &mut Statistics, segments: &[(u32, Stamp)]) -> Result<()> {
    for (number, (segment, stamp)) in segments.iter().enumerate() {
        if number > 0 && number % 100 == 0 {
            log::info!("reading segment {segment}, {} of {}", number + 1, segments.len());
        }
        statistics.insert(*segment, SegmentState { size: stamp.size, mtime_ns: stamp.mtime_ns, ..SegmentState::default() });
        if stamp.size == 0 {
            // Borg 1.x: a removal that was cut short.
            continue;
        }
        let Some(file) = shared.storage.open(*segment)? else {
            return Err(Error::Damaged(format!("segment {segment} is gone while it is read")));
        };
        for found in Entries::new(&file, *segment, stamp.size) {
            let Found { offset, header, id } = found?;
            match header.tag {
                Tag::Put => {
                    let old = shared.index.insert(id, Entry { segment: *segment, offset, size: 0, csize: header.data() })?;
                    superseded(statistics, old);
                    note(statistics, *segment, |state| state.live += 1);
                }
                Tag::Delete => {
                    superseded(statistics, shared.index.remove(&id)?);
                    note(statistics, *segment, |state| {
                        state.deletes += 1;
                        state.freeable += u64::from(header.size);
                    });
                }
                Tag::Commit => note(statistics, *segment, |state| state.freeable += u64::from(header.size)),
            }
        }
    }
    Ok(())
}

/// An object is no longer where it was.
pub(super) fn superseded(statistics: &mut Statistics, old: Option<Entry>) {
    if let Some(old) = old {
        note(statistics, old.segment, |state| {
            state.live = state.live.saturating_sub(1);
            state.freeable += u64::from(old.csize) + PUT_HEADER as u64;
        });
    }
}

/// Changes the numbers of a segment.
pub(super) fn note(statistics: &mut Statistics, segment: u32, change: impl FnOnce(&mut SegmentState)) {
    change(statistics.entry(segment).or_default());
}
