//! The file `current`: which runs count, and what of the repository they tell.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use borg::RepositoryId;

use super::run::Name;
use super::{Checkpoint, SegmentState, failed};
use crate::Result;

const MAGIC: &[u8; 8] = b"BCCURR02";
const NAME: &str = "current";

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Current {
    pub(super) checkpoint: Checkpoint,
    /// Oldest first.
    pub(super) runs: Vec<Name>,
    /// Number for the next run.
    pub(super) next: u64,
    /// How often segments were forgotten.
    pub(super) serial: u64,
    /// Segment, and the serial at which it was forgotten.
    pub(super) forgotten: BTreeMap<u32, u64>,
    /// Segment, and how many ids are in it.
    pub(super) counts: BTreeMap<u32, u64>,
}

impl Current {
    fn encode(&self, id: RepositoryId) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&id.0);
        let mut put = |number: u64| bytes.extend_from_slice(&number.to_le_bytes());
        put(self.checkpoint.transaction.into());
        put(self.next);
        put(self.serial);
        put(self.runs.len() as u64);
        for run in &self.runs {
            [run.number, run.records, run.born, run.sum.into()].into_iter().for_each(&mut put);
        }
        for table in [self.forgotten.iter(), self.counts.iter()] {
            put(table.len() as u64);
            table.for_each(|(segment, number)| [u64::from(*segment), *number].into_iter().for_each(&mut put));
        }
        put(self.checkpoint.segments.len() as u64);
        for (segment, state) in &self.checkpoint.segments {
            [(*segment).into(), state.size, state.mtime_ns as u64, state.live.into(), state.freeable, state.deletes.into()]
                .into_iter()
                .for_each(&mut put);
        }
        let sum = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8], id: RepositoryId) -> Option<Current> {
        let (bytes, sum) = bytes.split_last_chunk::<4>()?;
        let rest = bytes.strip_prefix(MAGIC)?.strip_prefix(&id.0)?;
        if crc32fast::hash(bytes) != u32::from_le_bytes(*sum) {
            return None;
        }
        let (numbers, []) = rest.as_chunks::<8>() else { return None };
        let mut numbers = numbers.iter().map(|bytes| u64::from_le_bytes(*bytes));
        let mut take = || numbers.next();
        let transaction = take()?.try_into().ok()?;
        let (next, serial) = (take()?, take()?);
        // Counts are not trusted with allocations: each turn needs numbers that are there.
        let mut runs = Vec::new();
        for _ in 0..take()? {
            runs.push(Name { number: take()?, records: take()?, born: take()?, sum: take()?.try_into().ok()? });
        }
        let mut tables = [BTreeMap::new(), BTreeMap::new()];
        for table in &mut tables {
            for _ in 0..take()? {
                table.insert(take()?.try_into().ok()?, take()?);
            }
        }
        let mut segments = BTreeMap::new();
        for _ in 0..take()? {
            let segment = take()?.try_into().ok()?;
            let (size, mtime_ns) = (take()?, take()? as i64);
            let (live, freeable, deletes) = (take()?.try_into().ok()?, take()?, take()?.try_into().ok()?);
            segments.insert(segment, SegmentState { size, mtime_ns, live, freeable, deletes });
        }
        let [forgotten, counts] = tables;
        numbers.next().is_none().then_some(Current {
            checkpoint: Checkpoint { transaction, segments },
            runs,
            next,
            serial,
            forgotten,
            counts,
        })
    }

    /// `None`, and a note in the log, if there is none that can be used.
    pub(super) fn read(dir: &Path, id: RepositoryId) -> Option<Current> {
        let path = dir.join(NAME);
        match fs::read(&path) {
            Ok(bytes) => {
                let current = Current::decode(&bytes, id);
                if current.is_none() {
                    log::warn!("{} is damaged, of another version or of another repository; the index is built anew", path.display());
                }
                current
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => {
                log::warn!("{} cannot be read ({error}); the index is built anew", path.display());
                None
            }
        }
    }

    /// Replaces the file. When this returns, it is on the disk if `durable`.
    pub(super) fn write(&self, dir: &Path, id: RepositoryId, durable: bool) -> Result<()> {
        let (path, temporary) = (dir.join(NAME), dir.join("current.tmp"));
        let write = || {
            let mut file = File::create(&temporary)?;
            file.write_all(&self.encode(id))?;
            if durable {
                file.sync_all()?;
            }
            fs::rename(&temporary, &path)?;
            if durable {
                File::open(dir)?.sync_all()?;
            }
            Ok(())
        };
        write().map_err(|error| failed("writing", &path, &error))
    }
}

/// Makes the directory's index unusable for every later opening.
pub(super) fn remove(dir: &Path) -> std::io::Result<()> {
    fs::remove_file(dir.join(NAME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_what_was_written_or_nothing() {
        let (dir, id) = (tempfile::tempdir().unwrap(), RepositoryId([3; 32]));
        let state = SegmentState { size: 9, mtime_ns: -4, live: 2, freeable: 41, deletes: 1 };
        let current = Current {
            checkpoint: Checkpoint { transaction: 7, segments: [(0, state), (5, state)].into() },
            runs: vec![Name { number: 4, records: 99, born: 1, sum: u32::MAX }],
            next: 5,
            serial: 2,
            forgotten: [(3, 2)].into(),
            counts: [(0, 4), (5, 1)].into(),
        };
        assert_eq!(Current::read(dir.path(), id), None);
        current.write(dir.path(), id, true).unwrap();
        assert_eq!(Current::read(dir.path(), id).as_ref(), Some(&current));
        assert_eq!(Current::read(dir.path(), RepositoryId([4; 32])), None);
        let bytes = current.encode(id);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(Current::decode(&damaged, id), None, "byte {at}");
            assert_eq!(Current::decode(&bytes[..at], id), None, "{at} bytes");
        }
    }
}
