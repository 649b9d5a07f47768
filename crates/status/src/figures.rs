//! Sums over all archives, kept up to date without reading them all: the transaction log tells which records changed since last time, and
//! what they were before.
//!
//! So the figures are those of the snapshot they are shown with, and a page costs the same with a hundred archives and a hundred thousand.

use model::{Archive, ClientName, ConfigName, Job, JobKind, JobState, RepositoryName, Timestamp};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use store::tables::{Archives, Jobs};
use store::{ArchiveFilter, ArchiveKey, JobFilter, Read, Result, TransactionNumber};

/// With more transactions than this to catch up with, everything is read anew.
const FAR: u64 = 5_000;
/// Archives that are read at a time.
const PAGE: usize = 1_000;

/// Sums over archives that are restore points.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sums {
    /// How many.
    pub archives: u64,
    /// Bytes of their files.
    pub original: u64,
    /// The same, compressed.
    pub compressed: u64,
    /// Bytes that were newly stored for them.
    pub deduplicated: u64,
}

impl Sums {
    fn add(&mut self, archive: &Archive) {
        let s = &archive.statistics;
        self.archives += 1;
        self.original = self.original.saturating_add(s.original_size);
        self.compressed = self.compressed.saturating_add(s.compressed_size);
        self.deduplicated = self.deduplicated.saturating_add(s.deduplicated_size);
    }

    fn join(&mut self, other: &Sums) {
        self.archives += other.archives;
        self.original = self.original.saturating_add(other.original);
        self.compressed = self.compressed.saturating_add(other.compressed);
        self.deduplicated = self.deduplicated.saturating_add(other.deduplicated);
    }

    fn take(&mut self, archive: &Archive) {
        let s = &archive.statistics;
        self.archives = self.archives.saturating_sub(1);
        self.original = self.original.saturating_sub(s.original_size);
        self.compressed = self.compressed.saturating_sub(s.compressed_size);
        self.deduplicated = self.deduplicated.saturating_sub(s.deduplicated_size);
    }
}

/// Of one config.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfigFigures {
    /// Its archives.
    pub sums: Sums,
    /// The newest archive that is complete and not suspicious.
    pub last_good: Option<Archive>,
    /// The newest backup job that has ended.
    pub last_ended: Option<Job>,
}

/// Of one repository.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RepositoryFigures {
    /// Its restore points.
    pub sums: Sums,
    /// Archives of it that are no restore points.
    pub incomplete: u64,
    /// The newest check that has ended.
    pub last_check: Option<Job>,
    /// Restore points by the day of their end (days since 1970 in the server's zone).
    pub days: BTreeMap<i64, Sums>,
}

/// All of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Figures {
    /// The last transaction that they know of.
    at: Option<u64>,
    /// By config, also of those that are gone as long as there are archives.
    pub configs: BTreeMap<ConfigName, ConfigFigures>,
    /// By repository.
    pub repositories: BTreeMap<RepositoryName, RepositoryFigures>,
    /// Of everything.
    pub all: Sums,
}

/// The day that a moment is in, in the server's zone; days since 1970-01-01.
#[must_use]
pub fn day(moment: Timestamp) -> i64 {
    let Ok(moment) = jiff::Timestamp::from_microsecond(moment.0) else { return 0 };
    let date = moment.to_zoned(jiff::tz::TimeZone::system()).date();
    jiff::civil::date(1970, 1, 1).until(date).map_or(0, |span| i64::from(span.get_days()))
}

/// Whether a good backup came of it.
#[must_use]
pub fn is_good(archive: &Archive) -> bool {
    !archive.incomplete && !archive.suspicious
}

fn is_check(job: &Job) -> bool {
    job.kind() == JobKind::Check && matches!(job.state, JobState::Done | JobState::Failed)
}

