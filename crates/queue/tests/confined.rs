//! Who reads what clients wrote: with the real worker, and a test that plays its daemon and the repository's owner.
#![allow(clippy::unwrap_used, reason = "these are tests")]

use borg::archive::Archive as Metadata;
use model::check::{Damage, DamagedArchive};
use model::import::{Attribution, Foreign, Import, Which};
use model::{EncryptionMode, Job, Repository, Timestamp, Work};
use std::fs;
use std::io::BufReader;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use unix::paths::Layout;
use unix::spawn::Spawn;
use unix::{Signal, spawn::Child};
use wire::importing::{Counted, kind as importing};
use wire::json;
use wire::maintenance::{Maintain, Operation, Report};
use wire::reading::{Readable, kind as reading};
use wire::session::{kind, read_json, write_json};
use wire::worker::{Errand, FromWorker, Task, ToWorker};
use wire::{WireError, frame};

const ARCHIVE: &str = "abababababababababababababababababababababababababababababababab";

/// A worker at an errand; a thread is its daemon.
struct Scene {
    worker: Child,
    owner: UnixListener,
    _directory: tempfile::TempDir,
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.worker.pidfd.signal(Signal::SIGKILL).unwrap();
        // A test may have waited for its end before.
        drop(self.worker.wait());
    }
}

fn scene(work: Work, errand: Errand) -> Scene {
    scene_within(600, work, errand)
}

fn scene_within(total_seconds: u64, work: Work, errand: Errand) -> Scene {
    let directory = tempfile::tempdir().unwrap();
    let layout = Layout::new(directory.path());
    for place in [layout.repository_socket("main"), layout.job_log(5)] {
        fs::create_dir_all(place.parent().unwrap()).unwrap();
    }
    let owner = UnixListener::bind(layout.repository_socket("main")).unwrap();
    let now = Timestamp::now();
    let repository = Repository {
        name: "main".parse().unwrap(),
        url: "/nowhere".into(),
        description: String::new(),
        repository_id: String::new(),
        encryption: EncryptionMode::None,
        remote_borg: None,
        rsh: None,
        created: now,
    };
    let mut job = Job::new(5, work, repository.name.clone(), "root", now);
    job.state = job.state.next(job.kind()).unwrap();
    let task = Task {
        job,
        repository,
        errand,
        server_id: "sid".into(),
        log_bytes: 1 << 20,
        start_seconds: 60,
        total_seconds,
        objects: 1000,
        outlives: false,
    };
    let (ours, theirs) = UnixStream::pair().unwrap();
    let worker = Spawn::new(env!("CARGO_BIN_EXE_borgcube-worker")).env("BORGCUBE_STATE", directory.path());
    let worker = worker.fd(theirs.as_fd(), "daemon").spawn().unwrap();
    drop(theirs);
    thread::spawn(move || {
        let mut said = BufReader::new(ours.try_clone().unwrap());
        let tell = |message: &ToWorker| json::write(&mut &ours, message);
        let mut result = tell(&ToWorker::Start(Box::new(task)));
        while let (Ok(()), Ok(message)) = (&result, json::read::<FromWorker>(&mut said)) {
            if matches!(message, FromWorker::UpdateState { .. }) {
                result = tell(&ToWorker::State { refused: None });
            }
        }
    });
    Scene { worker, owner, _directory: directory }
}

impl Scene {
    /// The next one who asks, and what for.
    fn asked(&self) -> (UnixStream, Operation) {
        let (mut stream, _) = self.owner.accept().unwrap();
        let mut payload = vec![];
        assert_eq!(frame::read(&mut stream, &mut payload).unwrap(), kind::MAINTAIN);
        (stream, read_json::<Maintain>(&payload).unwrap().operation)
    }

    /// The next one asks for the archive, and hears which one it is.
    fn read(&self) -> UnixStream {
        self.read_when(|| {})
    }

    /// As [`Scene::read`]; `before` happens while that one still waits for its answer.
    fn read_when(&self, before: impl FnOnce()) -> UnixStream {
        let (mut stream, operation) = self.asked();
        before();
        assert!(matches!(&operation, Operation::Read { archive } if archive == ARCHIVE), "{operation:?}");
        let readable = Readable {
            name: "a".into(),
            id: ARCHIVE.into(),
            repository_id: "cd".repeat(32),
            is_signed: true,
            key_type: 2,
            id_key: String::new(),
        };
        write_json(&mut stream, reading::READABLE, &readable).unwrap();
        stream
    }

    /// The processes that the worker has started, and what the system says of each.
    fn children(&self) -> Vec<String> {
        let status = |entry: fs::DirEntry| fs::read_to_string(entry.path().join("status")).ok();
        let of_worker = format!("PPid:\t{}\n", self.worker.pid);
        fs::read_dir("/proc").unwrap().flatten().filter_map(status).filter(|status| status.contains(&of_worker)).collect()
    }

    /// Whoever waits for the archive's metadata on this connection is confined, and the worker, whose child it is, has none of it.
    #[track_caller]
    fn assert_confined(&self, waiting: UnixStream) {
        let children = self.children();
        let [child] = &children[..] else { panic!("{children:?}") };
        assert!(child.contains("NoNewPrivs:\t1\n") && child.contains("Seccomp:\t2\n"), "{child}");
        // What makes no sense is no end of the worker.
        let mut waiting = waiting;
        let sent = frame::write(&mut waiting, reading::METADATA, &[&[0xc1; 100]]);
        assert!(matches!(sent, Ok(()) | Err(WireError::Closed)), "{sent:?}");
    }
}

