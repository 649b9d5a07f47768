//! A real owner process with a real `borg serve`, and a test that plays worker and session over its socket.

#![allow(dead_code, reason = "not every test program uses all of it")]

use borg::compress::{Compression, compress, decompress};
use borg::msgpack::Writer;
use borg::{Key, KeyType, keyblob};
use model::progress::{SessionCounters, Statistics};
use model::{Archive, EncryptionMode, Failure, Job, JobState, RepositoryName, Timestamp};
use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use store::Store;
use testkit::{Borg, BorgWorld};
use unix::paths::Layout;
use unix::poll::{Interest, poll};
use unix::spawn::{Child, Spawn};
use wire::frame;
use wire::maintenance::{Granted, Maintain, Operation, Progress, Report};
use wire::session::*;
use wire::tool::{Answer, Facts};

pub const PASSPHRASE: &str = "a passphrase of some length";
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_borgcube-repositoryd");

/// A repository `main` with a database, and an owner when it is wanted.
pub struct System {
    pub dir: tempfile::TempDir,
    pub layout: Layout,
    pub store: Store,
    pub name: RepositoryName,
    pub mode: EncryptionMode,
    pub env: Vec<(String, String)>,
    listener: UnixListener,
    child: Option<Child>,
    /// What an owner has left to the one that is started next.
    pub left: Vec<(String, std::os::fd::OwnedFd)>,
}

impl System {
    pub fn new(mode: EncryptionMode) -> System {
        let dir = tempfile::Builder::new().prefix("bc-").tempdir().unwrap();
        let layout = Layout::new(&dir.path().join("state"));
        layout.create_directories().unwrap();
        layout.create_repository_directories("main").unwrap();
        unix::files::write_private(&layout.credentials("main").join("passphrase"), PASSPHRASE.as_bytes()).unwrap();
        let store = Store::open(layout.db()).unwrap();
        let name: RepositoryName = "main".parse().unwrap();
        let url = dir.path().join("repo");
        let output = Command::new(PROGRAM)
            .args(["create", "--encryption", mode.as_str(), "--url"])
            .arg(&url)
            .env("CREDENTIALS_DIRECTORY", layout.credentials("main"))
            .env_remove("BORGCUBE_BORG")
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        let Answer::Repository(Facts { repository_id, encryption, .. }) = serde_json::from_slice(&output.stdout).unwrap() else {
            panic!("{}", String::from_utf8_lossy(&output.stdout))
        };
        let record = model::Repository {
            name: name.clone(),
            url: url.to_str().unwrap().into(),
            description: String::new(),
            repository_id,
            encryption,
            remote_borg: None,
            rsh: None,
            created: Timestamp::now(),
        };
        store.write("test", "test", |w| w.repositories().insert(&record)).unwrap();
        let listener = unix::socket::listen(&layout.repository_socket("main"), 0o600).unwrap();
        let env = vec![("BORGCUBE_LOCK_WAIT".into(), "5".into()), ("BORGCUBE_LOG".into(), "debug".into())];
        let mut system = System { dir, layout, store, name, mode, env, listener, child: None, left: vec![] };
        system.start();
        system
    }

    pub fn set(&mut self, name: &str, value: &str) {
        self.env.retain(|(known, _)| known != name);
        self.env.push((name.into(), value.into()));
    }

    pub fn start(&mut self) {
        assert!(self.child.is_none());
        let mut spawn = Spawn::new(PROGRAM)
            .args(["serve", "main"])
            .keep_env(&["PATH", "HOME", "TMPDIR"])
            .env("BORGCUBE_STATE", self.layout.state())
            .env("CREDENTIALS_DIRECTORY", self.layout.credentials("main"))
            .fd(self.listener.as_fd(), "owner");
        for (name, value) in &self.env {
            spawn = spawn.env(name, value);
        }
        for (name, fd) in &self.left {
            spawn = spawn.fd(fd.as_fd(), name);
        }
        self.child = Some(spawn.spawn().unwrap());
    }

    /// Waits until it has come to where `BORGCUBE_TEST_PAUSE` says.
    pub fn wait_for_pause(&self) {
        let marker = self.layout.state().join("paused");
        testkit::retry_until(std::time::Duration::from_secs(30), || marker.exists().then_some(())).expect("it pauses");
        std::fs::remove_file(marker).unwrap();
    }

    /// Kills it as a crash would.
    pub fn kill(&mut self) {
        let child = self.child.take().unwrap();
        child.pidfd.signal(unix::Signal::SIGKILL).unwrap();
        child.wait().unwrap();
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        self.child.as_ref().unwrap().pid
    }

