//! The owner with honest clients.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod harness;

use harness::{System, noise, read};
use model::{Cause, EncryptionMode};
use testkit::Borg;
use wire::session::{Reference, Verdict};

#[test]
fn an_archive_in_every_mode() {
    for mode in EncryptionMode::ALL {
        let mut system = System::new(mode);
        let (worker, mut client) = system.backup("web1/etc", "first");
        let (a, b) = (noise(1, 200_000), b"compressible ".repeat(1000));
        assert_eq!(client.archive("etc/file", &[&a, &b, &a], false), Verdict::Accepted);
        let stored = system.archives();
        assert_eq!(stored.len(), 1);
        client.end();
        let outcome = worker.finish(stored[0].job);
        assert_eq!(outcome.archive.as_ref(), stored.first());
        assert!(outcome.opened && outcome.failure.is_none() && outcome.checkpoint.is_none());
        let statistics = stored[0].statistics;
        assert_eq!(statistics.original_size, (2 * a.len() + b.len()) as u64);
        assert!(statistics.deduplicated_size > 200_000 && statistics.deduplicated_size < 205_000, "{statistics:?}");
        system.stop();
        assert_eq!(system.judge(), ["first"]);
        for judge in Borg::judges() {
            let into = system.dir.path().join(format!("extracted-{}", judge.version));
            judge.extract(&system.world(), &system.repo(), "first", &into).unwrap();
            assert_eq!(read(&into.join("etc/file")), [&a[..], &b, &a].concat());
            let info = judge.info_json(&system.world(), &system.repo(), Some("first")).unwrap();
            let archive = &info["archives"][0];
            assert_eq!((&archive["hostname"], &archive["username"]), (&"web1".into(), &"borgcube".into()));
        }
        if let Some(new) = Borg::v1_4_5() {
            assert_eq!(new.list_with_tam(&system.world(), &system.repo()).unwrap(), [("first".into(), "verified".into())]);
        }
    }
}

#[test]
fn a_second_backup_has_a_view_and_a_cache() {
    let mut system = System::new(EncryptionMode::Repokey);
    let (worker, mut client) = system.backup("web1/etc", "first");
    let a = noise(1, 100_000);
    let first = client.put(&a);
    assert_eq!(client.archive_of("f", &[first], false), Verdict::Accepted);
    client.end();
    worker.finish(1);

    // The same client, another config; another owner process in between.
    system.stop();
    system.start();
    let mut worker = system.worker();
    let job = system.job("web1/home");
    let (prepared, cache) = worker.prepare(job, "second").unwrap();
    assert_eq!(prepared.view_chunks, 2);
    let at = cache.windows(32).position(|w| w == first.id).unwrap();
    let entry = |at: usize| u32::from_le_bytes(cache[at..at + 4].try_into().unwrap());
    assert_eq!((entry(at + 32), entry(at + 36), entry(at + 40)), (0xffff_fbff, first.size, first.csize));
    let mut client = system.open(&prepared.token).unwrap();
    assert_eq!(client.read(first.id).unwrap(), a);
    assert_eq!(client.archive_of("g", &[Reference { csize: 0, ..first }], false), Verdict::Accepted);
    client.end();
    let outcome = worker.finish(job);
    assert!(outcome.archive.unwrap().statistics.deduplicated_size < 1000);

    // Another client has nothing of it.
    let mut worker = system.worker();
    let job = system.job("web2/etc");
    let (prepared, _) = worker.prepare(job, "third").unwrap();
    assert_eq!(prepared.view_chunks, 0);
    let mut client = system.open(&prepared.token).unwrap();
    assert_eq!(client.read(first.id), None);
    // Sending the same content stores nothing new, and nobody could tell.
    assert_eq!(client.put(&a), first);
    assert_eq!(client.read(first.id).unwrap(), a);
    assert_eq!(client.archive_of("h", &[first], false), Verdict::Accepted);
    drop(client);
    let outcome = worker.finish(job);
    assert!(outcome.failure.is_none(), "{outcome:?}");
    system.stop();
    assert_eq!(system.judge(), ["first", "second", "third"]);
}

#[test]
fn a_thousand_chunks_and_their_credit() {
    let mut system = System::new(EncryptionMode::RepokeyBlake2);
    let (worker, mut client) = system.backup("web1/etc", "many");
    let mut references = vec![];
    let mut sent = 0;
    for n in 0..1000 {
        let size = if n % 100 == 0 { 3_000_000 } else { 3_000 };
        let reference = client.put(&noise(n, size));
        sent += u64::from(reference.csize) - 1;
        references.push(reference);
    }
    assert_eq!(client.archive_of("f", &references, false), Verdict::Accepted);
    assert!(client.credit >= sent, "{} of {sent}", client.credit);
    client.end();
    assert!(worker.finish(1).archive.is_some());
    system.stop();
    assert_eq!(system.judge(), ["many"]);
}

