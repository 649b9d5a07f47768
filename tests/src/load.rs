//! Many who look at the status pages while a backup runs: viewers of live events, and requests by the clock.

use crate::{PATIENCE, Tap, start, text, wait_for_end, web};
use model::progress::{SessionCounters, Statistics};
use model::{Archive, BackupConfig, Cause, Client, ConfigName, Connection, EncryptionMode, Failure, Job, JobState, Repository, Timestamp};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};
use store::{JobFilter, Store};
use testkit::retry::retry_until;
use testkit::system::TestSystem;
use testkit::tree::{Spec, make};

/// What is asked, in turns.
pub const PATHS: [&str; 12] = [
    "/",
    "/jobs",
    "/clients/big7",
    "/archives?client=big7",
    "/api/v1/jobs?state=failed",
    "/metrics",
    "/clients",
    "/repositories",
    "/archives",
    "/api/v1/dashboard",
    "/log",
    "/jobs?client=big8&state=failed",
];

/// Clients that the jobs and archives are of.
const CLIENTS: u64 = 200;

/// How much of it.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Jobs, and as many archives, in the database.
    pub records: u64,
    /// Viewers of live events.
    pub viewers: u64,
    /// Requests a second,
    pub a_second: u64,
    /// for so many seconds.
    pub seconds: u64,
}

/// How long one request took.
#[derive(Debug, Clone, Copy)]
pub struct Took {
    /// From the moment it was due, by the clock.
    pub due: Duration,
    /// From the moment it was sent, which on a busy machine is later.
    pub sent: Duration,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// By path.
    pub took: BTreeMap<&'static str, Vec<Took>>,
    /// The first page of all after a start, which reads everything.
    pub first: Duration,
    /// Resident memory of the status daemon in kB: when it has answered each path once,
    pub memory: u64,
    /// with all viewers there and nothing happening,
    pub memory_idle: u64,
    /// at the end.
    pub memory_end: u64,
    /// Processor time of the status daemon while it was asked.
    pub processor: Duration,
    /// Events of a running job's progress that the viewer who heard least of it has heard,
    pub progress: u64,
    /// and of jobs that changed.
    pub jobs: u64,
    /// Bytes that the running backup read meanwhile.
    pub read: u64,
}

/// Runs it: a whole system, a backup that runs all the time, another one that begins and ends.
///
/// # Panics
/// When an answer is none, or a viewer hears nothing.
pub fn run(plan: Plan) -> Outcome {
    let mut system = TestSystem::start();
    system.add_repository("main", "none", None);
    system.add_repository("second", "none", None);
    system.add_local_client("host");
    let source = system.join("source");
    make(&source, Spec::default());
    // One client runs one backup at a time.
    system.add_local_client("other");
    system.add_config("other", "all", "second", &[], &[&source]);
    let slow = system.join("slow");
    system.add_config("host", "slow", "main", &["--read-special"], &[&slow]);
    system.down();
    fill(&Store::open(system.state().join("db")).expect("the database can be opened"), plan.records);
    system.up();
    let began = Instant::now();
    web::page(&system, "/");
    let first = began.elapsed();
    for path in PATHS {
        web::page(&system, path);
    }
    let pid = system.wait_for("borgcube-statusd", PATIENCE);
    let memory = resident(pid);
    let address = web::address(&system);
    let mut viewers: Vec<TcpStream> = (0..plan.viewers).map(|_| view(&address)).collect();
    let memory_idle = resident(pid);
    let tap = Tap::open(&slow, 500_000);
    let job = start(&system, "host/slow");
    let moves = || web::api(&system, &format!("/jobs/{job}"))["job"]["progress"]["original_size"].as_u64().filter(|size| *size > 0);
    assert!(retry_until(PATIENCE, moves).is_some(), "the backup does not move: {}", system.log());
    let processor = cpu(pid);
    let took = std::thread::scope(|scope| {
        let system = &system;
        let other = scope.spawn(move || drop(system.run_ok("other/all")));
        let took = ask(&address, plan);
        other.join().expect("the other backup has run");
        took
    });
    let processor = cpu(pid).saturating_sub(processor);
    let read = tap.close();
    assert_eq!(text(&wait_for_end(&system, job), "state"), "done");
    let memory_end = resident(pid);
    let heard: Vec<(u64, u64)> = viewers.iter_mut().map(|stream| listen(stream, job)).collect();
    let least = |of: fn(&(u64, u64)) -> u64| heard.iter().map(of).min().unwrap_or(0);
    assert_eq!(web::get(&system, "/healthz").0, 200);
    let (progress, jobs) = (least(|heard| heard.0), least(|heard| heard.1));
    Outcome { took, first, memory, memory_idle, memory_end, processor, progress, jobs, read }
}

/// Asks by the clock, whether or not the one before was answered in time.
fn ask(address: &str, plan: Plan) -> BTreeMap<&'static str, Vec<Took>> {
    const THREADS: u64 = 8;
    let mut took: BTreeMap<&'static str, Vec<Took>> = BTreeMap::new();
    let began = Instant::now();
    std::thread::scope(|scope| {
        let askers: Vec<_> = (0..THREADS)
            .map(|thread| {
                scope.spawn(move || {
                    let ask = |number: u64| {
                        let turn = number * THREADS + thread;
                        let path = PATHS[turn as usize % PATHS.len()];
                        let due = Duration::from_micros(turn * 1_000_000 / plan.a_second);
                        std::thread::sleep(due.saturating_sub(began.elapsed()));
                        let sent = began.elapsed();
                        get(address, path);
                        let end = began.elapsed();
                        (path, Took { due: end.saturating_sub(due), sent: end.saturating_sub(sent) })
                    };
                    (0..plan.a_second * plan.seconds / THREADS).map(ask).collect::<Vec<_>>()
                })
            })
            .collect();
        for (path, one) in askers.into_iter().flat_map(|asker| asker.join().expect("every answer is one")) {
            took.entry(path).or_default().push(one);
        }
    });
    took
}

