//! The owner of a repository behind a `borg serve` child.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod harness;

use harness::{System, noise};
use model::{Cause, EncryptionMode};
use std::time::{Duration, Instant};
use testkit::retry_until;
use wire::session::Verdict;

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn a_repository_that_dies_ends_all_sessions_and_comes_back() {
    let mut system = System::new(EncryptionMode::Repokey);
    let script = system.dir.path().join("borg");
    let pids = system.dir.path().join("pids");
    std::fs::write(&script, format!("#!/bin/sh\necho $$ >> {}\nexec /usr/bin/borg \"$@\"\n", pids.display())).unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    system.stop();
    system.set("BORGCUBE_BORG", script.to_str().unwrap());
    system.set("BORGCUBE_ENGINE", "served");
    system.start();
    let (worker_a, mut a) = system.backup("a/x", "a");
    let (worker_b, mut b) = system.backup("b/x", "b");
    a.put(&noise(1, 1000));
    // Both hear of it without asking for anything.
    let pid = std::fs::read_to_string(&pids).unwrap();
    assert!(std::process::Command::new("kill").args(["-9", pid.trim()]).status().unwrap().success());
    for client in [&mut a, &mut b] {
        match client.verdict() {
            Verdict::Failed(failure) => assert_eq!(failure.cause, Cause::RepositoryUnreachable),
            other => panic!("{other:?}"),
        }
    }
    drop((a, b));
    assert_eq!(worker_a.finish(1).failure.unwrap().cause, Cause::RepositoryUnreachable);
    assert_eq!(worker_b.finish(2).failure.unwrap().cause, Cause::RepositoryUnreachable);
    let (worker, mut client) = system.backup("a/x", "never");
    let pid = std::fs::read_to_string(&pids).unwrap();
    let pid = pid.lines().last().unwrap();
    assert!(std::process::Command::new("kill").args(["-9", pid]).status().unwrap().success());
    assert!(matches!(client.archive("f", &[&noise(2, 1000)], false), Verdict::Failed(_)));
    drop(client);
    assert_eq!(worker.finish(3).failure.unwrap().cause, Cause::RepositoryUnreachable);
    let (worker, mut client) = system.backup("a/x", "again");
    assert_eq!(client.archive("f", &[&noise(2, 1000)], false), Verdict::Accepted);
    client.end();
    assert!(worker.finish(4).archive.is_some());
    assert_eq!(system.intents(), 0);
    system.stop();
    assert_eq!(system.judge(), ["again"]);
}

/// A borg whose calls are written down, so that deletions can be counted.
fn listen_in(system: &mut System) -> impl Fn() -> usize + use<> {
    let calls = system.dir.path().join("calls");
    let script = system.dir.path().join("borg");
    std::fs::write(&script, format!("#!/bin/sh\ntee -a {} | /usr/bin/borg \"$@\"\n", calls.display())).unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    system.stop();
    system.set("BORGCUBE_BORG", script.to_str().unwrap());
    system.set("BORGCUBE_ENGINE", "served");
    system.start();
    move || harness::read(&calls).windows(6).filter(|window| window == b"delete").count()
}

const TINY: u64 = 20_000;

fn put_many(client: &mut harness::Client) {
    for n in 0..TINY {
        client.put(&n.to_le_bytes());
        if n % 64 == 0 {
            // Takes the credit that has come back, or both would wait for each other.
            assert_eq!(client.read([9; 32]), None);
        }
    }
    // Everything has arrived.
    let last = client.put(b"last");
    assert_eq!(client.read(last.id).unwrap(), b"last");
}

#[test]
fn many_chunks_of_a_session_that_disappears_keep_nobody() {
    let mut system = System::new(EncryptionMode::Repokey);
    let deletions = listen_in(&mut system);
    let (worker, mut client) = system.backup("a/x", "dies");
    put_many(&mut client);
    drop(client);
    worker.finish(1);
    let began = Instant::now();
    let (worker, mut client) = system.backup("a/x", "lives");
    // Reads and commits come behind what is under way.
    let again = client.put(&7u64.to_le_bytes());
    assert_eq!(client.read(again.id).unwrap(), 7u64.to_le_bytes());
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert!(deletions() <= 201, "{}", deletions());
    assert_eq!(client.archive_of("f", &[again], false), Verdict::Accepted);
    client.end();
    assert!(worker.finish(2).archive.is_some());
    // And once more, ended by the service manager in the middle.
    let (_worker, mut client) = system.backup("a/x", "dies");
    put_many(&mut client);
    system.stop();
    assert!(deletions() <= 402, "{}", deletions());
    assert_eq!(system.judge(), ["lives"]);
}

#[test]
fn orphans_in_anothers_transaction_go_after_its_commit() {
    let mut system = System::new(EncryptionMode::Repokey);
    let deletions = listen_in(&mut system);
    let (worker_a, mut a) = system.backup("a/x", "dies");
    let (worker_b, mut b) = system.backup("b/x", "lives");
    put_many(&mut a);
    let own = b.put(b"own");
    assert_eq!(b.read(own.id).unwrap(), b"own");
    drop(a);
    worker_a.finish(1);
    let began = Instant::now();
    let (worker_c, mut c) = system.backup("c/x", "later");
    // An orphan is there for who sends it, and for nobody else.
    let orphan = c.put(&7u64.to_le_bytes());
    assert_eq!(c.read(orphan.id).unwrap(), 7u64.to_le_bytes());
    assert_eq!(b.read(orphan.id), None);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert_eq!(deletions(), 0);
    assert_eq!(b.archive_of("f", &[own], false), Verdict::Accepted);
    let began = Instant::now();
    let before = deletions();
    assert_eq!(c.read(orphan.id).unwrap(), 7u64.to_le_bytes());
    let between = deletions() - before;
    assert!(between < 2000 && began.elapsed() < Duration::from_secs(20), "{between} {:?}", began.elapsed());
    b.end();
    assert!(worker_b.finish(2).archive.is_some());
    assert_eq!(c.archive_of("f", &[orphan], false), Verdict::Accepted);
    c.end();
    assert!(worker_c.finish(3).archive.is_some());
    // All of them but the one that is used now.
    retry_until(PATIENCE, || (deletions() as u64 >= TINY).then_some(())).expect("deletions");
    system.stop();
    assert_eq!(system.judge(), ["lives", "later"]);
}
