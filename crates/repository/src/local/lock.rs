//! Borg's lock (Borg 1.x: fact 9.7). A writer owns the directory `lock.exclusive`; a reader is listed in the file `lock.roster`, which is
//! changed only by who owns that directory for a moment.

use super::storage::{Storage, failed};
use crate::error::{Error, Result};
use borg::roster::{Holder, Roster};
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const DIRECTORY: &str = "lock.exclusive";
const ROSTER: &str = "lock.roster";

/// How often somebody else's lock is looked at.
const POLL: Duration = Duration::from_millis(100);

/// The locks this process holds, and how often. Borg's scheme knows processes only, and takes an entry with its own number for its own.
static HELD: Mutex<Held> = Mutex::new(BTreeMap::new());

type Held = BTreeMap<(PathBuf, Holder), u32>;

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    storage: Storage,
    me: Holder,
    exclusive: bool,
    released: bool,
}

/// The sign of a writer's lock.
#[derive(Debug)]
pub(crate) struct Sign(PathBuf);

impl Sign {
    /// Whether it is still there.
    pub(crate) fn is_there(&self) -> bool {
        self.0.exists()
    }
}

impl Lock {
    /// Waits for the lock as many seconds.
    pub(crate) fn acquire(storage: &Storage, host: &str, exclusive: bool, wait: u64) -> Result<Lock> {
        let me = Holder { host: host.to_owned(), pid: std::process::id(), thread: 0 };
        let deadline = Instant::now().checked_add(Duration::from_secs(wait));
        loop {
            if take_directory(storage, &me)? {
                // From here on an error lets go of the directory again.
                let mut lock = Lock { storage: storage.clone(), me: me.clone(), exclusive: true, released: false };
                let mut roster = load(storage, &me)?;
                if exclusive && roster.shared.is_empty() {
                    roster.exclusive = vec![me];
                    save(storage, &roster)?;
                    return Ok(lock);
                }
                if !exclusive {
                    if !roster.shared.contains(&lock.me) {
                        roster.shared.push(lock.me.clone());
                    }
                    save(storage, &roster)?;
                    lock.exclusive = false;
                    release_directory(storage, &lock.me)?;
                    return Ok(lock);
                }
                lock.released = true;
                forget(storage, &lock.me);
                release_directory(storage, &lock.me)?;
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                let location = storage.root().display().to_string();
                return Err(Error::LockTimeout { location, waited: wait, holder: holders(storage, &me) });
            }
            std::thread::sleep(POLL);
        }
    }

    /// The repository that it locks.
    pub(crate) fn root(&self) -> &Path {
        self.storage.root()
    }

    /// Whether nobody broke it.
    pub(crate) fn is_held(&self) -> bool {
        !self.exclusive || self.sign().is_there()
    }

    /// By what others, and other threads, see that it is held.
    pub(crate) fn sign(&self) -> Sign {
        Sign(self.storage.root().join(DIRECTORY).join(self.me.name()))
    }

    /// Lets go.
    pub(crate) fn release(mut self) -> Result<()> {
        self.let_go()
    }

