//! Imports, with a test that plays the worker: what it says is believed of nothing that the owner can look at itself.
#![allow(clippy::unwrap_used, reason = "tests, their helper functions included")]

mod harness;

use harness::{Maintenance, System, noise};
use model::{Cause, EncryptionMode, Failure};
use serde_json::Value;
use std::fs;
use testkit::Borg;
use wire::frame;
use wire::importing::{Counted, Take, Use, kind as importing};
use wire::maintenance::{Operation, Report};
use wire::session::{Verdict, write_json};

/// An archive of a stock borg in the repository of a system, and what it refers to.
struct Scene {
    system: System,
    borg: Borg,
    take: Take,
    uses: Vec<Use>,
}

/// Two files of one chunk each.
fn scene() -> Scene {
    scene_with(0)
}

/// The same, with small files beside them.
fn scene_with(more: u64) -> Scene {
    let mut system = System::new(EncryptionMode::RepokeyBlake2);
    system.stop();
    let borg = Borg::judges().pop().unwrap();
    let source = system.dir.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("a"), noise(1, 70_000)).unwrap();
    fs::write(source.join("b"), noise(2, 50_000)).unwrap();
    for n in 0..more {
        fs::write(source.join(format!("c{n}")), noise(100 + n, 2000)).unwrap();
    }
    let (world, repo) = (system.world(), system.repo());
    borg.create(&world, &repo, "old", &[], &[&source]).unwrap();
    let dump = system.dir.path().join("dump");
    borg.run(&world, ["debug", "dump-archive", &format!("{}::old", repo.display()), dump.to_str().unwrap()]).unwrap();
    let dump: Value = serde_json::from_slice(&fs::read(&dump).unwrap()).unwrap();
    let chunks = dump["_items"].as_array().unwrap().iter().filter_map(|item| item["chunks"].as_array()).flatten();
    let mut uses: Vec<Use> = chunks
        .map(|chunk| {
            let id = borg::Id::from_hex(chunk[0].as_str().unwrap().trim_start_matches('\u{7f}')).unwrap().0;
            Use { id, size: u32::try_from(chunk[1].as_u64().unwrap()).unwrap(), count: 1 }
        })
        .collect();
    uses.sort_by_key(|one| one.id);
    assert_eq!(uses.len() as u64, 2 + more);
    system.start();
    let Ok(Report::Foreign { archives, next: None }) = system.maintain(Operation::Foreign { after: None }) else { panic!() };
    assert_eq!((archives.len(), archives[0].name.as_str()), (1, "old"));
    let take = Take { name: "old".into(), id: archives[0].id.clone(), config: "web1/etc".parse().unwrap(), job: 7, by: "somebody".into() };
    Scene { system, borg, take, uses }
}

impl Scene {
    fn import(&self, uses: &[Use]) -> Result<Report, Failure> {
        import(&self.system, &self.take, uses)
    }

    /// It is refused for so many chunks, and nothing is left of it.
    #[track_caller]
    fn refused(&self, uses: &[Use], count: u64, words: &str) {
        let Report::Refused { why, unusable, count: found } = self.import(uses).unwrap() else { panic!("it is imported") };
        assert_eq!((found, unusable.len() as u64), (count, count), "{why} {unusable:?}");
        let all = unusable.iter().fold(why, |all, one| all + " " + &one.why);
        assert!(all.contains(words), "{all}");
        self.nothing_was_done();
    }

    #[track_caller]
    fn nothing_was_done(&self) {
        assert!(self.system.archives().is_empty());
        let views = self.system.layout.views("main");
        let left: Vec<_> = fs::read_dir(views).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.iter().all(|name| !name.to_string_lossy().contains(&self.take.id)), "{left:?}");
    }
}

fn import(system: &System, take: &Take, uses: &[Use]) -> Result<Report, Failure> {
    let mut asked = Maintenance::begin(system, Operation::Import(Box::new(take.clone())));
    say(&mut asked, uses);
    asked.report()
}

