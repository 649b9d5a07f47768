//! The locking table (`docs/locking.md`): each pair of operations that may meet in one repository.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod harness;

use harness::{Client, Maintenance, System, Worker, noise};
use model::{Cause, EncryptionMode};
use std::path::Path;
use std::time::{Duration, Instant};
use testkit::Borg;
use wire::maintenance::{Operation, Report};
use wire::session::{Reference, Verdict, kind};

/// A backup that is done.
fn backup(system: &System, config: &str, name: &str, chunks: &[&[u8]]) -> Vec<Reference> {
    let (worker, mut client) = system.backup(config, name);
    let job = client.opened.job;
    let references: Vec<_> = chunks.iter().map(|chunk| client.put(chunk)).collect();
    assert_eq!(client.archive_of("f", &references, false), Verdict::Accepted);
    client.end();
    assert!(worker.finish(job).archive.is_some());
    references
}

/// A session that has sent these chunks, and everything has arrived.
fn sent(system: &System, config: &str, name: &str, chunks: &[&[u8]]) -> (Worker, Client, Vec<Reference>) {
    let (worker, mut client) = system.backup(config, name);
    let references: Vec<_> = chunks.iter().map(|chunk| client.put(chunk)).collect();
    for reference in &references {
        assert!(client.read(reference.id).is_some());
    }
    (worker, client, references)
}

fn paused(system: &mut System, place: &str) {
    system.stop();
    system.set("BORGCUBE_TEST_PAUSE", place);
    system.start();
}

fn crash(system: &mut System) {
    system.wait_for_pause();
    system.kill();
    system.set("BORGCUBE_TEST_PAUSE", "");
    system.start();
}

/// Lets a new owner open the repository and put in order what it finds.
fn settle(system: &mut System) {
    let mut worker = system.worker();
    let job = system.job("settle/x");
    worker.prepare(job, "settle").unwrap();
    worker.finish(job);
    system.stop();
}

fn commits(system: &System) -> usize {
    let log = system.store.read(|r| r.log().newest(1000)).unwrap();
    log.iter().filter(|entry| entry.note.contains("about to commit")).count()
}

#[test]
fn commits_that_wait_together_are_one() {
    let mut system = System::new(EncryptionMode::Repokey);
    paused(&mut system, "group=1500");
    let names = ["one", "two", "three", "one"];
    let mut clients: Vec<_> = (0..).zip(names).map(|(n, name)| system.backup(&format!("c{n}/x"), name)).collect();
    for (n, (_, client)) in (0..).zip(&mut clients) {
        let chunk = client.put(&noise(n, 5000));
        let item = client.put(&harness::item("f", &[chunk]));
        assert_eq!(client.propose(&[item.id], &[chunk], false), Verdict::Accepted);
    }
    for (_, client) in &mut clients {
        wire::frame::write(&mut client.stream, kind::COMMIT, &[]).unwrap();
        std::thread::sleep(Duration::from_millis(50));
    }
    let verdicts: Vec<_> = clients.iter_mut().map(|(_, client)| client.verdict()).collect();
    // The second one of that name is too late, and that is nobody else's business.
    assert_eq!(verdicts[..3], [Verdict::Accepted, Verdict::Accepted, Verdict::Accepted]);
    assert!(matches!(&verdicts[3], Verdict::Failed(failure) if failure.cause == Cause::ArchiveExists), "{verdicts:?}");
    assert_eq!(commits(&system), 1);
    drop(clients);
    system.stop();
    assert_eq!(system.judge(), ["one", "two", "three"]);
    assert_eq!(system.archives().len(), 3);
}

#[test]
fn a_crash_in_a_common_commit_leaves_all_or_none() {
    for (place, survive) in [("before-commit", 0), ("after-journal", 0), ("after-commit", 2)] {
        let mut system = System::new(EncryptionMode::Repokey);
        // Both come while the first one's intent is being prepared: they are in one group or in two, and each is whole or not there.
        paused(&mut system, place);
        let mut clients: Vec<_> =
            ["a", "b"].iter().map(|name| sent(&system, &format!("{name}/x"), name, &[&noise(name.len() as u64, 100)])).collect();
        let mut waiting = vec![];
        for (_, client, chunks) in &mut clients {
            let item = client.put(&harness::item("f", chunks));
            assert_eq!(client.propose(&[item.id], chunks, false), Verdict::Accepted);
            waiting.push(client);
        }
        for client in waiting {
            wire::frame::write(&mut client.stream, kind::COMMIT, &[]).unwrap();
        }
        crash(&mut system);
        drop(clients);
        settle(&mut system);
        assert!(system.archives().len() <= survive, "{place}");
        assert_eq!(system.archives().is_empty(), survive == 0, "{place}");
        assert_eq!(system.intents(), 0);
        let mut names: Vec<_> = system.archives().into_iter().map(|archive| archive.name).collect();
        names.sort();
        assert_eq!(system.judge(), names, "{place}");
    }
}