fn get(address: &str, path: &str) {
    let mut stream = TcpStream::connect(address).expect("somebody listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a limit can be set");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").expect("a request can be sent");
    let mut answer = vec![];
    stream.read_to_end(&mut answer).expect("an answer");
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{path}: {}", String::from_utf8_lossy(&answer[..answer.len().min(500)]));
}

/// A viewer, as soon as it is one.
fn view(address: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("somebody listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a limit can be set");
    write!(stream, "GET /api/v1/events HTTP/1.1\r\nHost: {address}\r\n\r\n").expect("a request can be sent");
    let mut answer = [0; 13];
    stream.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 200 ");
    stream
}

/// What a viewer has heard until the end of `job`: its progress, and jobs that changed.
fn listen(stream: &mut TcpStream, job: u64) -> (u64, u64) {
    let (mut progress, mut jobs) = (0, 0);
    let mut name = String::new();
    for line in BufReader::new(stream).lines() {
        let line = line.expect("the events go on");
        if let Some(event) = line.strip_prefix("event: ") {
            event.clone_into(&mut name);
        } else if let Some(data) = line.strip_prefix("data: ") {
            let data: serde_json::Value = serde_json::from_str(data).expect("JSON");
            match name.as_str() {
                "progress" if data["job"] == job => progress += 1,
                "job" => jobs += 1,
                _ => {}
            }
            if name == "job" && data["number"] == job && data["phase"] == "done" {
                return (progress, jobs);
            }
        }
    }
    panic!("the events ended before job {job} did");
}

/// In kB.
fn resident(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

fn cpu(pid: i32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    // The name before them may have anything in it.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().expect("a number")).sum();
    Duration::from_millis(ticks * 10)
}

/// Jobs and archives of many clients, in a repository that nobody opens.
fn fill(store: &Store, records: u64) {
    let now = Timestamp::now();
    let repository = Repository {
        name: "big".parse().expect("a name"),
        url: Path::new("/nonexistent/big").display().to_string(),
        description: String::new(),
        repository_id: "ab".repeat(32),
        encryption: EncryptionMode::RepokeyBlake2,
        remote_borg: None,
        rsh: None,
        created: now,
    };
    let first = store
        .read(|r| Ok(r.jobs().page(&JobFilter::default(), 1)?.first().map_or(1, |job| job.number + 1)))
        .expect("the database can be read");
    let written = store.write("many", "root", |w| {
        w.repositories().insert(&repository)?;
        for number in 0..CLIENTS {
            w.clients().insert(&client(number, now))?;
            w.configs().insert(&config(number, now))?;
        }
        Ok(())
    });
    written.expect("the database can be written");
    // The newest ones one by one, as a server has them in its log.
    let numbers: Vec<u64> = (first..first + records).collect();
    let (bulk, newest) = numbers.split_at(numbers.len().saturating_sub(200));
    for batch in bulk.chunks(5000).chain(newest.chunks(1)) {
        let written = store.write("many", "root", |w| {
            for number in batch {
                let hours = ((first + records - number) * 8000 / records) as i64;
                w.jobs().insert(&job(*number, hours, now))?;
                w.archives().insert(&archive(*number, hours, now))?;
            }
            Ok(())
        });
        written.expect("the database can be written");
    }
}

fn name(number: u64) -> ConfigName {
    format!("big{}/etc", number % CLIENTS).parse().expect("a name")
}

fn client(number: u64, created: Timestamp) -> Client {
    Client {
        name: name(number).client,
        description: String::new(),
        connection: Connection::Local { remote_borg: None, remote_cache_dir: None },
        keys: vec![],
        blackouts: vec![],
        borg_binary: model::client::BinaryUse::default(),
        created,
    }
}

fn config(number: u64, created: Timestamp) -> BackupConfig {
    BackupConfig {
        client: name(number).client,
        label: name(number).label,
        repository: "big".parse().expect("a name"),
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
        created,
    }
}

fn statistics(number: u64) -> Statistics {
    Statistics { nfiles: 10 + number, original_size: 1_000_000 + number, compressed_size: 500_000, deduplicated_size: 1000 + number }
}

/// Every 50th has failed.
fn job(number: u64, hours: i64, now: Timestamp) -> Job {
    let at = |seconds| now.plus_seconds(-hours * 3600 - 100 + seconds);
    let mut job = Job::backup(number, &name(number), "big".parse().expect("a name"), "root", at(0));
    while let Some(next) = job.state.next(job.kind()) {
        if number.is_multiple_of(50) && job.state == JobState::ClientPreparing {
            let failure = Failure::new(Cause::ClientConnectionFailed, "the client does not answer");
            job.force_state(JobState::Failed, failure, at(20)).expect("a job may fail");
            return job;
        }
        job.update_state(job.state, next, at(10)).expect("the next state");
    }
    job.statistics = Some(statistics(number));
    job
}

fn archive(number: u64, hours: i64, now: Timestamp) -> Archive {
    let config = name(number);
    let end = now.plus_seconds(-hours * 3600);
    Archive {
        id: format!("{number:064x}"),
        name: format!("{}-{}-{number}", config.client, config.label),
        repository: "big".parse().expect("a name"),
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