/// A worker that has been told of one archive to import, and has looked which one that is.
fn import_begun() -> Scene {
    let attribution = Attribution::Config("host/etc".parse().unwrap());
    let import = Import { which: Which::All, attribution };
    let work = Work::Import { import: Box::new(import.clone()) };
    let scene = scene(work, Errand::Import(Box::new(import)));
    let (mut stream, operation) = scene.asked();
    assert!(matches!(operation, Operation::Foreign { .. }), "{operation:?}");
    let foreign = Foreign {
        name: "a".into(),
        id: ARCHIVE.into(),
        time: "2026-01-02T03:04:05.000006".into(),
        hostname: String::new(),
        username: String::new(),
        comment: String::new(),
        signed: true,
        damage: None,
    };
    write_json(&mut stream, kind::REPORT, &Report::Foreign { archives: vec![foreign], next: None }).unwrap();
    // The worker itself looks which archive it is, and hears nothing else of it. Once it has heard that, it starts the confined process.
    drop(scene.read_when(|| assert!(scene.children().is_empty())));
    scene
}

#[test]
fn lists_of_files_of_imports_are_read_by_a_confined_process() {
    let scene = import_begun();
    let confined = scene.read();
    scene.assert_confined(confined);
}

#[test]
fn what_the_confined_process_has_counted_comes_to_the_owner() {
    let scene = import_begun();
    // An archive without files: its metadata, then its list of files, which is empty.
    let metadata = Metadata { name: b"a".to_vec(), time: "2026-01-02T03:04:05.000006".into(), ..Metadata::default() };
    let packed = metadata.pack(&borg::Key::none(), [0; 64]);
    let connections: Vec<UnixStream> = (0..2)
        .map(|_| {
            let mut stream = scene.read();
            frame::write(&mut stream, reading::METADATA, &[&packed]).unwrap();
            stream
        })
        .collect();
    let (mut stream, operation) = scene.asked();
    assert!(matches!(&operation, Operation::Import(take) if take.id == ARCHIVE && take.job == 5), "{operation:?}");
    let mut payload = vec![];
    assert_eq!(frame::read(&mut stream, &mut payload).unwrap(), importing::COUNTED);
    assert_eq!(read_json::<Counted>(&payload).unwrap(), Counted::default());
    // By then it is gone.
    assert!(scene.children().is_empty());
    drop(connections);
}

/// A check's worker that has heard of damage in these archives.
fn damage_found(total_seconds: u64, archives: &[&str]) -> Scene {
    let (work, operation) = (Work::Check { verify_data: false, config: None }, Operation::Check { verify_data: false });
    let scene = scene_within(total_seconds, work, Errand::Maintenance(operation));
    let (mut stream, operation) = scene.asked();
    assert!(matches!(operation, Operation::Check { .. }), "{operation:?}");
    let now = Timestamp::now();
    let archive =
        |id: &str| DamagedArchive { name: "a".into(), id: id.into(), client: None, label: None, chunks: 1, error: None, files: None };
    let damage = Damage {
        since: now,
        found: now,
        needs_data: false,
        errors: vec!["a segment".into()],
        error_count: 1,
        chunks: 1,
        archives: archives.iter().map(|id| archive(id)).collect(),
        more_archives: 0,
        unknown: vec![],
        more_unknown: 0,
        healed: 0,
        unopenable: None,
    };
    let report = Report::Checked {
        objects: 7,
        bytes: 7,
        errors: vec!["a segment".into()],
        error_count: 1,
        complete: true,
        structure: None,
        data: None,
        damage: Some(Box::new(damage)),
        chunks: vec!["ef".repeat(32)],
        not_due_since: None,
    };
    write_json(&mut stream, kind::REPORT, &report).unwrap();
    scene
}

#[test]
fn archives_that_damage_concerns_have_one_time_limit_together() {
    let scene = damage_found(1, &[ARCHIVE, &"cd".repeat(32)]);
    // The first one takes all of it.
    let _silent = scene.read();
    let (mut stream, operation) = scene.asked();
    let Operation::NoteFiles { files } = operation else { panic!("{operation:?}") };
    assert!(files[0].1.incomplete.as_ref().is_some_and(|why| why.contains("1 seconds in all (total-seconds)")), "{files:?}");
    write_json(&mut stream, kind::REPORT, &Report::Noted).unwrap();
    // Nothing is left for the second one, and nothing is recorded of it: the next check comes to it.
    assert_eq!(scene.worker.wait().unwrap(), unix::pidfd::ExitStatus::Exited(0));
    scene.owner.set_nonblocking(true).unwrap();
    assert_eq!(scene.owner.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn lists_of_files_of_damaged_archives_are_read_by_a_confined_process() {
    let scene = damage_found(600, &[ARCHIVE]);
    let confined = scene.read();
    scene.assert_confined(confined);
    // What it could not read is said, archive by archive.
    let (mut stream, operation) = scene.asked();
    let Operation::NoteFiles { files } = operation else { panic!("{operation:?}") };
    assert_eq!((files.len(), files[0].0.as_str()), (1, ARCHIVE));
    assert!(files[0].1.incomplete.is_some() && files[0].1.paths.is_empty(), "{files:?}");
    write_json(&mut stream, kind::REPORT, &Report::Noted).unwrap();
}