#[test]
fn one_sessions_commit_never_publishes_anothers_half_finished_archive() {
    let mut system = System::new(EncryptionMode::Repokey);
    let (worker_a, mut a, half) = sent(&system, "a/x", "half", &[&noise(1, 50_000), &noise(2, 50_000)]);
    let item = a.put(&harness::item("f", &half));
    // Even accepted: what was not committed is not there.
    assert_eq!(a.propose(&[item.id], &half, false), Verdict::Accepted);
    backup(&system, "b/x", "whole", &[&noise(3, 50_000)]);
    assert_eq!(system.archives().len(), 1);
    // Nor is what it sent in anybody's view, its own included.
    let (view, job) = (system.worker().prepare(system.job("a/y"), "later"), 3);
    assert_eq!(view.unwrap().0.view_chunks, 0, "job {job}");
    system.kill();
    drop((a, worker_a));
    system.start();
    settle(&mut system);
    // `borg check` of 1.4.5 says nothing of orphans.
    assert_eq!(system.judge(), ["whole"]);
}

#[test]
fn what_a_crash_left_behind_goes_at_the_next_opening() {
    for place in ["before-commit", "after-journal", "after-commit"] {
        let mut system = System::new(EncryptionMode::Repokey);
        paused(&mut system, place);
        let (_worker, a, _) = sent(&system, "a/x", "dies", &[&noise(1, 50_000), &noise(2, 50_000)]);
        let (_worker, mut b, chunks) = sent(&system, "b/x", "crashes", &[&noise(2, 50_000), &noise(3, 50_000)]);
        let item = b.put(&harness::item("f", &chunks));
        assert_eq!(b.propose(&[item.id], &chunks, false), Verdict::Accepted);
        wire::frame::write(&mut b.stream, kind::COMMIT, &[]).unwrap();
        crash(&mut system);
        drop((a, b));
        settle(&mut system);
        let expected: &[&str] = if place == "after-commit" { &["crashes"] } else { &[] };
        assert_eq!(system.judge(), expected, "{place}");
        let journal = std::fs::read(system.layout.views("main").join("orphans")).unwrap();
        assert_eq!(journal.len(), 8, "{place}: nothing is left to be settled");
    }
}

#[test]
fn what_may_belong_to_an_archive_of_other_origin_stays() {
    let mut system = System::new(EncryptionMode::Repokey);
    let content = noise(1, 100_000);
    let (_worker, a, _) = sent(&system, "a/x", "dies", &[&content]);
    backup(&system, "b/x", "lives", &[b"b"]);
    system.kill();
    drop(a);
    // A stock borg that finds the chunk, as its cutting gives the same one.
    let file = system.dir.path().join("file");
    std::fs::write(&file, &content).unwrap();
    let world = system.world();
    for borg in Borg::judges().into_iter().take(1) {
        borg.run(&world, ["break-lock", system.repo().to_str().unwrap()]).unwrap();
        borg.create(&world, &system.repo(), "stock", &[], &[&file]).unwrap();
    }
    system.start();
    settle(&mut system);
    assert_eq!(system.judge(), ["lives", "stock"]);
    // Once that is gone, so are the orphans.
    let borg = Borg::judges().remove(0);
    borg.run(&world, ["delete", &format!("{}::stock", system.repo().display())]).unwrap();
    system.start();
    settle(&mut system);
    assert_eq!(system.judge(), ["lives"]);
}

#[test]
fn a_delete_takes_what_nothing_else_refers_to() {
    let mut system = System::new(EncryptionMode::Repokey);
    let (own, shared) = (noise(1, 50_000), noise(2, 50_000));
    backup(&system, "a/x", "one", &[&own, &shared]);
    backup(&system, "b/x", "two", &[&shared]);
    let dry = system.maintain(Operation::Delete { archives: vec!["one".into()], dry_run: true }).unwrap();
    let Report::Deleted { chunks: 2, bytes, kept_because: None, .. } = dry else { panic!("{dry:?}") };
    assert!(bytes > 50_000 && bytes < 51_000, "{bytes}");
    assert_eq!(system.archives().len(), 2);
    let failure = system.maintain(Operation::Delete { archives: vec!["one".into(), "none".into()], dry_run: false }).unwrap_err();
    assert!(failure.message.contains("none"), "{}", failure.message);
    let done = system.maintain(Operation::Delete { archives: vec!["one".into()], dry_run: false }).unwrap();
    assert_eq!(done, dry);
    assert_eq!(system.archives().len(), 1);
    system.stop();
    assert_eq!(system.judge(), ["two"]);
}