    fn let_go(&mut self) -> Result<()> {
        self.released = true;
        let last = forget(&self.storage, &self.me);
        if self.exclusive {
            if !self.is_held() {
                return Err(Error::Io(format!("the lock of {} was broken by somebody", self.storage.root().display())));
            }
            let removed = self.leave_roster();
            return release_directory(&self.storage, &self.me).and(removed);
        }
        if !last {
            return Ok(());
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        while !take_directory(&self.storage, &self.me)? {
            if Instant::now() >= deadline {
                // Whoever comes next finds that this process is gone.
                return Err(Error::Io(format!("this process stays listed in {}", self.storage.root().join(ROSTER).display())));
            }
            std::thread::sleep(POLL);
        }
        forget(&self.storage, &self.me);
        let removed = self.leave_roster();
        release_directory(&self.storage, &self.me).and(removed)
    }

    fn leave_roster(&self) -> Result<()> {
        let mut roster = load(&self.storage, &self.me)?;
        let list = if self.exclusive { &mut roster.exclusive } else { &mut roster.shared };
        list.retain(|holder| *holder != self.me);
        if roster.is_empty() { self.storage.remove_file(ROSTER) } else { save(&self.storage, &roster) }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if !self.released
            && let Err(e) = self.let_go()
        {
            log::warn!("{e}");
        }
    }
}

/// Who holds the lock, as Borg notes it.
fn holders(storage: &Storage, me: &Holder) -> Option<String> {
    let entries = fs::read_dir(storage.root().join(DIRECTORY)).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    if names.is_empty() {
        let roster = load(storage, me).ok()?;
        names = roster.shared.iter().chain(&roster.exclusive).map(Holder::name).collect();
    }
    let told: Vec<String> = names.iter().map(|name| told(name, &me.host)).collect();
    (!told.is_empty()).then(|| told.join(", "))
}

/// A holder of this host is a process that a person can look for.
fn told(name: &str, host: &str) -> String {
    let here = name.strip_prefix(host).and_then(|rest| rest.strip_prefix('.')?.split_once('-'));
    here.map_or_else(|| name.to_owned(), |(pid, _)| format!("{name} (process {pid} on this host)"))
}

/// Tries once to become the owner of the directory, and removes what dead processes left of it.
fn take_directory(storage: &Storage, me: &Holder) -> Result<bool> {
    let path = storage.root().join(DIRECTORY);
    let suffix = unix::random::hex(4).map_err(|e| Error::Io(e.to_string()))?;
    let temporary = storage.root().join(format!("{DIRECTORY}.{suffix}.tmp"));
    let mut held = held();
    let made = DirBuilder::new().mode(0o700).create(&temporary).and_then(|()| File::create(temporary.join(me.name())).map(drop));
    let taken = match made.and_then(|()| fs::rename(&temporary, &path)) {
        Ok(()) => {
            *held.entry((storage.root().to_owned(), me.clone())).or_default() += 1;
            return Ok(true);
        }
        Err(e) if matches!(e.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) => Ok(false),
        Err(e) => Err(failed("cannot take the lock", &path, &e)),
    };
    // It has no other use; what is left of it disturbs nobody.
    let _ = fs::remove_file(temporary.join(me.name()));
    let _ = fs::remove_dir(&temporary);
    if let Ok(false) = taken {
        remove_stale(storage, &path, me, &held);
    }
    taken
}

fn release_directory(storage: &Storage, me: &Holder) -> Result<()> {
    let path = storage.root().join(DIRECTORY);
    fs::remove_file(path.join(me.name())).map_err(|e| failed("cannot release the lock", &path, &e))?;
    // Somebody else may already have renamed theirs over the empty one.
    match fs::remove_dir(&path) {
        Err(e) if !matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {
            Err(failed("cannot release the lock", &path, &e))
        }
        _ => Ok(()),
    }
}

fn remove_stale(storage: &Storage, path: &Path, me: &Holder, held: &Held) {
    let Ok(entries) = fs::read_dir(path) else { return };
    for name in entries.flatten().map(|entry| entry.file_name()) {
        match Holder::from_name(&name.to_string_lossy()) {
            Some(holder) if is_dead(storage, &holder, me, held) => {
                log::warn!("removing the lock of {}, which {} left behind", storage.root().display(), holder.name());
                if let Err(e) = fs::remove_file(path.join(&name)) {
                    log::warn!("cannot remove {}: {e}", path.join(&name).display());
                    return;
                }
            }
            _ => return,
        }
    }
    // If it is not empty any more, somebody else was faster.
    let _ = fs::remove_dir(path);
}

/// Same host, and no such process; or our own number, under which an earlier process of this host died.
fn is_dead(storage: &Storage, holder: &Holder, me: &Holder, held: &Held) -> bool {
    if holder.host != me.host || holder.thread != 0 {
        return false;
    }
    if holder.pid == me.pid {
        return !held.contains_key(&(storage.root().to_owned(), holder.clone()));
    }
    // A number that no process can have says nothing.
    i32::try_from(holder.pid).is_ok_and(|pid| pid > 0) && !unix::machine::process_exists(holder.pid)
}

/// The roster without the dead. To change it, one has to own the directory.
fn load(storage: &Storage, me: &Holder) -> Result<Roster> {
    let mut roster = Roster::parse(&storage.read(ROSTER)?.unwrap_or_default());
    let held = held();
    roster.shared.retain(|holder| !is_dead(storage, holder, me, &held));
    roster.exclusive.retain(|holder| !is_dead(storage, holder, me, &held));
    Ok(roster)
}

/// Borg 1.x writes the file in place and takes one that it cannot parse for an empty one: a reader that comes in between, or a crash, makes
/// all holders forgotten. Ours is there whole or not at all; Borg, which opens it by its name each time, sees no difference.
fn save(storage: &Storage, roster: &Roster) -> Result<()> {
    let path = storage.root().join(ROSTER);
    let suffix = unix::random::hex(4).map_err(|e| Error::Io(e.to_string()))?;
    let temporary = storage.root().join(format!(".{ROSTER}.{suffix}.tmp"));
    let written = fs::write(&temporary, roster.text()).and_then(|()| {
        // Who may change it stays as it is.
        if let Ok(old) = fs::metadata(&path) {
            fs::set_permissions(&temporary, old.permissions())?;
        }
        fs::rename(&temporary, &path)
    });
    written.map_err(|e| {
        // The first error is the one to tell.
        let _ = fs::remove_file(&temporary);
        failed("cannot write", &path, &e)
    })
}

fn held() -> MutexGuard<'static, Held> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes that this process holds it once less; whether that was the last time.
fn forget(storage: &Storage, me: &Holder) -> bool {
    let mut held = held();
    let key = (storage.root().to_owned(), me.clone());
    match held.get_mut(&key) {
        Some(count) if *count > 1 => {
            *count -= 1;
            false
        }
        _ => {
            held.remove(&key);
            true
        }
    }
}

/// This host as stock Borg calls it where nothing else is told: its name and the address of its network card. Borg asks the resolver for
/// the full name, too; where the answers differ, a dead process's lock is not recognised and stays for a person to break.
pub(crate) fn host_id() -> String {
    let name = unix::machine::hostname().unwrap_or_default();
    let cards = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let mut cards: Vec<(bool, u64, u64)> = cards
        .filter_map(|card| {
            let text = |file: &str| fs::read_to_string(card.path().join(file)).ok();
            let address = u64::from_str_radix(&text("address")?.trim().replace(':', ""), 16).ok().filter(|mac| *mac != 0)?;
            // The library that Borg asks sees cards with an address only, which are those that are up.
            let up = u32::from_str_radix(text("flags")?.trim().trim_start_matches("0x"), 16).ok()? & 1 == 1;
            Some((!up, text("ifindex")?.trim().parse().ok()?, address))
        })
        .collect();
    cards.sort_unstable();
    format!("{name}@{}", cards.first().map_or(0, |(_, _, address)| *address))
}