/// Whoever is refused in the middle is not listened to any more: then the rest is not said.
fn say(asked: &mut Maintenance, uses: &[Use]) {
    let mut said = Ok(());
    for part in uses.chunks(1) {
        let mut bytes = vec![];
        part.iter().for_each(|one| one.encode(&mut bytes));
        said = said.and_then(|()| frame::write(&mut asked.stream, importing::USES, &[&bytes]));
    }
    let said = said.and_then(|()| write_json(&mut asked.stream, importing::COUNTED, &Counted { files: 2, repaired: 0 }));
    assert!(matches!(said, Ok(()) | Err(wire::WireError::Closed)), "{said:?}");
}

#[test]
fn a_list_that_names_what_is_not_there_is_refused() {
    let scene = scene();
    let mut more = scene.uses.clone();
    more.push(Use { id: [0xff; 32], size: 5, count: 1 });
    scene.refused(&more, 1, "not in the repository");
    let mut wrong = scene.uses.clone();
    wrong[1].size += 1;
    scene.refused(&wrong, 1, "and the archive says");
    let backwards: Vec<Use> = scene.uses.iter().rev().copied().collect();
    let failure = scene.import(&backwards).unwrap_err();
    assert!(failure.cause == Cause::Internal && failure.message.contains("order"), "{failure:?}");
    scene.nothing_was_done();

    let Report::Imported { chunks, statistics, .. } = scene.import(&scene.uses).unwrap() else { panic!() };
    // Its list of files is one more.
    assert_eq!((chunks, statistics.nfiles, statistics.original_size), (3, 2, 120_000));
    assert!(statistics.deduplicated_size > statistics.compressed_size, "the list of files is new as well: {statistics:?}");
    let archive = scene.system.archives().pop().unwrap();
    assert_eq!((archive.name.as_str(), archive.client.as_str(), archive.job), ("old", "web1", 7));
    assert!(archive.imported.as_ref().is_some_and(|imported| imported.signed && imported.by == "somebody"), "{archive:?}");
    assert!(archive.end >= archive.start && archive.start.0 > 0);
    // The client has it in its view, and may refer to it.
    let (worker, mut client) = scene.system.backup("web1/etc", "new");
    let references: Vec<_> = scene.uses.iter().map(|one| wire::session::Reference { id: one.id, size: one.size, csize: 0 }).collect();
    assert_eq!(client.archive_of("x", &references, false), Verdict::Accepted);
    client.end();
    drop(worker);
    // What only the old one has goes with it.
    assert_eq!(scene.system.delete(&["old"]), 1);
}

#[test]
fn an_archive_that_is_gone_is_not_imported() {
    let mut scene = scene();
    let other = Take { id: "ab".repeat(32), ..scene.take.clone() };
    let Report::Refused { why, .. } = import(&scene.system, &other, &scene.uses).unwrap() else { panic!() };
    assert!(why.contains("not in the repository any more"), "{why}");
    scene.nothing_was_done();
    assert!(matches!(scene.import(&scene.uses).unwrap(), Report::Imported { .. }));
    let Report::Refused { why, .. } = scene.import(&scene.uses).unwrap() else { panic!() };
    assert!(why.contains("has a record already"), "{why}");
    // Another borg renames it: what has the new name is another archive.
    scene.system.stop();
    let repo = scene.system.repo();
    scene.borg.run(&scene.system.world(), ["rename", &format!("{}::old", repo.display()), "newer"]).unwrap();
    scene.system.start();
    let Ok(Report::Foreign { archives, .. }) = scene.system.maintain(Operation::Foreign { after: None }) else { panic!() };
    assert_eq!(archives[0].name, "newer");
    assert!(scene.system.archives().is_empty());
    let stale = scene.import(&scene.uses).unwrap();
    assert!(matches!(stale, Report::Refused { .. }), "{stale:?}");
}

