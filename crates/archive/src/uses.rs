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
use std::collections::{BinaryHeap, HashSet};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use wire::importing::{Counted, Use};

/// Uses in memory before they are written down, some 50 MB.
const IN_MEMORY: usize = 1 << 20;

/// Uses of one sorted run that are read at a time.
const READ: usize = 4096;

/// Pieces of the list of files that are asked for ahead.
const AHEAD: usize = 16;

/// Files that are named.
const NAMED: usize = 20;

const REGULAR: u32 = 0o100_000;
const FORMAT: u32 = 0o170_000;

/// Everything that an archive's files refer to.
#[derive(Debug)]
pub struct Uses {
    sorter: Sorter,
    /// What was counted.
    pub counted: Counted,
}

/// Reads the whole list of files. `scratch` makes files without a name; `go_on` hears how many pieces of how many were read, and ends it
/// with false: then there is no result.
pub fn collect(
    source: &Source,
    scratch: &mut dyn FnMut() -> std::io::Result<File>,
    go_on: &mut dyn FnMut(usize, usize) -> bool,
) -> Result<Option<Uses>> {
    let mut sorter = Sorter::new(IN_MEMORY);
    let mut counted = Counted::default();
    let whole = each_item(source, go_on, &mut |item| {
        if is_file(item) {
            counted.files += 1;
        }
        if item.chunks_healthy.is_some() {
            counted.repaired += 1;
        }
        let count = u64::from(item.part.is_none());
        item.chunks.iter().flatten().try_for_each(|chunk| sorter.add(Use { id: chunk.id.0, size: chunk.size, count }, scratch))
    })?;
    Ok(whole.then_some(Uses { sorter, counted }))
}

/// Names some of the files that have one of these chunks.
pub fn files_with(source: &Source, ids: &HashSet<Id>, go_on: &mut dyn FnMut(usize, usize) -> bool) -> Result<(Vec<Vec<u8>>, u64)> {
    let (mut files, mut count) = (vec![], 0);
    each_item(source, go_on, &mut |item| {
        if item.chunks.iter().flatten().any(|chunk| ids.contains(&chunk.id)) {
            count += 1;
            if files.len() < NAMED {
                files.push(item.path.clone());
            }
        }
        Ok(())
    })?;
    Ok((files, count))
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

impl Uses {
    /// All of them, sorted by id, each id once.
    pub fn each(self, each: &mut dyn FnMut(Use) -> Result<()>) -> Result<()> {
        self.sorter.finish(each)
    }
}

/// Uses in runs that are sorted by themselves.
#[derive(Debug)]
struct Sorter {
    memory: Vec<Use>,
    most: usize,
    file: Option<Arc<File>>,
    /// Where each run is in the file, in uses.
    runs: Vec<std::ops::Range<u64>>,
}

impl Sorter {
    fn new(most: usize) -> Sorter {
        Sorter { memory: vec![], most, file: None, runs: vec![] }
    }

    fn add(&mut self, one: Use, scratch: &mut dyn FnMut() -> std::io::Result<File>) -> Result<()> {
        self.memory.push(one);
        if self.memory.len() >= self.most {
            merge(&mut self.memory)?;
            // Most are the same again and again.
            if self.memory.len() > self.most / 2 {
                self.spill(scratch).map_err(Error::Scratch)?;
            }
        }
        Ok(())
    }

    fn spill(&mut self, scratch: &mut dyn FnMut() -> std::io::Result<File>) -> std::io::Result<()> {
        let file = match &self.file {
            Some(file) => Arc::clone(file),
            None => Arc::clone(self.file.insert(Arc::new(scratch()?))),
        };
        let begin = self.runs.last().map_or(0, |run| run.end);
        let mut out = BufWriter::with_capacity(1 << 18, &*file);
        let mut bytes = Vec::with_capacity(Use::SIZE);
        for one in &self.memory {
            bytes.clear();
            one.encode(&mut bytes);
            out.write_all(&bytes)?;
        }
        out.flush()?;
        self.runs.push(begin..begin + self.memory.len() as u64);
        self.memory.clear();
        Ok(())
    }

    fn finish(mut self, each: &mut dyn FnMut(Use) -> Result<()>) -> Result<()> {
        merge(&mut self.memory)?;
        let Some(file) = self.file else { return self.memory.into_iter().try_for_each(each) };
        let mut runs: Vec<Run> =
            self.runs.into_iter().map(|left| Run { file: Some(Arc::clone(&file)), left, read: vec![], at: 0 }).collect();
        runs.push(Run { file: None, left: 0..0, read: self.memory, at: 0 });
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
}

/// A sorted run, read in parts.
struct Run {
    file: Option<Arc<File>>,
    left: std::ops::Range<u64>,
    read: Vec<Use>,
    at: usize,
}

impl Run {
    fn next(&mut self) -> Result<Option<Use>> {
        if self.at == self.read.len()
            && let Some(file) = &self.file
        {
            let count = (self.left.end - self.left.start).min(READ as u64);
            let mut bytes = vec![0; count as usize * Use::SIZE];
            file.read_exact_at(&mut bytes, self.left.start * Use::SIZE as u64).map_err(Error::Scratch)?;
            self.read = Use::decode_all(&bytes)?.collect();
            (self.left.start, self.at) = (self.left.start + count, 0);
        }
        let one = self.read.get(self.at).copied();
        self.at += 1;
        if one.is_none() {
            self.at = self.read.len();
        }
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

    fn sorted(most: usize, uses: &[Use]) -> Result<(Vec<Use>, usize)> {
        let mut files = 0;
        let mut sorter = Sorter::new(most);
        for one in uses {
            sorter.add(*one, &mut || {
                files += 1;
                tempfile::tempfile()
            })?;
        }
        let mut all = vec![];
        sorter.finish(&mut |one| {
            all.push(one);
            Ok(())
        })?;
        Ok((all, files))
    }

    #[test]
    fn what_does_not_fit_into_memory_comes_out_the_same() {
        let uses: Vec<Use> = (0..30_000).chain(0..10_000).chain((0..100).cycle().take(5000)).map(one).collect();
        let (small, files) = sorted(1000, &uses).unwrap();
        assert_eq!(files, 1);
        let (large, files) = sorted(1 << 20, &uses).unwrap();
        assert_eq!(files, 0);
        assert!(small == large && small.len() == 30_000);
        assert!(small.is_sorted_by(|a, b| a.id < b.id));
        assert_eq!(small.iter().map(|one| one.count).sum::<u64>(), 45_000);
        let first = small.iter().find(|found| found.id == one(7).id).unwrap();
        assert_eq!((first.size, first.count), (7, 52));
    }

    #[test]
    fn two_sizes_of_one_chunk_are_nonsense_wherever_they_meet() {
        let mut uses: Vec<Use> = (0..3000).map(one).collect();
        uses.push(Use { size: 6, ..one(5) });
        for most in [1000, 1 << 20] {
            assert!(matches!(sorted(most, &uses), Err(Error::Incomplete(_))), "{most}");
        }
    }

    #[test]
    fn nothing_is_nothing() {
        assert_eq!(sorted(10, &[]).unwrap(), (vec![], 0));
    }
}
