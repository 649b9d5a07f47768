//! What hostile clients, crashes and broken repositories may not do.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod harness;

use harness::{System, noise};
use model::{Cause, EncryptionMode, Timestamp};
use std::time::Duration;
use testkit::Borg;
use wire::session::{Reference, Verdict, Violation, kind, write_json};

fn rule(verdict: Verdict) -> String {
    match verdict {
        Verdict::Violation(violation) => violation.rule,
        other => panic!("{other:?}"),
    }
}

#[test]
fn references_that_are_not_ours() {
    let mut system = System::new(EncryptionMode::RepokeyBlake2);
    let (worker, mut client) = system.backup("victim/etc", "secret");
    let secret = client.put(b"the victim's secret");
    assert_eq!(client.archive_of("f", &[secret], false), Verdict::Accepted);
    client.end();
    worker.finish(1);

    type Attack = fn(&mut harness::Client, Reference) -> Verdict;
    let attacks: [(&str, Attack); 5] = [
        ("unknown-chunk", |client, secret| client.archive_of("f", &[secret], false)),
        ("unknown-chunk", |client, secret| client.propose(&[secret.id], &[], false)),
        ("unknown-chunk", |client, _| client.archive_of("f", &[Reference { id: [7; 32], size: 1, csize: 1 }], true)),
        ("chunk-size", |client, _| {
            let own = client.put(b"twelve bytes");
            client.archive_of("f", &[Reference { size: 13, ..own }], false)
        }),
        // One bad reference among many good ones, in an earlier frame.
        ("unknown-chunk", |client, secret| {
            let own = client.put(b"own");
            let mut bytes = vec![];
            secret.encode(&mut bytes);
            wire::frame::write(&mut client.stream, kind::REFS, &[&bytes]).unwrap();
            client.archive_of("f", &vec![own; 5000], false)
        }),
    ];
    for (number, (expected, attack)) in (2..).zip(attacks) {
        let (worker, mut client) = system.backup("evil/etc", "stolen");
        assert_eq!(rule(attack(&mut client, secret)), expected);
        // Nothing is accepted, so there is nothing to commit.
        assert!(matches!(client.commit(), Verdict::Failed(_)));
        drop(client);
        let outcome = worker.finish(number);
        assert_eq!(outcome.failure.unwrap().cause, Cause::PolicyViolation { rule: expected.into() });
        assert!(outcome.archive.is_none() && outcome.checkpoint.is_none());
    }
    system.stop();
    assert_eq!(system.judge(), ["secret"]);
    assert_eq!(system.archives().len(), 1);
}

/// No client gets as far, because metadata that names so many is larger than an object may be; a session that was taken over would.
#[test]
fn an_item_stream_has_no_more_chunks_than_metadata_can_name() {
    let mut system = System::new(EncryptionMode::None);
    for (number, off) in (1..).zip(["", "item-stream-size"]) {
        system.stop();
        // In two pieces, because the switch is to be found in one place only.
        system.set(&["BORGCUBE_TEST", "_RULE_OFF"].concat(), off);
        system.start();
        let (worker, mut client) = system.backup("evil/etc", "endless");
        let item = client.put(b"items");
        for _ in 0..63 {
            wire::frame::write(&mut client.stream, kind::ITEMS, &[&item.id.repeat(10_000)]).unwrap();
        }
        let verdict = match client.propose(&[item.id], &[], false) {
            Verdict::Accepted => client.commit(),
            other => other,
        };
        drop(client);
        let outcome = worker.finish(number);
        assert!(outcome.archive.is_none());
        if off.is_empty() {
            assert_eq!(rule(verdict), "item-stream-size");
            assert_eq!(outcome.failure.unwrap().cause, Cause::PolicyViolation { rule: "item-stream-size".into() });
        } else {
            // Without it, only what is packed in the end is too large.
            assert_eq!(outcome.failure.unwrap().cause, Cause::QuotaExceeded { limit: "object-size".into() });
        }
    }
    system.stop();
    assert_eq!(system.judge(), [""; 0]);
}

