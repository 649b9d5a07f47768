//! Several sorted sources as one: of each id the newest record.

use std::collections::BTreeMap;
use std::sync::Arc;

use borg::Id;

use super::page::Record;
use super::run::{Cursor, Run};
use crate::{Entry, IdMap, Result};

/// Segment, and the serial at which it was forgotten.
pub(super) type Forgotten = BTreeMap<u32, u64>;

/// What a record says, if records that were written at `born` still count.
pub(super) fn remembered(entry: Option<Entry>, born: u64, forgotten: &Forgotten) -> Option<Entry> {
    entry.filter(|entry| forgotten.get(&entry.segment).is_none_or(|serial| *serial <= born))
}

enum Source {
    Memory { records: std::vec::IntoIter<Record>, born: u64 },
    Run(Cursor),
}

impl Source {
    fn next(&mut self, forgotten: &Forgotten) -> Result<Option<Record>> {
        let (record, born) = match self {
            Source::Memory { records, born } => (records.next(), *born),
            Source::Run(cursor) => (cursor.next()?, cursor.born()),
        };
        Ok(record.map(|(id, entry)| (id, remembered(entry, born, forgotten))))
    }
}

/// Walks through several sources in the order of ids.
pub(super) struct Merge {
    /// Newest first, each with its next record.
    sources: Vec<(Source, Option<Record>)>,
    forgotten: Arc<Forgotten>,
}

impl Merge {
    /// Nothing yet. Sources are added newest first.
    pub(super) fn new(forgotten: Arc<Forgotten>) -> Merge {
        Merge { sources: Vec::new(), forgotten }
    }

    pub(super) fn add_map(&mut self, map: &IdMap<Option<Entry>>, born: u64) -> Result<()> {
        let mut records: Vec<Record> = map.iter().map(|(id, entry)| (*id, *entry)).collect();
        records.sort_unstable_by_key(|(id, _)| *id);
        self.add(Source::Memory { records: records.into_iter(), born })
    }

    pub(super) fn add_run(&mut self, run: &Arc<Run>) -> Result<()> {
        self.add(Source::Run(Cursor::new(Arc::clone(run))))
    }

    fn add(&mut self, mut source: Source) -> Result<()> {
        if let Some(head) = source.next(&self.forgotten)? {
            self.sources.push((source, Some(head)));
        }
        Ok(())
    }

    /// The next id, and what the newest source says about it.
    pub(super) fn next(&mut self) -> Result<Option<Record>> {
        // Half a dozen sources: looking at each is faster than keeping a heap.
        let mut least: Option<Record> = None;
        for (_, head) in &self.sources {
            if let Some(head) = head
                && least.is_none_or(|(id, _)| head.0 < id)
            {
                least = Some(*head);
            }
        }
        let Some((id, _)) = least else { return Ok(None) };
        for (source, head) in &mut self.sources {
            if head.is_some_and(|(other, _)| other == id) {
                *head = source.next(&self.forgotten)?;
            }
        }
        Ok(least)
    }
}

/// Everything the index had when this was asked for, in the order of ids.
pub struct Entries {
    merge: Option<Merge>,
}

impl Entries {
    pub(super) fn new(merge: Merge) -> Entries {
        Entries { merge: Some(merge) }
    }
}

impl Iterator for Entries {
    type Item = Result<(Id, Entry)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.merge.as_mut()?.next() {
                Ok(Some((id, Some(entry)))) => return Some(Ok((id, entry))),
                Ok(Some((_, None))) => {}
                Ok(None) => self.merge = None,
                Err(error) => {
                    self.merge = None;
                    return Some(Err(error));
                }
            }
        }
    }
}
