//! Listings. Pages come out of the store's indexes.

use super::Daemon;
use super::errors::{from_store, refuse};
use model::{Archive, ConfigName, Job, JobState, RepositoryName, Timestamp};
use std::fs::{File, TryLockError};
use std::io::Read as _;
use store::Read;
use unix::paths::Layout;
use wire::control::{
    ArchiveFilter, Archives, Clients, Configs, ControlError, ErrorKind, JobFilter, Jobs, ListedJob, LogEntries, LogEntry, Occupied,
    Repositories, Status,
};

type Listed<T> = Result<T, ControlError>;

/// Occurrences that the status names.
const UPCOMING: u32 = 5;
/// Most jobs in one answer; `before` leads to the next page.
const MAX_JOBS: usize = 1000;
/// Most archives in one answer.
const MAX_ARCHIVES: usize = 20_000;
/// Most log entries in one answer.
const MAX_ENTRIES: u32 = 1000;
/// Most records that one log entry names.
const MAX_RECORDS: usize = 100;
/// Fewest digits of an archive id's beginning.
const MIN_ID: usize = 8;

fn limit(wanted: u32, default: usize, max: usize) -> usize {
    if wanted == 0 { default } else { usize::try_from(wanted).unwrap_or(max).min(max) }
}

impl Daemon {
    pub(super) fn status(&self) -> Listed<Status> {
        let read = self.store.read(|r| {
            let queued = r.jobs().in_state(JobState::JobCreated)?.len() as u32;
            let counts = [r.repositories().count()?, r.clients().count()?, r.configs().count()?, r.archives().restore_points()?];
            Ok((queued, r.jobs().running()?, counts))
        });
        let (queued, running, [repositories, clients, configs, archives]) = read.map_err(from_store)?;
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            since: self.since,
            queued,
            running: running.into_iter().map(|job| self.detail(job)).collect(),
            archives,
            repositories: repositories as u32,
            clients: clients as u32,
            configs: configs as u32,
            stopping: self.stop != super::Stop::No,
            upcoming: self.next_occurrences(None, UPCOMING, None, None)?.occurrences,
            occupied: self.occupied()?,
        })
    }

    /// What the owners have written down, as long as they live.
    fn occupied(&self) -> Listed<Vec<Occupied>> {
        let repositories = self.store.read(|r| r.repositories().list()).map_err(from_store)?;
        Ok(repositories.into_iter().filter_map(|repository| occupied(&self.layout, repository.name)).collect())
    }

    pub(super) fn list_repositories(&self) -> Listed<Repositories> {
        self.store.read(|r| Ok(Repositories { repositories: r.repositories().list()? })).map_err(from_store)
    }

    pub(super) fn list_clients(&self) -> Listed<Clients> {
        self.store.read(|r| Ok(Clients { clients: r.clients().list()? })).map_err(from_store)
    }

    pub(super) fn list_configs(&self) -> Listed<Configs> {
        self.store.read(|r| Ok(Configs { configs: r.configs().list()? })).map_err(from_store)
    }

    pub(super) fn list_jobs(&self, filter: &JobFilter) -> Listed<Jobs> {
        let limit = limit(filter.limit, 100, MAX_JOBS);
        let jobs = self.store.read(|r| jobs(r, filter, limit)).map_err(from_store)?;
        let running = self.running();
        let listed =
            jobs.into_iter().map(|job| ListedJob { waits: self.waits(&job, &running), cancelled_by: self.cancelled_by(job.number), job });
        Ok(Jobs { jobs: listed.collect() })
    }

    pub(super) fn list_archives(&self, filter: &ArchiveFilter) -> Listed<Archives> {
        let limit = limit(filter.limit, 1000, MAX_ARCHIVES);
        let archives = match &filter.name {
            Some(name) => {
                let digits = name.len() >= MIN_ID && name.len() <= 64 && name.bytes().all(|b| b.is_ascii_hexdigit());
                if !digits && model::names::check_archive_name(name).is_err() && name.len() > 255 {
                    return Err(refuse(ErrorKind::InvalidArgument, "that is no archive's name: it is too long"));
                }
                self.store.read(|r| named_archives(r, filter, name, digits))
            }
            None => self.store.read(|r| archives(r, filter, limit)),
        };
        let mut archives = archives.map_err(from_store)?;
        archives.truncate(limit);
        Ok(Archives { archives })
    }

    pub(super) fn transaction_log(&self, wanted: u32) -> Listed<LogEntries> {
        let limit = if wanted == 0 { 100 } else { wanted.min(MAX_ENTRIES) };
        let entries = self.store.read(|r| r.log().newest(limit as usize)).map_err(from_store)?;
        Ok(LogEntries { entries: entries.iter().map(log_entry).collect() })
    }
}

