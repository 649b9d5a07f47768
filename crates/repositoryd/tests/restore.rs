//! The owner and restores: what their sessions may read, and what goes on beside them.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod harness;

use borg::Id;
use borg::compress::decompress;
use borg::manifest::Manifest;
use harness::{Client, Maintenance, System, Worker, noise};
use model::{Archive, Cause, EncryptionMode};
use std::time::Duration;
use testkit::{Borg, retry_until};
use wire::maintenance::{Operation, Report};
use wire::session::{Reference, Served, Verdict, Violation, kind, write_json};

const PATIENCE: Duration = Duration::from_secs(30);

/// A backup of one file that is done: its chunks, and the record.
fn backup(system: &System, config: &str, name: &str, chunks: &[&[u8]]) -> (Vec<Reference>, Archive) {
    let (worker, mut client) = system.backup(config, name);
    let job = client.opened.job;
    let references: Vec<_> = chunks.iter().map(|chunk| client.put(chunk)).collect();
    assert_eq!(client.archive_of("f", &references, false), Verdict::Accepted);
    client.end();
    (references, worker.finish(job).archive.unwrap())
}

/// The metadata of the archive that a restore's client sees, as its borg would get them.
fn metadata(client: &mut Client) -> borg::archive::Archive {
    let manifest = Manifest::parse(&client.opened.manifest.clone(), &client.key).unwrap();
    assert_eq!(manifest.archives.len(), 1, "the one archive");
    let entry = manifest.archives.values().next().unwrap();
    let packed = client.read(entry.id.0).unwrap();
    assert_eq!(client.key.id_hash(&packed), entry.id);
    let tam = borg::archive::Archive::verify_tam(&packed, &client.key).unwrap();
    assert_eq!(tam, borg::tam::Status::Verified, "Borg 1.2.5 and later want it");
    let archive = borg::archive::Archive::parse(&packed).unwrap();
    assert_eq!(archive.time, entry.time);
    archive
}

fn finish(worker: Worker, client: Client) -> wire::session::Outcome {
    let job = client.opened.job;
    client.end();
    worker.finish(job)
}

#[test]
fn an_archive_in_every_mode() {
    for mode in EncryptionMode::ALL {
        let mut system = System::new(mode);
        let (a, b) = (noise(1, 200_000), b"compressible ".repeat(1000));
        let (chunks, archive) = backup(&system, "web1/etc", "first", &[&a, &b, &a]);
        backup(&system, "web1/etc", "second", &[&noise(2, 1000)]);
        let (worker, mut client) = system.restore(&archive);
        assert!(client.opened.restore.is_some() && client.opened.archive_name == "first");
        let metadata = metadata(&mut client);
        assert_eq!((metadata.name.as_slice(), metadata.hostname.as_deref()), (&b"first"[..], Some(&b"web1"[..])));
        let item = client.read(metadata.items[0].0).unwrap();
        assert_eq!(client.key.id_hash(&item), metadata.items[0]);
        assert_eq!(client.read(chunks[0].id).unwrap(), a);
        let half = Served { chunks: 2, of: 3, bytes: 0 };
        assert_eq!(client.read(chunks[1].id).unwrap(), b);
        assert_eq!(client.read(chunks[1].id).unwrap(), b, "as often as it likes");
        let outcome = finish(worker, client);
        assert!(outcome.opened && outcome.failure.is_none() && outcome.archive.is_none() && outcome.checkpoint.is_none());
        let served = outcome.served.unwrap();
        assert_eq!((served.chunks, served.of), (half.chunks + 1, half.of));
        assert!(served.bytes > 200_000 && served.bytes < 210_000, "{served:?}");
        system.stop();
        assert_eq!(system.judge(), ["first", "second"]);
    }
}

