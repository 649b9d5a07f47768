//! A `borgcubed` of its own for each test, and a Varlink client.

use model::queue::Limits;
use model::{BackupConfig, Client, Connection, EncryptionMode, Job, JobState, Repository, Settings, Timestamp};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fs;
use std::io::{BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use wire::control::{ControlError, ErrorKind, INTERFACE, JobDetail, Reply};

pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for something to become true.
#[track_caller]
pub fn wait<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "in vain waited for: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub struct Daemon {
    /// What has to go before the directory can, such as a file system that is mounted in it.
    pub inside: Option<Box<dyn std::any::Any>>,
    pub directory: TempDir,
    pub state: PathBuf,
    environment: Vec<(String, String)>,
    child: Option<Child>,
}

impl Daemon {
    pub fn start() -> Daemon {
        Daemon::start_with(&[])
    }

    pub fn start_with(environment: &[(&str, &str)]) -> Daemon {
        let directory = tempfile::Builder::new().prefix("bcq-").tempdir().unwrap();
        let state = directory.path().join("state");
        Daemon::start_in(directory, state, environment)
    }

    pub fn start_in(directory: TempDir, state: PathBuf, environment: &[(&str, &str)]) -> Daemon {
        let script = directory.path().join("worker");
        let me = std::env::current_exe().unwrap();
        let text = format!(
            "#!/bin/sh\nFAKE_WORKER_IN=\"$BORGCUBE_STATE\" FAKE_WORKER_JOB=\"$1\" exec '{}' --exact fake::fake_worker --nocapture\n",
            me.display()
        );
        fs::write(&script, text).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let environment = environment.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let mut daemon = Daemon { inside: None, directory, state, environment, child: None };
        daemon.up();
        daemon
    }

