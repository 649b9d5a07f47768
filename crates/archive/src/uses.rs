//! What an archive refers to: every chunk of every file, counted, and sorted on disk where that is much.
//!
//! Whoever relies on this deletes what is not in it. So nothing is passed over here: a list of files that has a hole, or anything in it that is
//! not understood, has no result at all.

use crate::channel::Channel;
use crate::error::{Error, Result};
use crate::source::Source;
use borg::Id;
use borg::item::{Item, ItemLimits, ItemParser};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use wire::importing::{Counted, Use};

/// Uses in memory before they are written down, some 50 MB.
const IN_MEMORY: usize = 1 << 20;

/// So often what fits into memory is written before what was written is merged.
const RUNS: u64 = 8;

/// Uses of one sorted run that are read at a time.
const READ: usize = 4096;

/// Pieces of the list of files that are asked for ahead.
const AHEAD: usize = 16;

const REGULAR: u32 = 0o100_000;
const FORMAT: u32 = 0o170_000;

/// Everything that an archive's files refer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uses {
    /// The scratch file that has it ([`Use`] after [`Use`], sorted by id, each id once, from the file's beginning), the first or the second.
    pub file: usize,
    /// How many there are.
    pub uses: u64,
    /// What was counted.
    pub counted: Counted,
}

/// Reads the whole list of files. The result is in one of the scratch files; both are empty at first. `go_on` hears how many pieces of how many were
/// read, and ends it with false: then there is no result.
///
/// # Errors
/// Besides all that reading can fail of: more than `most` different chunks.
pub fn collect(source: &Source, most: u64, scratch: &[File; 2], go_on: &mut dyn FnMut(usize, usize) -> bool) -> Result<Option<Uses>> {
    let mut sorter = Sorter::new(IN_MEMORY, most, scratch);
    let mut counted = Counted::default();
    let whole = each_item(source, go_on, &mut |item| {
        if is_file(item) {
            counted.files += 1;
        }
        if item.chunks_healthy.is_some() {
            counted.repaired += 1;
        }
        let count = u64::from(item.part.is_none());
        item.chunks.iter().flatten().try_for_each(|chunk| sorter.add(Use { id: chunk.id.0, size: chunk.size, count }))
    })?;
    if !whole {
        return Ok(None);
    }
    let (file, uses) = sorter.finish()?;
    Ok(Some(Uses { file, uses, counted }))
}

/// Bytes that each of the scratch files may need for so many different chunks, however often the archive names them.
#[must_use]
pub fn scratch_bytes(most: u64) -> u64 {
    (merge_at(IN_MEMORY, most).saturating_add(2 * IN_MEMORY as u64)).saturating_mul(Use::SIZE as u64)
}

/// Borg 1.x: the first of hard links only, and no parts.
fn is_file(item: &Item) -> bool {
    item.mode.is_some_and(|mode| mode & FORMAT == REGULAR) && item.source.is_none() && item.part.is_none()
}

/// False if it was ended before its end.
fn each_item(source: &Source, go_on: &mut dyn FnMut(usize, usize) -> bool, each: &mut dyn FnMut(&Item) -> Result<()>) -> Result<bool> {
    let ids = &source.metadata.items;
    let channel = Channel::open(source)?;
    let mut parser = ItemParser::new(ItemLimits::TOLERANT);
    let refuse = |why: String| Error::Incomplete(why);
    channel.ask(ids.iter().take(AHEAD).copied());
    for at in 0..ids.len() {
        if !go_on(at, ids.len()) {
            return Ok(false);
        }
        let piece = channel.take()?.map_err(|lack| refuse(format!("its list of files has a hole: {}", lack.why)))?;
        channel.ask(ids.get(at + AHEAD).copied());
        parser.push(&piece);
        while let Some(item) = parser.next_item().map_err(|e| refuse(e.to_string()))? {
            each(&item)?;
        }
    }
    parser.finish().map_err(|e| refuse(e.to_string()))?;
    Ok(true)
}

/// Uses in one file at which they are merged, when so many were left of them the last time.
fn merge_at(in_memory: usize, left: u64) -> u64 {
    left.saturating_mul(2).max(RUNS * in_memory as u64)
}

/// Uses in runs that are sorted by themselves. The same ones again and again take no more room than once: runs are merged as they come.
#[derive(Debug)]
struct Sorter<'a> {
    memory: Vec<Use>,
    in_memory: usize,
    /// Different ones that are taken.
    most: u64,
    files: &'a [File; 2],
    /// The file that has the runs.
    at: usize,
    /// Where each run is in the file, in uses.
    runs: Vec<Range<u64>>,
    merge_at: u64,
}

