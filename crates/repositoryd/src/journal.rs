//! The journal of orphans: ids of what a commit made durable, or is about to leave behind, although no archive refers to it.
//!
//! Written and synced before the repository's commit, so that whoever opens the repository after a crash knows what to look for. It claims
//! little: an id in it *may* belong to nobody. What archives refer to, the view lists say; see [`crate::orphans`].
//!
//! ```text
//! "BCORPH1\n" | batches: count (u32 LE) | ids, 32 bytes each | the first 8 bytes of the SHA-256 of count and ids
//! ```
//!
//! A batch that is cut off belongs to a commit that did not happen.

use crate::failures::of_state;
use borg::Id;
use model::{Cause, Failure};
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 8] = b"BCORPH1\n";

/// Ids in one batch: 2 MiB.
const BATCH: usize = 1 << 16;

const SUM: usize = 8;

/// Bytes: two million ids.
const LONG: u64 = 64 << 20;

/// The journal of one repository.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    /// Where the next batch goes.
    end: u64,
    /// What was in it when the repository was opened and cannot be settled yet; stays when the rest is emptied.
    kept: u64,
    /// A delete has noted ids that nobody else knows of.
    noted: bool,
    /// Its end when it was last written anew.
    rewritten: u64,
}

impl Journal {
    /// Opens or begins the journal in the directory of the view lists.
    pub fn open(views: &Path) -> Result<Journal, Failure> {
        let path = views.join("orphans");
        let failed = |e: std::io::Error| failure(&path, &e);
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(failed)?;
        let mut magic = [0; 8];
        match file.read_exact(&mut magic) {
            Ok(()) if magic == *MAGIC => {}
            Ok(()) => {
                let message =
                    format!("{} is no journal of orphans; remove it, then a check of the repository finds what it knew", path.display());
                return Err(Failure::new(Cause::Internal, message));
            }
            // Nothing, or not even its beginning, was written.
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => {
                file.set_len(0)
                    .and_then(|()| file.rewind())
                    .and_then(|()| file.write_all(MAGIC))
                    .and_then(|()| file.sync_all())
                    .map_err(failed)?;
                unix::files::fsync_dir(views).map_err(|e| of_state(&e))?;
            }
            Err(e) => return Err(failed(e)),
        }
        let mut this = Journal { path, file, end: MAGIC.len() as u64, kept: MAGIC.len() as u64, noted: false, rewritten: 0 };
        this.end = this.each(|_| Ok(()))?;
        this.kept = this.end;
        Ok(this)
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.end <= MAGIC.len() as u64
    }

    /// Calls `each` with all ids, in batches; gives the end of the last whole one.
    pub fn each(&self, mut each: impl FnMut(Vec<Id>) -> Result<(), Failure>) -> Result<u64, Failure> {
        let failed = |e: std::io::Error| failure(&self.path, &e);
        let mut file = self.file.try_clone().map_err(failed)?;
        file.seek(SeekFrom::Start(MAGIC.len() as u64)).map_err(failed)?;
        let mut input = BufReader::with_capacity(1 << 18, file);
        let mut end = MAGIC.len() as u64;
        while let Some(ids) = batch(&mut input).map_err(failed)? {
            end += size(ids.len());
            each(ids)?;
        }
        Ok(end)
    }

    /// All ids that are in the journal of that directory now, for those who do not write it.
    pub fn peek(views: &Path) -> Result<Vec<Id>, Failure> {
        let mut all = vec![];
        Journal::open(views)?.each(|ids| {
            all.extend(ids);
            Ok(())
        })?;
        Ok(all)
    }

    /// Adds ids, durably.
    pub fn append(&mut self, ids: &[Id]) -> Result<(), Failure> {
        if ids.is_empty() {
            return Ok(());
        }
        let mut write = || -> std::io::Result<()> {
            self.file.seek(SeekFrom::Start(self.end))?;
            for part in ids.chunks(BATCH) {
                let bytes = encode(part);
                self.file.write_all(&bytes)?;
                self.end += bytes.len() as u64;
            }
            self.file.sync_data()
        };
        write().map_err(|e| failure(&self.path, &e))
    }

    /// Adds ids that are to stay until [`Journal::settled`], durably.
    pub fn note(&mut self, ids: &[Id]) -> Result<(), Failure> {
        self.noted = true;
        self.append(ids)
    }

    /// What was noted is deleted, or belongs to sessions.
    pub fn settled(&mut self) {
        self.noted = false;
    }

    /// Nothing that was added since the opening belongs to nobody any more.
    pub fn empty(&mut self) {
        if !self.noted {
            self.shorten(self.kept);
        }
    }