#[test]
fn a_delete_beside_a_backup_keeps_what_the_backup_relies_on() {
    let mut system = System::new(EncryptionMode::Repokey);
    let (seen, again, other) = (noise(1, 50_000), noise(2, 50_000), noise(3, 50_000));
    let chunks = backup(&system, "a/x", "one", &[&seen, &again, &other]);
    // One session has a chunk in its view, another has sent one that was there.
    let (worker_a, mut a) = system.backup("a/x", "two");
    let (worker_b, mut b, sent) = sent(&system, "b/x", "three", &[&again]);
    assert_eq!(system.delete(&["one"]), 0, "all of it is in the view of a session");
    assert_eq!(a.read(chunks[0].id).unwrap(), seen);
    assert_eq!(a.archive_of("f", &chunks[..1], false), Verdict::Accepted);
    assert_eq!(b.archive_of("f", &sent, false), Verdict::Accepted);
    a.end();
    b.end();
    assert!(worker_a.finish(2).archive.is_some() && worker_b.finish(3).archive.is_some());
    system.stop();
    // What neither of them used went with them.
    assert_eq!(system.judge(), ["two", "three"]);
}

#[test]
fn a_crash_in_a_delete_is_settled_at_the_next_opening() {
    for (place, left) in [("after-journal", 2), ("after-removal", 1)] {
        let mut system = System::new(EncryptionMode::Repokey);
        backup(&system, "a/x", "one", &[&noise(1, 50_000)]);
        backup(&system, "b/x", "two", &[&noise(2, 50_000)]);
        paused(&mut system, place);
        let asked = Maintenance::begin(&system, Operation::Delete { archives: vec!["one".into()], dry_run: false });
        crash(&mut system);
        drop(asked);
        settle(&mut system);
        assert_eq!(system.archives().len(), left, "{place}");
        assert_eq!(system.judge().len(), left, "{place}");
    }
}

#[test]
fn archives_of_other_origin_are_deleted_and_keep_chunks() {
    let mut system = System::new(EncryptionMode::Repokey);
    backup(&system, "a/x", "one", &[&noise(1, 50_000)]);
    system.stop();
    let borg = Borg::judges().remove(0);
    for name in ["stock", "other"] {
        borg.create(&system.world(), &system.repo(), name, &[], &[Path::new("/etc/hostname")]).unwrap();
    }
    system.start();
    let delete = |name: &str| match system.maintain(Operation::Delete { archives: vec![name.into()], dry_run: false }).unwrap() {
        Report::Deleted { chunks, kept_because, .. } => (chunks, kept_because.unwrap_or_default()),
        other => panic!("{other:?}"),
    };
    let (chunks, because) = delete("one");
    assert!(chunks == 0 && because.contains("other, stock"), "{because}");
    let (chunks, because) = delete("stock");
    assert!(chunks == 0 && because.contains("other"), "{because}");
    let (_, because) = delete("other");
    assert!(because.contains("has no list of their chunks: other"), "{because}");
    system.stop();
    let list = borg.run(&system.world(), ["list", "--short", system.repo().to_str().unwrap()]).unwrap();
    assert_eq!(list, "");
}

#[test]
fn an_archive_whose_name_is_no_text_is_not_deleted_for_ever() {
    let mut system = System::new(EncryptionMode::Repokey);
    system.stop();
    let borg = Borg::judges().remove(0);
    // Borg 1.x takes a name's bytes as they are; `\u{fffd}` is how such a name is shown.
    borg.create(&system.world(), &system.repo(), "sh\u{fffd}wn", &[], &[Path::new("/etc/hostname")]).unwrap();
    system.start();
    let refused = system.maintain(Operation::Delete { archives: vec!["sh\u{fffd}wn".into()], dry_run: false }).unwrap_err();
    assert!(refused.message.contains("not valid UTF-8") && refused.message.contains("borg rename"), "{refused:?}");
}