#[test]
fn what_only_a_running_backup_has_sent_does_not_count() {
    let mut scene = scene();
    scene.system.stop();
    let lost = scene.uses.iter().find(|one| one.size == 50_000).copied().unwrap();
    let (id, repo) = (borg::Id(lost.id).to_hex(), scene.system.repo());
    scene.borg.run(&scene.system.world(), ["debug", "delete-obj", repo.to_str().unwrap(), &id]).unwrap();
    scene.system.start();
    scene.refused(&scene.uses, 1, "not in the repository");
    let (worker, mut client) = scene.system.backup("web1/etc", "new");
    assert_eq!(client.put(&noise(2, 50_000)).id, lost.id);
    // The answer to a read comes behind the put.
    assert!(client.read(lost.id).is_some());
    scene.refused(&scene.uses, 1, "a backup that runs");
    assert_eq!(client.archive("x", &[&noise(2, 50_000)], false), Verdict::Accepted);
    client.end();
    drop(worker);
    // Now it stays, and the archive is whole again.
    assert!(matches!(scene.import(&scene.uses).unwrap(), Report::Imported { .. }));
    scene.system.stop();
    scene.system.judge();
}

#[test]
fn a_crash_between_list_and_record_leaves_nothing() {
    let mut scene = scene();
    scene.system.stop();
    scene.system.set("BORGCUBE_TEST_PAUSE", "import");
    scene.system.start();
    let mut asked = Maintenance::begin(&scene.system, Operation::Import(Box::new(scene.take.clone())));
    say(&mut asked, &scene.uses);
    scene.system.wait_for_pause();
    scene.system.kill();
    scene.system.set("BORGCUBE_TEST_PAUSE", "");
    scene.system.start();
    assert!(asked.next().is_none());
    assert!(scene.system.archives().is_empty());
    assert!(matches!(scene.import(&scene.uses).unwrap(), Report::Imported { .. }));
    assert_eq!(scene.system.delete(&["old"]), 3);
}

#[test]
fn what_a_delete_had_to_keep_goes_once_all_archives_have_lists() {
    let scene = scene();
    let (worker, mut client) = scene.system.backup("web1/etc", "ours");
    assert_eq!(client.archive("x", &[&noise(9, 80_000)], false), Verdict::Accepted);
    client.end();
    drop(worker);
    let delete = Operation::Delete { archives: vec!["ours".into()], dry_run: false };
    let Report::Deleted { chunks: 0, kept_because: Some(why), .. } = scene.system.maintain(delete).unwrap() else { panic!() };
    assert!(why.contains("archive import") && why.contains("old"), "{why}");
    let compact = || match scene.system.maintain(Operation::Compact { threshold: 0 }).unwrap() {
        Report::Compacted { orphans, .. } => orphans,
        other => panic!("{other:?}"),
    };
    assert_eq!(compact(), 0, "the other archive may have them");
    assert!(matches!(scene.import(&scene.uses).unwrap(), Report::Imported { .. }));
    // The file's content and its list of files.
    assert_eq!(compact(), 2);
    let Report::Checked { error_count: 0, .. } = scene.system.maintain(Operation::Check { verify_data: true }).unwrap() else { panic!() };
}

/// What an archive's metadata are, packed: who made it with a key of its own knows.
fn packed_metadata(system: &System, id: &str) -> Vec<u8> {
    let options = repository::OpenOptions { exclusive: true, lock_wait: 5, ..repository::OpenOptions::at(system.repo().to_str().unwrap()) };
    let mut repository = repository::Repository::open(&options).unwrap();
    let id = borg::Id::from_hex(id).unwrap();
    let (blob, envelope) = (repository.load_key().unwrap().unwrap(), repository.get(&id).unwrap());
    repository.close();
    let locked = borg::keyblob::LockedKey::parse(std::str::from_utf8(&blob).unwrap()).unwrap();
    let kind = borg::KeyType::from_byte(envelope[0]).unwrap();
    let key = locked.unlock(harness::PASSPHRASE.as_bytes(), kind).unwrap().key;
    let payload = key.open(&envelope).unwrap();
    borg::compress::decompress(&payload, 1 << 24).unwrap().into_owned()
}

