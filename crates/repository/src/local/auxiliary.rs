//! The files with which Borg opens a repository without reading its segments: `index.N`, `hints.N`, `integrity.N` (Borg 1.x: fact 9.3).

use super::Local;
use super::replay::Statistics;
use super::storage::Storage;
use crate::error::{Error, Result};
use crate::index::write_borg_index;
use borg::hints::{Hints, pack_integrity};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

const KINDS: [&str; 3] = ["index.", "hints.", "integrity."];

/// Up to so many objects, writing the files takes about a second; for more it has to be worth it.
const FEW: u64 = 1_000_000;

/// Entries between two looks whether to go on: milliseconds.
const LOOK: usize = 8192;

/// The newest transaction that has an index.
pub(super) fn newest_index(storage: &Storage) -> Result<Option<u32>> {
    let mut newest = None;
    for name in storage.names()? {
        let Some(number) = name.strip_prefix("index.").and_then(|rest| rest.parse().ok()) else { continue };
        // Borg 1.x: an empty one counts as none.
        if std::fs::metadata(storage.root().join(&name)).is_ok_and(|meta| meta.len() > 0) {
            newest = newest.max(Some(number));
        }
    }
    Ok(newest)
}

/// The transaction whose files are all there.
pub(super) fn complete(storage: &Storage) -> Result<Option<u32>> {
    let Some(newest) = newest_index(storage)? else { return Ok(None) };
    let names = storage.names()?;
    Ok(KINDS.iter().all(|kind| names.contains(&format!("{kind}{newest}"))).then_some(newest))
}

/// Removes the files of all transactions but one.
pub(super) fn remove_others(storage: &Storage, keep: Option<u32>) -> Result<()> {
    for name in storage.names()? {
        let stale = KINDS.iter().any(|kind| name.strip_prefix(kind).is_some_and(|rest| keep.is_none_or(|keep| rest != keep.to_string())));
        if stale {
            storage.remove_file(&name)?;
        }
    }
    storage.sync_root()
}

/// Removes files of a transaction that were not completed. Those of an older one hold as before.
fn remove_unfinished(storage: &Storage, transaction: u32) -> Result<()> {
    KINDS.iter().try_for_each(|kind| storage.remove_file(&format!("{kind}{transaction}.tmp")))
}

impl Local {
    /// What has to be done before the lock is released. Borg's files are left out if `somebody_waits`: they are worth seconds to the next borg
    /// and cost as much here.
    pub(super) fn leave(&mut self, somebody_waits: &mut dyn FnMut() -> bool) -> Result<()> {
        if self.log.is_none() {
            return Ok(());
        }
        self.discard()?;
        self.check_alive()?;
        self.checkpoint()?;
        match self.transaction {
            Some(transaction) if self.auxiliary.is_none_or(|old| is_worth_it(&self.shared.index.counts(), old, transaction, FEW)) => {
                let (asked, waits) = (RefCell::new(somebody_waits), Cell::new(false));
                let stop = || waits.replace(waits.get() || (*asked.borrow_mut())()) || waits.get();
                let written = if stop() { Ok(()) } else { self.write_auxiliary(transaction, &stop) };
                if waits.get() {
                    ::log::info!("Borg's index is left to Borg, because somebody waits for the repository");
                    return remove_unfinished(&self.shared.storage, transaction);
                }
                written.inspect_err(|_| {
                    // Half of them are worse than none; without them Borg reads the segments.
                    if let Err(e) = remove_others(&self.shared.storage, None) {
                        ::log::warn!("{e}");
                    }
                })
            }
            _ => Ok(()),
        }
    }

    fn write_auxiliary(&mut self, transaction: u32, stop: &dyn Fn() -> bool) -> Result<()> {
        let storage = &self.shared.storage;
        let name = |kind: &str, end: &str| format!("{kind}{transaction}{end}");
        let hints = hints(&self.statistics).pack();
        storage.write(&name("hints.", ".tmp"), &hints)?;
        let index = &self.shared.index;
        let path = storage.root().join(name("index.", ".tmp"));
        let entries = || {
            let stopped = || Error::Unsupported("it was stopped".into());
            let due = |number: &usize| number.is_multiple_of(LOOK) && stop();
            Ok(index.iter()?.enumerate().map(move |(number, entry)| if due(&number) { Err(stopped()) } else { entry }))
        };
        let digests = write_borg_index(index.len(), entries, &path)?;
        if stop() {
            return Ok(());
        }
        let integrity = pack_integrity(&borg::integrity::of_file(&name("hints.", ""), &hints), &digests.to_json());
        storage.write(&name("integrity.", ".tmp"), &integrity)?;
        // Borg 1.x: the digests first, so that nothing is ever there unchecked.
        for kind in ["integrity.", "hints.", "index."] {
            storage.rename(&name(kind, ".tmp"), &name(kind, ""))?;
            storage.sync_root()?;
        }
        remove_others(storage, Some(transaction))?;
        self.auxiliary = Some(transaction);
        Ok(())
    }

    /// Borg 1.x: what a repository that only grows notes of every transaction.
    pub(super) fn note_transaction(&self, transaction: u32) -> Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|e| Error::Io(e.to_string()))?;
        let now = borg::time::format(i64::try_from(now.as_micros()).unwrap_or(i64::MAX));
        self.shared.storage.append("transactions", &format!("transaction {transaction}, UTC time {now}\n"))
    }
}

/// Whether files of the transaction `old` are to be replaced. They are as large as the repository has objects. Borg itself reads the segments
/// that came after them when it opens the repository, which is cheaper as long as these hold little.
fn is_worth_it(objects: &BTreeMap<u32, u64>, old: u32, transaction: u32, few: u64) -> bool {
    let all: u64 = objects.values().sum();
    let newer: u64 = objects.range(old.saturating_add(1)..).map(|(_, count)| count).sum();
    old != transaction && (all <= few || newer > all / 10)
}

fn hints(statistics: &Statistics) -> Hints {
    let segments = statistics.iter().map(|(segment, state)| (*segment, state.live)).collect();
    let compact = statistics.iter().filter_map(|(segment, state)| {
        let free = if state.live == 0 { state.size } else { state.freeable };
        (free > 0).then_some((*segment, free))
    });
    let stored = statistics.values().map(|state| state.size.saturating_sub(8)).sum();
    Hints { segments, compact: compact.collect(), storage_quota_use: stored }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_repositories_do_not_get_a_new_index_for_a_few_objects() {
        let objects = BTreeMap::from([(3, 900), (7, 50), (9, 50)]);
        assert!(is_worth_it(&objects, 3, 9, 1000), "small");
        assert!(!is_worth_it(&objects, 3, 9, 999), "a tenth is new");
        assert!(is_worth_it(&objects, 2, 9, 999));
        assert!(!is_worth_it(&objects, 9, 9, 1000), "nothing is new");
    }
}