#[test]
fn sessions_wait_while_the_repository_is_lent_and_go_on() {
    let mut system = System::new(EncryptionMode::Repokey);
    let first = backup(&system, "a/x", "one", &[&noise(1, 50_000)]);
    let (worker, mut client, chunks) = sent(&system, "a/x", "two", &[&noise(2, 50_000)]);
    let (lent, granted) = system.release();
    assert_eq!((granted.url.as_str(), granted.sessions), (system.repo().to_str().unwrap(), 1));
    assert!(!system.repo().join("lock.exclusive").exists());
    // A put, a read and the preparation of another job wait; stock borg works.
    let later = client.put(&noise(3, 50_000));
    wire::frame::write(&mut client.stream, kind::READ, &[&first[0].id]).unwrap();
    let mut other = system.worker();
    let job = system.job("b/x");
    let waiting = std::thread::spawn(move || other.prepare(job, "three").map(|prepared| (other, prepared.0.token)));
    let borg = Borg::judges().remove(0);
    borg.create(&system.world(), &system.repo(), "stock", &[], &[Path::new("/etc/hostname")]).unwrap();
    borg.run(&system.world(), ["delete", &format!("{}::stock", system.repo().display())]).unwrap();
    client.stream.set_nonblocking(true).unwrap();
    // The credit of what was put before may come late; nothing else does.
    assert!(client.next().is_none() && client.credit < 60_000, "{}", client.credit);
    client.stream.set_nonblocking(false).unwrap();
    assert!(!waiting.is_finished());
    drop(lent);
    let (found, bytes) = client.next().unwrap();
    assert_eq!((found, &bytes[..32]), (kind::OBJECT, &first[0].id[..]));
    assert_eq!(client.archive_of("f", &[first[0], chunks[0], later], false), Verdict::Accepted);
    client.end();
    assert!(worker.finish(2).archive.is_some());
    let (other, token) = waiting.join().unwrap().unwrap();
    let mut client = system.open(&token).unwrap();
    assert_eq!(client.archive("f", &[b"x"], false), Verdict::Accepted);
    client.end();
    assert!(other.finish(job).archive.is_some());
    system.stop();
    assert_eq!(system.judge(), ["one", "two", "three"]);
}

#[test]
fn what_vanished_while_the_repository_was_lent_ends_its_session_in_view_stale() {
    let mut system = System::new(EncryptionMode::Repokey);
    backup(&system, "a/x", "one", &[&noise(1, 50_000)]);
    let (worker_a, mut a, _) = sent(&system, "b/x", "stale", &[&noise(1, 50_000)]);
    let (worker_b, mut b, chunks) = sent(&system, "c/x", "fine", &[&noise(2, 50_000)]);
    let (lent, _) = system.release();
    let borg = Borg::judges().remove(0);
    borg.run(&system.world(), ["delete", &format!("{}::one", system.repo().display())]).unwrap();
    drop(lent);
    match a.verdict() {
        Verdict::Failed(failure) => assert_eq!(failure.cause, Cause::ViewStale),
        other => panic!("{other:?}"),
    }
    drop(a);
    assert_eq!(worker_a.finish(2).failure.unwrap().cause, Cause::ViewStale);
    assert_eq!(b.archive_of("f", &chunks, false), Verdict::Accepted);
    b.end();
    assert!(worker_b.finish(3).archive.is_some());
    assert_eq!(system.archives().len(), 1);
    system.stop();
    assert_eq!(system.judge(), ["fine"]);
}

#[test]
fn an_archive_that_was_made_while_the_repository_was_lent_keeps_its_chunks() {
    let mut system = System::new(EncryptionMode::Repokey);
    let content = noise(1, 100_000);
    let (worker, client, _) = sent(&system, "a/x", "dies", &[&content]);
    let (lent, _) = system.release();
    let file = system.dir.path().join("file");
    std::fs::write(&file, &content).unwrap();
    let borg = Borg::judges().remove(0);
    borg.create(&system.world(), &system.repo(), "stock", &[], &[&file]).unwrap();
    drop(lent);
    drop(client);
    worker.finish(1);
    system.stop();
    assert_eq!(system.judge(), ["stock"]);
}

#[test]
fn a_repository_that_cannot_be_opened_again_fails_the_sessions_with_the_cause() {
    let system = System::new(EncryptionMode::Repokey);
    let (worker, mut client, _) = sent(&system, "a/x", "one", &[&noise(1, 5000)]);
    let (lent, _) = system.release();
    let away = system.dir.path().join("away");
    std::fs::rename(system.repo(), &away).unwrap();
    drop(lent);
    match client.verdict() {
        Verdict::Failed(failure) => assert_eq!(failure.cause, Cause::RepositoryDoesNotExist),
        other => panic!("{other:?}"),
    }
    drop(client);
    assert_eq!(worker.finish(1).failure.unwrap().cause, Cause::RepositoryDoesNotExist);
    std::fs::rename(&away, system.repo()).unwrap();
    backup(&system, "a/x", "two", &[b"x"]);
}

