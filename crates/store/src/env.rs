//! The LMDB environment: opening it with working locks, growing it, copying it.
//!
//! Never NO_LOCK (a lockless reader silently reads wrong data), never WRITE_MAP (a stray pointer would damage the file), never one of the
//! NO_SYNC family (a commit is durable).

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock};

use heed::types::Bytes;
use heed::{CommitOrAbort, CommitToken, CompactionOption, EnvFlags, EnvOpenOptions, MdbError};

use crate::error::{Error, Result};

/// What every opener asks for: address space and a limit, not disk space. It doubles when it is full.
pub const MAP_SIZE: usize = 1 << 30;
const MAX_DATABASES: u32 = 128;
/// Slots of live read transactions, for all processes together.
const MAX_READERS: u32 = 126;

const EIO: i32 = 5;
/// More than a commit usually needs, little enough to be written in no time.
const PROBE: usize = 256 * 1024;

pub(crate) type Db = heed::Database<'static, Bytes, Bytes>;
pub(crate) type Env = heed::Env<heed::WithoutTls>;

/// One open at a time, so that the look at heed's register and the probe of the lock file go together.
static OPENING: Mutex<()> = Mutex::new(());

pub(crate) struct Environment {
    pub(crate) env: Env,
    pub(crate) databases: HashMap<&'static str, Db>,
    pub(crate) read_only: bool,
    /// Every transaction holds it shared; who changes the map's size holds it alone.
    pub(crate) gate: RwLock<()>,
    pid: u32,
}

/// Opens the environment in `dir` with the named databases; also tells which of them are new.
pub(crate) fn open(dir: &Path, names: &[&'static str], map_size: usize, read_only: bool) -> Result<(Environment, HashSet<&'static str>)> {
    let _one_at_a_time = OPENING.lock().unwrap_or_else(PoisonError::into_inner);
    if !read_only {
        fs::create_dir_all(dir).map_err(|e| Error::io("cannot create", dir, e))?;
    }
    let dir = dir.canonicalize().map_err(|e| Error::io("cannot open the database directory", dir, e))?;
    // First of all, because closing the probe below would drop the locks of an environment that is open already.
    if heed::env_closing_event(&dir).is_some() {
        return Err(Error::AlreadyOpen(dir));
    }
    if !read_only {
        create_files(&dir)?;
    }
    probe_lock_file(&dir)?;

    let mut options = EnvOpenOptions::new().read_txn_without_tls();
    options.map_size(map_size).max_dbs(MAX_DATABASES).max_readers(MAX_READERS);
    #[expect(unsafe_code, reason = "heed marks everything about its memory map unsafe")]
    // SAFETY: the only flag is READ_ONLY, none that weakens locking or syncing. The file is changed through LMDB only: it lies in a
    // directory of our own, the lock file was found writable, and one process opens it once (`OPENING` and heed's register).
    let opened = unsafe {
        if read_only {
            options.flags(EnvFlags::READ_ONLY);
        }
        options.open(&dir)
    };
    let env = opened.map_err(|e| match e {
        heed::Error::EnvAlreadyOpened => Error::AlreadyOpen(dir.clone()),
        heed::Error::Io(e) => Error::io("cannot open the database", &dir, e),
        e => Error::lmdb(e),
    })?;
    env.clear_stale_readers().map_err(Error::lmdb)?;
    let mut environment = Environment { env, databases: HashMap::new(), read_only, gate: RwLock::new(()), pid: std::process::id() };
    let new = environment.open_databases(names)?;
    Ok((environment, new))
}

/// Handles that are valid once the transaction that opened them has committed.
struct Opened<'t>(Vec<(&'static str, heed::Database<'t, Bytes, Bytes>)>);

impl heed::OnCommit for Opened<'_> {
    type Committed = HashMap<&'static str, Db>;

    fn on_commit(self, token: &CommitToken) -> Self::Committed {
        let each = self.0.into_iter();
        each.map(|(name, db)| (name, db.on_commit(token))).collect()
    }
}