#[test]
fn a86_only_what_the_archive_refers_to() {
    let mut system = System::new(EncryptionMode::RepokeyBlake2);
    let (_, archive) = backup(&system, "web1/etc", "first", &[&noise(1, 1000)]);
    // Of the same client, of another one, and of nobody yet.
    let (second, _) = backup(&system, "web1/etc", "second", &[&noise(2, 1000)]);
    let (other, other_archive) = backup(&system, "web2/etc", "other", &[&noise(3, 1000)]);
    let (fresh_worker, mut fresh) = system.backup("web3/etc", "fresh");
    let sent = fresh.put(&noise(4, 1000));
    assert!(fresh.read(sent.id).is_some());
    let (worker, mut client) = system.restore(&archive);
    let own = Id::from_hex(&archive.id).unwrap();
    let foreign = Id::from_hex(&other_archive.id).unwrap();
    for id in [second[0].id, other[0].id, sent.id, own.0, foreign.0, Id::MANIFEST.0, [7; 32]] {
        assert_eq!(client.read(id), None);
    }
    assert!(finish(worker, client).failure.is_none());
    drop(fresh);
    fresh_worker.finish(4);
    system.stop();
    assert_eq!(system.judge(), ["first", "second", "other"]);
}

/// A session that is in the hands of its client gets no further than one that is not.
#[test]
fn a86_a_session_that_writes_is_ended() {
    let mut system = System::new(EncryptionMode::Repokey);
    let (chunks, archive) = backup(&system, "web1/etc", "first", &[&noise(1, 1000)]);
    for frame in [kind::PUT, kind::ITEMS, kind::REFS, kind::PROPOSE, kind::COMMIT] {
        let (worker, mut client) = system.restore(&archive);
        let job = client.opened.job;
        assert_eq!(client.read(chunks[0].id).unwrap(), noise(1, 1000));
        match frame {
            kind::PUT => drop(client.put(b"new")),
            _ => wire::frame::write(&mut client.stream, frame, &[]).unwrap(),
        }
        match client.verdict() {
            Verdict::Failed(failure) => assert_eq!(failure.cause, Cause::PolicyViolation { rule: "restore-write".into() }),
            other => panic!("{other:?}"),
        }
        drop(client);
        assert_eq!(worker.finish(job).failure.unwrap().cause.word(), "policy-violation");
    }
    // What a session itself finds is the job's cause as well.
    let (worker, mut client) = system.restore(&archive);
    let job = client.opened.job;
    let violation = Violation { rule: "restore-read".into(), detail: "x".into() };
    write_json(&mut client.stream, kind::VIOLATION, &violation).unwrap();
    drop(client);
    assert_eq!(worker.finish(job).failure.unwrap().cause, Cause::PolicyViolation { rule: "restore-read".into() });
    system.stop();
    assert_eq!(system.judge(), ["first"]);
}

#[test]
fn an_archive_that_is_not_there_cannot_be_restored() {
    let system = System::new(EncryptionMode::Repokey);
    let (_, archive) = backup(&system, "web1/etc", "first", &[&noise(1, 1000)]);
    let prepare = |archive: &Archive| system.worker().prepare_restore(system.restore_job(archive), archive).unwrap_err();
    let unknown = Archive { id: "ab".repeat(32), ..archive.clone() };
    assert_eq!(prepare(&unknown).cause, Cause::ArchiveMissing);
    let renamed = Archive { name: "second".into(), ..archive.clone() };
    assert_eq!(prepare(&renamed).cause, Cause::Internal);
    let nonsense = Archive { id: "../x".into(), ..archive.clone() };
    assert_eq!(prepare(&nonsense).cause, Cause::Internal);
    // Its list is what says which chunks it has.
    let list = system.layout.view("main", &archive.id);
    let bytes = std::fs::read(&list).unwrap();
    std::fs::write(&list, &bytes[..bytes.len() - 1]).unwrap();
    let failure = prepare(&archive);
    assert!(failure.message.contains("archive extract") && failure.message.contains("first"), "{failure:?}");
    std::fs::write(&list, &bytes).unwrap();
    let (worker, mut client) = system.restore(&archive);
    metadata(&mut client);
    assert!(finish(worker, client).failure.is_none());
}