#[test]
fn what_sessions_say_becomes_the_jobs_failure() {
    let system = System::new(EncryptionMode::None);
    for (number, (said, cause)) in
        (1..).zip([("paths-overlap", Cause::PathsOverlap), ("bad-id", Cause::PolicyViolation { rule: "bad-id".into() })])
    {
        let (worker, mut client) = system.backup("a/b", "x");
        let violation = Violation { rule: said.into(), detail: "d".into() };
        write_json(&mut client.stream, kind::VIOLATION, &violation).unwrap();
        assert_eq!(client.next(), None);
        assert_eq!(worker.finish(number).failure.unwrap().cause, cause);
    }
    // Nonsense on the socket harms nobody else.
    let mut stream = system.connect();
    std::io::Write::write_all(&mut stream, &[0xff; 100]).unwrap();
    let (worker, mut client) = system.backup("a/b", "x");
    wire::frame::write(&mut client.stream, 77, &[b"?"]).unwrap();
    assert_eq!(client.next(), None);
    assert_eq!(worker.finish(3).failure.unwrap().cause, Cause::SessionLost);
    let (worker, mut client) = system.backup("a/b", "x");
    assert_eq!(client.archive("f", &[b"fine"], false), Verdict::Accepted);
    client.end();
    assert!(worker.finish(4).archive.is_some());
}

#[test]
fn two_at_once_and_one_dies() {
    let mut system = System::new(EncryptionMode::Repokey);
    let (worker_a, mut a) = system.backup("a/x", "dies");
    let (worker_b, mut b) = system.backup("b/x", "lives");
    let shared = noise(1, 50_000);
    a.put(&shared);
    a.put(&noise(2, 50_000));
    // B relies on what A stored; A's other chunk becomes durable with B's commit and has to go again.
    assert_eq!(b.archive("f", &[&shared], false), Verdict::Accepted);
    a.put(&noise(3, 50_000));
    assert_eq!(a.propose(&[], &[], false), Verdict::Accepted);
    drop(a);
    b.end();
    let dead = worker_a.finish(1);
    assert_eq!(dead.failure.unwrap().cause, Cause::SessionLost);
    assert!(worker_b.finish(2).archive.is_some());
    system.stop();
    // `borg check` would report orphans.
    assert_eq!(system.judge(), ["lives"]);
}

#[test]
fn a_session_that_ends_takes_nothing_that_another_has_sent_again() {
    let mut system = System::new(EncryptionMode::Repokey);
    let again = noise(1, 50_000);
    let (worker_a, mut a) = system.backup("a/x", "first");
    assert_eq!(a.archive("f", &[&again], true), Verdict::Accepted);
    // The checkpoint goes with this, and the chunk with the checkpoint.
    assert_eq!(a.archive("g", &[&noise(2, 50_000)], false), Verdict::Accepted);
    let (worker_b, mut b) = system.backup("b/x", "second");
    let chunk = b.put(&again);
    let item = b.put(&harness::item("f", &[chunk]));
    assert_eq!(b.propose(&[item.id], &[chunk], false), Verdict::Accepted);
    // It has sent the chunk as well, but what it sent is gone.
    a.end();
    worker_a.finish(1);
    // The writer is idle, so whatever is nobody's goes before this is answered.
    let mut other = system.worker();
    let job = system.job("c/y");
    other.prepare_only(job, "other").unwrap();
    other.finish(job);
    assert_eq!(b.commit(), Verdict::Accepted);
    b.end();
    assert!(worker_b.finish(2).archive.is_some());
    system.stop();
    assert_eq!(system.judge(), ["first", "second"]);
}