impl<'a> Sorter<'a> {
    fn new(in_memory: usize, most: u64, files: &'a [File; 2]) -> Sorter<'a> {
        Sorter { memory: vec![], in_memory, most, files, at: 0, runs: vec![], merge_at: merge_at(in_memory, 0) }
    }

    fn add(&mut self, one: Use) -> Result<()> {
        self.memory.push(one);
        if self.memory.len() >= self.in_memory {
            merge(&mut self.memory)?;
            // Most are the same again and again.
            if self.memory.len() > self.in_memory / 2 {
                self.spill()?;
            }
        }
        Ok(())
    }

    fn spill(&mut self) -> Result<()> {
        let begin = self.runs.last().map_or(0, |run| run.end);
        let mut out = Out::at(&self.files[self.at], begin)?;
        self.memory.iter().try_for_each(|one| out.add(one))?;
        let end = begin + out.finish()?;
        self.runs.push(begin..end);
        self.memory.clear();
        if end >= self.merge_at {
            let left = self.merge_runs()?;
            self.runs = vec![Range { start: 0, end: left }];
            self.merge_at = merge_at(self.in_memory, left);
        }
        Ok(())
    }

    /// Everything in the other file, in one run; how many there are.
    fn merge_runs(&mut self) -> Result<u64> {
        let (from, to) = (&self.files[self.at], &self.files[1 - self.at]);
        let mut runs: Vec<Run<'_>> = self.runs.drain(..).map(|left| Run { file: from, left, read: vec![], at: 0 }).collect();
        runs.push(Run { file: from, left: 0..0, read: std::mem::take(&mut self.memory), at: 0 });
        let (mut out, most) = (Out::at(to, 0)?, self.most);
        each(&mut runs, &mut |one| {
            out.add(&one)?;
            if out.count > most {
                let why = format!("it refers to more than {most} different chunks (objects); `borgcube settings edit` raises that");
                return Err(Error::TooLarge(why));
            }
            Ok(())
        })?;
        let count = out.finish()?;
        from.set_len(0).map_err(Error::Scratch)?;
        self.at = 1 - self.at;
        Ok(count)
    }

    /// The file that has all of them, and how many there are.
    fn finish(mut self) -> Result<(usize, u64)> {
        merge(&mut self.memory)?;
        let count = self.merge_runs()?;
        Ok((self.at, count))
    }
}

/// Writes uses one behind the other.
struct Out<'a> {
    file: BufWriter<&'a File>,
    bytes: Vec<u8>,
    count: u64,
}

impl Out<'_> {
    fn at(mut file: &File, begin: u64) -> Result<Out<'_>> {
        file.seek(SeekFrom::Start(begin * Use::SIZE as u64)).map_err(Error::Scratch)?;
        Ok(Out { file: BufWriter::with_capacity(1 << 18, file), bytes: Vec::with_capacity(Use::SIZE), count: 0 })
    }

    fn add(&mut self, one: &Use) -> Result<()> {
        self.bytes.clear();
        one.encode(&mut self.bytes);
        self.count += 1;
        self.file.write_all(&self.bytes).map_err(Error::Scratch)
    }

    fn finish(mut self) -> Result<u64> {
        self.file.flush().map_err(Error::Scratch)?;
        Ok(self.count)
    }
}

/// All of sorted runs, sorted, each id once.
fn each(runs: &mut [Run<'_>], each: &mut dyn FnMut(Use) -> Result<()>) -> Result<()> {
    let mut heap = BinaryHeap::new();
    for (number, run) in runs.iter_mut().enumerate() {
        if let Some(first) = run.next()? {
            heap.push(Reverse((first.id, number, first.size, first.count)));
        }
    }
    let mut last: Option<Use> = None;
    while let Some(Reverse((id, number, size, count))) = heap.pop() {
        if let Some(next) = runs[number].next()? {
            heap.push(Reverse((next.id, number, next.size, next.count)));
        }
        let one = Use { id, size, count };
        match &mut last {
            Some(last) if last.id == id => join(last, &one)?,
            last => {
                if let Some(done) = last.replace(one) {
                    each(done)?;
                }
            }
        }
    }
    last.map_or(Ok(()), each)
}

/// A sorted run, read in parts.
struct Run<'a> {
    file: &'a File,
    left: Range<u64>,
    read: Vec<Use>,
    at: usize,
}

impl Run<'_> {
    fn next(&mut self) -> Result<Option<Use>> {
        if self.at == self.read.len() && !self.left.is_empty() {
            let count = (self.left.end - self.left.start).min(READ as u64);
            let mut bytes = vec![0; count as usize * Use::SIZE];
            self.file.read_exact_at(&mut bytes, self.left.start * Use::SIZE as u64).map_err(Error::Scratch)?;
            self.read = Use::decode_all(&bytes)?.collect();
            (self.left.start, self.at) = (self.left.start + count, 0);
        }
        let one = self.read.get(self.at).copied();
        self.at += usize::from(one.is_some());
        Ok(one)
    }
}