#[test]
fn tokens_work_once_and_only_while_their_worker_lives() {
    let system = System::new(EncryptionMode::Authenticated);
    let mut worker = system.worker();
    let job = system.job("web1/etc");
    let (prepared, _) = worker.prepare(job, "a").unwrap();
    let links = || std::fs::read_dir(system.layout.run().join("sessions")).unwrap().count();
    assert_eq!(links(), 1);
    assert_eq!(system.worker().prepare(job, "a").unwrap_err().cause, Cause::Internal);
    assert!(system.open(&"0".repeat(64)).is_err());
    let client = system.open(&prepared.token).unwrap();
    assert_eq!(links(), 0);
    let again = system.open(&prepared.token).err().unwrap();
    assert_eq!(again.cause, Cause::PolicyViolation { rule: "token".into() });
    drop(client);
    assert_eq!(worker.finish(job).failure.unwrap().cause, Cause::SessionLost);

    // The client leaves early: that is no failure of the session, its borg's exit code tells more.
    let (worker, client) = system.backup("web1/etc", "a");
    client.end();
    let outcome = worker.finish(job + 1);
    assert!(outcome.opened && outcome.archive.is_none() && outcome.failure.is_none(), "{outcome:?}");

    // Nobody comes.
    let mut worker = system.worker();
    let job = system.job("web1/etc");
    let (prepared, _) = worker.prepare(job, "a").unwrap();
    let outcome = worker.finish(job);
    assert!(!outcome.opened && outcome.failure.is_none());
    assert!(system.open(&prepared.token).is_err());

    // The worker dies with a session running.
    let mut worker = system.worker();
    let job = system.job("web1/etc");
    let (prepared, _) = worker.prepare(job, "a").unwrap();
    let mut client = system.open(&prepared.token).unwrap();
    drop(worker);
    assert_eq!(client.next().map(|(kind, _)| kind), Some(wire::session::kind::FAILED));
    assert_eq!(links(), 0);
    assert_eq!(system.store.read(|r| r.sessions().count()).unwrap(), 0);
}

#[test]
fn jobs_that_may_not_be_prepared() {
    let system = System::new(EncryptionMode::None);
    let waiting = system.store.write("t", "t", |w| {
        w.jobs().create(|n| model::Job::backup(n, &"a/b".parse().unwrap(), "main".parse().unwrap(), "t", model::Timestamp(0)))
    });
    let waiting = waiting.unwrap().0.number;
    assert_eq!(system.worker().prepare(waiting, "a").unwrap_err().cause, Cause::Internal);
    assert_eq!(system.worker().prepare(99, "a").unwrap_err().cause, Cause::Internal);
    assert_eq!(system.worker().prepare(system.job("a/b"), "a/b").unwrap_err().cause, Cause::Internal);
    let (worker, mut client) = system.backup("a/b", "taken");
    assert_eq!(client.archive("f", &[b"x"], false), Verdict::Accepted);
    assert!(matches!(client.archive("f", &[b"x"], false), Verdict::Violation(v) if v.rule == "archive-complete"));
    drop(client);
    drop(worker);
    assert_eq!(system.worker().prepare(system.job("a/c"), "taken").unwrap_err().cause, Cause::ArchiveExists);
}

#[test]
fn the_owner_lets_go_when_idle() {
    let mut system = System::new(EncryptionMode::Repokey);
    system.stop();
    system.set("BORGCUBE_IDLE_SECONDS", "0");
    system.set("BORGCUBE_EXIT_SECONDS", "2");
    system.start();
    let (worker, mut client) = system.backup("a/b", "one");
    assert_eq!(client.archive("f", &[b"x"], false), Verdict::Accepted);
    let busy = Borg::judges().remove(0);
    let world = system.world();
    assert!(busy.create(&world, &system.repo(), "stock", &[], &[std::path::Path::new("/etc/hostname")]).is_err());
    client.end();
    worker.finish(1);
    // While it is idle, stock borg may write, and we see what it wrote.
    let patience = std::time::Duration::from_secs(20);
    let lock = system.repo().join("lock.exclusive");
    testkit::retry_until(patience, || (!lock.exists()).then_some(())).expect("the lock is released");
    busy.create(&world, &system.repo(), "stock", &[], &[std::path::Path::new("/etc/hostname")]).unwrap();
    assert_eq!(system.worker().prepare(system.job("a/b"), "stock").unwrap_err().cause, Cause::ArchiveExists);
    let (worker, mut client) = system.backup("a/b", "two");
    assert_eq!(client.archive("f", &[b"y"], false), Verdict::Accepted);
    client.end();
    worker.finish(3);
    testkit::retry_until(patience, || system.has_ended().then_some(())).expect("the owner ends");
    assert_eq!(system.judge(), ["one", "stock", "two"]);
    // The next connection finds the socket still listening, as with systemd.
    system.start();
    let (_worker, mut client) = system.backup("a/b", "three");
    assert_eq!(client.archive("f", &[b"z"], false), Verdict::Accepted);
}
