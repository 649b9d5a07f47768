//! An owner that is restarted, by a service manager of a few lines, while others have the repository.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod harness;

use harness::{Client, System, Worker, noise};
use model::{Cause, EncryptionMode};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use unix::poll::{Interest, poll};
use wire::maintenance::Operation;
use wire::session::{Reference, Verdict, kind, read_json};

/// What an owner says while another borg has its repository.
const WAITS: &str = "STATUS=another borg has locked the repository; the jobs go on when it has ended";

struct Manager {
    system: System,
    notify: UnixDatagram,
}

impl Manager {
    fn new() -> Manager {
        let mut system = System::new(EncryptionMode::Repokey);
        system.stop();
        let path = system.dir.path().join("notify");
        let notify = UnixDatagram::bind(&path).unwrap();
        notify.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        system.set("NOTIFY_SOCKET", path.to_str().unwrap());
        system.set("FDSTORE", "512");
        system.set("BORGCUBE_LOCK_WAIT", "1");
        let mut manager = Manager { system, notify };
        manager.start();
        manager.until("READY=1");
        manager
    }

    fn start(&mut self) {
        self.system.start();
    }

    /// Reads what the owner says up to this line.
    #[track_caller]
    fn until(&mut self, wanted: &str) {
        loop {
            let (fds, data) = unix::fdpass::recv_fds(&self.notify, unix::fdpass::MAX_FDS).unwrap_or_else(|e| panic!("no {wanted}: {e}"));
            let text = String::from_utf8(data).unwrap();
            let name = text.lines().find_map(|line| line.strip_prefix("FDNAME=")).unwrap_or_default().to_owned();
            if text.lines().any(|line| line == "FDSTOREREMOVE=1") {
                self.system.left.retain(|(kept, _)| *kept != name);
            } else if text.lines().any(|line| line == "FDSTORE=1") {
                self.system.left.extend(fds.into_iter().map(|fd| (name.clone(), fd)));
            }
            if text.lines().any(|line| line == wanted) {
                return;
            }
        }
    }

    /// Ends the owner; what it leaves is there for the next one.
    fn leave(&mut self) {
        testkit::process::signal(self.system.pid(), unix::Signal::SIGTERM);
        self.until("STOPPING=1");
        self.until("BARRIER=1");
        self.system.stop();
        assert!(!self.system.left.is_empty());
    }

    /// A stock borg that is at work on another machine.
    fn lock(&self) -> PathBuf {
        let lock = self.system.repo().join("lock.exclusive");
        std::fs::create_dir(&lock).unwrap();
        std::fs::write(lock.join("elsewhere@1.77-0"), "").unwrap();
        lock
    }

    /// A session that has sent a chunk, and it has arrived.
    fn sent(&self) -> (Worker, Client, Vec<Reference>) {
        let (worker, mut client) = self.system.backup("a/x", "one");
        let chunk = client.put(&noise(1, 5000));
        assert!(client.read(chunk.id).is_some());
        (worker, client, vec![chunk])
    }
}

/// The backup goes on and ends well.
fn ends_well(mut manager: Manager, worker: Worker, mut client: Client, mut chunks: Vec<Reference>) {
    let job = client.opened.job;
    chunks.push(client.put(&noise(2, 5000)));
    assert_eq!(client.archive_of("f", &chunks, false), Verdict::Accepted);
    client.end();
    assert!(worker.finish(job).archive.is_some());
    manager.leave_nothing();
    assert_eq!(manager.system.judge(), ["one"]);
}

impl Manager {
    fn leave_nothing(&mut self) {
        self.system.stop();
        self.system.left.clear();
    }
}

#[test]
fn sessions_wait_for_a_borg_that_was_faster_than_the_successor() {
    let mut manager = Manager::new();
    let (worker, client, chunks) = manager.sent();
    manager.leave();
    let lock = manager.lock();
    // Also over a restart in the middle of that.
    for _ in 0..2 {
        manager.start();
        manager.until("READY=1");
        manager.until(WAITS);
        manager.leave();
    }
    manager.start();
    manager.until(WAITS);
    std::fs::remove_dir_all(&lock).unwrap();
    ends_well(manager, worker, client, chunks);
}

#[test]
fn nobody_waits_for_a_locked_repository_without_a_job_that_needs_it() {
    let mut manager = Manager::new();
    let (worker, mut client, _) = manager.sent();
    manager.leave();
    let lock = manager.lock();
    manager.start();
    manager.until(WAITS);
    drop(worker);
    let Some((kind::FAILED, failure)) = client.next() else { panic!("a session whose job was cancelled goes on") };
    assert_eq!(read_json::<model::Failure>(&failure).unwrap().cause, Cause::RepositoryLockTimeout);
    std::fs::remove_dir_all(&lock).unwrap();
}

#[test]
fn sessions_wait_for_a_borg_that_outlives_its_release() {
    let manager = Manager::new();
    let (worker, mut client, chunks) = manager.sent();
    let (lent, _) = manager.system.release();
    let lock = manager.lock();
    drop(lent);
    // More than one try of the owner's, in which nothing comes but credit.
    let deadline = Instant::now() + Duration::from_secs(3);
    let mut payload = vec![];
    while poll(&[(client.stream.as_fd(), Interest::Read)], Some(deadline.saturating_duration_since(Instant::now()))).unwrap()[0].any() {
        assert_eq!(wire::frame::read(&mut client.stream, &mut payload).unwrap(), kind::CREDIT, "the session was ended");
    }
    std::fs::remove_dir_all(&lock).unwrap();
    ends_well(manager, worker, client, chunks);
}

#[test]
fn what_was_accepted_is_judged_again_while_nobody_has_the_repository() {
    let mut manager = Manager::new();
    let (worker, mut client, chunks) = manager.sent();
    let item = client.put(&harness::item("f", &chunks));
    assert_eq!(client.propose(&[item.id], &chunks, false), Verdict::Accepted);
    manager.leave();
    manager.system.set("BORGCUBE_TEST_PAUSE", "take-up=2000");
    manager.start();
    manager.system.wait_for_pause();
    let failure = manager.system.maintain(Operation::Release { wait_seconds: 0 }).unwrap_err();
    assert!(failure.message.contains("(a/x) is in the middle"), "{}", failure.message);
    let job = client.opened.job;
    assert_eq!(client.commit(), Verdict::Accepted);
    client.end();
    assert!(worker.finish(job).archive.is_some());
    manager.leave_nothing();
}
