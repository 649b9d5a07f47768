//! Records to fill a database with.

use model::check::{CheckConfig, CheckPlan, Coverage, Damage, DamagedArchive, DamagedFiles, Health, Piece, Repositories};
use model::client::BinaryUse;
use model::progress::{SessionCounters, Statistics};
use model::retention::{Count, Period, Scope};
use model::space::Space;
use model::{
    Action, Archive, BackupConfig, Cause, Client, ConfigName, Connection, EncryptionMode, Failure, Job, JobState, Policy, Recurrence,
    Repository, Schedule, Timestamp,
};
use store::Store;

pub fn now() -> Timestamp {
    Timestamp::now()
}

pub fn repository(name: &str) -> Repository {
    Repository {
        name: name.parse().unwrap(),
        url: format!("/srv/{name}"),
        description: String::new(),
        repository_id: "ab".repeat(32),
        encryption: EncryptionMode::RepokeyBlake2,
        remote_borg: None,
        rsh: None,
        created: now(),
    }
}

pub fn client(name: &str) -> Client {
    Client {
        name: name.parse().unwrap(),
        description: String::new(),
        connection: Connection::Local { remote_borg: None, remote_cache_dir: None },
        keys: vec![],
        blackouts: vec![],
        borg_binary: BinaryUse::default(),
        created: now(),
    }
}

pub fn config(name: &str) -> BackupConfig {
    let name: ConfigName = name.parse().unwrap();
    BackupConfig {
        client: name.client,
        label: name.label,
        repository: "main".parse().unwrap(),
        paths: vec!["/etc".into()],
        excludes: vec![],
        patterns: vec![],
        one_file_system: false,
        compression: None,
        checkpoint_interval: None,
        read_special: false,
        ignore_inode: false,
        extra_options: vec![],
        target_age_hours: 26,
        commands: model::hook::Commands::default(),
        created: now(),
    }
}

pub fn job(number: u64, config: &str) -> Job {
    Job::backup(number, &config.parse().unwrap(), "main".parse().unwrap(), "root", now())
}

/// A job that ended `hours` ago.
pub fn ended(number: u64, config: &str, hours: i64, failure: Option<Failure>) -> Job {
    let at = |seconds| now().plus_seconds(-hours * 3600 - 100 + seconds);
    let mut job = Job::backup(number, &config.parse().unwrap(), "main".parse().unwrap(), "root", at(0));
    while let Some(next) = job.state.next(job.kind()) {
        if let Some(failure) = failure.clone().filter(|_| job.state == JobState::ClientPreparing) {
            job.force_state(JobState::Failed, failure, at(20)).unwrap();
            return job;
        }
        job.update_state(job.state, next, at(10)).unwrap();
    }
    job.statistics = Some(statistics(number));
    job
}

pub fn statistics(number: u64) -> Statistics {
    Statistics {
        nfiles: 10 + number,
        original_size: 1_000_000 + number,
        compressed_size: 500_000 + number,
        deduplicated_size: 1000 + number,
    }
}

/// An archive whose backup ended `hours` ago.
pub fn archive(number: u64, config: &str, hours: i64) -> Archive {
    let config: ConfigName = config.parse().unwrap();
    let end = now().plus_seconds(-hours * 3600);
    Archive {
        id: format!("{number:064x}"),
        name: format!("{}-{}-{number}", config.client, config.label),
        repository: "main".parse().unwrap(),
        client: config.client,
        label: config.label,
        job: number,
        comment: String::new(),
        statistics: statistics(number),
        counters: SessionCounters::default(),
        start: end.plus_seconds(-90),
        end,
        incomplete: false,
        view_digest: "cd".repeat(32),
        claims: vec![],
        suspicious: false,
        warnings: vec![],
        hold: None,
        pending_deletion: None,
        imported: None,
    }
}

pub fn schedule(name: &str) -> Schedule {
    Schedule {
        name: name.parse().unwrap(),
        description: String::new(),
        recurrence: Recurrence::parse("daily 02:30", "UTC", now()).unwrap(),
        enabled: true,
        actions: vec![Action::RunConfig { config: "web1/etc".parse().unwrap() }],
        jitter_seconds: 0,
        handled: now(),
        ahead: None,
        created: now(),
    }
}

