//! A worker that speaks the real protocol and does what the config's first path says. It is this test program itself, started by a
//! script, so that protocol and daemon are compiled from the same types.

use model::progress::{Progress, Statistics, Steps};
use model::{Cause, Failure, JobState, Timestamp, Yield};
use std::io::{BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use wire::worker::{Errand, Finished, FromWorker, LogLine, Task, ToWorker};

struct Fake {
    socket: UnixStream,
    reader: BufReader<UnixStream>,
    task: Task,
    state: JobState,
}

/// No test: what the worker's script runs.
#[test]
fn fake_worker() {
    let Some(state) = std::env::var_os("FAKE_WORKER_IN") else { return };
    let (socket, _) = unix::activation::listen_fds().unwrap().pop().expect("a socket");
    let socket = UnixStream::from(socket);
    let mut reader = BufReader::new(socket.try_clone().unwrap());
    let ToWorker::Start(task) = wire::json::read(&mut reader).unwrap() else { panic!("the first message is no task") };
    assert_eq!(std::env::var("FAKE_WORKER_JOB").unwrap(), task.job.number.to_string());
    let mut fake = Fake { socket, reader, state: task.job.state, task: *task };
    fake.mark("started");
    let how = match &fake.task.errand {
        Errand::Backup(backup) => backup.config.paths[0].trim_start_matches('/').to_owned(),
        Errand::Restore(restoring) => restoring.restore.archive.clone(),
        Errand::RestoreTest(testing) => {
            fake.mark(&format!("{:?}", testing.test));
            "maintain".to_owned()
        }
        Errand::Prune(pruning) => {
            fake.mark(&format!("{pruning:?}"));
            "maintain".to_owned()
        }
        Errand::Import(import) => {
            fake.mark(&format!("{import:?}"));
            "maintain".to_owned()
        }
        Errand::Maintenance(operation) => {
            fake.mark(&format!("{operation:?}"));
            "maintain".to_owned()
        }
    };
    fake.behave(&how, PathBuf::from(state));
    // Not through the test harness, whose opinion nobody asked for.
    std::process::exit(0);
}

impl Fake {
    fn send(&mut self, message: &FromWorker) {
        wire::json::write(&mut self.socket, message).unwrap();
    }

    /// A line in a file of the test.
    fn mark(&self, what: &str) {
        let path = PathBuf::from(std::env::var_os("BORGCUBE_STATE").unwrap()).join("marks");
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
        // In one write: two workers mark at the same moment.
        file.write_all(format!("{} {what}\n", self.task.job.number).as_bytes()).unwrap();
    }

    fn step(&mut self) {
        let to = self.state.next(self.task.job.kind()).unwrap();
        self.send(&FromWorker::UpdateState { previous: self.state, to });
        match wire::json::read(&mut self.reader).unwrap() {
            ToWorker::State { refused: None } => self.state = to,
            other => panic!("{other:?}"),
        }
    }

    fn steps_to(&mut self, state: JobState) {
        while self.state != state {
            self.step();
        }
    }

    fn log(&mut self, lines: impl IntoIterator<Item = String>) {
        let line = |message| LogLine { time: Timestamp::now(), level: "info".into(), source: "borg".into(), message };
        self.send(&FromWorker::Log(lines.into_iter().map(line).collect()));
    }

    fn progress(&mut self, nfiles: u64) {
        let statistics = Statistics { nfiles, original_size: nfiles * 10, ..Default::default() };
        let progress = Progress { statistics, path: format!("file {nfiles}"), time: Timestamp::now(), ..Default::default() };
        self.send(&FromWorker::Progress(progress));
    }

    fn finish(&mut self, failure: Option<Failure>) {
        let good = failure.is_none();
        self.send(&FromWorker::Finished(Box::new(Finished {
            failure,
            statistics: good.then_some(Statistics { nfiles: 3, original_size: 30, compressed_size: 20, deduplicated_size: 10 }),
            archive: good.then(|| "ab".repeat(32)),
            warnings: vec!["file changed while we backed it up".into()],
            warning_count: 1,
            client_borg: Some("1.4.5".into()),
            yielded: None,
            tested: None,
            commands: vec![],
        })));
    }

    fn well(&mut self) {
        self.steps_to(JobState::ClientCleanup);
        self.finish(None);
    }

    /// Until the test makes the file `go-JOB`, or says so over the socket.
    fn hold(&mut self, state: &std::path::Path, listen: bool) -> Option<String> {
        let file = state.join(format!("go-{}", self.task.job.number));
        self.socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let end = Instant::now() + Duration::from_secs(120);
        while !file.exists() && Instant::now() < end {
            if !listen {
                std::thread::sleep(Duration::from_millis(20));
                continue;
            }
            match wire::json::read(&mut self.reader) {
                Ok(ToWorker::Cancel { by }) => return Some(by),
                Ok(other) => panic!("{other:?}"),
                Err(wire::WireError::Io(e)) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
                Err(_) => {
                    self.mark("eof");
                    std::process::exit(7);
                }
            }
        }
        self.socket.set_read_timeout(None).unwrap();
        None
    }

    fn behave(&mut self, how: &str, state: PathBuf) {
        match how {
            "well" => {
                self.log((0..10).map(|n| format!("line {n}")));
                self.well();
            }
            "hold" => {
                self.steps_to(JobState::ClientInProgress);
                self.progress(1);
                if let Some(by) = self.hold(&state, true) {
                    self.mark("cancelled");
                    self.finish(Some(Failure::new(Cause::Cancelled { by }, "a checkpoint was written")));
                } else {
                    self.well();
                }
            }
            "deaf" => {
                self.steps_to(JobState::ClientInProgress);
                self.hold(&state, false);
            }
            "talk" => {
                self.steps_to(JobState::ClientInProgress);
                self.hold(&state, true);
                for n in 0..5 {
                    self.log([format!("talk {n}")]);
                    self.progress(n);
                    std::thread::sleep(Duration::from_millis(120));
                }
                self.well();
            }
            "flood" => {
                for part in 0..20 {
                    self.log((0..500).map(|n| format!("{} {}", part * 500 + n, "x".repeat(500))));
                }
                self.well();
            }
            "fail" => {
                self.steps_to(JobState::ClientPrepared);
                self.finish(Some(Failure::new(Cause::ClientConnectionFailed, "ssh to the client failed: no route")));
            }
            "stale" => {
                self.steps_to(JobState::ClientDone);
                self.finish(Some(Failure::new(Cause::ViewStale, "a chunk is gone")));
            }
            "maintain" => {
                self.steps_to(JobState::RepositoryInProgress);
                let steps = Some(Steps { unit: "segments".into(), done: 1, total: 2 });
                self.send(&FromWorker::Progress(Progress { steps, time: Timestamp::now(), ..Default::default() }));
                if let Some(by) = self.hold(&state, true) {
                    return self.finish(Some(Failure::new(Cause::Cancelled { by }, "what was done by then stays")));
                }
                let yielded = Some(Yield::Checked {
                    objects: 5,
                    bytes: 50,
                    error_count: 0,
                    complete: true,
                    structure: None,
                    data: None,
                    not_due_since: None,
                });
                let last = Finished {
                    failure: None,
                    statistics: None,
                    archive: None,
                    warnings: vec![],
                    warning_count: 0,
                    client_borg: None,
                    yielded,
                    tested: None,
                    commands: vec![],
                };
                self.send(&FromWorker::Finished(Box::new(last)));
            }
            "early" => self.finish(None),
            "exit" => std::process::exit(3),
            "abort" => unix::pidfd::PidFd::open(std::process::id() as i32).unwrap().signal(unix::Signal::SIGKILL).map(|_| ()).unwrap(),
            "garbage" => {
                self.socket.write_all(b"{\"nonsense\":true}\0").unwrap();
                std::thread::sleep(Duration::from_secs(60));
            }
            "endless" => {
                // A message without an end; the daemon closes the socket somewhere in it.
                while self.socket.write_all(&[b' '; 65536]).is_ok() {}
                self.mark("cut off");
                std::thread::sleep(Duration::from_secs(60));
            }
            "jump" => {
                for to in [JobState::Done, JobState::ClientCleanup, JobState::JobCreated] {
                    self.send(&FromWorker::UpdateState { previous: self.state, to });
                    let ToWorker::State { refused: Some(why) } = wire::json::read(&mut self.reader).unwrap() else { panic!("accepted") };
                    self.log([why]);
                }
                self.finish(Some(Failure::new(Cause::Internal, "gave up")));
            }
            "leave" => {
                let child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
                self.mark(&format!("left {}", child.id()));
                std::process::exit(1);
            }
            "look" => {
                let environment: Vec<String> = std::env::vars().map(|(name, _)| name).collect();
                self.mark(&format!("environment {}", environment.join(",")));
                let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
                let group = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(2).unwrap().to_owned();
                self.mark(&format!("group {}", if group == std::process::id().to_string() { "own" } else { "shared" }));
                let fds: Vec<i32> =
                    std::fs::read_dir("/proc/self/fd").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
                self.mark(&format!("descriptors {}", fds.iter().filter(|fd| **fd > 2).count()));
                self.well();
            }
            other => panic!("no such behaviour: {other}"),
        }
    }
}