    /// Ends it as a service manager would.
    pub fn stop(&mut self) {
        let child = self.child.take().unwrap();
        child.pidfd.signal(unix::Signal::SIGTERM).unwrap();
        let ended =
            unix::poll::poll(&[(child.pidfd.as_fd(), unix::poll::Interest::Read)], Some(std::time::Duration::from_secs(20))).unwrap();
        assert!(ended[0].any(), "the owner does not end");
        // One that has only begun to start knows no signals yet.
        let status = child.wait().unwrap();
        assert!(status.success() || status == unix::pidfd::ExitStatus::Signaled(unix::Signal::SIGTERM), "{status}");
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        let ended = self.child.as_ref().is_some_and(|child| child.pidfd.try_wait().unwrap().is_some());
        if ended {
            self.child = None;
        }
        ended
    }

    pub fn repo(&self) -> PathBuf {
        self.dir.path().join("repo")
    }

    pub fn job(&self, config: &str) -> u64 {
        let now = Timestamp::now();
        let made = self.store.write("test", "test", |w| {
            let job = w.jobs().create(|n| Job::backup(n, &config.parse().unwrap(), self.name.clone(), "test", now))?;
            w.jobs().update_state(job.number, JobState::JobCreated, JobState::ClientPreparing, now)
        });
        made.unwrap().0.number
    }

    pub fn archives(&self) -> Vec<Archive> {
        let mut all = self.store.read(|r| r.archives().list()).unwrap();
        all.sort_by_key(|a| a.job);
        all
    }

    pub fn intents(&self) -> usize {
        self.store.read(|r| r.intents().of_repository(&self.name)).unwrap().len()
    }

    pub fn world(&self) -> BorgWorld {
        let mut world = BorgWorld::with_passphrase(PASSPHRASE);
        if self.mode.is_keyfile() {
            world.set("BORG_KEY_FILE", self.layout.credentials("main").join("key"));
        }
        world
    }

    /// Stock borg's verdict on everything; gives the names of the archives. The owner must have closed the repository.
    pub fn judge(&self) -> Vec<String> {
        let world = self.world();
        let mut names = vec![];
        for judge in Borg::judges() {
            judge.check_verify_data(&world, &self.repo()).unwrap();
            let list = judge.run(&world, ["list", "--short", "--consider-checkpoints", self.repo().to_str().unwrap()]).unwrap();
            names = list.lines().map(str::to_owned).collect();
        }
        names
    }

    pub fn connect(&self) -> UnixStream {
        unix::socket::connect(&self.layout.repository_socket("main")).unwrap()
    }

    pub fn worker(&self) -> Worker {
        Worker { stream: self.connect() }
    }

    /// A worker and a session for a new job of `config`.
    pub fn backup(&self, config: &str, archive: &str) -> (Worker, Client) {
        let mut worker = self.worker();
        let job = self.job(config);
        let prepared = worker.prepare(job, archive).unwrap();
        let client = self.open(&prepared.0.token).unwrap();
        (worker, client)
    }

    /// A worker and a session that restores an archive.
    pub fn restore(&self, archive: &Archive) -> (Worker, Client) {
        let mut worker = self.worker();
        let job = self.restore_job(archive);
        let prepared = worker.prepare_restore(job, archive).unwrap();
        let client = self.open(&prepared.token).unwrap();
        (worker, client)
    }

    /// A job that restores an archive.
    pub fn restore_job(&self, archive: &Archive) -> u64 {
        let restore = model::restore::Restore {
            archive: archive.name.clone(),
            id: archive.id.clone(),
            of: archive.client.clone(),
            paths: vec![],
            patterns: vec![],
            excludes: vec![],
            target: model::restore::Target::New,
            sparse: false,
            ignore_space: false,
        };
        let work = model::Work::Restore { client: archive.client.clone(), restore: Box::new(restore) };
        let now = Timestamp::now();
        let made = self.store.write("test", "test", |w| {
            let job = w.jobs().create(|n| Job::new(n, work.clone(), self.name.clone(), "test", now))?;
            w.jobs().update_state(job.number, JobState::JobCreated, JobState::ClientPreparing, now)
        });
        made.unwrap().0.number
    }

    /// Asks for maintenance, and waits until it is over.
    pub fn maintain(&self, operation: Operation) -> Result<Report, Failure> {
        Maintenance::begin(self, operation).report()
    }

    /// Borrows the repository, until what this gives is dropped.
    pub fn release(&self) -> (UnixStream, Granted) {
        let mut maintenance = Maintenance::begin(self, Operation::Release { wait_seconds: 20 });
        let (kind, payload) = maintenance.next().unwrap();
        assert_eq!(kind, kind::GRANTED, "{}", String::from_utf8_lossy(&payload));
        (maintenance.stream, read_json(&payload).unwrap())
    }