pub fn policy(name: &str) -> Policy {
    Policy {
        name: name.parse().unwrap(),
        description: String::new(),
        within: None,
        keep: [(Period::Daily, Count::Number(2))].into(),
        minimum: 1,
        zone: "UTC".parse().unwrap(),
        most_per_day: 48,
        grace_hours: 168,
        applies: vec![Scope::Config { config: "web1/etc".parse().unwrap() }],
        confirmed: vec![],
        created: now(),
    }
}

pub fn check_config(name: &str) -> CheckConfig {
    CheckConfig {
        name: name.parse().unwrap(),
        description: String::new(),
        repositories: Repositories::Matching(".*".into()),
        plan: CheckPlan::everything(true),
        created: now(),
    }
}

/// Some of everything: web1 is well, db1 has no good backup for three days and fails, new1 is new.
pub fn some(store: &Store) {
    store
        .write("set up", "root", |w| {
            w.repositories().insert(&repository("main"))?;
            for name in ["web1", "db1", "new1"] {
                w.clients().insert(&client(name))?;
            }
            for name in ["web1/etc", "db1/data", "new1/all"] {
                w.configs().insert(&config(name))?;
            }
            w.schedules().insert(&schedule("nightly"))?;
            w.check_configs().insert(&check_config("weekly"))?;
            w.policies().insert(&policy("standard"))
        })
        .unwrap();
    store
        .write("backups", "root", |w| {
            for (number, hours) in [(1, 60), (2, 36), (3, 12)] {
                w.jobs().insert(&ended(number, "web1/etc", hours, None))?;
                w.archives().insert(&archive(number, "web1/etc", hours))?;
            }
            w.jobs().insert(&ended(4, "db1/data", 72, None))?;
            w.archives().insert(&archive(4, "db1/data", 72))?;
            let failure = Failure::new(Cause::ClientConnectionFailed, "db1 does not answer");
            w.jobs().insert(&ended(5, "db1/data", 1, Some(failure)))?;
            w.archives().insert(&Archive { incomplete: true, job: 5, ..archive(6, "db1/data", 1) })?;
            w.jobs().insert(&job(7, "new1/all"))
        })
        .unwrap();
}

/// What a repository took up so many days before some day.
pub fn space(repository: &str, days: i64, segments: u64) -> Space {
    let time = Timestamp((20_000 - days) * 86_400_000_000);
    Space { repository: repository.parse().unwrap(), time, segments, freeable: segments / 10, unique: segments / 2, chunks: 1234 }
}

/// What checks have found: half of the content was never looked at, and an archive is damaged if `damaged`.
pub fn health(repository: &str, damaged: bool) -> Health {
    let piece = |checked: Option<i64>| Piece {
        bytes: 500,
        written: now().plus_seconds(-30 * 86_400),
        checked: checked.map(|hours| now().plus_seconds(-hours * 3600)),
    };
    let began = Some(now().plus_seconds(-20 * 86_400));
    let coverage = |pieces: [Piece; 2]| Some(Coverage::of(pieces, CheckPlan::PROMISE_HOURS, began, now()));
    let archive = DamagedArchive {
        name: "web1-etc-2".into(),
        id: format!("{:064x}", 2),
        client: Some("web1".parse().unwrap()),
        label: Some("etc".parse().unwrap()),
        chunks: 7,
        error: None,
        files: Some(DamagedFiles { paths: vec!["etc/passwd".into()], more: 3, incomplete: None }),
    };
    let damage = Damage {
        since: now().plus_seconds(-7200),
        found: now().plus_seconds(-3600),
        needs_data: true,
        errors: vec!["segment 12: an object is not whole".into()],
        error_count: 9,
        chunks: 7,
        archives: vec![archive],
        more_archives: 1,
        unknown: vec![],
        more_unknown: 0,
        healed: 0,
        unopenable: None,
    };
    Health {
        repository: repository.parse().unwrap(),
        checked: now(),
        structure: coverage([piece(Some(1)), piece(Some(2))]),
        data: coverage([piece(Some(1)), piece(None)]),
        archives: Some(now().plus_seconds(-3600)),
        index: None,
        damage: damaged.then_some(damage),
    }
}
