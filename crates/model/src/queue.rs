//! Which queued jobs may start now.

use crate::job::Job;
use crate::names::{ClientName, RepositoryName};
use crate::work::{JobKind, Work};
use serde::{Deserialize, Serialize};
use std::fmt;

/// How many jobs may run at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// On one client.
    pub per_client: u32,
    /// On one repository.
    pub per_repository: u32,
    /// In all.
    pub total: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { per_client: 1, per_repository: 8, total: 16 }
    }
}

/// What the rules look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Brief {
    /// The job.
    pub number: u64,
    /// What it does.
    pub work: Work,
    /// Its repository.
    pub repository: Option<RepositoryName>,
}

impl From<&Job> for Brief {
    fn from(job: &Job) -> Brief {
        Brief { number: job.number, work: job.work.clone(), repository: job.repository.clone() }
    }
}

/// Why a job waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Blocked {
    /// The same config runs already.
    SameConfig(u64),
    /// What concerns a whole repository is done one after the other there.
    Maintenance(RepositoryName, u64),
    /// One restore at a time on a client.
    Restore(u64),
    /// One restore test at a time of a client.
    RestoreTest(u64),
    /// The client has enough to do.
    Client(ClientName),
    /// The repository has enough to do.
    Repository(RepositoryName),
    /// The server has enough to do.
    Total,
}

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Blocked::SameConfig(job) => write!(f, "waits for job {job} of the same config"),
            Blocked::Maintenance(repository, job) => write!(f, "waits for job {job} on repository {repository}"),
            Blocked::Restore(job) => write!(f, "waits for job {job}, which restores to the same client"),
            Blocked::RestoreTest(job) => write!(f, "waits for job {job}, which tests a restore of the same client"),
            Blocked::Client(client) => write!(f, "waits for another job of client {client}"),
            Blocked::Repository(repository) => {
                write!(f, "waits for another job of repository {repository}")
            }
            Blocked::Total => f.write_str("waits: as many jobs run as the server allows"),
        }
    }
}

/// Whether `job` may start next to `running`.
#[must_use]
pub fn blocked(job: &Brief, running: &[Brief], limits: &Limits) -> Option<Blocked> {
    let is_backup = |r: &Brief| r.work.kind() == JobKind::Backup;
    let count = |f: &dyn Fn(&Brief) -> bool| u32::try_from(running.iter().filter(|r| f(r)).count()).unwrap_or(u32::MAX);
    match job.work.client() {
        // Somebody waits for it: it takes no place of backups, and backups none of it.
        Some(client) if job.work.kind() == JobKind::Restore => {
            let same = |r: &&Brief| r.work.kind() == JobKind::Restore && r.work.client() == Some(client);
            if let Some(other) = running.iter().find(same) {
                return Some(Blocked::Restore(other.number));
            }
        }
        // It has no place on the client, and none among what concerns a whole repository.
        Some(client) if job.work.kind() == JobKind::RestoreTest => {
            let same = |r: &&Brief| r.work.kind() == JobKind::RestoreTest && r.work.client() == Some(client);
            if let Some(other) = running.iter().find(same) {
                return Some(Blocked::RestoreTest(other.number));
            }
        }
        Some(client) => {
            let config = job.work.config();
            if let Some(same) = running.iter().find(|r| config.is_some() && r.work.config() == config) {
                return Some(Blocked::SameConfig(same.number));
            }
            let of_client = |r: &Brief| is_backup(r) && r.work.client() == Some(client);
            // Both would write the same chunks cache on the client, whatever the limit says.
            let same_cache = |r: &Brief| of_client(r) && r.repository == job.repository;
            if count(&of_client) >= limits.per_client.max(1) || running.iter().any(same_cache) {
                return Some(Blocked::Client(client.clone()));
            }
            // What concerns the whole repository takes no place of backups.
            let beside = |r: &Brief| is_backup(r) && r.repository == job.repository;
            if let Some(repository) = &job.repository
                && count(&beside) >= limits.per_repository.max(1)
            {
                return Some(Blocked::Repository(repository.clone()));
            }
        }
        None => {
            let before = |r: &&Brief| r.work.client().is_none() && r.repository == job.repository;
            if let (Some(repository), Some(other)) = (&job.repository, running.iter().find(before)) {
                return Some(Blocked::Maintenance(repository.clone(), other.number));
            }
        }
    }
    if count(&|_| true) >= limits.total.max(1) {
        return Some(Blocked::Total);
    }
    None
}

