//! What of the repository was found sound, and when: one entry for each segment, in a file beside the view lists.
//!
//! ```text
//! "BCCHECK1" | segments (u32 LE) | length of the archive's name (u32) | began | index | archives | archives begun (i64 each)
//!            | the archive that was checked last, while not all are | for each segment, sorted: number (u32) | 0 (u32) | size (u64)
//!            | written (i64, nanoseconds) | structure (i64) | data (i64) | SHA-256 of all that
//! ```
//!
//! Times are microseconds since 1970, 0: never. An entry counts only for a file of that size and that time: whoever rewrote it, what is in it now
//! was not checked. A file that cannot be read means that nothing was checked, which costs another check and nothing else.

use crate::failures::of_state;
use model::check::{Coverage, Piece, Sound};
use model::{Failure, Timestamp};
use repository::Segment;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 8] = b"BCCHECK1";
const HEAD: usize = 8 + 4 + 4 + 4 * 8;
const ENTRY: usize = 4 + 4 + 8 + 8 + 8 + 8;
const DIGEST: usize = 32;

/// A file of more bytes is none of ours: Borg's segments have numbers of 32 bits, and nobody has so many.
const MOST: u64 = 1 << 30;

/// What is known of one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    size: u64,
    written_ns: i64,
    /// When it was found sound.
    pub structure: Option<Timestamp>,
    /// When its content was.
    pub data: Option<Timestamp>,
}

/// The file's content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    path: PathBuf,
    segments: BTreeMap<u32, Known>,
    /// When anything was found sound for the first time.
    pub began: Option<Timestamp>,
    /// When the index was compared with all segments, and fitted.
    pub index: Option<Timestamp>,
    /// When a look at all archives began that found all of them sound.
    pub archives: Option<Timestamp>,
    /// When the look began that is not at its end,
    pub archives_begun: Option<Timestamp>,
    /// and up to where it came.
    pub archive: String,
}

impl Ledger {
    /// What was written last.
    pub fn open(directory: &Path) -> Ledger {
        let path = directory.join("checked");
        let empty = Ledger { path: path.clone(), ..Ledger::default() };
        match unix::files::read_small(&path, MOST) {
            Ok(None) => empty,
            Ok(Some(bytes)) => parse(&bytes, path).unwrap_or_else(|| {
                log::warn!("{} is damaged: everything counts as not checked", empty.path.display());
                empty
            }),
            Err(e) => {
                log::warn!("{}: {e}; everything counts as not checked", empty.path.display());
                empty
            }
        }
    }

    /// Writes it, durably, in the place of the one before.
    pub fn save(&self) -> Result<(), Failure> {
        let mut bytes = Vec::with_capacity(HEAD + self.archive.len() + self.segments.len() * ENTRY + DIGEST);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&(self.segments.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&(self.archive.len() as u32).to_le_bytes());
        [self.began, self.index, self.archives, self.archives_begun].iter().for_each(|time| put(&mut bytes, *time));
        bytes.extend_from_slice(self.archive.as_bytes());
        for (number, known) in &self.segments {
            bytes.extend_from_slice(&number.to_le_bytes());
            bytes.extend_from_slice(&[0; 4]);
            bytes.extend_from_slice(&known.size.to_le_bytes());
            bytes.extend_from_slice(&known.written_ns.to_le_bytes());
            put(&mut bytes, known.structure);
            put(&mut bytes, known.data);
        }
        let digest = Sha256::digest(&bytes);
        bytes.extend_from_slice(&digest);
        unix::files::write_private(&self.path, &bytes).map_err(|e| of_state(&e))
    }

    /// Leaves out what is gone or was rewritten; what is new was never checked.
    pub fn fit(&mut self, present: &[Segment]) {
        let old = std::mem::take(&mut self.segments);
        let entry = |segment: &Segment| {
            let fresh = Known { size: segment.size, written_ns: segment.written_ns, structure: None, data: None };
            let kept = old.get(&segment.number).filter(|known| (known.size, known.written_ns) == (segment.size, segment.written_ns));
            (segment.number, kept.copied().unwrap_or(fresh))
        };
        self.segments = present.iter().map(entry).collect();
    }

    /// What is known of a segment.
    pub fn get(&self, number: u32) -> Option<Known> {
        self.segments.get(&number).copied()
    }

    /// A segment was read when it was `now`, and found sound.
    pub fn sound(&mut self, number: u32, with_data: bool, now: Timestamp) {
        self.began.get_or_insert(now);
        if let Some(known) = self.segments.get_mut(&number) {
            known.structure = Some(now);
            if with_data {
                known.data = Some(now);
            }
        }
    }

    /// Something is wrong with a segment: it counts as never checked until it is sound.
    pub fn unsound(&mut self, number: u32) {
        if let Some(known) = self.segments.get_mut(&number) {
            (known.structure, known.data) = (None, None);
        }
    }

    /// How much of it was checked lately.
    pub fn coverage(&self, data: bool, promise_hours: u32, now: Timestamp) -> Coverage {
        let piece = |known: &Known| Piece {
            bytes: known.size,
            written: Timestamp(known.written_ns / 1000),
            checked: if data { known.data } else { known.structure },
        };
        Coverage::of(self.segments.values().map(piece), promise_hours, self.began, now)
    }

