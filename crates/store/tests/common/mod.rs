//! Records to test with.
#![allow(dead_code, missing_docs, reason = "each test file uses a part of it")]

use model::CheckConfig;
use model::cause::{Cause, Failure};
use model::check::{CheckPlan, Coverage, Damage, DamagedArchive, DamagedFiles, Health, Promise, Repositories};
use model::occurrence::LeftOut;
use model::progress::{SessionCounters, Statistics};
use model::queue::Limits;
use model::restore_test::{Known, TestRecord, TestResult};
use model::retention::{Confirmation, Count, Jump, Period, Scope};
use model::space::Space;
use model::token::Token;
use model::trigger::{AccessContext, TriggerTarget};
use model::web_user::{Role, SignIn, TokenHash};
use model::{
    Action, Archive, BackupConfig, Client, ClientName, ConfigName, Connection, EncryptionMode, Job, JobState, Occurrence, Origin, Outcome,
    Policy, Recurrence, Repository, RepositoryName, Schedule, Settings, SkipReason, Timestamp, Trigger, TriggerId, WebUser,
};
use store::{Deletion, Intent, PreparedSession, Store};
use tempfile::TempDir;

pub const T0: Timestamp = Timestamp(1_795_287_991_055_717);

pub fn store() -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("db")).unwrap();
    (dir, store)
}

/// The log holds together, and so do the indexes.
pub fn verify(store: &Store) {
    store.read(|r| r.log().verify_chain()).unwrap();
    store.read(|r| r.log().verify_indexes()).unwrap();
}

pub fn client_name(name: &str) -> ClientName {
    name.parse().unwrap()
}

pub fn repository_name(name: &str) -> RepositoryName {
    name.parse().unwrap()
}

pub fn config_name(name: &str) -> ConfigName {
    name.parse().unwrap()
}

pub fn client(name: &str) -> Client {
    Client {
        name: client_name(name),
        description: "a host".into(),
        connection: Connection::Local { remote_borg: Some("/opt/borg".into()), remote_cache_dir: None },
        keys: vec![],
        blackouts: vec![],
        borg_binary: Default::default(),
        created: T0,
    }
}

pub fn repository(name: &str) -> Repository {
    Repository {
        name: repository_name(name),
        url: "/srv/borg/main".into(),
        description: "the big disk".into(),
        repository_id: "ab".repeat(32),
        encryption: EncryptionMode::RepokeyBlake2,
        remote_borg: None,
        rsh: None,
        created: T0,
    }
}

pub fn config(name: &str, repository: &str) -> BackupConfig {
    let name = config_name(name);
    BackupConfig {
        client: name.client,
        label: name.label,
        repository: repository_name(repository),
        paths: vec!["/etc".into(), "/home".into()],
        excludes: vec!["*.tmp".into()],
        patterns: vec![],
        one_file_system: true,
        compression: Some("zstd,3".into()),
        checkpoint_interval: Some(600),
        read_special: false,
        ignore_inode: true,
        extra_options: vec!["--list".into()],
        target_age_hours: 26,
        commands: Default::default(),
        created: T0,
    }
}

pub fn job(number: u64, config: &str, repository: &str) -> Job {
    Job::backup(number, &config_name(config), repository_name(repository), "root", T0)
}

pub fn failed_job(number: u64) -> Job {
    let mut job = job(number, "web1/etc", "main");
    job.update_state(JobState::JobCreated, JobState::ClientPreparing, T0.plus_seconds(1)).unwrap();
    job.force_state(JobState::Failed, Failure::new(Cause::RepositoryDoesNotExist, "there is nothing"), T0.plus_seconds(2)).unwrap();
    job.warnings = vec!["/etc/x: file changed while we backed it up".into()];
    job.warning_count = 1;
    job
}

pub fn archive(repository: &str, config: &str, id: u64, seconds: i64) -> Archive {
    let config = config_name(config);
    Archive {
        id: format!("{id:064x}"),
        name: format!("{}-{}-{id}", config.client, config.label),
        repository: repository_name(repository),
        client: config.client,
        label: config.label,
        job: id,
        comment: String::new(),
        statistics: Statistics { nfiles: 3, original_size: 3000, compressed_size: 2000, deduplicated_size: 1000 },
        counters: SessionCounters { puts: 4, put_bytes: 1100, item_stream_bytes: 500, item_stream_put_bytes: 500 },
        start: T0.plus_seconds(seconds),
        end: T0.plus_seconds(seconds + 10),
        incomplete: false,
        view_digest: "cd".repeat(32),
        claims: vec!["host: web9".into()],
        suspicious: false,
        warnings: vec![],
        hold: None,
        pending_deletion: None,
        imported: None,
    }
}

pub fn settings() -> Settings {
    Settings { server_id: "0123456789abcdef".into(), limits: Limits::default(), sessions: Default::default(), web: Default::default() }
}

pub fn web_user(name: &str) -> WebUser {
    WebUser {
        name: name.parse().unwrap(),
        role: Role::Operator,
        sign_in: SignIn::Token { hash: TokenHash::of(&Token::from_random([7; 32])) },
        enabled: true,
        created: T0,
        expires: Some(T0.plus_seconds(3600)),
        comment: "of the night shift".into(),
    }
}

pub fn session(hash: &str, job: u64) -> PreparedSession {
    PreparedSession { token_hash: hash.into(), job, repository: repository_name("main"), created: T0, expires: T0.plus_seconds(600) }
}

pub fn intent(job: u64) -> Intent {
    Intent { archive: archive("main", "web1/etc", job, 0), removes: vec!["ef".repeat(32)], time: T0 }
}