    /// Deletes archives; the chunks that are gone.
    pub fn delete(&self, names: &[&str]) -> u64 {
        let archives = names.iter().map(|name| (*name).to_owned()).collect();
        match self.maintain(Operation::Delete { archives, dry_run: false }).unwrap() {
            Report::Deleted { chunks, .. } => chunks,
            other => panic!("{other:?}"),
        }
    }

    pub fn open(&self, token: &str) -> Result<Client, Failure> {
        // By the token alone, as a session does.
        let bytes = model::token::Token::from_hex(token.as_bytes()).unwrap();
        let hash = <sha2::Sha256 as sha2::Digest>::digest(bytes.bytes());
        let hash: String = hash.iter().map(|b| format!("{b:02x}")).collect();
        let link = self.layout.session_link(&hash);
        let stream = if link.exists() { unix::socket::connect(&link).unwrap() } else { self.connect() };
        Client::open(stream, token)
    }
}

impl Drop for System {
    fn drop(&mut self) {
        if let Some(child) = self.child.take() {
            child.pidfd.signal(unix::Signal::SIGTERM).unwrap();
            let patience = Some(std::time::Duration::from_secs(20));
            let ended = unix::poll::poll(&[(child.pidfd.as_fd(), unix::poll::Interest::Read)], patience).unwrap();
            if !ended[0].any() {
                child.pidfd.signal(unix::Signal::SIGKILL).unwrap();
            }
            child.wait().unwrap();
        }
    }
}

/// A person who asked for something.
pub struct Maintenance {
    pub stream: UnixStream,
}

impl Maintenance {
    pub fn begin(system: &System, operation: Operation) -> Maintenance {
        let mut stream = system.connect();
        write_json(&mut stream, kind::MAINTAIN, &Maintain { version: VERSION, operation }).unwrap();
        Maintenance { stream }
    }

    /// The next frame that is no progress.
    pub fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut payload = vec![];
        loop {
            match frame::read(&mut self.stream, &mut payload) {
                Ok(kind::PROGRESS) => drop(read_json::<Progress>(&payload).unwrap()),
                Ok(kind) => return Some((kind, payload)),
                Err(_) => return None,
            }
        }
    }

    pub fn report(mut self) -> Result<Report, Failure> {
        match self.next().unwrap() {
            (kind::REPORT, bytes) => Ok(read_json(&bytes).unwrap()),
            (kind::FAILED, bytes) => Err(read_json(&bytes).unwrap()),
            other => panic!("{other:?}"),
        }
    }
}

pub struct Worker {
    pub stream: UnixStream,
}

impl Worker {
    /// Prepares a session and fetches its cache.
    pub fn prepare(&mut self, job: u64, archive: &str) -> Result<(Prepared, Vec<u8>), Failure> {
        let prepared = self.prepare_only(job, archive)?;
        let (_, cache) = self.cache();
        Ok((prepared, cache))
    }

    /// Prepares a session for a client that may have its cache already.
    pub fn prepare_only(&mut self, job: u64, archive: &str) -> Result<Prepared, Failure> {
        let request = Prepare {
            version: VERSION,
            job,
            archive_name: archive.into(),
            cmdline: vec!["borg".into(), "create".into()],
            start: Timestamp::now(),
            purpose: Purpose::Backup,
        };
        write_json(&mut self.stream, kind::PREPARE, &request).unwrap();
        let mut payload = vec![];
        match frame::read(&mut self.stream, &mut payload).unwrap() {
            kind::PREPARED => read_json(&payload).map(Ok).unwrap(),
            kind::FAILED => Err(read_json(&payload).unwrap()),
            other => panic!("{other}"),
        }
    }

    /// Prepares the restore of an archive.
    pub fn prepare_restore(&mut self, job: u64, archive: &Archive) -> Result<Prepared, Failure> {
        let request = Prepare {
            version: VERSION,
            job,
            archive_name: archive.name.clone(),
            cmdline: vec!["borg".into(), "extract".into()],
            start: Timestamp::now(),
            purpose: Purpose::Restore { archive: archive.id.clone() },
        };
        write_json(&mut self.stream, kind::PREPARE, &request).unwrap();
        let mut payload = vec![];
        match frame::read(&mut self.stream, &mut payload).unwrap() {
            kind::PREPARED => read_json(&payload).map(Ok).unwrap(),
            kind::FAILED => Err(read_json(&payload).unwrap()),
            other => panic!("{other}"),
        }
    }