/// The newest check that has ended.
fn last_check(r: &Read<'_>, repository: &RepositoryName) -> Result<Option<Job>> {
    let states = vec![JobState::Done, JobState::Failed];
    let filter = JobFilter { states, repository: Some(repository.clone()), kind: Some(JobKind::Check), ..JobFilter::default() };
    Ok(r.jobs().page(&filter, 1)?.pop())
}

/// Fails if one of the tables that we read is not there.
pub fn every_table(r: &Read<'_>) -> Result<()> {
    r.repositories().count()?;
    r.clients().count()?;
    r.configs().count()?;
    r.jobs().count()?;
    r.archives().count()?;
    r.schedules().count()?;
    r.occurrences().count()?;
    r.policies().count()?;
    r.health().count()?;
    r.space().count()?;
    r.settings().map(drop)
}

impl Figures {
    /// Whether they are those of a snapshot.
    pub fn are_of(&self, r: &Read<'_>) -> Result<bool> {
        Ok(self.at == Some(last_transaction(r)?))
    }

    /// Brings them to the state of a snapshot.
    pub fn catch_up(&mut self, r: &Read<'_>) -> Result<()> {
        let last = last_transaction(r)?;
        match self.at {
            Some(at) if at == last => return Ok(()),
            // Behind us: another database is in the place of ours.
            Some(at) if at < last && last - at <= FAR => {
                let follows = self.follow(r, at, last);
                // Whatever went wrong half-way is not built upon.
                self.at = follows.is_ok().then_some(last);
                return follows;
            }
            _ => {}
        }
        *self = Figures::whole(r)?;
        self.at = Some(last);
        Ok(())
    }

    /// From everything there is.
    fn whole(r: &Read<'_>) -> Result<Figures> {
        let mut figures = Figures::default();
        let mut filter = ArchiveFilter::default();
        loop {
            let page = r.archives().page(&filter, PAGE)?;
            for archive in &page {
                figures.add(archive);
            }
            let Some(last) = page.last().filter(|_| page.len() == PAGE) else { break };
            filter.before = Some((last.start, ArchiveKey::of(last)));
        }
        let mut configs: BTreeSet<ConfigName> = r.configs().list()?.iter().map(model::BackupConfig::name).collect();
        configs.extend(figures.configs.keys().cloned());
        for config in configs {
            figures.look_at_archives(r, &config)?;
            figures.look_at_jobs(r, &config)?;
        }
        for repository in r.repositories().list()? {
            let check = last_check(r, &repository.name)?;
            figures.repositories.entry(repository.name).or_default().last_check = check;
        }
        Ok(figures)
    }

    /// What the transactions behind `at`, up to `last`, have changed.
    fn follow(&mut self, r: &Read<'_>, at: u64, last: u64) -> Result<()> {
        let mut entries = r.log().newest_before(TransactionNumber(last + 1), usize::try_from(last - at).unwrap_or(usize::MAX))?;
        entries.reverse();
        // What was there before the first change to a record, and what is there now: what was between does not matter.
        let mut archives: BTreeMap<ArchiveKey, Option<Archive>> = BTreeMap::new();
        let mut jobs: BTreeSet<ConfigName> = BTreeSet::new();
        for change in entries.iter().flat_map(|entry| &entry.changes) {
            if let Some(key) = change.key_as::<Archives>()? {
                if let Entry::Vacant(place) = archives.entry(key) {
                    place.insert(change.before_as::<Archives>()?);
                }
            } else if let Some(number) = change.key_as::<Jobs>()? {
                let job = r.jobs().get(&number)?.map_or_else(|| change.before_as::<Jobs>(), |job| Ok(Some(job)))?;
                let Some(job) = job.filter(|job| job.state.is_final()) else { continue };
                jobs.extend(job.config());
                self.checked(job);
            }
        }
        let mut configs = BTreeSet::new();
        for (key, before) in archives {
            if let Some(before) = before {
                configs.insert(config_of(&before));
                self.take(&before);
            }
            if let Some(now) = r.archives().get(&key)? {
                configs.insert(config_of(&now));
                self.add(&now);
            }
        }
        for config in configs {
            self.look_at_archives(r, &config)?;
        }
        for config in jobs {
            self.look_at_jobs(r, &config)?;
        }
        Ok(())
    }