/// Sorts, and makes one of those with the same id.
fn merge(uses: &mut Vec<Use>) -> Result<()> {
    uses.sort_unstable_by_key(|one| one.id);
    let mut wrong = None;
    uses.dedup_by(|next, first| {
        let same = next.id == first.id;
        if same && let Err(e) = join(first, next) {
            wrong = Some(e);
        }
        same
    });
    wrong.map_or(Ok(()), Err)
}

fn join(first: &mut Use, other: &Use) -> Result<()> {
    if first.size != other.size {
        let why = format!("it says that chunk {} has {} bytes, and elsewhere {}", Id(first.id), first.size, other.size);
        return Err(Error::Incomplete(why));
    }
    first.count = first.count.saturating_add(other.count);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(n: u32) -> Use {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&n.wrapping_mul(2_654_435_761).to_be_bytes());
        Use { id, size: n, count: 1 }
    }

    /// The uses, and the most bytes that were in both files together whenever something was added.
    fn sorted(in_memory: usize, most: u64, uses: impl IntoIterator<Item = Use>) -> Result<(Vec<Use>, u64)> {
        let files = [(); 2].map(|()| tempfile::tempfile().unwrap());
        let bytes = || files.iter().map(|file| file.metadata().unwrap().len()).sum::<u64>();
        let (mut sorter, mut largest, mut runs) = (Sorter::new(in_memory, most, &files), 0, 0);
        for one in uses {
            sorter.add(one)?;
            if sorter.runs.len() != runs {
                (runs, largest) = (sorter.runs.len(), largest.max(bytes()));
            }
        }
        let (file, count) = sorter.finish()?;
        let mut all = vec![0; files[file].metadata().unwrap().len() as usize];
        files[file].read_exact_at(&mut all, 0).unwrap();
        let all: Vec<Use> = Use::decode_all(&all)?.collect();
        assert_eq!((all.len() as u64, files[1 - file].metadata().unwrap().len()), (count, 0));
        Ok((all, largest))
    }

    #[test]
    fn what_does_not_fit_into_memory_comes_out_the_same() {
        let uses: Vec<Use> = (0..30_000).chain(0..10_000).chain((0..100).cycle().take(5000)).map(one).collect();
        let (small, largest) = sorted(1000, 30_000, uses.clone()).unwrap();
        assert!(largest > 0);
        let (large, largest) = sorted(1 << 20, 30_000, uses).unwrap();
        assert_eq!(largest, 0);
        assert!(small == large && small.len() == 30_000);
        assert!(small.is_sorted_by(|a, b| a.id < b.id));
        assert_eq!(small.iter().map(|one| one.count).sum::<u64>(), 45_000);
        let first = small.iter().find(|found| found.id == one(7).id).unwrap();
        assert_eq!((first.size, first.count), (7, 52));
    }

    #[test]
    fn the_same_chunks_again_and_again_take_no_more_room() {
        let again = (0..500).flat_map(|_| 0..2000).map(one);
        let (all, largest) = sorted(1000, 2000, again).unwrap();
        assert!(all.len() == 2000 && all.iter().all(|one| one.count == 500));
        // What is merged and what it becomes.
        let most = (merge_at(1000, 2000) + 1000 + 2000) * Use::SIZE as u64;
        assert!(largest <= most, "{largest} of {most}");
        assert!(scratch_bytes(2000) >= most && scratch_bytes(50_000_000) < 5 << 30, "{}", scratch_bytes(50_000_000));
    }

    #[test]
    fn more_different_chunks_than_allowed_are_refused() {
        for in_memory in [1000, 1 << 20] {
            assert_eq!(sorted(in_memory, 30_000, (0..30_000).map(one)).unwrap().0.len(), 30_000);
            let refused = sorted(in_memory, 29_999, (0..30_000).map(one)).unwrap_err();
            assert!(matches!(&refused, Error::TooLarge(why) if why.contains("29999") && why.contains("settings edit")), "{refused}");
        }
        // Long before its end.
        let endless = (0..u32::MAX).map(one);
        assert!(sorted(1000, 5000, endless).is_err());
    }

    #[test]
    fn two_sizes_of_one_chunk_are_nonsense_wherever_they_meet() {
        let mut uses: Vec<Use> = (0..3000).map(one).collect();
        uses.push(Use { size: 6, ..one(5) });
        for most in [1000, 1 << 20] {
            assert!(matches!(sorted(most, 1 << 20, uses.clone()), Err(Error::Incomplete(_))), "{most}");
        }
    }

    #[test]
    fn nothing_is_nothing() {
        assert_eq!(sorted(10, 0, []).unwrap(), (vec![], 0));
    }
}
