//! A check in slices: some segments at a time, and afterwards which objects are lost by what was found.

use super::check::{CheckOptions, CheckReport, Verify, compare_all, read_all};
use super::reader::Reader;
use super::storage::Stamp;
use crate::error::{Error, Result};
use borg::Id;
use std::collections::{BTreeMap, BTreeSet};

/// A segment that is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Its number.
    pub number: u32,
    /// Bytes of its file; 0 if that is gone.
    pub size: u64,
    /// When its file was written, in nanoseconds since 1970, as the file system says.
    pub written_ns: i64,
}

/// What a slice has found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Slice {
    /// Of these segments.
    pub report: CheckReport,
    /// Segments of which the index says that more objects, or fewer, live in them than were found there. Those may have been superseded
    /// meanwhile: [`Reader::lost`] tells.
    pub suspect: BTreeSet<u32>,
}

impl Reader {
    /// All segments that are committed, those included whose file should be there and is not. Sorted.
    ///
    /// # Errors
    /// When the directory cannot be read, or the repository was closed.
    pub fn segments(&self) -> Result<Vec<Segment>> {
        let shared = self.shared()?;
        let (transaction, statistics) = shared.published.statistics();
        let mut all: BTreeMap<u32, Segment> =
            statistics.keys().map(|number| (*number, Segment { number: *number, size: 0, written_ns: 0 })).collect();
        for (number, Stamp { size, mtime_ns }) in shared.storage.segments()? {
            if transaction.is_some_and(|transaction| number <= transaction) {
                all.insert(number, Segment { number, size, written_ns: mtime_ns });
            }
        }
        Ok(all.into_values().collect())
    }

    /// Reads these segments as a whole check does, beside whoever writes. `progress` hears how many bytes are done, and ends it by answering no.
    ///
    /// # Errors
    /// When it cannot be checked; what is damaged is in the report.
    pub fn check_segments(&self, segments: &[Segment], options: &CheckOptions<'_>, progress: &mut dyn FnMut(u64) -> bool) -> Result<Slice> {
        let shared = self.shared()?;
        let stamps: Vec<(u32, Stamp)> =
            segments.iter().map(|segment| (segment.number, Stamp { size: segment.size, mtime_ns: segment.written_ns })).collect();
        let mut report = read_all(&shared, &stamps, options, progress);
        let mut suspect = BTreeSet::new();
        let (_, statistics) = shared.published.statistics();
        for Segment { number, .. } in segments {
            let Some(known) = statistics.get(number) else { continue };
            match report.segments.get(number) {
                Some(found) if *found == u64::from(known.live) => {}
                Some(_) => drop(suspect.insert(*number)),
                None if !report.stopped && !report.damaged.contains(number) && shared.storage.stamp(*number)?.is_none() => {
                    report.add(Some(*number), None, None, "its file is gone");
                }
                None => {}
            }
        }
        Ok(Slice { report, suspect })
    }

    /// Compares the whole log with index and statistics, by headers alone.
    ///
    /// # Errors
    /// When it cannot be compared; what does not fit is in the report.
    pub fn compare_index(&self, go_on: &mut dyn FnMut() -> bool) -> Result<CheckReport> {
        let mut report = CheckReport::default();
        compare_all(&*self.shared()?, &mut report, go_on)?;
        Ok(report)
    }

    /// Names the objects that the index has in these segments and that cannot be read there, or that `verify` does not want, with the reason.
    /// False if `go_on` said no.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn lost(
        &self,
        segments: &BTreeSet<u32>,
        verify: Option<Verify<'_>>,
        each: &mut dyn FnMut(Id, u32, String),
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<bool> {
        for (count, found) in self.ids()?.enumerate() {
            let (id, entry) = found?;
            if count % 10_000 == 0 && !go_on() {
                return Ok(false);
            }
            if !segments.contains(&entry.segment) {
                continue;
            }
            match self.get(&id) {
                Ok(Some(envelope)) => {
                    if let Some(Err(why)) = verify.map(|verify| verify(&id, &envelope)) {
                        each(id, entry.segment, why);
                    }
                }
                Ok(None) => {}
                Err(Error::Damaged(why)) => each(id, entry.segment, why),
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }
}
