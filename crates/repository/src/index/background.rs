//! The thread that writes runs and merges them.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::merge::Merge;
use super::run::{Run, Writer};
use super::state::{Frozen, Shared};
use crate::{Error, Result};

/// More runs than these are merged even where it costs more than it should.
const MANY: usize = 6;
/// So many runs of about the same size are merged into one.
const ALIKE: usize = 4;
/// Merged records between two looks at what else there is to do.
const SLICE: u32 = 8192;
/// Slices between two syncs, 25 MB of records: a checkpoint, for which a commit waits, must not find gigabytes that are still to be synced.
const SYNCED: u32 = 64;

/// Which runs to merge, given their sizes, the oldest first.
///
/// The newest runs are merged, as long as what comes of it is no smaller than the next older run: an entry is written anew only a few
/// times until it is in the oldest run, and each run is at least twice as large as the next.
fn choose(sizes: &[u64]) -> Option<Range<usize>> {
    let mut start = sizes.len().checked_sub(1)?;
    let mut sum = sizes[start];
    while start > 0 && (sizes[start - 1] <= sum || (sizes.len() - start <= sizes.len().saturating_sub(MANY))) {
        start -= 1;
        sum += sizes[start];
    }
    let count = sizes.len() - start;
    (count >= ALIKE || (sizes.len() > MANY && count >= 2)).then_some(start..sizes.len())
}

impl Shared {
    /// Until the index is closed.
    pub(super) fn run(&self) {
        let runs = Arc::clone(&self.read().runs);
        runs.iter().for_each(|run| run.will_need());
        drop(runs);
        loop {
            self.write_frozen();
            match self.merge() {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => log::warn!("parts of the index could not be merged: {error}"),
            }
            let bell = self.bell();
            let Ok(mut bell) = self.work.wait_while(bell, |bell| !bell.work && !bell.quit) else { return };
            bell.work = false;
            if bell.quit {
                return;
            }
        }
    }

    /// Writes what waits to be written, if anything does.
    fn write_frozen(&self) {
        let (frozen, number, epoch, oldest) = {
            let mut state = self.write();
            let Some(frozen) = state.frozen.clone() else { return };
            if state.failure.is_some() {
                // Nobody has heard of it yet.
                return;
            }
            state.next += 1;
            (frozen, state.next - 1, state.epoch, state.runs.is_empty())
        };
        let result = self.write_run(&frozen, number, oldest);
        {
            let mut state = self.write();
            match result {
                _ if state.epoch != epoch => {}
                Ok(run) => {
                    let mut runs = (*state.runs).clone();
                    runs.extend(run);
                    state.runs = Arc::new(runs);
                    state.frozen = None;
                }
                Err(error) => state.failure = Some(error),
            }
        }
        self.bell().written += 1;
        self.written.notify_all();
    }

    fn write_run(&self, frozen: &Frozen, number: u64, oldest: bool) -> Result<Option<Arc<Run>>> {
        let mut merge = Merge::new(Arc::default());
        merge.add_map(&frozen.changes, frozen.born)?;
        let mut writer = Writer::create(&self.place, number, frozen.born, frozen.changes.len() as u64, oldest)?;
        while let Some(record) = merge.next()? {
            if !oldest || record.1.is_some() {
                writer.push(record)?;
            }
        }
        writer.finish()
    }

    /// Merges some runs, if there are too many.
    fn merge(&self) -> Result<bool> {
        let (chosen, range, forgotten, born, number, epoch) = {
            let mut state = self.write();
            let sizes: Vec<u64> = state.runs.iter().map(|run| run.records).collect();
            let Some(range) = choose(&sizes) else { return Ok(false) };
            state.next += 1;
            (state.runs[range.clone()].to_vec(), range, Arc::clone(&state.forgotten), state.serial, state.next - 1, state.epoch)
        };
        if self.broken.load(Ordering::Acquire) {
            return Ok(false);
        }
        let oldest = range.start == 0;
        let mut merge = Merge::new(forgotten);
        chosen.iter().rev().try_for_each(|run| self.noted(merge.add_run(run)))?;
        let expected = chosen.iter().map(|run| run.records).sum();
        let mut writer = Writer::create(&self.place, number, born, expected, oldest)?;
        let (mut slice, mut slices) = (0, 0);
        while let Some(record) = self.noted(merge.next())? {
            if !oldest || record.1.is_some() {
                writer.push(record)?;
            }
            slice += 1;
            if slice == SLICE {
                (slice, slices) = (0, slices + 1);
                if self.durable && slices % SYNCED == 0 {
                    writer.sync()?;
                }
                self.write_frozen();
                if self.bell().quit || self.read().epoch != epoch {
                    return Ok(false);
                }
            }
        }
        let run = writer.finish()?;
        let mut state = self.write();
        if state.epoch != epoch {
            return Ok(true);
        }
        // Only this thread adds runs, and only behind those that were chosen.
        let mut runs = (*state.runs).clone();
        runs.splice(range, run);
        let born = runs.iter().map(|run| run.born).chain(state.frozen.iter().map(|frozen| frozen.born)).min();
        let (born, state) = (born.unwrap_or(state.serial), &mut *state);
        Arc::make_mut(&mut state.forgotten).retain(|_, serial| *serial > born);
        state.runs = Arc::new(runs);
        Ok(true)
    }
}

/// Used by the compiler only: errors pass between threads.
const _: fn() = || {
    fn passes<T: Send + Sync>() {}
    passes::<Error>();
    passes::<super::Index>();
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_stay_few_and_entries_are_not_written_too_often() {
        let (mut sizes, mut written, mut most) = (Vec::new(), 0, 0);
        for _ in 0..1000 {
            sizes.push(1);
            written += 1;
            while let Some(range) = choose(&sizes) {
                let sum: u64 = sizes[range.clone()].iter().sum();
                sizes.splice(range, [sum]);
                written += sum;
            }
            most = most.max(sizes.len());
        }
        assert!(most <= MANY, "{most} runs");
        assert!(written <= 12 * 1000, "{written} entries written");
        assert_eq!(choose(&[]), None);
        assert_eq!(choose(&[5]), None);
        assert_eq!(choose(&[1000, 1, 1, 1, 1]), Some(1..5));
        assert_eq!(choose(&[64, 32, 16, 8, 4, 2, 1]), Some(5..7));
    }
}