    /// Whether a delete has noted what nobody has looked after.
    pub fn is_noted(&self) -> bool {
        self.noted
    }

    /// Whether it is so long that it is worth while to write it anew, and nothing in it has to stay.
    pub fn is_long(&self) -> bool {
        !self.noted && self.kept <= MAGIC.len() as u64 && self.end > LONG.max(2 * self.rewritten)
    }

    /// Replaces everything by these.
    pub fn replace(&mut self, ids: &[Id]) -> Result<(), Failure> {
        let bytes: Vec<u8> = MAGIC.iter().copied().chain(ids.chunks(BATCH).flat_map(encode)).collect();
        unix::files::write_private(&self.path, &bytes).map_err(|e| of_state(&e))?;
        let opened = OpenOptions::new().read(true).write(true).open(&self.path);
        self.file = opened.map_err(|e| failure(&self.path, &e))?;
        self.end = bytes.len() as u64;
        self.rewritten = self.end;
        self.kept = MAGIC.len() as u64;
        Ok(())
    }

    fn shorten(&mut self, end: u64) {
        if self.end <= end {
            return;
        }
        // Too much in it costs time when it is read, and nothing else, so nobody waits for the disk.
        match self.file.set_len(end) {
            Ok(()) => self.end = end,
            Err(e) => log::warn!("{} stays longer than it has to be: {e}", self.path.display()),
        }
    }
}

fn encode(ids: &[Id]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(4 + ids.len() * 32 + SUM);
    bytes.extend_from_slice(&u32::try_from(ids.len()).unwrap_or(0).to_le_bytes());
    ids.iter().for_each(|id| bytes.extend_from_slice(&id.0));
    let sum = Sha256::digest(&bytes);
    bytes.extend_from_slice(&sum[..SUM]);
    bytes
}

fn size(ids: usize) -> u64 {
    (4 + ids * 32 + SUM) as u64
}

/// The next whole batch; None where there is none.
fn batch(input: &mut impl Read) -> std::io::Result<Option<Vec<Id>>> {
    let whole = |result: std::io::Result<()>| match result {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(e) => Err(e),
    };
    let mut count = [0; 4];
    if !whole(input.read_exact(&mut count))? {
        return Ok(None);
    }
    let ids = u32::from_le_bytes(count) as usize;
    if ids == 0 || ids > BATCH {
        return Ok(None);
    }
    let mut bytes = vec![0; ids * 32 + SUM];
    if !whole(input.read_exact(&mut bytes))? {
        return Ok(None);
    }
    let (bytes, sum) = bytes.split_at(ids * 32);
    let expected = Sha256::new().chain_update(count).chain_update(bytes).finalize();
    Ok((expected[..SUM] == *sum).then(|| bytes.as_chunks::<32>().0.iter().map(|id| Id(*id)).collect()))
}

fn failure(path: &Path, error: &std::io::Error) -> Failure {
    let full = matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
    let cause = if full { Cause::DatabaseEnospc } else { Cause::Internal };
    Failure::new(cause, format!("the journal of orphans {} fails: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(journal: &Journal) -> Vec<u8> {
        let mut all = vec![];
        let each = journal.each(|ids| {
            all.extend(ids.iter().map(|id| id.0[0]));
            Ok(())
        });
        each.unwrap();
        all
    }

    #[test]
    fn what_was_written_is_there_and_a_torn_end_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Journal::open(dir.path()).unwrap();
        let mut journal = open();
        assert!(journal.is_empty());
        journal.append(&[Id([1; 32]), Id([2; 32])]).unwrap();
        journal.append(&[Id([3; 32])]).unwrap();
        drop(journal);
        let path = dir.path().join("orphans");
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let expected: &[u8] = if cut >= 8 + 4 + 64 + 8 { &[1, 2] } else { &[] };
            assert_eq!(all(&open()), expected, "{cut}");
        }
        // A torn one is written over.
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        open().append(&[Id([4; 32])]).unwrap();
        let mut journal = open();
        assert_eq!(all(&journal), [1, 2, 4]);
        // What was there at the opening stays.
        journal.append(&[Id([5; 32])]).unwrap();
        journal.empty();
        assert_eq!(all(&open()), [1, 2, 4]);
        journal.replace(&[Id([2; 32])]).unwrap();
        journal.append(&[Id([6; 32])]).unwrap();
        assert_eq!(all(&open()), [2, 6]);
        journal.note(&[Id([7; 32])]).unwrap();
        journal.empty();
        assert_eq!(all(&open()), [2, 6, 7]);
        journal.settled();
        journal.empty();
        assert!(open().is_empty());
        std::fs::write(&path, b"something else").unwrap();
        assert!(Journal::open(dir.path()).is_err());
    }
}