#[test]
fn nonces_after_a_release_are_new_ones() {
    let mut system = System::new(EncryptionMode::Repokey);
    let (worker, mut client, mut chunks) = sent(&system, "a/x", "one", &[&noise(1, 5000)]);
    for n in 2..5 {
        let (lent, _) = system.release();
        let borg = Borg::judges().remove(0);
        borg.create(&system.world(), &system.repo(), &format!("stock{n}"), &[], &[Path::new("/etc/hostname")]).unwrap();
        drop(lent);
        chunks.push(client.put(&noise(n, 5000)));
    }
    assert_eq!(client.archive_of("f", &chunks, false), Verdict::Accepted);
    client.end();
    worker.finish(1);
    system.stop();
    harness::nonces_are_used_once(&system);
}

#[test]
fn one_release_at_a_time_and_none_under_a_delete() {
    let mut system = System::new(EncryptionMode::Repokey);
    backup(&system, "a/x", "one", &[&noise(1, 5000)]);
    let (lent, _) = system.release();
    let began = Instant::now();
    let failure = system.maintain(Operation::Release { wait_seconds: 1 }).unwrap_err();
    assert_eq!(failure.cause, Cause::RepositoryLockTimeout);
    assert!(failure.message.contains("a release") && began.elapsed() >= Duration::from_secs(1), "{}", failure.message);
    let deleting = Maintenance::begin(&system, Operation::Delete { archives: vec!["one".into()], dry_run: false });
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(system.archives().len(), 1);
    drop(lent);
    assert!(matches!(deleting.report(), Ok(Report::Deleted { chunks: 2, .. })));
    // And the other way round.
    backup(&system, "a/x", "two", &[&noise(1, 5000)]);
    paused(&mut system, "after-removal=1500");
    let deleting = Maintenance::begin(&system, Operation::Delete { archives: vec!["two".into()], dry_run: false });
    system.wait_for_pause();
    let failure = system.maintain(Operation::Release { wait_seconds: 0 }).unwrap_err();
    assert!(failure.message.contains("a delete"), "{}", failure.message);
    let (lent, _) = system.release();
    assert!(deleting.report().is_ok());
    drop(lent);
    system.stop();
    assert_eq!(system.judge(), [""; 0]);
}

/// What a release that would not wait is told.
fn refused_release(system: &System) -> String {
    let failure = system.maintain(Operation::Release { wait_seconds: 0 }).unwrap_err();
    assert_eq!(failure.cause, Cause::RepositoryLockTimeout);
    failure.message
}

#[test]
fn a_release_that_a_session_keeps_waiting_ends_in_time_and_says_who_it_is() {
    let mut system = System::new(EncryptionMode::Repokey);
    paused(&mut system, "before-commit=2500");
    let (worker, mut client, chunks) = sent(&system, "a/x", "one", &[&noise(1, 5000)]);
    let item = client.put(&harness::item("f", &chunks));
    assert_eq!(client.propose(&[item.id], &chunks, false), Verdict::Accepted);
    wire::frame::write(&mut client.stream, kind::COMMIT, &[]).unwrap();
    system.wait_for_pause();
    let message = refused_release(&system);
    assert!(message.contains("job 1 (a/x)") && message.contains("--wait"), "{message}");
    // It has not closed the gate for those who go on.
    assert_eq!(client.verdict(), Verdict::Accepted);
    client.end();
    assert!(worker.finish(1).archive.is_some());
    drop(system.release());
}

#[test]
fn a_check_and_a_release_go_one_after_the_other() {
    let mut system = System::new(EncryptionMode::Repokey);
    backup(&system, "a/x", "one", &[&noise(1, 5000)]);
    let before = check(&system, true).0;
    let (lent, _) = system.release();
    let checking = Maintenance::begin(&system, Operation::Check { verify_data: true });
    let borg = Borg::judges().remove(0);
    borg.create(&system.world(), &system.repo(), "stock", &[], &[Path::new("/etc/hostname")]).unwrap();
    drop(lent);
    let Report::Checked { objects, error_count: 0, .. } = checking.report().unwrap() else { panic!() };
    assert!(objects > before, "it has looked before the repository was given back: {objects} objects, {before} before");
    // And the other way round.
    paused(&mut system, "check=1500");
    let checking = Maintenance::begin(&system, Operation::Check { verify_data: true });
    system.wait_for_pause();
    let message = refused_release(&system);
    assert!(message.contains("a check"), "{message}");
    let (lent, _) = system.release();
    // Nobody has taken the repository from under it.
    let Report::Checked { error_count: 0, .. } = checking.report().unwrap() else { panic!() };
    drop(lent);
}