#[test]
fn what_a_proposal_refers_to_stays_until_its_commit() {
    let mut system = System::new(EncryptionMode::Repokey);
    let shared = noise(1, 50_000);
    let mut lost = None;
    for (number, config) in (1..).zip(["a/x", "b/x"]) {
        let (worker, mut client) = system.backup(config, &format!("old{number}"));
        let chunk = client.put(&shared);
        assert_eq!(client.archive_of("f", &[chunk], false), Verdict::Accepted);
        client.end();
        worker.finish(number);
        lost = Some(chunk);
    }
    let lost = lost.unwrap();
    system.stop();
    let mut repository = open_exclusively(&system);
    repository.delete(&borg::Id(lost.id)).unwrap();
    repository.commit().unwrap();
    repository.close();
    system.start();
    // A client with an older cache: prepared before anybody sends the chunk again.
    let (worker_b, mut b) = system.backup("b/x", "lives");
    let (worker_a, mut a) = system.backup("a/x", "dies");
    a.put(&shared);
    assert_eq!(a.read(lost.id).unwrap(), shared);
    // What another session may take with it is in nobody's cache.
    let mut other = system.worker();
    let job = system.job("b/y");
    other.prepare_only(job, "other").unwrap();
    assert_eq!(other.cache().0.chunks, 1);
    other.finish(job);

    let item = b.put(&harness::item("f", &[lost]));
    assert_eq!(b.propose(&[item.id], &[lost], false), Verdict::Accepted);
    drop(a);
    worker_a.finish(4);
    assert_eq!(b.commit(), Verdict::Accepted);
    b.end();
    assert!(worker_b.finish(3).archive.is_some());
    system.stop();
    assert_eq!(system.judge(), ["old1", "old2", "lives"]);
}

#[test]
fn checkpoints_are_replaced_and_go_with_the_next_success() {
    let mut system = System::new(EncryptionMode::Repokey);
    let (worker, mut client) = system.backup("a/x", "one");
    let (p, q, r) = (noise(1, 10_000), noise(2, 10_000), noise(3, 10_000));
    assert_eq!(client.archive("f", &[&p, &q], true), Verdict::Accepted);
    assert_eq!(client.archive("f", &[&p, &r], true), Verdict::Accepted);
    drop(client);
    let outcome = worker.finish(1);
    let checkpoint = outcome.checkpoint.unwrap();
    assert_eq!((checkpoint.name.as_str(), checkpoint.incomplete), ("one.checkpoint", true));
    assert_eq!(outcome.failure.unwrap().cause, Cause::SessionLost);
    assert_eq!(system.archives(), std::slice::from_ref(&checkpoint));
    let views =
        || std::fs::read_dir(system.layout.views("main")).unwrap().filter(|e| e.as_ref().unwrap().path().extension().is_some()).count();
    assert_eq!(views(), 1);

    // Another client's incomplete one, much older, goes too; a younger one stays.
    let (worker, mut client) = system.backup("b/x", "other");
    assert_eq!(client.archive("f", &[&noise(9, 1000)], true), Verdict::Accepted);
    drop(client);
    worker.finish(2);
    let (worker, mut client) = system.backup("c/x", "old");
    assert_eq!(client.archive("f", &[&noise(8, 1000)], true), Verdict::Accepted);
    drop(client);
    let mut old = worker.finish(3).checkpoint.unwrap();
    old.end = Timestamp::now().plus_seconds(-15 * 86_400);
    system.store.write("t", "t", |w| w.archives().put(&old)).unwrap();

    // The resume refers to what the checkpoint had without sending it.
    let mut worker = system.worker();
    let job = system.job("a/x");
    let (prepared, _) = worker.prepare(job, "two").unwrap();
    assert_eq!(prepared.view_chunks, 3);
    let mut client = system.open(&prepared.token).unwrap();
    let chunk = Reference { id: client.key.id_hash(&p).0, size: 10_000, csize: 0 };
    assert_eq!(client.archive_of("f", &[chunk], true), Verdict::Accepted);
    assert_eq!(client.archive_of("f", &[chunk], false), Verdict::Accepted);
    client.end();
    let archive = worker.finish(job).archive.unwrap();
    assert!(archive.statistics.deduplicated_size < 1000);
    let names: Vec<_> = system.archives().into_iter().map(|a| a.name).collect();
    assert_eq!(names, ["other.checkpoint", "two"]);
    assert_eq!(views(), 2);
    system.stop();
    // No orphans: q and r and the item streams of the checkpoints are gone.
    assert_eq!(system.judge().len(), 2);
}