#[test]
fn an_archive_that_is_being_restored_is_not_deleted() {
    let mut system = System::new(EncryptionMode::Repokey);
    let (chunks, archive) = backup(&system, "web1/etc", "first", &[&noise(1, 50_000)]);
    let mut worker = system.worker();
    let job = system.restore_job(&archive);
    // From the moment on at which it is prepared.
    let prepared = worker.prepare_restore(job, &archive).unwrap();
    let delete = |dry_run| system.maintain(Operation::Delete { archives: vec!["first".into()], dry_run });
    for dry_run in [true, false] {
        let failure = delete(dry_run).unwrap_err();
        assert_eq!(failure.cause, Cause::ArchiveInUse);
        assert!(failure.message.contains(&format!("job {job}")), "{failure:?}");
    }
    let mut client = system.open(&prepared.token).unwrap();
    assert!(delete(false).is_err());
    assert_eq!(client.read(chunks[0].id).unwrap(), noise(1, 50_000));
    assert!(finish(worker, client).failure.is_none());
    match delete(false).unwrap() {
        Report::Deleted { chunks, .. } => assert_eq!(chunks, 2),
        other => panic!("{other:?}"),
    }
    system.stop();
    assert!(system.judge().is_empty());
}

/// A delete that has looked before the restore began finds out before it takes anything.
#[test]
fn a_delete_that_was_first_and_a_restore_do_not_cross() {
    let mut system = System::new(EncryptionMode::Repokey);
    let (_, archive) = backup(&system, "web1/etc", "first", &[&noise(1, 50_000)]);
    system.stop();
    system.set("BORGCUBE_TEST_PAUSE", "after-removal=1500");
    system.start();
    let delete = Maintenance::begin(&system, Operation::Delete { archives: vec!["first".into()], dry_run: false });
    system.wait_for_pause();
    let failure = system.worker().prepare_restore(system.restore_job(&archive), &archive).unwrap_err();
    assert_eq!(failure.cause, Cause::ArchiveMissing);
    delete.report().unwrap();
}

#[test]
fn backups_deletes_and_a_compact_go_on_beside_it() {
    let mut system = System::new(EncryptionMode::Repokey);
    let (shared, own) = (noise(1, 300_000), noise(2, 300_000));
    let (_, other) = backup(&system, "web2/etc", "other", &[&shared, &noise(3, 300_000)]);
    let (chunks, archive) = backup(&system, "web1/etc", "first", &[&shared, &own]);
    let (worker, mut client) = system.restore(&archive);
    let metadata = metadata(&mut client);
    assert_eq!(client.read(chunks[0].id).unwrap(), shared);
    // Of what only the other archive had, nothing is left; what this one has as well, stays.
    assert_eq!(system.delete(&[&other.name]), 2);
    let (_, third) = backup(&system, "web1/etc", "third", &[&own, &noise(4, 1000)]);
    match system.maintain(Operation::Compact { threshold: 0 }).unwrap() {
        Report::Compacted { segments, .. } => assert!(segments > 0),
        other => panic!("{other:?}"),
    }
    match system.maintain(Operation::Check { verify_data: true }).unwrap() {
        Report::Checked { error_count, .. } => assert_eq!(error_count, 0),
        other => panic!("{other:?}"),
    }
    assert_eq!(client.read(chunks[0].id).unwrap(), shared);
    assert_eq!(client.read(chunks[1].id).unwrap(), own);
    assert!(client.read(metadata.items[0].0).is_some());
    assert!(finish(worker, client).failure.is_none());
    system.stop();
    assert_eq!(system.judge(), [archive.name, third.name]);
}