    /// Whether any content was ever checked.
    pub fn has_data(&self) -> bool {
        self.segments.values().any(|known| known.data.is_some())
    }

    /// Since when all of it is known to be sound.
    pub fn all_sound(&self, now: Timestamp) -> Sound {
        // None is before everything else.
        let earliest = |of: fn(&Known) -> Option<Timestamp>| self.segments.values().map(of).min().unwrap_or(Some(now));
        Sound {
            structure: earliest(|known| known.structure),
            data: earliest(|known| known.data),
            archives: self.archives,
            index: self.index,
        }
    }
}

fn put(bytes: &mut Vec<u8>, time: Option<Timestamp>) {
    bytes.extend_from_slice(&time.map_or(0, |time| time.0).to_le_bytes());
}

/// Takes fixed pieces off the front.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn number(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn time(&mut self) -> Option<Option<Timestamp>> {
        self.take().map(i64::from_le_bytes).map(|time| Some(Timestamp(time)).filter(|time| time.0 != 0))
    }
}

fn parse(bytes: &[u8], path: PathBuf) -> Option<Ledger> {
    let (content, digest) = bytes.split_last_chunk::<DIGEST>()?;
    if Sha256::digest(content).as_slice() != digest {
        return None;
    }
    let mut fields = Fields(content);
    if fields.take::<8>()? != *MAGIC {
        return None;
    }
    let (count, length) = (fields.number()?, fields.number()? as usize);
    let (began, index, archives, archives_begun) = (fields.time()?, fields.time()?, fields.time()?, fields.time()?);
    let (name, rest) = fields.0.split_at_checked(length)?;
    let archive = std::str::from_utf8(name).ok()?.to_owned();
    let mut fields = Fields(rest);
    let mut segments = BTreeMap::new();
    for _ in 0..count {
        let (number, _) = (fields.number()?, fields.number()?);
        let size = fields.take().map(u64::from_le_bytes)?;
        let written_ns = fields.take().map(i64::from_le_bytes)?;
        segments.insert(number, Known { size, written_ns, structure: fields.time()?, data: fields.time()? });
    }
    fields.0.is_empty().then_some(Ledger { path, segments, began, index, archives, archives_begun, archive })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(number: u32, size: u64, written: i64) -> Segment {
        Segment { number, size, written_ns: written * 1_000_000_000 }
    }

    const NOW: Timestamp = Timestamp(1_800_000_000_000_000);

    #[test]
    fn what_was_written_is_read_and_what_is_damaged_counts_for_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(dir.path());
        ledger.fit(&[segment(1, 10, 5), segment(7, 20, 6)]);
        ledger.sound(1, true, NOW);
        ledger.sound(7, false, NOW);
        (ledger.index, ledger.archives_begun, ledger.archive) = (Some(NOW), Some(NOW), "an archive".into());
        ledger.save().unwrap();
        assert_eq!(Ledger::open(dir.path()), ledger);
        let path = dir.path().join("checked");
        let good = std::fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(&path, bad).unwrap();
            assert_eq!(Ledger::open(dir.path()).segments.len(), 0, "byte {at}");
        }
        std::fs::write(&path, &good[..good.len() - 1]).unwrap();
        assert_eq!(Ledger::open(dir.path()).segments.len(), 0);
    }

    #[test]
    fn what_is_rewritten_is_not_checked_and_what_is_gone_does_not_count() {
        let mut ledger = Ledger::default();
        ledger.fit(&[segment(1, 10, 5), segment(2, 10, 5), segment(3, 10, 5)]);
        (1..4).for_each(|number| ledger.sound(number, true, NOW));
        assert_eq!(ledger.coverage(true, 24, NOW).per_cent(), 100);
        ledger.fit(&[segment(1, 10, 5), segment(2, 10, 6), segment(4, 20, 5)]);
        assert_eq!(ledger.coverage(false, 24, NOW).per_cent(), 25);
        assert_eq!((ledger.get(3), ledger.all_sound(NOW).structure), (None, None));
        ledger.sound(2, false, NOW.plus_seconds(1));
        ledger.sound(4, false, NOW.plus_seconds(2));
        assert_eq!((ledger.all_sound(NOW).structure, ledger.all_sound(NOW).data), (Some(NOW), None));
        ledger.unsound(4);
        assert_eq!(ledger.all_sound(NOW).structure, None);
    }

    #[test]
    fn a_large_repository_takes_little() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(dir.path());
        let segments: Vec<Segment> = (0..100_000).map(|number| segment(number, 500 << 20, 5)).collect();
        ledger.fit(&segments);
        segments.iter().for_each(|segment| ledger.sound(segment.number, true, NOW));
        ledger.save().unwrap();
        assert!(std::fs::metadata(dir.path().join("checked")).unwrap().len() < 5 << 20);
        assert_eq!(Ledger::open(dir.path()).coverage(true, 24, NOW).per_cent(), 100);
    }
}