fn config_of(client: Option<&model::ClientName>, label: Option<&model::Label>) -> Option<ConfigName> {
    Some(ConfigName { client: client?.clone(), label: label?.clone() })
}

fn jobs(r: &Read<'_>, filter: &JobFilter, limit: usize) -> store::Result<Vec<Job>> {
    let config = config_of(filter.client.as_ref(), filter.label.as_ref());
    let page_filter = store::JobFilter {
        states: filter.state.into_iter().collect(),
        client: filter.client.clone().filter(|_| config.is_none()),
        repository: filter.repository.clone(),
        label: filter.label.clone().filter(|_| config.is_none()),
        config,
        kind: filter.kind,
        before: filter.before,
    };
    r.jobs().page(&page_filter, limit)
}

fn archives(r: &Read<'_>, filter: &ArchiveFilter, limit: usize) -> store::Result<Vec<Archive>> {
    let config = config_of(filter.client.as_ref(), filter.label.as_ref());
    let mut page_filter =
        store::ArchiveFilter { repository: filter.repository.clone(), client: filter.client.clone(), config, before: None };
    let mut archives = vec![];
    loop {
        let page = r.archives().page(&page_filter, limit)?;
        let Some(last) = page.last().map(|archive| (archive.start, store::ArchiveKey::of(archive))) else { break };
        let whole = page.len() == limit;
        archives.extend(page.into_iter().filter(|archive| fits(filter, archive)));
        if archives.len() >= limit || !whole {
            break;
        }
        page_filter.before = Some(last);
    }
    Ok(archives)
}

fn named_archives(r: &Read<'_>, filter: &ArchiveFilter, name: &str, digits: bool) -> store::Result<Vec<Archive>> {
    let mut archives = r.archives().by_name(name)?;
    if digits {
        archives.extend(r.archives().by_id_prefix(&name.to_ascii_lowercase())?);
    }
    archives.retain(|archive| fits(filter, archive));
    archives.sort_by(|a, b| (b.start, &b.id).cmp(&(a.start, &a.id)));
    archives.dedup_by(|a, b| a.id == b.id && a.repository == b.repository);
    Ok(archives)
}

fn fits(filter: &ArchiveFilter, archive: &Archive) -> bool {
    filter.repository.as_ref().is_none_or(|r| *r == archive.repository)
        && filter.client.as_ref().is_none_or(|c| *c == archive.client)
        && filter.label.as_ref().is_none_or(|l| *l == archive.label)
}

/// Longest description of what an owner is at.
const MAX_TURN: u64 = 100;

fn occupied(layout: &Layout, repository: RepositoryName) -> Option<Occupied> {
    let file = File::open(layout.repository_turn(repository.as_str())).ok()?;
    // An owner that was killed has left the file, but not its lock.
    if !matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)) {
        return None;
    }
    let since = file.metadata().ok()?.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    let mut by = String::new();
    file.take(MAX_TURN).read_to_string(&mut by).ok()?;
    let since = Timestamp(i64::try_from(since.as_micros()).ok()?);
    Some(Occupied { repository, by: unix::logging::escape(by.trim_end()), since })
}

/// `client web1` is a record in words: the kind, then the key.
fn key_in(record: &str) -> &str {
    let kinds = [
        "repository ",
        "client ",
        "backup config ",
        "job ",
        "archive ",
        "settings ",
        "prepared session ",
        "intent ",
        "schedule ",
        "occurrence ",
        "trigger ",
    ];
    kinds.iter().find_map(|kind| record.strip_prefix(kind)).unwrap_or(record)
}

fn log_entry(entry: &store::Entry) -> LogEntry {
    let named = entry.changes.iter().take(MAX_RECORDS);
    let mut records: Vec<String> = named.map(|change| format!("{}/{}", change.table, key_in(&change.record))).collect();
    if entry.changes.len() > MAX_RECORDS {
        records.push(format!("and {} more", entry.changes.len() - MAX_RECORDS));
    }
    LogEntry {
        transaction: entry.number.0,
        time: entry.time,
        actor: entry.actor.clone(),
        note: entry.note.clone(),
        records,
        hash: entry.hash.clone(),
    }
}