    /// The program, not started yet.
    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_borgcubed"));
        let log = fs::File::options().append(true).create(true).open(self.directory.path().join("log")).unwrap();
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.directory.path())
            .env("SSH_AUTH_SOCK", "/nowhere")
            .env("BORGCUBE_STATE", &self.state)
            .env("BORGCUBE_WORKER", self.directory.path().join("worker"))
            .envs(self.environment.iter().map(|(n, v)| (n, v)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            // Ctrl-C at the test must not look like a stop.
            .process_group(0);
        command
    }

    /// Starts it, for the first time or again, and waits until it answers.
    pub fn up(&mut self) {
        assert!(self.child.is_none());
        self.child = Some(self.command().spawn().unwrap());
        wait("borgcubed to answer", || {
            if let Ok(Some(status)) = self.child.as_mut().unwrap().try_wait() {
                panic!("borgcubed ended with {status}: {}", self.log());
            }
            UnixStream::connect(self.socket()).ok()
        });
    }

    pub fn socket(&self) -> PathBuf {
        self.state.join("run/control.sock")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    pub fn pid(&self) -> i32 {
        self.child.as_ref().unwrap().id() as i32
    }

    pub fn signal(&self, signal: unix::Signal) {
        unix::pidfd::PidFd::open(self.pid()).unwrap().signal(signal).unwrap();
    }

    /// SIGKILL, as a power cut would have it.
    pub fn crash(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().unwrap()
    }

    /// Waits for its end after a signal.
    #[track_caller]
    pub fn ended(&mut self) -> ExitStatus {
        let status = wait("borgcubed to end", || self.child.as_mut().unwrap().try_wait().unwrap());
        self.child = None;
        status
    }

    pub fn connect(&self) -> Caller {
        Caller::new(UnixStream::connect(self.socket()).unwrap())
    }

    /// One call on a connection of its own.
    pub fn call<T: DeserializeOwned>(&self, method: &str, parameters: Value) -> Result<T, ControlError> {
        self.connect().call(method, parameters)
    }

    #[track_caller]
    pub fn ok(&self, method: &str, parameters: Value) -> Value {
        self.call(method, parameters).unwrap_or_else(|e| panic!("{method}: {e:?}\n{}", self.log()))
    }

    #[track_caller]
    pub fn fails(&self, method: &str, parameters: Value) -> (ErrorKind, String) {
        let error = self.call::<Value>(method, parameters).expect_err("this should have been refused");
        (error.kind, error.message)
    }

    #[track_caller]
    pub fn repository(&self, name: &str) {
        self.ok("AddRepository", json!({ "repository": repository(name) }));
    }

    #[track_caller]
    pub fn client(&self, name: &str) {
        self.ok("AddClient", json!({ "client": client(name) }));
    }

    /// A config whose worker behaves as `how` says.
    #[track_caller]
    pub fn config(&self, name: &str, repository: &str, how: &str) {
        self.ok("AddConfig", json!({ "config": config(name, repository, how) }));
    }

    /// Repository `main` and, for each config, its client.
    pub fn with(&self, configs: &[(&str, &str)]) {
        self.repository("main");
        for (name, how) in configs {
            let (client, _) = name.split_once('/').unwrap();
            let clients = self.ok("ListClients", json!({}));
            if !clients["clients"].as_array().unwrap().iter().any(|c| c["name"] == client) {
                self.client(client);
            }
            self.config(name, "main", how);
        }
    }

    #[track_caller]
    pub fn run(&self, config: &str) -> u64 {
        self.ok("RunConfig", json!({ "config": config }))["job"].as_u64().unwrap()
    }

    #[track_caller]
    pub fn detail(&self, job: u64) -> JobDetail {
        serde_json::from_value(self.ok("GetJob", json!({ "job": job }))).unwrap()
    }

    pub fn job(&self, job: u64) -> Job {
        self.detail(job).job
    }

    #[track_caller]
    pub fn reaches(&self, job: u64, state: JobState) -> Job {
        wait(&format!("job {job} to be {state}"), || {
            let found = self.job(job);
            assert!(!found.state.is_final() || found.state == state, "job {job} is {}: {:?}\n{}", found.state, found.failure, self.log());
            (found.state == state).then_some(found)
        })
    }

    /// Lets a worker that holds go on.
    pub fn go(&self, job: u64) {
        fs::write(self.state.join(format!("go-{job}")), "").unwrap();
    }

    /// What the workers noted.
    pub fn marks(&self) -> Vec<String> {
        fs::read_to_string(self.state.join("marks")).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    pub fn job_log(&self, job: u64) -> String {
        fs::read_to_string(self.state.join(format!("log/jobs/{job}.jsonl"))).unwrap_or_default()
    }

    #[track_caller]
    pub fn limits(&self, limits: Limits) {
        let previous: Settings = serde_json::from_value(self.ok("GetSettings", json!({}))["settings"].clone()).unwrap();
        let settings = Settings { limits, ..previous.clone() };
        self.ok("UpdateSettings", json!({ "previous": previous, "settings": settings }));
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            if std::thread::panicking() {
                eprintln!("borgcubed wrote:\n{}", self.log());
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        // The workers see the end of their sockets; those that are deaf are ended here.
        for pid in workers_of(&self.state) {
            if let Ok(pidfd) = unix::pidfd::PidFd::open(pid) {
                let _ = pidfd.signal(unix::Signal::SIGKILL);
            }
        }
    }
}

/// The processes with this state directory in their environment, but the daemon.
pub fn workers_of(state: &Path) -> Vec<i32> {
    let wanted = format!("FAKE_WORKER_IN={}", state.display());
    let all = fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    all.filter(|pid| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|b| *b == 0).any(|variable| variable == wanted.as_bytes())
    })
    .collect()
}

pub struct Caller {
    pub stream: UnixStream,
    reader: BufReader<UnixStream>,
}

impl Caller {
    pub fn new(stream: UnixStream) -> Caller {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Caller { reader: BufReader::new(stream.try_clone().unwrap()), stream }
    }

    pub fn send(&mut self, method: &str, parameters: Value, more: bool) {
        let method = if method.contains('.') { method.to_owned() } else { format!("{INTERFACE}.{method}") };
        let mut call = json!({ "method": method, "parameters": parameters });
        if more {
            call["more"] = true.into();
        }
        self.raw(call.to_string().as_bytes());
        self.raw(b"\0");
    }

    pub fn raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub fn reply(&mut self) -> Reply {
        wire::json::read(&mut self.reader).unwrap()
    }

    /// The other side has closed.
    pub fn is_closed(&mut self) -> bool {
        matches!(wire::json::read::<Reply>(&mut self.reader), Err(wire::WireError::Closed | wire::WireError::Io(_)))
    }

    pub fn call<T: DeserializeOwned>(&mut self, method: &str, parameters: Value) -> Result<T, ControlError> {
        self.send(method, parameters, false);
        let reply = self.reply();
        assert!(!reply.continues);
        match ControlError::from_reply(&reply) {
            Some(error) => Err(error),
            None => Ok(serde_json::from_value(reply.parameters).unwrap()),
        }
    }

    /// The next event of a watch, and whether more follow.
    pub fn event(&mut self) -> (wire::control::Event, bool) {
        let reply = self.reply();
        assert_eq!(reply.error, None, "{reply:?}");
        let event: wire::control::EventReply = serde_json::from_value(reply.parameters).unwrap();
        (event.event, reply.continues)
    }
}

pub fn repository(name: &str) -> Repository {
    let id: String = name.bytes().cycle().take(32).map(|b| format!("{b:02x}")).collect();
    Repository {
        name: name.parse().unwrap(),
        url: format!("/srv/{name}"),
        description: String::new(),
        repository_id: id,
        encryption: EncryptionMode::RepokeyBlake2,
        remote_borg: None,
        rsh: None,
        created: Timestamp(0),
    }
}

pub fn client(name: &str) -> Client {
    Client {
        name: name.parse().unwrap(),
        description: String::new(),
        connection: Connection::Local { remote_borg: None, remote_cache_dir: None },
        keys: vec![],
        blackouts: vec![],
        borg_binary: Default::default(),
        created: Timestamp(0),
    }
}

pub fn config(name: &str, repository: &str, how: &str) -> BackupConfig {
    let (client, label) = name.split_once('/').unwrap();
    BackupConfig {
        client: client.parse().unwrap(),
        label: label.parse().unwrap(),
        repository: repository.parse().unwrap(),
        paths: vec![format!("/{how}")],
        excludes: vec![],
        patterns: vec![],
        one_file_system: false,
        compression: None,
        checkpoint_interval: None,
        read_special: false,
        ignore_inode: false,
        extra_options: vec![],
        target_age_hours: 26,
        commands: Default::default(),
        created: Timestamp(0),
    }
}