#[test]
fn while_the_repository_is_lent_a_restore_waits() {
    let mut system = System::new(EncryptionMode::Repokey);
    let (chunks, archive) = backup(&system, "web1/etc", "first", &[&noise(1, 50_000)]);
    let (worker, mut client) = system.restore(&archive);
    metadata(&mut client);
    let (lent, granted) = system.release();
    assert_eq!(granted.sessions, 1);
    wire::frame::write(&mut client.stream, kind::READ, &[&chunks[0].id]).unwrap();
    let borg = Borg::judges().pop().unwrap();
    borg.check_verify_data(&system.world(), &system.repo()).unwrap();
    drop(lent);
    let (kind, payload) = client.next().unwrap();
    assert_eq!((kind, &payload[..32]), (kind::OBJECT, &chunks[0].id[..]));
    assert!(finish(worker, client).failure.is_none());
    // Who deletes the archive meanwhile ends it, with a word that says so.
    let (worker, mut client) = system.restore(&archive);
    let job = client.opened.job;
    metadata(&mut client);
    let (lent, _) = system.release();
    borg.run(&system.world(), ["delete", &format!("{}::first", system.repo().display())]).unwrap();
    drop(lent);
    match client.verdict() {
        Verdict::Failed(failure) => assert_eq!(failure.cause, Cause::ArchiveMissing),
        other => panic!("{other:?}"),
    }
    drop(client);
    assert_eq!(worker.finish(job).failure.unwrap().cause, Cause::ArchiveMissing);
    system.stop();
    assert!(system.judge().is_empty());
}

#[test]
fn a_token_of_a_restore_works_once_and_ends_with_its_worker() {
    let system = System::new(EncryptionMode::Authenticated);
    let (_, archive) = backup(&system, "web1/etc", "first", &[&noise(1, 1000)]);
    let (worker, client) = system.restore(&archive);
    let job = client.opened.job;
    let mut other = system.worker();
    assert_eq!(other.prepare_restore(job, &archive).unwrap_err().cause, Cause::Internal);
    drop(worker);
    let mut client = client;
    match client.verdict() {
        Verdict::Failed(failure) => assert_eq!(failure.cause, Cause::SessionLost),
        other => panic!("{other:?}"),
    }
    drop(client);
    // And then it does not keep the archive.
    let gone = retry_until(PATIENCE, || system.maintain(Operation::Delete { archives: vec!["first".into()], dry_run: false }).ok());
    assert!(gone.is_some());
}

/// A client that takes nothing keeps nobody from the repository: neither what is put there, nor who borrows it.
#[test]
fn a_client_that_does_not_read_is_only_its_own_trouble() {
    let system = System::new(EncryptionMode::Repokey);
    let data = noise(1, 4_000_000);
    let (chunks, archive) = backup(&system, "web1/etc", "first", &[&data]);
    let (worker, mut client) = system.restore(&archive);
    let job = client.opened.job;
    for _ in 0..20 {
        wire::frame::write(&mut client.stream, kind::READ, &[&chunks[0].id]).unwrap();
    }
    backup(&system, "web2/etc", "second", &[&noise(2, 1000)]);
    let (lent, granted) = system.release();
    assert_eq!(granted.sessions, 1);
    drop(lent);
    for _ in 0..20 {
        let (kind, payload) = client.next().unwrap();
        assert_eq!(kind, kind::OBJECT);
        assert!(*decompress(&payload[32..], 1 << 24).unwrap() == data);
    }
    client.end();
    assert!(worker.finish(job).failure.is_none());
}

#[test]
fn an_owner_that_dies_ends_it_and_another_one_says_so() {
    let mut system = System::new(EncryptionMode::Repokey);
    let (_, archive) = backup(&system, "web1/etc", "first", &[&noise(1, 1000)]);
    let (worker, client) = system.restore(&archive);
    let job = client.opened.job;
    system.kill();
    drop((worker, client));
    system.start();
    let outcome = system.worker().finish(job);
    assert_eq!(outcome.failure.unwrap().cause, Cause::OwnerLost);
    let (worker, mut client) = system.restore(&archive);
    metadata(&mut client);
    assert!(finish(worker, client).failure.is_none());
}