#[test]
fn a_compact_and_a_release_go_one_after_the_other() {
    let mut system = System::new(EncryptionMode::Repokey);
    backup(&system, "a/x", "gone", &[&noise(1, 500_000)]);
    backup(&system, "a/x", "kept", &[&noise(2, 500_000)]);
    let (lent, _) = system.release();
    let compacting = Maintenance::begin(&system, Operation::Compact { threshold: 0 });
    let borg = Borg::judges().remove(0);
    borg.run(&system.world(), ["delete", &format!("{}::gone", system.repo().display())]).unwrap();
    drop(lent);
    let Report::Compacted { freed, .. } = compacting.report().unwrap() else { panic!() };
    assert!(freed > 400_000, "it has looked before the repository was given back: {freed} bytes");
    // And the other way round.
    system.delete(&["kept"]);
    paused(&mut system, "compact=1500");
    let compacting = Maintenance::begin(&system, Operation::Compact { threshold: 0 });
    system.wait_for_pause();
    let message = refused_release(&system);
    assert!(message.contains("a compact"), "{message}");
    let (lent, _) = system.release();
    let Report::Compacted { freed, .. } = compacting.report().unwrap() else { panic!() };
    assert!(freed > 400_000, "{freed}");
    drop(lent);
    system.stop();
    assert_eq!(system.judge(), [""; 0]);
}

#[test]
fn stock_borg_without_a_release_is_told_that_it_is_locked_and_so_are_we() {
    let mut system = System::new(EncryptionMode::Repokey);
    let (worker, client, _) = sent(&system, "a/x", "one", &[b"x"]);
    let borg = Borg::judges().remove(0);
    let error = borg.create(&system.world(), &system.repo(), "stock", &[], &[Path::new("/etc/hostname")]).unwrap_err();
    assert!(error.to_string().to_lowercase().contains("lock"), "{error}");
    drop(client);
    worker.finish(1);
    system.stop();
    system.set("BORGCUBE_LOCK_WAIT", "1");
    system.start();
    // A stock borg that is at work on another machine.
    let lock = system.repo().join("lock.exclusive");
    std::fs::create_dir(&lock).unwrap();
    std::fs::write(lock.join("elsewhere@1.77-0"), "").unwrap();
    let failure = system.worker().prepare(system.job("a/x"), "one").unwrap_err();
    assert_eq!(failure.cause, Cause::RepositoryLockTimeout);
    assert!(failure.message.contains("elsewhere@1.77-0"), "{}", failure.message);
    assert_eq!(system.maintain(Operation::Compact { threshold: 10 }).unwrap_err().cause, Cause::RepositoryLockTimeout);
    std::fs::remove_dir_all(&lock).unwrap();
    backup(&system, "a/x", "two", &[b"x"]);
}

fn compact(system: &System) -> (u64, u64, u64) {
    match system.maintain(Operation::Compact { threshold: 0 }).unwrap() {
        Report::Compacted { segments, freed, orphans, skipped: 0 } => (segments, freed, orphans),
        other => panic!("{other:?}"),
    }
}

fn check(system: &System, verify_data: bool) -> (u64, Vec<String>) {
    match system.maintain(Operation::Check { verify_data }).unwrap() {
        Report::Checked { objects, errors, error_count, .. } => {
            assert_eq!(errors.len() as u64, error_count);
            (objects, errors)
        }
        other => panic!("{other:?}"),
    }
}

fn size(system: &System) -> u64 {
    let files = std::fs::read_dir(system.repo().join("data/0")).unwrap();
    // One that is removed meanwhile has no bytes.
    files.map(|entry| entry.unwrap().metadata().map_or(0, |metadata| metadata.len())).sum()
}

