//! Who waits for whom: sessions while the repository is lent, maintenance for maintenance.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};
use std::time::{Duration, Instant};
use unix::poll::{Interest, poll};

/// How often somebody who waits looks around.
const GLANCE: Duration = Duration::from_millis(50);

/// How often whoever closes the gate looks whether it is empty: sessions are inside for a moment.
const MOMENT: Duration = Duration::from_millis(5);

/// Open for everybody, or closed by one.
#[derive(Debug, Default)]
pub struct Gate {
    lock: RwLock<()>,
    closed: AtomicBool,
}

/// The gate is closed, and nobody is inside. It opens when this is dropped.
pub struct Closed<'a> {
    gate: &'a Gate,
    _lock: RwLockWriteGuard<'a, ()>,
}

impl Gate {
    /// Goes in, waiting while it is closed. None if somebody rings a bell meanwhile.
    pub fn pass(&self, bells: &[BorrowedFd<'_>]) -> Option<RwLockReadGuard<'_, ()>> {
        loop {
            if let Some(inside) = self.try_pass() {
                return Some(inside);
            }
            let waiting: Vec<_> = bells.iter().map(|bell| (*bell, Interest::Read)).collect();
            match poll(&waiting, Some(GLANCE)) {
                Ok(ready) if !ready.iter().any(|ready| ready.any()) => {}
                _ => return None,
            }
        }
    }

    /// Goes in if it is open.
    pub fn try_pass(&self) -> Option<RwLockReadGuard<'_, ()>> {
        if self.closed.load(Ordering::Acquire) { None } else { self.lock.try_read().ok() }
    }

    /// Closes it, and waits until all that were inside have left: until `deadline`, and as long as `is_wanted` says so. Then it is open again,
    /// and this is None. To be called by one at a time.
    pub fn close(&self, deadline: Instant, mut is_wanted: impl FnMut() -> bool) -> Option<Closed<'_>> {
        self.closed.store(true, Ordering::Release);
        loop {
            match self.lock.try_write() {
                Ok(lock) => return Some(Closed { gate: self, _lock: lock }),
                Err(TryLockError::Poisoned(lock)) => return Some(Closed { gate: self, _lock: lock.into_inner() }),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline && is_wanted() => std::thread::sleep(MOMENT),
                Err(TryLockError::WouldBlock) => {
                    self.closed.store(false, Ordering::Release);
                    return None;
                }
            }
        }
    }
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        self.gate.closed.store(false, Ordering::Release);
    }
}

/// Maintenance goes one after the other.
#[derive(Debug, Default)]
pub struct Turn {
    holder: Mutex<Option<&'static str>>,
    changed: Condvar,
    /// Where others see who has it.
    shown_at: Option<PathBuf>,
}

/// It is the holder's turn until this is dropped.
#[derive(Debug)]
pub struct Held<'a> {
    turn: &'a Turn,
    /// Locked as long as this process lives and holds the turn, so that what a killed owner leaves behind says nothing.
    shown: Option<File>,
}

impl Turn {
    /// Waits for the turn: until `deadline`, and as long as `is_wanted` says so. Otherwise says who has it.
    pub fn take(
        &self,
        what: &'static str,
        deadline: Option<Instant>,
        mut is_wanted: impl FnMut() -> bool,
    ) -> Result<Held<'_>, &'static str> {
        let mut holder = self.holder.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(other) = *holder {
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) || !is_wanted() {
                return Err(other);
            }
            holder = self.changed.wait_timeout(holder, GLANCE).unwrap_or_else(PoisonError::into_inner).0;
        }
        *holder = Some(what);
        Ok(Held { turn: self, shown: self.show(what) })
    }

    /// Nobody has it yet; who does is written to the file at `path`.
    pub fn shown_at(path: PathBuf) -> Turn {
        Turn { shown_at: Some(path), ..Turn::default() }
    }

    fn show(&self, what: &str) -> Option<File> {
        let path = self.shown_at.as_ref()?;
        let write = || -> std::io::Result<File> {
            // A file that a killed owner has left may be held locked by whoever can read it.
            match std::fs::remove_file(path) {
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
            file.try_lock()?;
            writeln!(file, "{what}")?;
            // The queue daemon reads it: on an installed server the directory gives its files to a group that both are in.
            file.set_permissions(Permissions::from_mode(0o640))?;
            Ok(file)
        };
        // Nothing but `borgcube status` looks at it.
        write().inspect_err(|e| log::warn!("cannot write {}: {e}", path.display())).ok()
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut holder = self.turn.holder.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(_), Some(path)) = (self.shown.take(), &self.turn.shown_at)
            && let Err(e) = std::fs::remove_file(path)
        {
            log::debug!("cannot remove {}: {e}", path.display());
        }
        *holder = None;
        drop(holder);
        self.turn.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Shutdown;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn whoever_is_inside_leaves_first_and_whoever_waits_hears_the_bell() {
        let gate = Gate::default();
        let (bell, ringer) = UnixStream::pair().unwrap();
        let inside = gate.pass(&[bell.as_fd()]).unwrap();
        std::thread::scope(|scope| {
            let closing = scope.spawn(|| {
                let closed = gate.close(Instant::now() + Duration::from_secs(60), || true).unwrap();
                assert!(gate.try_pass().is_none());
                ringer.shutdown(Shutdown::Both).unwrap();
                drop(closed);
            });
            std::thread::sleep(Duration::from_millis(100));
            assert!(!closing.is_finished());
            // Nobody new comes in while somebody wants to close.
            assert!(gate.try_pass().is_none());
            drop(inside);
            closing.join().unwrap();
        });
        assert!(gate.try_pass().is_some());
        let closed = gate.close(Instant::now(), || false).unwrap();
        assert!(gate.pass(&[bell.as_fd()]).is_none());
        drop(closed);
    }

    #[test]
    fn who_cannot_close_it_in_time_leaves_it_open() {
        let gate = Gate::default();
        let inside = gate.try_pass().unwrap();
        assert!(gate.close(Instant::now(), || true).is_none());
        assert!(gate.close(Instant::now() + Duration::from_secs(3600), || false).is_none());
        assert!(gate.try_pass().is_some());
        drop(inside);
        assert!(gate.close(Instant::now(), || true).is_some());
    }

    #[test]
    fn who_has_the_turn_is_shown_to_the_group_and_nobody_s_lock_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("main.turn");
        std::fs::write(&path, "left by a killed owner").unwrap();
        let stranger = File::open(&path).unwrap();
        stranger.lock().unwrap();
        let turn = Turn::shown_at(path.clone());
        let held = turn.take("a check", None, || true).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a check\n");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
        assert!(File::open(&path).unwrap().try_lock_shared().is_err(), "it is locked");
        drop(held);
        assert!(!path.exists());
    }

    #[test]
    fn one_turn_at_a_time() {
        let turn = Turn::default();
        let held = turn.take("a check", None, || true).unwrap();
        assert_eq!(turn.take("a compact", Some(Instant::now()), || true).unwrap_err(), "a check");
        assert_eq!(turn.take("a compact", None, || false).unwrap_err(), "a check");
        drop(held);
        assert!(turn.take("a compact", Some(Instant::now()), || true).is_ok());
    }
}