#[test]
fn a_crash_between_intent_and_commit_drops_and_after_it_registers() {
    for (place, survives) in [("before-commit", false), ("after-commit", true)] {
        let mut system = System::new(EncryptionMode::Keyfile);
        system.stop();
        system.set("BORGCUBE_TEST_PAUSE", place);
        system.start();
        let (_worker, mut client) = system.backup("a/x", "crash");
        let reference = client.put(&noise(1, 5000));
        let item = client.put(&harness::item("f", &[reference]));
        assert_eq!(client.propose(&[item.id], &[reference], false), Verdict::Accepted);
        wire::frame::write(&mut client.stream, kind::COMMIT, &[]).unwrap();
        system.wait_for_pause();
        assert_eq!(system.intents(), 1);
        system.kill();
        assert_eq!(client.next(), None);
        assert_eq!(system.archives(), []);
        system.set("BORGCUBE_TEST_PAUSE", "");
        system.start();
        let (worker, mut client) = system.backup("a/x", "next");
        assert_eq!(system.intents(), 0);
        assert_eq!(system.archives().len(), usize::from(survives));
        assert_eq!(client.archive("f", &[b"next"], false), Verdict::Accepted);
        client.end();
        worker.finish(2);
        // Whoever asks for the first job now is told what there is.
        let outcome = system.worker().finish(1);
        assert_eq!(outcome.archive.is_some(), survives);
        assert_eq!(outcome.failure.map(|failure| failure.cause), (!survives).then_some(Cause::OwnerLost));
        let views = std::fs::read_dir(system.layout.views("main")).unwrap().filter(|e| e.as_ref().unwrap().path().extension().is_some());
        assert_eq!(views.count(), 1 + usize::from(survives));
        system.stop();
        assert_eq!(system.judge().len(), 1 + usize::from(survives));
    }
}

#[test]
fn credentials_and_repositories_that_do_not_fit() {
    let mut system = System::new(EncryptionMode::Repokey);
    let passphrase = system.layout.credentials("main").join("passphrase");
    let cause = |system: &System| system.worker().prepare(system.job("a/x"), "x").unwrap_err().cause;
    unix::files::write_private(&passphrase, b"a wrong one").unwrap();
    assert_eq!(cause(&system), Cause::PassphraseWrong);
    unix::files::write_private(&passphrase, harness::PASSPHRASE.as_bytes()).unwrap();

    // Somebody works with the repository.
    let lock = system.repo().join("lock.exclusive");
    std::fs::create_dir(&lock).unwrap();
    std::fs::write(lock.join("other@1.1-0"), "").unwrap();
    system.stop();
    system.set("BORGCUBE_LOCK_WAIT", "1");
    system.start();
    let failure = system.worker().prepare(system.job("a/x"), "x").unwrap_err();
    assert_eq!(failure.cause, Cause::RepositoryLockTimeout);
    assert!(failure.message.contains("other@1.1-0"), "{}", failure.message);
    std::fs::remove_dir_all(&lock).unwrap();

    let away = system.dir.path().join("away");
    std::fs::rename(system.repo(), &away).unwrap();
    assert_eq!(cause(&system), Cause::RepositoryDoesNotExist);
    // Another repository in its place, and one of the same id that is not encrypted.
    let borg = Borg::judges().remove(0);
    borg.init(&system.world(), &system.repo(), "repokey").unwrap();
    assert_eq!(cause(&system), Cause::RepositoryIdMismatch);
    std::fs::remove_dir_all(system.repo()).unwrap();
    borg.init(&system.world(), &system.repo(), "none").unwrap();
    let ours = std::fs::read_to_string(away.join("config")).unwrap();
    let id = ours.lines().find(|line| line.starts_with("id = ")).unwrap();
    let config = std::fs::read_to_string(system.repo().join("config")).unwrap();
    let config: Vec<_> = config.lines().map(|line| if line.starts_with("id = ") { id } else { line }).collect();
    std::fs::write(system.repo().join("config"), config.join("\n") + "\n").unwrap();
    assert_eq!(cause(&system), Cause::RepositoryIntegrity);
    std::fs::remove_dir_all(system.repo()).unwrap();
    std::fs::rename(&away, system.repo()).unwrap();
    let (worker, mut client) = system.backup("a/x", "x");
    assert_eq!(client.archive("f", &[b"fine"], false), Verdict::Accepted);
    client.end();
    let job = system.archives()[0].job;
    assert!(worker.finish(job).archive.is_some());
}

