//! Opening and creating.

use super::lock::{Lock, host_id};
use super::log::Log;
use super::replay::{Statistics, newest_commit, replay, uncommitted};
use super::shared::Shared;
use super::space::Room;
use super::storage::{Stamp, Storage, failed};
use super::{Local, auxiliary};
use crate::error::{Error, Result};
use crate::index::{Checkpoint, Index};
use crate::options::OpenOptions;
use borg::RepositoryId;
use borg::config::{Config, ConfigError, Settings};
use borg::segment::ATTIC_MAGIC;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::Path;
use std::sync::Arc;

const README: &str = "This is a Borg Backup repository.\nSee https://borgbackup.readthedocs.io/\n";

impl Local {
    /// Opens the repository at `root`, or creates it.
    pub(crate) fn open(root: &Path, options: &OpenOptions) -> Result<Local> {
        if options.create {
            create(root)?;
        }
        let place = root.display().to_string();
        match fs::metadata(root) {
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => return Err(invalid(&place, "it is no directory")),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(Error::DoesNotExist(place)),
            Err(e) => return Err(failed("cannot look at", root, &e)),
        }
        // What is no repository gets no lock.
        read_config(&Storage::new(root, 1))?;
        let exclusive = options.exclusive || options.create;
        let host = options.host_id.clone().unwrap_or_else(host_id);
        let lock = Lock::acquire(&Storage::new(root, 1), &host, exclusive, options.lock_wait)?;
        let (config, settings) = read_config(&Storage::new(root, 1))?;
        if let Some(expected) = options.expected.filter(|expected| *expected != settings.id) {
            return Err(Error::IdMismatch { expected, found: settings.id });
        }
        let storage = Storage::new(root, settings.segments_per_dir);
        let segments = storage.segments()?;
        refuse_attic(&storage, &segments)?;
        let transaction = newest_commit(&storage, &segments)?;
        if transaction.is_none() && (auxiliary::newest_index(&storage)?.is_some() || segments.iter().any(|(segment, _)| *segment > 0)) {
            // Borg 1.x with an index; without one there is something all the same that a check could find again.
            return Err(Error::CheckNeeded(format!("{place} needs a check before it can be used: no sound commit is in it")));
        }
        // Two readers of one repository cannot share an index that is written.
        let kept = options.index.as_deref().filter(|_| exclusive);
        let committed = |segment: u32| transaction.is_some_and(|transaction| segment <= transaction);
        let valid = segments.iter().filter(|(segment, _)| committed(*segment)).copied().collect::<Vec<_>>();
        let (index, checkpoint) = Index::open(kept, settings.id)?;
        if let (Some(dir), Some(known)) = (kept, &checkpoint) {
            let tail = segments.iter().filter(|(segment, _)| !committed(*segment)).copied().collect::<Vec<_>>();
            refuse_damaged_commit(&storage, dir, known, transaction, &tail)?;
        }
        let (index, checkpoint) = fitting(index, checkpoint, kept, settings.id, &valid, transaction)?;
        let shared = Arc::new(Shared::new(storage, index));
        let log = if exclusive {
            for (segment, _) in segments.iter().rev().filter(|(segment, _)| !committed(*segment)) {
                log::info!("{place}: segment {segment} was never committed; it is removed");
                shared.storage.remove(*segment)?;
            }
            shared.storage.remove_leftovers()?;
            Some(Log::new(Arc::clone(&shared), settings.max_segment_size, transaction.map_or(0, |transaction| transaction + 1))?)
        } else {
            None
        };
        let mut this = Local {
            log,
            config,
            transaction,
            statistics: Statistics::new(),
            room: Room::new(options.reserve, settings.additional_free_space, settings.storage_quota),
            broken: None,
            compacting: super::compact::Progress::default(),
            unread: 0,
            read_again: super::READ_AGAIN,
            auxiliary: auxiliary::complete(&shared.storage)?,
            lock: Some(lock),
            settings,
            shared,
        };
        this.catch_up(checkpoint.unwrap_or_default())?;
        this.publish();
        Ok(this)
    }

    /// From what the index knows to the newest commit.
    pub(super) fn catch_up(&mut self, checkpoint: Checkpoint) -> Result<()> {
        let Some(transaction) = self.transaction else {
            self.statistics.clear();
            return Ok(());
        };
        let nothing = checkpoint.segments.is_empty();
        let segments = self.shared.storage.segments()?;
        let committed: BTreeMap<u32, Stamp> = segments.into_iter().filter(|(segment, _)| *segment <= transaction).collect();
        self.statistics = checkpoint.segments;
        let gone: BTreeSet<u32> = self.statistics.keys().filter(|segment| !committed.contains_key(segment)).copied().collect();
        if !gone.is_empty() {
            log::info!("{}: {} segments were removed meanwhile", self.shared.storage.root().display(), gone.len());
            self.shared.index.forget_segments(&gone);
            self.statistics.retain(|segment, _| !gone.contains(segment));
        }
        let newer = |segment: u32| nothing || segment > checkpoint.transaction;
        let segments: Vec<_> = committed.into_iter().filter(|(segment, _)| newer(*segment)).collect();
        if !segments.is_empty() {
            log::info!("{}: reading {} segments", self.shared.storage.root().display(), segments.len());
        }
        replay(&self.shared, &mut self.statistics, &segments)?;
        self.unread = segments.iter().map(|(_, stamp)| stamp.size).sum();
        self.room.set_used(self.statistics.values().map(|state| state.size.saturating_sub(8)).sum());
        if self.wants_checkpoint() { self.checkpoint() } else { Ok(()) }
    }
}

