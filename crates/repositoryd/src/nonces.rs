//! Nonces: no block of them is ever used twice under the real key, across threads, crashes and other borgs.
//!
//! Borg 1.x: the repository's `nonce` file says what is reserved; a writer reserves a stretch there before it uses any of it, and what it
//! does not use is lost. It counts AES blocks of 16 bytes. Our own record beside it guards against a repository that answers with an older
//! file: storage is not trusted with that.

use crate::failures::{of_repository, of_state};
use model::{Cause, Failure};
use repository::Repository;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Borg 1.x: blocks reserved at once, 4 GiB of data.
const STEP: u64 = 1 << 28;

/// What is reserved and not used.
#[derive(Debug, Default)]
struct Stretch {
    next: u64,
    end: u64,
}

/// The allocator of one opening of a repository.
#[derive(Debug)]
pub struct Nonces {
    stretch: Mutex<Stretch>,
    /// No nonce below this one is free, whatever the repository says.
    lowest: AtomicU64,
    record: PathBuf,
}

impl Nonces {
    /// An allocator with nothing reserved. `record` is our own note of the last reservation's end, `above_manifest` the first nonce that
    /// the manifest did not use.
    pub fn new(record: PathBuf, above_manifest: u64) -> Result<Nonces, Failure> {
        let noted = match std::fs::read_to_string(&record) {
            Ok(text) => u64::from_str_radix(text.trim(), 16).map_err(|_| {
                Failure::new(Cause::RepositoryIntegrity, format!("{} does not hold a nonce; restore it from a backup", record.display()))
            })?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => 0,
            Err(e) => return Err(Failure::new(Cause::Internal, format!("cannot read {}: {e}", record.display()))),
        };
        Ok(Nonces { stretch: Mutex::default(), lowest: AtomicU64::new(above_manifest.max(noted)), record })
    }

    /// Another borg had the repository: what was reserved before is given up, and the next reservation asks the repository again.
    pub fn begin_anew(&self, above_manifest: u64) {
        self.lowest.fetch_max(above_manifest, Ordering::SeqCst);
        let mut stretch = self.stretch.lock().unwrap_or_else(PoisonError::into_inner);
        stretch.next = stretch.end;
    }

    /// The first of `blocks` nonces that are now the caller's; None if they must be reserved first.
    pub fn take(&self, blocks: u64) -> Option<u64> {
        let mut stretch = self.stretch.lock().unwrap_or_else(PoisonError::into_inner);
        let next = stretch.next.checked_add(blocks)?;
        if next > stretch.end {
            return None;
        }
        let first = stretch.next;
        stretch.next = next;
        Some(first)
    }

    /// Reserves enough for `blocks`, unless that was done meanwhile. Only the thread that has the repository can do that.
    pub fn reserve(&self, repository: &mut Repository, blocks: u64) -> Result<(), Failure> {
        let (next, end) = {
            let stretch = self.stretch.lock().unwrap_or_else(PoisonError::into_inner);
            (stretch.next, stretch.end)
        };
        if end - next >= blocks && end > 0 {
            return Ok(());
        }
        let free = repository.free_nonce().map_err(|e| of_repository(&e))?;
        let (start, reserved) = plan(free, self.lowest.load(Ordering::SeqCst).max(end), blocks)?;
        repository.reserve_nonce(reserved, free).map_err(|e| of_repository(&e))?;
        unix::files::write_private(&self.record, format!("{reserved:016x}").as_bytes()).map_err(|e| of_state(&e))?;
        let mut stretch = self.stretch.lock().unwrap_or_else(PoisonError::into_inner);
        // What others took meanwhile came from the old stretch; the new one begins behind it in any case.
        if start > stretch.end {
            stretch.next = start;
        }
        stretch.end = reserved;
        Ok(())
    }
}

/// Reserves for a repository that was just created; the first of the nonces.
pub fn reserve_first(repository: &mut Repository, blocks: u64) -> Result<u64, Failure> {
    let free = repository.free_nonce().map_err(|e| of_repository(&e))?;
    let (start, reserved) = plan(free, 0, blocks)?;
    repository.reserve_nonce(reserved, free).map_err(|e| of_repository(&e))?;
    Ok(start)
}

/// Where the next stretch begins and ends.
fn plan(free: Option<u64>, lowest: u64, blocks: u64) -> Result<(u64, u64), Failure> {
    let start = free.unwrap_or(0).max(lowest);
    match start.checked_add(blocks).and_then(|n| n.checked_add(STEP)) {
        Some(end) => Ok((start, end)),
        None => Err(Failure::new(Cause::RepositoryError, "the repository's key has no nonces left; it needs a new key")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nonces(next: u64, end: u64) -> Nonces {
        Nonces { stretch: Mutex::new(Stretch { next, end }), lowest: AtomicU64::new(0), record: PathBuf::new() }
    }

    #[test]
    fn stretches_never_overlap() {
        assert_eq!(plan(None, 0, 3).unwrap(), (0, STEP + 3));
        assert_eq!(plan(Some(100), 7, 1).unwrap(), (100, 101 + STEP));
        // A repository that went back in time.
        assert_eq!(plan(Some(100), 7000, 1).unwrap(), (7000, 7001 + STEP));
        assert!(plan(Some(u64::MAX - 5), 0, 1).is_err());
    }

    #[test]
    fn taking_is_exact() {
        let nonces = nonces(10, 15);
        assert_eq!(nonces.take(3), Some(10));
        assert_eq!(nonces.take(3), None);
        assert_eq!(nonces.take(2), Some(13));
        assert_eq!(nonces.take(1), None);
        assert_eq!(nonces.take(u64::MAX), None);
    }

    #[test]
    fn what_was_reserved_before_another_borg_came_is_given_up() {
        let nonces = nonces(10, 15);
        nonces.begin_anew(99);
        assert_eq!(nonces.take(1), None);
        assert_eq!((nonces.stretch.into_inner().unwrap().end, nonces.lowest.into_inner()), (15, 99));
    }

    #[test]
    fn our_own_record_counts() {
        let dir = tempfile::tempdir().unwrap();
        let record = dir.path().join("nonce");
        assert_eq!(Nonces::new(record.clone(), 5).unwrap().lowest.into_inner(), 5);
        std::fs::write(&record, "00000000000000ff").unwrap();
        assert_eq!(Nonces::new(record.clone(), 5).unwrap().lowest.into_inner(), 255);
        std::fs::write(&record, "what").unwrap();
        assert!(Nonces::new(record, 5).is_err());
    }
}