pub fn deletion() -> Deletion {
    Deletion { repository: "main".parse().unwrap(), archives: vec!["ef".repeat(32)], time: T0 }
}

pub fn schedule(name: &str) -> Schedule {
    Schedule {
        name: name.parse().unwrap(),
        description: "at night".into(),
        recurrence: Recurrence::parse("DTSTART;TZID=Europe/Berlin:20261101T023000 RRULE:FREQ=DAILY", "UTC", T0).unwrap(),
        enabled: true,
        actions: vec![
            Action::RunConfig { config: config_name("web1/etc") },
            Action::RunConfigs { client: "db[0-9]+".into(), label: ".*".into() },
            Action::EnableSchedule { schedule: "weekend".parse().unwrap() },
        ],
        jitter_seconds: 600,
        handled: T0,
        ahead: None,
        created: T0,
    }
}

pub fn occurrence(number: u64) -> Occurrence {
    let left_out = vec![LeftOut { what: "db1/data".into(), reason: SkipReason::StillRunning, job: Some(4) }];
    Occurrence {
        number,
        schedule: "nightly".parse().unwrap(),
        time: T0,
        first: T0,
        count: 1,
        origin: Origin::Schedule,
        outcome: Outcome::Run { jobs: vec![5, 6], done: vec!["schedule weekend enabled".into()], left_out },
        recorded: T0.plus_seconds(1),
        actor: "schedule:nightly".into(),
    }
}

pub fn trigger() -> Trigger {
    Trigger {
        id: TriggerId::from_random([0xa5; 16]),
        access: AccessContext::AnonymousWeb,
        enabled: true,
        comment: "the deploy job".into(),
        target: TriggerTarget::Config { config: config_name("web1/etc") },
        created: T0,
        last_used: Some(T0.plus_seconds(9)),
    }
}

pub fn policy(name: &str) -> Policy {
    Policy {
        name: name.parse().unwrap(),
        description: "for most".into(),
        within: Some("2d".parse().unwrap()),
        keep: [(Period::Daily, Count::Number(7)), (Period::Quarterly3Monthly, Count::Number(2)), (Period::Yearly, Count::All)].into(),
        minimum: 3,
        zone: "Europe/Berlin".parse().unwrap(),
        most_per_day: 48,
        grace_hours: 168,
        applies: vec![Scope::Config { config: config_name("web1/etc") }, Scope::Configs { client: "db[0-9]+".into(), label: ".*".into() }],
        confirmed: vec![Confirmation { config: Some(config_name("web1/etc")), job: 9, by: "user:ada".into(), at: T0 }],
        created: T0,
    }
}

pub fn clock_jump() -> Jump {
    Jump { job: 7, from: T0, to: T0.plus_seconds(-7200) }
}

pub fn check_config(name: &str) -> CheckConfig {
    CheckConfig {
        name: name.parse().unwrap(),
        description: "every night".into(),
        repositories: Repositories::Matching("m.*".into()),
        plan: CheckPlan { skip_hours: 168, seconds: Some(1800), ..CheckPlan::everything(true) },
        created: T0,
    }
}

pub fn health(repository: &str) -> Health {
    let archive = DamagedArchive {
        name: "web1-etc".into(),
        id: "ab".repeat(32),
        client: Some("web1".parse().unwrap()),
        label: Some("etc".parse().unwrap()),
        chunks: 2,
        error: Some("its metadata: wrong checksum".into()),
        files: Some(DamagedFiles { paths: vec!["etc/passwd".into()], more: 1, incomplete: Some("a hole".into()) }),
    };
    let damage = Damage {
        since: T0,
        found: T0.plus_seconds(60),
        needs_data: true,
        errors: vec!["segment 5 at 8: wrong checksum".into()],
        error_count: 1,
        chunks: 2,
        unknown: vec![DamagedArchive { name: "other".into(), client: None, label: None, error: None, files: None, ..archive.clone() }],
        archives: vec![archive],
        more_archives: 3,
        more_unknown: 4,
        unopenable: None,
        healed: 0,
    };
    let coverage = Coverage { at: T0, bytes: 100, checked: 90, never: 5, oldest: Some(T0), promise_hours: 336, promise: Promise::TooSlow };
    Health {
        repository: repository.parse().unwrap(),
        checked: T0,
        structure: Some(coverage),
        data: None,
        archives: Some(T0),
        index: None,
        damage: Some(damage),
    }
}

pub fn space(repository: &str, day: i64) -> Space {
    Space {
        repository: repository.parse().unwrap(),
        time: Timestamp(day * 86_400_000_000 + 5),
        segments: 2000,
        freeable: 500,
        unique: 1300,
        chunks: 3,
    }
}

pub fn restore_tests() -> TestRecord {
    let result = |job: u64, what: &str| Some(TestResult { time: T0, job, archive: "web1-etc-1".into(), what: what.into() });
    TestRecord {
        client: "web1".parse().unwrap(),
        label: "etc".parse().unwrap(),
        last_good: result(7, "20 files compared"),
        last_failed: result(5, "1 file differs"),
        last_unproven: result(3, "20 files recorded"),
        files: vec![Known {
            path: "0a".repeat(32),
            item: "0b".repeat(32),
            content: "0c".repeat(32),
            archive: "0d".repeat(32),
            mode: 0o100_644,
            uid: 0,
            gid: -1,
            size: 5,
            mtime: 1_700_000_000_123_456_789,
            time: T0,
        }],
    }
}