#[test]
fn an_edited_repository_is_used_as_edited() {
    let mut system = System::new(EncryptionMode::Repokey);
    let (worker, mut client) = system.backup("a/x", "one");
    let moved = system.dir.path().join("moved");
    let mut record = system.store.read(|r| r.repositories().require(&system.name)).unwrap();
    record.url = moved.to_str().unwrap().into();
    system.store.write("t", "t", |w| w.repositories().put(&record)).unwrap();
    // A running job keeps what it has; nobody new begins with it.
    let failure = system.worker().prepare(system.job("b/x"), "never").unwrap_err();
    assert_eq!(failure.cause, Cause::RepositoryUnreachable);
    assert!(failure.message.contains("changed"), "{}", failure.message);
    assert_eq!(client.archive("f", &[b"1"], false), Verdict::Accepted);
    client.end();
    worker.finish(1);
    // It was copied while it is idle and open; the lock was not.
    assert!(std::process::Command::new("cp").arg("-r").args([system.repo(), moved.clone()]).status().unwrap().success());
    std::fs::remove_dir_all(moved.join("lock.exclusive")).unwrap();
    std::fs::remove_file(moved.join("lock.roster")).unwrap_or_default();
    let (worker, mut client) = system.backup("a/x", "two");
    assert_eq!(client.archive("f", &[b"2"], false), Verdict::Accepted);
    client.end();
    worker.finish(3);

    let passphrase = system.layout.credentials("main").join("passphrase");
    unix::files::write_private(&passphrase, b"a wrong one").unwrap();
    assert_eq!(system.worker().prepare(system.job("a/x"), "x").unwrap_err().cause, Cause::PassphraseWrong);
    unix::files::write_private(&passphrase, harness::PASSPHRASE.as_bytes()).unwrap();
    let job = system.job("a/x");
    let mut worker = system.worker();
    worker.prepare(job, "x").unwrap();
    worker.finish(job);
    system.stop();
    assert_eq!(system.judge(), ["one"]);
    std::fs::remove_dir_all(system.repo()).unwrap();
    std::fs::rename(&moved, system.repo()).unwrap();
    assert_eq!(system.judge(), ["one", "two"]);
}

#[test]
fn an_archive_of_other_origin_keeps_its_chunks_whatever_its_time() {
    let mut system = System::new(EncryptionMode::Repokey);
    let content = noise(1, 700_000);
    // A checkpoint with a chunk exactly as a stock borg cuts a small file.
    let (worker, mut client) = system.backup("a/x", "one");
    assert_eq!(client.archive("f", &[&content[..100_000]], true), Verdict::Accepted);
    drop(client);
    worker.finish(1);
    system.stop();
    let file = system.dir.path().join("file");
    std::fs::write(&file, &content[..100_000]).unwrap();
    let stock = Borg::judges().remove(0);
    stock.create(&system.world(), &system.repo(), "stock", &["--timestamp", "2020-01-01T00:00:00"], &[&file]).unwrap();
    system.start();
    let (worker, mut client) = system.backup("a/x", "two");
    assert_eq!(client.archive("g", &[b"something else"], false), Verdict::Accepted);
    client.end();
    worker.finish(2);
    system.stop();
    // The checkpoint is gone and left orphans, which `borg check` says; what counts is that nothing is missing.
    let into = system.dir.path().join("extracted");
    stock.extract(&system.world(), &system.repo(), "stock", &into).unwrap();
    assert_eq!(harness::read(&into.join(file.strip_prefix("/").unwrap())), &content[..100_000]);
}