    /// The client's chunks cache.
    pub fn cache(&mut self) -> (Cached, Vec<u8>) {
        frame::write(&mut self.stream, kind::CACHE, &[]).unwrap();
        let mut payload = vec![];
        assert_eq!(frame::read(&mut self.stream, &mut payload).unwrap(), kind::CACHED);
        let (fds, data) = unix::fdpass::recv_fds(&self.stream, 1).unwrap();
        assert_eq!(data, [0]);
        let mut cache = vec![];
        std::io::Read::read_to_end(&mut reopened(&fds[0]), &mut cache).unwrap();
        let cached: Cached = read_json(&payload).unwrap();
        assert_eq!(cache.len() as u64, cached.size);
        (cached, cache)
    }

    pub fn finish(mut self, job: u64) -> Outcome {
        write_json(&mut self.stream, kind::FINISH, &Finish { job }).unwrap();
        let mut payload = vec![];
        assert_eq!(frame::read(&mut self.stream, &mut payload).unwrap(), kind::OUTCOME);
        read_json(&payload).unwrap()
    }
}

fn reopened(fd: &std::os::fd::OwnedFd) -> std::fs::File {
    std::fs::File::open(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(fd))).unwrap()
}

/// A session with an honest client behind it.
pub struct Client {
    pub stream: UnixStream,
    pub opened: Opened,
    pub key: Key,
    pub credit: u64,
    /// Frames that came while something was sent.
    early: VecDeque<(u8, Vec<u8>)>,
}

impl Client {
    pub fn open(mut stream: UnixStream, token: &str) -> Result<Client, Failure> {
        write_json(&mut stream, kind::OPEN, &Open { version: VERSION, token: token.into(), client_version: "1.4.0".into(), client: None })
            .unwrap();
        let mut payload = vec![];
        match frame::read(&mut stream, &mut payload).unwrap() {
            kind::OPENED => {
                let opened: Opened = read_json(&payload).unwrap();
                let kind = KeyType::from_byte(opened.key_type).unwrap();
                let key = match kind {
                    KeyType::None => Key::none(),
                    kind => keyblob::LockedKey::parse(&opened.key_blob).unwrap().unlock(opened.passphrase.as_bytes(), kind).unwrap().key,
                };
                borg::manifest::Manifest::parse(&opened.manifest, &key).unwrap();
                Ok(Client { stream, opened, key, credit: 0, early: VecDeque::new() })
            }
            kind::REFUSED => Err(read_json(&payload).unwrap()),
            other => panic!("{other}"),
        }
    }

    pub fn put(&mut self, data: &[u8]) -> Reference {
        let payload = compress(Compression::Lz4, data);
        let id = self.key.id_hash(data).0;
        self.take_early();
        self.send(kind::PUT, &[&id, &(data.len() as u32).to_le_bytes(), &payload]);
        Reference { id, size: data.len() as u32, csize: payload.len() as u32 + 1 }
    }

    /// Sends a frame. An owner that is gone, or has given up, shows in what it answers.
    fn send(&mut self, kind: u8, parts: &[&[u8]]) {
        match frame::write(&mut self.stream, kind, parts) {
            Ok(()) | Err(wire::WireError::Closed) => {}
            Err(e) => panic!("{e}"),
        }
    }

    /// Takes what the owner says, mostly credit, so that it need not wait for us while we wait for it.
    fn take_early(&mut self) {
        while poll(&[(self.stream.as_fd(), Interest::Read)], Some(Duration::ZERO)).unwrap()[0].any() {
            let mut payload = vec![];
            match frame::read(&mut self.stream, &mut payload) {
                Ok(kind::CREDIT) => self.credit += u64::from(u32::from_le_bytes(payload[..].try_into().unwrap())),
                Ok(kind) => self.early.push_back((kind, payload)),
                Err(_) => return,
            }
        }
    }