#[test]
fn a_compact_gives_space_back_and_backups_and_reads_go_on_beside_it() {
    let mut system = System::new(EncryptionMode::Repokey);
    let content: Vec<Vec<u8>> = (0..12).map(|n| noise(n, 4_000_000)).collect();
    for (n, chunk) in content.iter().enumerate() {
        // Half of each segment goes, half of it stays.
        backup(&system, "a/x", &format!("gone{n}"), &[&chunk[..2_000_000]]);
        backup(&system, "b/x", &format!("kept{n}"), &[&chunk[2_000_000..]]);
    }
    let names: Vec<_> = (0..12).map(|n| format!("gone{n}")).collect();
    assert_eq!(system.delete(&names.iter().map(String::as_str).collect::<Vec<_>>()), 24);
    let before = size(&system);
    let (worker, mut client) = system.backup("b/x", "beside");
    let compacting = Maintenance::begin(&system, Operation::Compact { threshold: 0 });
    let report = std::thread::spawn(move || compacting.report());
    let (mut chunks, mut longest, mut n) = (vec![], Duration::ZERO, 100);
    while !report.is_finished() {
        let began = Instant::now();
        chunks.push(client.put(&noise(n, 20_000)));
        assert!(client.read(chunks[chunks.len() - 1].id).is_some());
        longest = longest.max(began.elapsed());
        n += 1;
    }
    println!("{} puts and reads beside it, the slowest took {longest:?}", chunks.len());
    assert!(longest < Duration::from_secs(2), "{longest:?}");
    let Report::Compacted { segments, freed, orphans: 0, .. } = report.join().unwrap().unwrap() else { panic!() };
    assert!(segments >= 12 && freed > 23_000_000, "{segments} {freed}");
    // Emptied segments are removed behind its back. What was put meanwhile takes room, all the more on a slow machine.
    let deadline = Instant::now() + Duration::from_secs(30);
    let put = chunks.len() as u64 * 21_000;
    while size(&system) >= before + put - 20_000_000 {
        assert!(Instant::now() < deadline, "{} of {before} bytes are still there", size(&system));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(client.archive_of("f", &chunks, false), Verdict::Accepted);
    client.end();
    assert!(worker.finish(25).archive.is_some());
    // Once more there is next to nothing left to do.
    assert!(compact(&system).1 < 100_000);
    assert_eq!(check(&system, true).1, [""; 0]);
    system.stop();
    assert_eq!(system.judge().len(), 13);
}

#[test]
fn a_compact_says_what_it_left_alone_because_it_is_damaged() {
    let system = System::new(EncryptionMode::Repokey);
    let chunks = backup(&system, "a/x", "one", &[&noise(1, 5000), &noise(2, 5000)]);
    let (worker, mut client) = system.backup("a/x", "two");
    let job = client.opened.job;
    assert_eq!(client.archive_of("f", &chunks[1..], false), Verdict::Accepted);
    client.end();
    assert!(worker.finish(job).archive.is_some());
    assert!(system.delete(&["one"]) > 0);
    // The id of what stays rots in the segment that could be half as large.
    let mut rotten = 0;
    for entry in std::fs::read_dir(system.repo().join("data/0")).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        for (at, _) in bytes.windows(32).enumerate().filter(|(_, id)| *id == chunks[1].id) {
            let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
            std::os::unix::fs::FileExt::write_all_at(&file, &[!bytes[at]], at as u64).unwrap();
            rotten += 1;
        }
    }
    assert_eq!(rotten, 1);
    let report = system.maintain(Operation::Compact { threshold: 0 }).unwrap();
    assert!(matches!(report, Report::Compacted { skipped: 1, .. }), "{report:?}");
}

#[test]
fn a_crash_in_a_compact_loses_nothing() {
    let mut system = System::new(EncryptionMode::Repokey);
    backup(&system, "a/x", "gone", &[&noise(1, 500_000)]);
    backup(&system, "a/x", "kept", &[&noise(2, 500_000)]);
    system.delete(&["gone"]);
    paused(&mut system, "compact");
    let (_worker, client, _) = sent(&system, "b/x", "dies", &[&noise(3, 50_000)]);
    let asked = Maintenance::begin(&system, Operation::Compact { threshold: 0 });
    crash(&mut system);
    drop((asked, client));
    assert!(compact(&system).1 > 400_000);
    system.stop();
    assert_eq!(system.judge(), ["kept"]);
}

#[test]
fn a_compact_deletes_what_the_journal_knows() {
    let mut system = System::new(EncryptionMode::Repokey);
    let (_worker, a, _) = sent(&system, "a/x", "dies", &[&noise(1, 100_000), &noise(2, 100_000)]);
    backup(&system, "b/x", "lives", &[b"b"]);
    system.kill();
    drop(a);
    let borg = Borg::judges().remove(0);
    borg.run(&system.world(), ["break-lock", system.repo().to_str().unwrap()]).unwrap();
    borg.create(&system.world(), &system.repo(), "stock", &[], &[Path::new("/etc/hostname")]).unwrap();
    system.start();
    assert_eq!(compact(&system).2, 0, "an archive of other origin may refer to them");
    // Somebody relies on one of them meanwhile.
    let (worker, mut c, chunks) = sent(&system, "c/x", "again", &[&noise(2, 100_000)]);
    let (lent, _) = system.release();
    borg.run(&system.world(), ["delete", &format!("{}::stock", system.repo().display())]).unwrap();
    drop(lent);
    assert_eq!(compact(&system).2, 1);
    assert_eq!(c.archive_of("f", &chunks, false), Verdict::Accepted);
    c.end();
    assert!(worker.finish(3).archive.is_some());
    system.stop();
    assert_eq!(system.judge(), ["lives", "again"]);
}