impl Environment {
    /// Opens what exists, then creates what is missing (writers only).
    fn open_databases(&mut self, names: &[&'static str]) -> Result<HashSet<&'static str>> {
        let txn = loop {
            match self.env.read_txn() {
                Err(e) if is(&e, MdbError::MapResized) => self.adopt_size()?,
                txn => break txn.map_err(Error::lmdb)?,
            }
        };
        let found = self
            .env
            .open_databases_and_commit(txn, |opener, txn| {
                let mut found = Vec::new();
                for &name in names {
                    if let Some(db) = opener.open_database(txn, Some(name))? {
                        found.push((name, db));
                    }
                }
                Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit(Opened(found)))
            })
            .map_err(Error::lmdb)?;
        self.databases.extend(found.commit().unwrap_or_default());
        let missing: HashSet<_> = names.iter().copied().filter(|name| !self.databases.contains_key(name)).collect();
        if self.read_only || missing.is_empty() {
            return Ok(HashSet::new());
        }
        loop {
            let seen = self.env.info().map_size;
            let made = self.env.write_txn().and_then(|txn| {
                self.env.create_databases_and_commit(txn, |opener, txn| {
                    let mut made = Vec::new();
                    for &name in &missing {
                        made.push((name, opener.create_database(txn, Some(name))?));
                    }
                    Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit(Opened(made)))
                })
            });
            match made {
                Ok(made) => {
                    self.databases.extend(made.commit().unwrap_or_default());
                    return Ok(missing);
                }
                Err(e) if is(&e, MdbError::MapFull) => self.grow(seen)?,
                Err(e) if is(&e, MdbError::MapResized) => self.adopt_size()?,
                Err(e) => return Err(Error::lmdb(e)),
            }
        }
    }

    pub(crate) fn db(&self, name: &str) -> Result<Db> {
        let db = self.databases.get(name).copied();
        db.ok_or_else(|| Error::TableMissing(name.to_owned()))
    }

    /// LMDB's locks belong to the process that opened it.
    pub(crate) fn check_process(&self) -> Result<()> {
        if self.pid == std::process::id() { Ok(()) } else { Err(Error::Forked) }
    }

    /// Doubles the map, unless somebody else did since `seen` was its size.
    pub(crate) fn grow(&self, seen: usize) -> Result<()> {
        let _alone = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        let now = self.env.info().map_size;
        if now > seen {
            return Ok(());
        }
        let wanted = now.saturating_mul(2);
        log::info!("the database's map grows from {now} to {wanted} bytes");
        self.resize(wanted).map_err(|source| Error::CannotGrow { wanted, source })
    }

    /// Takes over the size that another process gave the map.
    pub(crate) fn adopt_size(&self) -> Result<()> {
        let _alone = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        self.resize(0).map_err(Error::lmdb)
    }

    fn resize(&self, size: usize) -> heed::Result<()> {
        #[expect(unsafe_code, reason = "heed marks everything about its memory map unsafe")]
        // SAFETY: the caller holds the gate alone (or still owns the environment alone), so no transaction of this process is live.
        unsafe {
            self.env.resize(size)
        }
    }

    /// LMDB calls it an input/output error when only a part of its pages fitted on the disk. Whether that is the reason shows when
    /// another file is written there.
    pub(crate) fn why_commit_failed(&self, error: heed::Error) -> Error {
        if matches!(&error, heed::Error::Io(e) if e.raw_os_error() == Some(EIO)) {
            let path = self.env.path().join(format!("probe-{}", self.pid));
            let written = fs::write(&path, [1; PROBE]);
            let _ = fs::remove_file(&path);
            if written.is_err_and(|e| e.kind() == ErrorKind::StorageFull) {
                return Error::DiskFull;
            }
        }
        Error::lmdb(error)
    }