/// The queued jobs that may start now, first come first served; one that must wait does not hold up those behind it.
#[must_use]
pub fn startable(queued: &[Brief], running: &[Brief], limits: &Limits) -> Vec<u64> {
    let mut queued: Vec<&Brief> = queued.iter().collect();
    queued.sort_by_key(|j| j.number);
    let mut running = running.to_vec();
    let mut start = vec![];
    for job in queued {
        if blocked(job, &running, limits).is_none() {
            start.push(job.number);
            running.push(job.clone());
        }
    }
    start
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(number: u64, config: &str, repository: &str) -> Brief {
        Brief { number, work: Work::backup(&config.parse().unwrap()), repository: Some(repository.parse().unwrap()) }
    }

    fn check(number: u64, repository: &str) -> Brief {
        Brief { number, work: Work::Check { verify_data: false, config: None }, repository: Some(repository.parse().unwrap()) }
    }

    #[test]
    fn first_come_first_served_and_one_per_client() {
        let queued = [job(3, "b/x", "r"), job(1, "a/x", "r"), job(2, "a/y", "r")];
        assert_eq!(startable(&queued, &[], &Limits::default()), [1, 3]);
        assert_eq!(startable(&queued, &[job(0, "a/z", "r")], &Limits::default()), [3]);
    }

    #[test]
    fn limits_hold() {
        let queued: Vec<_> = (0..40).map(|n| job(n, &format!("c{n}/x"), if n % 2 == 0 { "even" } else { "odd" })).collect();
        let limits = Limits { per_client: 1, per_repository: 3, total: 5 };
        assert_eq!(startable(&queued, &[], &limits), [0, 1, 2, 3, 4]);
        let limits = Limits { per_client: 1, per_repository: 2, total: 50 };
        assert_eq!(startable(&queued, &[], &limits), [0, 1, 2, 3]);
    }

    #[test]
    fn two_jobs_of_a_client_never_share_its_cache() {
        let limits = Limits { per_client: 5, per_repository: 5, total: 5 };
        assert_eq!(startable(&[job(1, "a/x", "r"), job(2, "a/y", "r"), job(3, "a/z", "other")], &[], &limits), [1, 3]);
    }

    #[test]
    fn the_reason_is_told() {
        let running = [job(1, "a/x", "r")];
        let why = |c: &str| blocked(&job(9, c, "r"), &running, &Limits { per_client: 1, per_repository: 1, total: 9 }).unwrap().to_string();
        assert_eq!(why("a/x"), "waits for job 1 of the same config");
        assert_eq!(why("a/y"), "waits for another job of client a");
        assert_eq!(why("b/x"), "waits for another job of repository r");
    }

    #[test]
    fn a_repository_has_one_maintenance_at_once_and_backups_beside_it() {
        let compact = Brief { work: Work::Compact { threshold: 10 }, ..check(2, "r") };
        let limits = Limits { per_client: 1, per_repository: 1, total: 9 };
        assert_eq!(startable(&[check(1, "r"), compact.clone(), check(3, "s"), job(4, "a/x", "r")], &[], &limits), [1, 3, 4]);
        assert_eq!(blocked(&compact, &[check(1, "r")], &limits).unwrap().to_string(), "waits for job 1 on repository r");
        assert_eq!(blocked(&compact, &[job(1, "a/x", "r")], &limits), None);
    }

    #[test]
    fn a_restore_waits_for_no_backup_and_one_goes_after_the_other() {
        use crate::restore::{Restore, Target};
        let restore = Restore {
            archive: "a".into(),
            id: "0f".repeat(32),
            of: "a".parse().unwrap(),
            paths: vec![],
            patterns: vec![],
            excludes: vec![],
            target: Target::New,
            sparse: false,
            ignore_space: false,
        };
        let work = Work::Restore { client: "a".parse().unwrap(), restore: Box::new(restore) };
        let brief = |number| Brief { number, work: work.clone(), repository: Some("r".parse().unwrap()) };
        let limits = Limits { per_client: 1, per_repository: 1, total: 9 };
        assert_eq!(blocked(&brief(2), &[job(1, "a/x", "r"), check(3, "r")], &limits), None);
        assert_eq!(blocked(&job(2, "a/x", "r"), &[brief(1)], &limits), None);
        assert_eq!(blocked(&brief(2), &[brief(1)], &limits).unwrap().to_string(), "waits for job 1, which restores to the same client");
        let full = Limits { total: 1, ..limits };
        assert_eq!(blocked(&brief(2), &[check(1, "s")], &full), Some(Blocked::Total));
    }

    #[test]
    fn zero_never_blocks_everything_for_ever() {
        assert_eq!(startable(&[job(1, "a/x", "r")], &[], &Limits { per_client: 0, per_repository: 0, total: 0 }), [1]);
    }
}