#[test]
fn whoever_asks_a_new_owner_first_is_told_of_the_commit() {
    let mut system = System::new(EncryptionMode::Keyfile);
    system.stop();
    system.set("BORGCUBE_TEST_PAUSE", "after-commit");
    system.start();
    let (_worker, mut client) = system.backup("a/x", "crash");
    let item = client.put(&harness::item("f", &[]));
    assert_eq!(client.propose(&[item.id], &[], false), Verdict::Accepted);
    wire::frame::write(&mut client.stream, kind::COMMIT, &[]).unwrap();
    system.wait_for_pause();
    assert_eq!(system.intents(), 1);
    system.kill();
    system.set("BORGCUBE_TEST_PAUSE", "");
    system.start();
    let outcome = system.worker().finish(1);
    assert_eq!(outcome.archive.as_ref().map(|a| a.name.as_str()), Some("crash"));
    assert!(outcome.opened && outcome.failure.is_none());
    assert_eq!((system.archives().len(), system.intents()), (1, 0));
    system.stop();
    assert_eq!(system.judge(), ["crash"]);
}

#[test]
fn archives_that_another_borg_deleted_are_forgotten() {
    let mut system = System::new(EncryptionMode::Repokey);
    for (number, name) in (1..).zip(["one", "two"]) {
        let (worker, mut client) = system.backup("a/x", name);
        assert_eq!(client.archive("f", &[&noise(number, 1000)], false), Verdict::Accepted);
        client.end();
        worker.finish(number);
    }
    system.stop();
    let earlier = system.dir.path().join("earlier");
    let copy = |from: &std::path::Path, to: &std::path::Path| {
        let copied = std::process::Command::new("cp").arg("-a").args([from, to]).status().unwrap();
        assert!(copied.success());
    };
    copy(&system.repo(), &earlier);
    let old = system.archives().remove(0);
    let stock = Borg::judges().remove(0);
    stock.run(&system.world(), ["delete", &format!("{}::one", system.repo().display())]).unwrap();
    let views = system.layout.views("main");
    let view = |name: &str| views.join(format!("{name}.view"));
    // Left by a crash, a long time ago and just now.
    std::fs::write(view("aa"), "x").unwrap();
    std::fs::write(view("bb"), "x").unwrap();
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(2 * 86_400);
    for path in [view("aa"), view(&system.archives()[1].id)] {
        std::fs::File::options().write(true).open(path).unwrap().set_modified(long_ago).unwrap();
    }
    system.start();
    let mut worker = system.worker();
    let job = system.job("a/x");
    let (prepared, _) = worker.prepare(job, "one").unwrap();
    assert_eq!(prepared.view_chunks, 2);
    let kept = system.archives().remove(0);
    assert_eq!((system.archives().len(), kept.name.as_str()), (1, "two"));
    assert!(view(&kept.id).exists() && view("bb").exists());
    assert!(!view(&old.id).exists() && !view("aa").exists());
    let entry = system.store.read(|r| r.log().newest(100)).unwrap();
    let entry = entry.into_iter().find(|entry| entry.actor == "repositoryd").unwrap();
    assert!(entry.note.contains("removed from repository main: one"), "{}", entry.note);
    let mut client = system.open(&prepared.token).unwrap();
    assert_eq!(client.archive("f", &[&noise(1, 1000)], false), Verdict::Accepted);
    client.end();
    worker.finish(job);
    system.stop();
    assert_eq!(system.judge(), ["two", "one"]);

    // A manifest from before our last commit says nothing about what came later.
    std::fs::remove_dir_all(system.repo()).unwrap();
    copy(&earlier, &system.repo());
    system.start();
    let mut worker = system.worker();
    let job = system.job("a/y");
    worker.prepare(job, "three").unwrap();
    worker.finish(job);
    assert_eq!(system.archives().len(), 2);
}