    /// Writes a compact copy to `to`, which must not exist; it appears complete or not at all, mode 0600.
    pub(crate) fn copy_to(&self, to: &Path) -> Result<()> {
        let fail = |what| move |e| Error::io(what, to, e);
        if to.symlink_metadata().is_ok() {
            return Err(fail("will not overwrite")(ErrorKind::AlreadyExists.into()));
        }
        let mut part = to.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let _ = fs::remove_file(&part);
        let done = self.copy_into(&part).and_then(|()| {
            // A link refuses an existing name where a rename would replace it.
            fs::hard_link(&part, to).map_err(fail("cannot create"))
        });
        let _ = fs::remove_file(&part);
        done?;
        let parent = to.parent().filter(|p| !p.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        let synced = File::open(parent).and_then(|dir| dir.sync_all());
        synced.map_err(|e| Error::io("cannot sync", parent, e))
    }

    fn copy_into(&self, part: &Path) -> Result<()> {
        let fail = |what| move |e| Error::io(what, part, e);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(0o600);
        let mut file = file.open(part).map_err(fail("cannot create"))?;
        let _shared = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        self.env.copy_to_file(&mut file, CompactionOption::Enabled).map_err(|e| match e {
            heed::Error::Io(e) => fail("cannot write")(e),
            e => Error::lmdb(e),
        })?;
        file.sync_all().map_err(fail("cannot sync"))
    }
}

pub(crate) fn is(error: &heed::Error, wanted: MdbError) -> bool {
    matches!(error, heed::Error::Mdb(e) if *e == wanted)
}

/// Empty files with the right modes: heed itself would make them 0600, whatever the directory is for. LMDB takes empty ones.
fn create_files(dir: &Path) -> Result<()> {
    let metadata = fs::metadata(dir).map_err(|e| Error::io("cannot look at", dir, e))?;
    // A directory that its group may write is shared by the users of the server's daemons.
    let mode = if metadata.mode() & 0o020 == 0 { 0o600 } else { 0o660 };
    for name in ["data.mdb", "lock.mdb"] {
        let path = dir.join(name);
        let mut options = OpenOptions::new();
        match options.write(true).create_new(true).mode(mode).open(&path) {
            // The umask may have taken the group's bits away.
            Ok(file) => file.set_permissions(Permissions::from_mode(mode)).map_err(|e| Error::io("cannot set the mode of", &path, e))?,
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            // The probe has the better sentence.
            Err(e) if name == "lock.mdb" && is_refusal(&e) => {}
            Err(e) => return Err(Error::io("cannot create", &path, e)),
        }
    }
    Ok(())
}

/// LMDB's readers write into the lock file; without it they run lockless, without a word.
fn probe_lock_file(dir: &Path) -> Result<()> {
    let path = dir.join("lock.mdb");
    match OpenOptions::new().read(true).write(true).open(&path) {
        Ok(_) => Ok(()),
        Err(e) if is_refusal(&e) => Err(Error::LockFile(refusal(&path, &e))),
        Err(e) => Err(Error::io("cannot open", &path, e)),
    }
}

fn is_refusal(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied)
}

fn refusal(path: &Path, error: &io::Error) -> String {
    let dir = path.parent().unwrap_or(path).display();
    let remedy = if error.kind() == ErrorKind::ReadOnlyFilesystem {
        format!("in a unit with ProtectSystem=strict, give it ReadWritePaths={dir} (or BindPaths={})", path.display())
    } else {
        "give its user the database's group (SupplementaryGroups=borgcube-db) and the file the mode 0660 (tmpfiles.d)".to_owned()
    };
    format!("cannot open {} for writing: {error}. Every reader of the database has to write its lock file: {remedy}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_the_directive() {
        let path = Path::new("/var/lib/borgcube/db/lock.mdb");
        let read_only = refusal(path, &io::Error::from_raw_os_error(30));
        assert!(read_only.contains("ReadWritePaths=/var/lib/borgcube/db"));
        let denied = refusal(path, &io::Error::from_raw_os_error(13));
        assert!(denied.contains("SupplementaryGroups=borgcube-db"));
        assert!(is_refusal(&io::Error::from_raw_os_error(30)));
        assert!(is_refusal(&io::Error::from_raw_os_error(13)));
        assert!(!is_refusal(&io::Error::from_raw_os_error(2)));
    }
}
