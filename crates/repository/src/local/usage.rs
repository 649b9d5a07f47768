//! What a repository takes up, from numbers that are kept anyway: nothing is read.

use super::reader::Reader;
use super::replay::Statistics;
use crate::error::Result;
use borg::Id;
use borg::segment::{MAGIC, PUT_HEADER};

/// What a repository takes up, as its last commit left it.
///
/// Each segment file has its magic (8 bytes), and each object that lives in it a header (41 bytes) before its envelope. So with the manifest's envelope:
/// `segments = 8 * files + freeable + unique + manifest + 41 * (chunks + 1)`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of all segment files.
    pub segments: u64,
    /// Of them, what nothing needs any more: objects that were deleted or superseded and DELETEs, with their headers (41 bytes each), and COMMITs (9 bytes each).
    /// A compaction of everything would free it.
    pub freeable: u64,
    /// Bytes of the envelopes of all objects but the manifest, without the headers of their entries. Borg 1.x: what `borg info` adds up as `unique_csize`,
    /// as long as each object belongs to an archive.
    pub unique: u64,
    /// How many these are. Borg 1.x: `total_unique_chunks`.
    pub chunks: u64,
}

impl Usage {
    /// `manifest`: bytes of the manifest's envelope, if there is one.
    fn of(statistics: &Statistics, manifest: Option<u32>) -> Usage {
        let (mut segments, mut freeable, mut entries, mut live) = (0, 0, 0, 0);
        for state in statistics.values() {
            segments += state.size;
            freeable += state.freeable;
            // What has no bytes is a removal that was cut short.
            entries += state.size.saturating_sub(MAGIC.len() as u64).saturating_sub(state.freeable);
            live += u64::from(state.live);
        }
        let envelopes = entries.saturating_sub(live * PUT_HEADER as u64);
        Usage {
            segments,
            freeable,
            unique: envelopes.saturating_sub(manifest.map_or(0, u64::from)),
            chunks: live.saturating_sub(u64::from(manifest.is_some())),
        }
    }
}

impl Reader {
    /// What the repository takes up. Takes microseconds for thousand segments, and keeps nobody from writing.
    ///
    /// # Errors
    /// When the index cannot be read, or the repository was closed.
    pub fn usage(&self) -> Result<Usage> {
        let shared = self.shared()?;
        let manifest = {
            let _inside = shared.enter();
            shared.index.get(&Id::MANIFEST)?
        };
        Ok(shared.published.with_statistics(|statistics| Usage::of(statistics, manifest.map(|entry| entry.csize))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{OpenOptions, Repository, Reserve, Step};
    use borg::segment::HEADER;
    use std::path::Path;
    use std::time::Duration;

    /// From the files and the index.
    fn counted(repository: &mut Repository, path: &Path) -> (u64, u64, u64) {
        let segments: Vec<u64> = walkdir(&path.join("data"));
        let entries = repository.reader().unwrap().ids().unwrap().map(Result::unwrap);
        let sizes: Vec<u64> = entries.filter(|(id, _)| *id != Id::MANIFEST).map(|(_, entry)| u64::from(entry.csize)).collect();
        (segments.iter().sum(), sizes.iter().sum(), sizes.len() as u64)
    }

    fn walkdir(dir: &Path) -> Vec<u64> {
        let mut sizes = vec![];
        for entry in std::fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let meta = entry.metadata().unwrap();
            if meta.is_dir() { sizes.extend(walkdir(&entry.path())) } else { sizes.push(meta.len()) }
        }
        sizes
    }

    fn check(repository: &mut Repository, path: &Path) -> Usage {
        let usage = repository.reader().unwrap().usage().unwrap();
        assert_eq!((usage.segments, usage.unique, usage.chunks), counted(repository, path));
        usage
    }

    #[test]
    fn it_is_what_files_and_index_say() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("repo");
        let url = path.to_str().unwrap().to_owned();
        let index = Some(dir.path().join("index"));
        let options = OpenOptions { exclusive: true, create: true, index, reserve: Reserve::NONE, ..OpenOptions::at(url) };
        let mut repository = Repository::open(&options).unwrap();
        assert_eq!(check(&mut repository, &path), Usage::default());
        let put = |repository: &mut Repository, n: u8, size: usize| repository.put(&Id([n; 32]), &vec![n; size], 0).unwrap();
        for n in 1..10 {
            put(&mut repository, n, 1000 * usize::from(n));
        }
        // The manifest.
        put(&mut repository, 0, 77);
        repository.commit().unwrap();
        let first = check(&mut repository, &path);
        assert_eq!((first.unique, first.chunks), (45_000, 9));
        // What was put since counts when it is committed.
        put(&mut repository, 10, 500);
        assert_eq!(repository.reader().unwrap().usage().unwrap(), first);
        // Superseded and deleted.
        put(&mut repository, 0, 78);
        put(&mut repository, 1, 2000);
        repository.delete(&Id([9; 32])).unwrap();
        repository.commit().unwrap();
        let second = check(&mut repository, &path);
        assert_eq!((second.unique, second.chunks), (45_000 + 500 + 1000 - 9000, 9));
        let gone = [77, 1000, 9000].map(|bytes| bytes + PUT_HEADER as u64).iter().sum::<u64>();
        assert!(second.freeable >= gone + 3 * PUT_HEADER as u64 + 2 * HEADER as u64, "{second:?}");
        // The same from the index, and without one.
        repository.close();
        let options = OpenOptions { create: false, ..options };
        let mut repository = Repository::open(&options).unwrap();
        assert_eq!(check(&mut repository, &path), second);
        repository.close();
        let mut repository = Repository::open(&OpenOptions { index: None, ..options }).unwrap();
        assert_eq!(check(&mut repository, &path), second);
        let mut compaction = repository.plan_compaction(1).unwrap();
        while repository.compact_step(&mut compaction, Duration::from_secs(1)).unwrap() != Step::Done {
            repository.commit().unwrap();
        }
        let compacted = check(&mut repository, &path);
        assert_eq!((compacted.unique, compacted.chunks), (second.unique, second.chunks));
        assert!(compacted.freeable < 1000 && compacted.segments < second.segments - 10_000, "{compacted:?}");
        // Discarded.
        put(&mut repository, 11, 500);
        repository.discard().unwrap();
        assert_eq!(check(&mut repository, &path), compacted);
    }
}