#[test]
fn nonces_never_repeat() {
    let mut system = System::new(EncryptionMode::Repokey);
    for round in 1..4u64 {
        let (a, mut first) = system.backup("a/x", &format!("a{round}"));
        let (b, mut second) = system.backup("b/x", &format!("b{round}"));
        for n in 0..50 {
            first.put(&noise(round * 1000 + n, 700));
            second.put(&noise(round * 1000 + 500 + n, 900));
        }
        assert_eq!(first.archive("f", &[&noise(round * 1000 + 1, 700)], false), Verdict::Accepted);
        assert_eq!(second.archive("f", &[&noise(round * 1000 + 501, 900)], false), Verdict::Accepted);
        drop((first, second, a, b));
        if round == 2 {
            system.kill()
        } else {
            system.stop()
        }
        system.start();
    }
    system.stop();
    let used = harness::nonces_are_used_once(&system);
    assert!(used > 300, "{used}");
}

#[test]
fn what_got_lost_is_sent_again_or_told() {
    let mut system = System::new(EncryptionMode::RepokeyBlake2);
    let (worker, mut client) = system.backup("a/x", "one");
    let (kept, lost) = (client.put(&noise(1, 3000)), client.put(&noise(2, 3000)));
    assert_eq!(client.archive_of("f", &[kept, lost], false), Verdict::Accepted);
    client.end();
    worker.finish(1);
    system.stop();
    let mut repository = open_exclusively(&system);
    repository.delete(&borg::Id(lost.id)).unwrap();
    repository.commit().unwrap();
    repository.close();
    system.start();

    // Not in the cache, so that an honest client sends it; one with an older cache is told.
    let mut worker = system.worker();
    let job = system.job("a/x");
    let prepared = worker.prepare_only(job, "two").unwrap();
    assert_eq!((prepared.view_chunks, worker.cache().0.chunks), (3, 2));
    let mut client = system.open(&prepared.token).unwrap();
    match client.archive_of("f", &[kept, lost], false) {
        Verdict::Failed(failure) => assert_eq!(failure.cause, Cause::ViewStale),
        other => panic!("{other:?}"),
    }
    client.put(&noise(2, 3000));
    assert_eq!(client.archive_of("f", &[kept, lost], false), Verdict::Accepted);
    drop(client);
    let outcome = worker.finish(job);
    assert!(outcome.archive.is_some());
    system.stop();
    assert_eq!(system.judge(), ["one", "two"]);
}

#[test]
fn a_full_repository_is_told_as_one() {
    let mut system = System::new(EncryptionMode::Repokey);
    let config = system.repo().join("config");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("storage_quota = 0", "storage_quota = 300000")).unwrap();
    let (worker_a, mut a) = system.backup("a/x", "small");
    assert_eq!(a.archive("f", &[&noise(1, 100_000)], false), Verdict::Accepted);
    let (worker_b, mut b) = system.backup("b/x", "large");
    for n in 10..20 {
        b.put(&noise(n, 100_000));
    }
    let answer = b.next();
    assert!(matches!(answer, Some((kind::FAILED, _))), "{answer:?}");
    drop((a, b));
    assert!(worker_a.finish(1).archive.is_some());
    assert_eq!(worker_b.finish(2).failure.unwrap().cause, Cause::RepositoryEnospc);
    system.stop();
    assert_eq!(system.judge(), ["small"]);
}

fn open_exclusively(system: &System) -> repository::Repository {
    repository::Repository::open(&repository::OpenOptions {
        borg: "borg".into(),
        lock_wait: 5,
        exclusive: true,
        ..repository::OpenOptions::at(system.repo().to_str().unwrap())
    })
    .unwrap()
}