#[test]
fn an_archives_metadata_that_a_client_sent_as_a_chunk_stay() {
    let mut scene = scene();
    scene.system.stop();
    let metadata = packed_metadata(&scene.system, &scene.take.id);
    scene.system.start();
    assert!(matches!(scene.import(&scene.uses).unwrap(), Report::Imported { .. }));
    let (worker, mut client) = scene.system.backup("web1/etc", "new");
    let job = client.opened.job;
    let chunk = client.put(&metadata);
    assert_eq!(borg::Id(chunk.id).to_hex(), scene.take.id);
    // The complete archive does not refer to it any more; what only the checkpoint had goes.
    assert_eq!(client.archive_of("x", &[chunk], true), Verdict::Accepted);
    assert_eq!(client.archive("x", &[&noise(9, 1000)], false), Verdict::Accepted);
    client.end();
    assert!(worker.finish(job).archive.is_some());
    let (worker, mut client) = scene.system.backup("web1/etc", "newer");
    let job = client.opened.job;
    assert_eq!(client.archive("x", &[&metadata], false), Verdict::Accepted);
    client.end();
    assert!(worker.finish(job).archive.is_some());
    // Its list of files alone.
    assert_eq!(scene.system.delete(&["newer"]), 1);
    scene.system.stop();
    assert_eq!(scene.system.judge(), ["old", "new"]);
}

/// Another borg renames an archive, and later gives it its old name: it has its old id, and a list that others build on.
#[test]
fn an_archive_that_is_imported_once_more_leaves_the_lists_that_build_on_its_own() {
    let mut scene = scene_with(20);
    assert!(matches!(scene.import(&scene.uses).unwrap(), Report::Imported { .. }));
    let references: Vec<_> = scene.uses.iter().map(|one| wire::session::Reference { id: one.id, size: one.size, csize: 0 }).collect();
    let (worker, mut client) = scene.system.backup("web1/etc", "new");
    let job = client.opened.job;
    assert_eq!(client.archive_of("x", &references, false), Verdict::Accepted);
    client.end();
    let new = worker.finish(job).archive.unwrap();
    let size = |id: &str| fs::metadata(scene.system.layout.view("main", id)).unwrap().len();
    assert!(size(&new.id) < size(&scene.take.id) / 2, "it is a difference");
    let old = scene.system.archives().into_iter().find(|archive| archive.id == scene.take.id).unwrap();
    let key = store::ArchiveKey::of(&old);
    scene.system.store.write("test", "test", |w| w.archives().remove(&key)).unwrap();
    scene.system.stop();
    scene.system.start();
    assert!(matches!(scene.import(&scene.uses).unwrap(), Report::Imported { .. }));
    // All lists can be read: its own list of files goes, and nothing else.
    let delete = Operation::Delete { archives: vec!["new".into()], dry_run: false };
    let Report::Deleted { chunks: 1, kept_because: None, .. } = scene.system.maintain(delete).unwrap() else { panic!() };
    assert_eq!(scene.system.delete(&["old"]), scene.uses.len() as u64 + 1);
}

#[test]
fn who_waits_for_its_turn_is_not_listened_to() {
    let scene = scene();
    // More than any socket holds.
    let long = |asked: &mut Maintenance| {
        let mut bytes = vec![];
        for number in 0..200_000_u32 {
            let mut id = [0; 32];
            id[..4].copy_from_slice(&number.to_be_bytes());
            bytes.clear();
            Use { id, size: 5, count: 1 }.encode(&mut bytes);
            frame::write(&mut asked.stream, importing::USES, &[&bytes])?;
        }
        Ok::<_, wire::WireError>(())
    };
    let (said, heard) = std::sync::mpsc::channel();
    let streams: Vec<_> = (0..2)
        .map(|number| {
            let mut asked = Maintenance::begin(&scene.system, Operation::Import(Box::new(scene.take.clone())));
            let (stream, said) = (asked.stream.try_clone().unwrap(), said.clone());
            std::thread::spawn(move || said.send((number, long(&mut asked).is_ok())).unwrap());
            stream
        })
        .collect();
    let wait = std::time::Duration::from_secs;
    let (first, is_said): (usize, bool) = heard.recv_timeout(wait(120)).unwrap();
    assert!(is_said);
    assert!(heard.recv_timeout(wait(2)).is_err(), "both lists are in memory");
    // Who goes gives way.
    streams[first].shutdown(std::net::Shutdown::Both).unwrap();
    assert_eq!(heard.recv_timeout(wait(120)).unwrap(), (1 - first, true));
    streams[1 - first].shutdown(std::net::Shutdown::Both).unwrap();
    assert!(matches!(scene.import(&scene.uses).unwrap(), Report::Imported { .. }));
}