#[test]
fn a_check_beside_backups_finds_nothing_wrong() {
    let mut system = System::new(EncryptionMode::RepokeyBlake2);
    backup(&system, "a/x", "one", &[&noise(1, 50_000)]);
    let (worker, mut client) = system.backup("a/x", "two");
    let mut chunks = vec![];
    for n in 0..5 {
        let checking = Maintenance::begin(&system, Operation::Check { verify_data: n % 2 == 0 });
        chunks.extend((0..50).map(|m| client.put(&noise(100 * n + m, 3000))));
        assert_eq!(client.archive_of("f", &chunks, true), Verdict::Accepted);
        let Report::Checked { objects, bytes, errors, error_count: 0, .. } = checking.report().unwrap() else { panic!() };
        // A manifest that is replaced meanwhile is of neither time.
        assert!(objects >= 3 && bytes > 50_000 && errors.is_empty(), "{objects} {bytes}");
    }
    assert_eq!(client.archive_of("f", &chunks, false), Verdict::Accepted);
    client.end();
    assert!(worker.finish(2).archive.is_some());
    system.stop();
    assert_eq!(system.judge(), ["one", "two"]);
}

#[test]
fn a_check_names_what_is_damaged() {
    let mut system = System::new(EncryptionMode::Repokey);
    let lost = backup(&system, "a/x", "loses-a-chunk", &[&noise(1, 50_000)])[0];
    let bad = backup(&system, "a/x", "is-damaged", &[&noise(2, 50_000)])[0];
    system.stop();
    let options = repository::OpenOptions { exclusive: true, lock_wait: 5, ..repository::OpenOptions::at(system.repo().to_str().unwrap()) };
    let mut repository = repository::Repository::open(&options).unwrap();
    repository.delete(&borg::Id(lost.id)).unwrap();
    // Whole for the storage, and not what its id promises.
    let envelope = repository.get(&borg::Id::MANIFEST).unwrap();
    repository.put(&borg::Id(bad.id), &envelope, 0).unwrap();
    repository.commit().unwrap();
    repository.close();
    system.start();
    let (_, errors) = check(&system, false);
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].starts_with("archive loses-a-chunk: 1 of its chunks are missing"), "{errors:?}");
    let (_, errors) = check(&system, true);
    assert!(errors.iter().any(|error| error.contains(&borg::Id(bad.id).to_hex()) && error.contains("promises")), "{errors:?}");
    // A bit on the disk.
    system.stop();
    let largest = std::fs::read_dir(system.repo().join("data/0")).unwrap().map(|entry| entry.unwrap().path());
    let largest = largest.max_by_key(|path| std::fs::metadata(path).unwrap().len()).unwrap();
    let mut bytes = std::fs::read(&largest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&largest, bytes).unwrap();
    system.start();
    println!("{:?}", check(&system, false).1);
}

#[test]
fn a_release_waits_for_a_commit_and_reads_wait_for_the_release() {
    let mut system = System::new(EncryptionMode::Repokey);
    backup(&system, "a/x", "one", &[&noise(1, 5000)]);
    paused(&mut system, "before-commit=1500");
    let (worker, mut client, chunks) = sent(&system, "a/x", "two", &[&noise(2, 5000)]);
    let item = client.put(&harness::item("f", &chunks));
    assert_eq!(client.propose(&[item.id], &chunks, false), Verdict::Accepted);
    wire::frame::write(&mut client.stream, kind::COMMIT, &[]).unwrap();
    system.wait_for_pause();
    let (lent, _) = system.release();
    // What was under way is done.
    assert_eq!(client.verdict(), Verdict::Accepted);
    assert_eq!(system.archives().len(), 2);
    let borg = Borg::judges().remove(0);
    assert_eq!(borg.run(&system.world(), ["list", "--short", system.repo().to_str().unwrap()]).unwrap().lines().count(), 2);
    drop(lent);
    assert_eq!(client.read(chunks[0].id).unwrap(), noise(2, 5000));
    client.end();
    assert!(worker.finish(2).archive.is_some());
    system.stop();
    assert_eq!(system.judge(), ["one", "two"]);
}