    /// The next frame that is no credit.
    pub fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        if let Some(early) = self.early.pop_front() {
            return Some(early);
        }
        let mut payload = vec![];
        loop {
            match frame::read(&mut self.stream, &mut payload) {
                Ok(kind::CREDIT) => self.credit += u64::from(u32::from_le_bytes(payload[..].try_into().unwrap())),
                Ok(other) => return Some((other, payload)),
                Err(_) => return None,
            }
        }
    }

    pub fn read(&mut self, id: [u8; 32]) -> Option<Vec<u8>> {
        frame::write(&mut self.stream, kind::READ, &[&id]).unwrap();
        match self.next().unwrap() {
            (kind::OBJECT, bytes) => {
                assert_eq!(bytes[..32], id);
                Some(decompress(&bytes[32..], 1 << 24).unwrap().into_owned())
            }
            (kind::NOT_IN_VIEW, bytes) => {
                assert_eq!(bytes, id);
                None
            }
            other => panic!("{other:?}"),
        }
    }

    pub fn verdict(&mut self) -> Verdict {
        match self.next() {
            Some((kind::VERDICT, bytes)) => read_json(&bytes).unwrap(),
            Some((kind::FAILED, bytes)) => Verdict::Failed(read_json(&bytes).unwrap()),
            other => panic!("{other:?}"),
        }
    }

    pub fn propose(&mut self, items: &[[u8; 32]], references: &[Reference], checkpoint: bool) -> Verdict {
        let items: Vec<u8> = items.concat();
        self.send(kind::ITEMS, &[&items]);
        let mut bytes = vec![];
        references.iter().for_each(|r| r.encode(&mut bytes));
        self.send(kind::REFS, &[&bytes]);
        let size = references.iter().map(|r| u64::from(r.size)).sum();
        let csize = references.iter().map(|r| u64::from(r.csize)).sum();
        let proposal = Proposal {
            checkpoint,
            statistics: Statistics { nfiles: 1, original_size: size, compressed_size: csize, deduplicated_size: 0 },
            chunker_params: ("buzhash".into(), vec![19, 23, 21, 4095]),
            chunker_named: true,
            cwd: None,
            counters: SessionCounters { puts: 3, ..SessionCounters::default() },
            claims: vec![],
        };
        self.send(kind::PROPOSE, &[&serde_json::to_vec(&proposal).unwrap()]);
        self.verdict()
    }

    pub fn commit(&mut self) -> Verdict {
        self.send(kind::COMMIT, &[]);
        self.verdict()
    }

    /// One file as an archive: everything that has to be sent for it.
    pub fn archive(&mut self, path: &str, chunks: &[&[u8]], checkpoint: bool) -> Verdict {
        let references: Vec<_> = chunks.iter().map(|chunk| self.put(chunk)).collect();
        self.archive_of(path, &references, checkpoint)
    }

    pub fn archive_of(&mut self, path: &str, references: &[Reference], checkpoint: bool) -> Verdict {
        let item = self.put(&item(path, references));
        match self.propose(&[item.id], references, checkpoint) {
            Verdict::Accepted => self.commit(),
            other => other,
        }
    }

    pub fn end(mut self) {
        write_json(&mut self.stream, kind::END, &End { failure: None, counters: SessionCounters::default() }).unwrap();
        assert_eq!(self.next(), None);
    }
}

/// A regular file as Borg packs it.
pub fn item(path: &str, references: &[Reference]) -> Vec<u8> {
    let mut w = Writer::new();
    w.map(9);
    let text = |w: &mut Writer, key: &str, value: &str| {
        w.raw(key.as_bytes());
        w.raw(value.as_bytes());
    };
    let int = |w: &mut Writer, key: &str, value: i64| {
        w.raw(key.as_bytes());
        w.int(value);
    };
    w.raw(b"chunks");
    w.array(references.len());
    for r in references {
        w.array(3);
        w.raw(&r.id);
        w.uint(u64::from(r.size));
        w.uint(u64::from(r.csize));
    }
    int(&mut w, "gid", 0);
    text(&mut w, "group", "root");
    int(&mut w, "mode", 0o100_644);
    int(&mut w, "mtime", 1_700_000_000_000_000_000);
    text(&mut w, "path", path);
    int(&mut w, "size", references.iter().map(|r| i64::from(r.size)).sum());
    int(&mut w, "uid", 0);
    text(&mut w, "user", "root");
    w.into_bytes()
}

/// Data that no two seeds share and no codec makes small.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}

pub fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

/// Looks at the nonces of all envelopes; how many there are.
pub fn nonces_are_used_once(system: &System) -> usize {
    // Every envelope that was ever written, superseded ones included, straight from the segments.
    let mut used = vec![];
    for entry in std::fs::read_dir(system.repo().join("data/0")).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        let mut at = 8;
        while at + 9 <= bytes.len() {
            let size = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap()) as usize;
            if bytes[at + 8] == 0 {
                let envelope = &bytes[at + 41..at + size];
                let first = borg::Key::envelope_nonce(envelope).unwrap();
                used.push((first, first + (envelope.len() as u64 - 41).div_ceil(16)));
            }
            at += size;
        }
    }
    used.sort_unstable();
    assert!(used.windows(2).all(|pair| pair[0].1 <= pair[1].0), "two objects share a nonce");
    used.len()
}