    fn add(&mut self, archive: &Archive) {
        let repository = self.repositories.entry(archive.repository.clone()).or_default();
        if archive.incomplete {
            repository.incomplete += 1;
            return;
        }
        repository.sums.add(archive);
        repository.days.entry(day(archive.end)).or_default().add(archive);
        self.configs.entry(config_of(archive)).or_default().sums.add(archive);
        self.all.add(archive);
    }

    fn take(&mut self, archive: &Archive) {
        let repository = self.repositories.entry(archive.repository.clone()).or_default();
        if archive.incomplete {
            repository.incomplete = repository.incomplete.saturating_sub(1);
            return;
        }
        repository.sums.take(archive);
        repository.days.entry(day(archive.end)).or_default().take(archive);
        self.configs.entry(config_of(archive)).or_default().sums.take(archive);
        self.all.take(archive);
    }

    fn checked(&mut self, job: Job) {
        let Some(repository) = job.repository.clone().filter(|_| is_check(&job)) else { return };
        let last = &mut self.repositories.entry(repository).or_default().last_check;
        if last.as_ref().is_none_or(|last| last.number <= job.number) {
            *last = Some(job);
        }
    }

    fn look_at_archives(&mut self, r: &Read<'_>, config: &ConfigName) -> Result<()> {
        let mut filter = ArchiveFilter { config: Some(config.clone()), ..ArchiveFilter::default() };
        let good = loop {
            let page = r.archives().page(&filter, 8)?;
            let Some(last) = page.last().map(|last| (last.start, ArchiveKey::of(last))) else { break None };
            if let Some(good) = page.into_iter().find(is_good) {
                break Some(good);
            }
            filter.before = Some(last);
        };
        self.configs.entry(config.clone()).or_default().last_good = good;
        Ok(())
    }

    fn look_at_jobs(&mut self, r: &Read<'_>, config: &ConfigName) -> Result<()> {
        let states = vec![JobState::Done, JobState::Failed, JobState::Cancelled];
        let filter = JobFilter { states, config: Some(config.clone()), ..JobFilter::default() };
        self.configs.entry(config.clone()).or_default().last_ended = r.jobs().page(&filter, 1)?.pop();
        Ok(())
    }

    /// The newest good archive of a config.
    #[must_use]
    pub fn last_good(&self, config: &ConfigName) -> Option<&Archive> {
        self.configs.get(config)?.last_good.as_ref()
    }

    /// The newest backup job of a config that has ended.
    #[must_use]
    pub fn last_ended(&self, config: &ConfigName) -> Option<&Job> {
        self.configs.get(config)?.last_ended.as_ref()
    }

    /// The sums of a config.
    #[must_use]
    pub fn sums(&self, config: &ConfigName) -> Sums {
        self.configs.get(config).map(|figures| figures.sums).unwrap_or_default()
    }

    /// The sums of each client, also of its configs that are gone.
    #[must_use]
    pub fn clients(&self) -> BTreeMap<&ClientName, Sums> {
        let mut clients: BTreeMap<&ClientName, Sums> = BTreeMap::new();
        for (config, figures) in &self.configs {
            clients.entry(&config.client).or_default().join(&figures.sums);
        }
        clients
    }

    /// Backups that ended on the day of `now`.
    #[must_use]
    pub fn on_day(&self, now: Timestamp) -> Sums {
        let today = day(now);
        let mut sums = Sums::default();
        for day in self.repositories.values().filter_map(|repository| repository.days.get(&today)) {
            sums.join(day);
        }
        sums
    }
}

fn last_transaction(r: &Read<'_>) -> Result<u64> {
    Ok(r.log().last()?.map_or(0, |entry| entry.number.0))
}

fn config_of(archive: &Archive) -> ConfigName {
    ConfigName { client: archive.client.clone(), label: archive.label.clone() }
}