/// What was never committed is removed. What our own index knows to have been committed is not, whatever has become of it since.
fn refuse_damaged_commit(storage: &Storage, dir: &Path, known: &Checkpoint, transaction: Option<u32>, tail: &[(u32, Stamp)]) -> Result<()> {
    // Where our commit is not even there, the repository was put back to an older state.
    let Some((segment, stamp)) = tail.iter().rev().find(|(segment, _)| known.segments.contains_key(segment)) else { return Ok(()) };
    let why = uncommitted(storage, *segment, stamp.size)?.unwrap_or_else(|| "nobody knows why".to_owned());
    let (place, dir, newest) = (storage.root().display(), dir.display(), known.transaction);
    let before = transaction.map_or("its beginning".to_owned(), |transaction| format!("transaction {transaction}"));
    Err(Error::CheckNeeded(format!(
        "{place} needs a check before it can be used: transaction {newest} was committed, and segment {segment}, which belongs to it, is \
         damaged now ({why}). Nothing was removed. Copy the repository before anything else; then put that segment back from a copy of \
         the disk, if there is one. Otherwise, removing {dir} gives up everything after {before}, as any borg that opens the repository \
         would"
    )))
}

/// Our index, if it still fits the repository; otherwise an empty one.
fn fitting(
    index: Index,
    checkpoint: Option<Checkpoint>,
    dir: Option<&Path>,
    id: RepositoryId,
    segments: &[(u32, Stamp)],
    transaction: Option<u32>,
) -> Result<(Index, Option<Checkpoint>)> {
    let (Some(found), Some(dir)) = (&checkpoint, dir) else { return Ok((index, checkpoint)) };
    let Some(why) = mismatch(found, segments, transaction) else { return Ok((index, checkpoint)) };
    log::warn!("the index in {} is built anew: {why}", dir.display());
    drop(index);
    fs::remove_file(dir.join("current")).map_err(|e| failed("cannot remove the old index in", dir, &e))?;
    Index::open(Some(dir), id)
}

/// Why what the index knows cannot be what the repository was then.
fn mismatch(checkpoint: &Checkpoint, segments: &[(u32, Stamp)], transaction: Option<u32>) -> Option<String> {
    if transaction.is_none_or(|transaction| transaction < checkpoint.transaction) {
        return Some(format!("the repository went back to before transaction {}", checkpoint.transaction));
    }
    for (segment, stamp) in segments.iter().filter(|(segment, _)| *segment <= checkpoint.transaction) {
        match checkpoint.segments.get(segment) {
            None => return Some(format!("segment {segment} has appeared")),
            Some(state) if (state.size, state.mtime_ns) != (stamp.size, stamp.mtime_ns) => {
                return Some(format!("segment {segment} was written by somebody else"));
            }
            Some(_) => {}
        }
    }
    None
}

fn read_config(storage: &Storage) -> Result<(Config, Settings)> {
    let place = storage.root().display().to_string();
    let Some(bytes) = storage.read("config")? else { return Err(invalid(&place, "it has no config")) };
    let text = String::from_utf8(bytes).map_err(|_| invalid(&place, "its config is no text"))?;
    let parse = || -> std::result::Result<_, ConfigError> {
        let config = Config::parse(&text)?;
        let settings = config.settings()?;
        Ok((config, settings))
    };
    parse().map_err(|e| invalid(&place, &format!("its config: {e}")))
}

fn refuse_attic(storage: &Storage, segments: &[(u32, Stamp)]) -> Result<()> {
    let Some((segment, _)) = segments.last() else { return Ok(()) };
    let mut magic = [0; 8];
    let read = storage.open(*segment)?.map(|file| file.read_exact_at(&mut magic, 0));
    if matches!(read, Some(Ok(()))) && magic == ATTIC_MAGIC {
        return Err(Error::Invalid(format!("{} is an Attic repository; `borg upgrade` converts it", storage.root().display())));
    }
    Ok(())
}

fn invalid(place: &str, why: &str) -> Error {
    Error::Invalid(format!("{place} is no valid Borg repository: {why}"))
}

/// Makes an empty repository as `borg init` does.
fn create(root: &Path) -> Result<()> {
    let place = root.display().to_string();
    let is_repository = |path: &Path| fs::read(path.join("README")).is_ok_and(|text| text == README.as_bytes());
    // Borg 1.x: none inside of another one.
    if root.ancestors().skip(1).any(is_repository) {
        return Err(Error::Exists(place));
    }
    match fs::read_dir(root) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                return Err(Error::Exists(place));
            }
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new().mode(0o700).create(root).map_err(|e| match e.kind() {
                io::ErrorKind::NotFound => Error::ParentMissing(place),
                _ => failed("cannot create", root, &e),
            })?;
        }
        Err(e) if e.kind() == io::ErrorKind::NotADirectory => return Err(Error::Exists(place)),
        Err(e) => return Err(failed("cannot look at", root, &e)),
    }
    let mut id = [0; 32];
    unix::random::fill(&mut id).map_err(|e| Error::Io(e.to_string()))?;
    let storage = Storage::new(root, 1);
    let data = root.join("data");
    DirBuilder::new().mode(0o700).create(&data).map_err(|e| failed("cannot create", &data, &e))?;
    storage.write("README", README.as_bytes())?;
    // Last, because with it, it is a repository.
    storage.write("config", Config::new(RepositoryId(id)).text().as_bytes())
}
