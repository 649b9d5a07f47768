//! Checks in slices: what was checked stays checked whatever ends them, and what is damaged has a name and is sent again.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod harness;

use harness::*;
use model::check::{CheckPlan, Coverage, Damage, DamagedFiles, Health};
use model::{Cause, EncryptionMode};
use std::path::PathBuf;
use wire::maintenance::{Operation, Report};
use wire::session::{Reference, Verdict};

struct Checked {
    bytes: u64,
    errors: Vec<String>,
    complete: bool,
    structure: Coverage,
    data: Option<Coverage>,
    damage: Option<Damage>,
    chunks: Vec<String>,
}

fn checked(report: Report) -> Checked {
    let Report::Checked { bytes, errors, complete, structure, data, damage, chunks, .. } = report else { panic!("{report:?}") };
    Checked { bytes, errors, complete, structure: structure.unwrap(), data, damage: damage.map(|damage| *damage), chunks }
}

fn check(system: &System, plan: CheckPlan) -> Checked {
    checked(system.maintain(Operation::CheckBy { plan }).unwrap())
}

fn recent(data: bool) -> CheckPlan {
    CheckPlan { skip_hours: 24, ..CheckPlan::everything(data) }
}

/// A commit for each: a segment for each.
fn backups(system: &System, seeds: std::ops::Range<u64>) {
    for seed in seeds {
        backup(system, &format!("n{seed}"), &[&noise(seed, 200_000)]);
    }
}

fn backup(system: &System, name: &str, chunks: &[&[u8]]) {
    let (worker, mut client) = system.backup("a/x", name);
    let job = client.opened.job;
    assert_eq!(client.archive("file", chunks, false), Verdict::Accepted);
    client.end();
    assert!(worker.finish(job).archive.is_some());
}

/// With another environment, and the same repository.
fn again(system: &mut System, variables: &[(&str, &str)]) {
    system.stop();
    variables.iter().for_each(|(name, value)| system.set(name, value));
    system.start();
}

fn health(system: &System) -> Health {
    system.store.read(|r| r.health().require(&system.name)).unwrap()
}

fn segments(system: &System) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(system.repo().join("data/0")).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort_by_key(|path| path.file_name().unwrap().to_str().unwrap().parse::<u32>().unwrap());
    found
}

fn largest(system: &System) -> PathBuf {
    segments(system).into_iter().max_by_key(|path| path.metadata().unwrap().len()).unwrap()
}

/// Flips a byte in the middle of a file, which stays as old as it was.
fn flip(path: &PathBuf) {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0).unwrap();
    file.set_modified(modified).unwrap();
}

#[test]
fn what_was_checked_lately_is_left_out() {
    let system = System::new(EncryptionMode::Repokey);
    backups(&system, 0..3);
    let first = check(&system, recent(false));
    assert!(first.complete && first.errors.is_empty() && first.bytes > 600_000);
    assert_eq!((first.structure.per_cent(), first.data.is_none()), (100, true));
    assert_eq!(check(&system, recent(false)).bytes, 0);
    backups(&system, 3..4);
    let third = check(&system, recent(false));
    assert!((200_000..300_000).contains(&third.bytes), "{}", third.bytes);
    // Content was never looked at.
    let content = check(&system, recent(true));
    assert!(content.bytes > 800_000);
    assert_eq!((content.data.unwrap().per_cent(), check(&system, recent(true)).bytes), (100, 0));
    // What is asked for as a whole is done as a whole.
    assert!(check(&system, CheckPlan::everything(false)).bytes > 800_000);
    let health = health(&system);
    assert_eq!((health.damage, health.structure.unwrap().per_cent()), (None, 100));
    // What a delete and a compact have taken is not there any more, what they wrote is new.
    system.delete(&["n0", "n1"]);
    system.maintain(Operation::Compact { threshold: 0 }).unwrap();
    let after = check(&system, recent(false));
    assert!(after.errors.is_empty() && after.bytes > 0 && after.structure.per_cent() == 100, "{:?}", after.errors);
}

#[test]
fn a_kill_in_the_middle_loses_the_slice_under_way_and_no_more() {
    let mut system = System::new(EncryptionMode::Repokey);
    backups(&system, 0..4);
    again(&mut system, &[("BORGCUBE_CHECK_SLICE_BYTES", "1"), ("BORGCUBE_TEST_PAUSE", "check-slice")]);
    let checking = Maintenance::begin(&system, Operation::CheckBy { plan: recent(true) });
    system.wait_for_pause();
    system.kill();
    drop(checking);
    system.set("BORGCUBE_TEST_PAUSE", "");
    system.start();
    let rest = check(&system, recent(true));
    assert!(rest.complete && (600_000..rest.structure.bytes).contains(&rest.bytes), "{} of {}", rest.bytes, rest.structure.bytes);
    assert_eq!(rest.data.unwrap().per_cent(), 100);
}

#[test]
fn a_time_limit_ends_it_and_the_next_one_goes_on() {
    let mut system = System::new(EncryptionMode::Repokey);
    backups(&system, 0..4);
    again(&mut system, &[("BORGCUBE_CHECK_SLICE_BYTES", "1"), ("BORGCUBE_TEST_PAUSE", "check-slice=700")]);
    let limited = CheckPlan { seconds: Some(1), ..recent(false) };
    let first = check(&system, limited.clone());
    assert!(!first.complete && first.errors.is_empty());
    let part = first.structure.per_cent();
    assert!((1..100).contains(&part), "{part}");
    let second = check(&system, limited);
    assert!(second.structure.per_cent() > part, "{} after {part}", second.structure.per_cent());
    assert_eq!(health(&system).structure.unwrap().checked, second.structure.checked);
    again(&mut system, &[("BORGCUBE_TEST_PAUSE", "")]);
    let last = check(&system, recent(false));
    assert!(last.complete && last.structure.per_cent() == 100);
    assert_eq!(first.bytes + second.bytes + last.bytes, last.structure.bytes, "nothing twice, nothing left out");
}

#[test]
fn damage_has_a_name_and_is_sent_again_and_is_over_when_all_is_sound() {
    let system = System::new(EncryptionMode::Repokey);
    let (lost, other) = (noise(7, 200_000), noise(8, 1000));
    backup(&system, "first", &[&lost]);
    backup(&system, "second", &[&lost, &other]);
    backup(&system, "third", &[&other]);
    assert!(check(&system, CheckPlan::everything(true)).damage.is_none());
    flip(&largest(&system));
    // Lately it was sound, so nobody looks.
    assert!(check(&system, recent(true)).errors.is_empty());
    let found = check(&system, CheckPlan::everything(false));
    let damage = found.damage.unwrap();
    let names: Vec<&str> = damage.archives.iter().map(|archive| archive.name.as_str()).collect();
    assert_eq!((names, damage.chunks, found.chunks.len()), (vec!["first", "second"], 1, 1), "{damage:?}");
    assert_eq!(damage.clients().into_iter().map(|client| client.as_str()).collect::<Vec<_>>(), ["a"]);
    assert!(found.errors[0].contains("segment"), "{:?}", found.errors);
    // Which files, whoever looked tells.
    let files = DamagedFiles { paths: vec!["file\u{1b}".into()], more: 0, incomplete: None };
    assert_eq!(system.maintain(Operation::NoteFiles { files: vec![(damage.archives[0].id.clone(), files)] }).unwrap(), Report::Noted);
    assert_eq!(health(&system).damage.unwrap().archives[0].files.as_ref().unwrap().paths, ["file\\u{1b}"]);

    // Nothing is pruned meanwhile.
    let refused = system.maintain(Operation::DeleteDue { archives: vec!["third".into()], compact: None }).unwrap_err();
    assert_eq!(refused.cause, Cause::RepositoryCheckNeeded);

    // No archive may refer to it as it is; what was sent again is stored again, and no damage any more.
    let mut worker = system.worker();
    let job = system.job("a/x");
    let (prepared, _) = worker.prepare(job, "proposed").unwrap();
    assert_eq!(prepared.kept, None);
    let mut client = system.open(&prepared.token).unwrap();
    let chunk = wire::session::Reference { id: read_id(&found.chunks[0]), size: 200_000, csize: 200_000 };
    let refused = client.archive_of("file", &[chunk], false);
    assert!(matches!(&refused, Verdict::Failed(failure) if failure.cause == Cause::ViewStale), "{refused:?}");
    drop(client);
    worker.finish(job);
    // One that breaks off leaves things as they were, or sound.
    let (worker, mut client) = system.backup("a/x", "broken-off");
    let job = client.opened.job;
    client.put(&lost);
    drop(client);
    worker.finish(job);
    backup(&system, "again", &[&lost]);
    let healed = check(&system, CheckPlan::everything(true));
    let still = healed.damage.unwrap();
    assert_eq!((still.chunks, still.archives.len()), (0, 0), "what is bad in the segment nobody needs: {still:?}");
    assert!(!healed.errors.is_empty() && healed.chunks.is_empty());
    // Stock borg takes it out.
    let (lent, _) = system.release();
    let borg = testkit::Borg::judges().pop().unwrap();
    let mut repair = borg.command(&system.world());
    repair.args(["check", "--repair", "--repository-only"]).arg(system.repo()).env("BORG_CHECK_I_KNOW_WHAT_I_AM_DOING", "YES");
    repair.output().unwrap();
    drop(lent);
    // Structure alone is not all: it was found by it, but a part is no complete check.
    let part = check(&system, CheckPlan { archives: false, ..CheckPlan::everything(false) });
    assert!(part.errors.is_empty() && part.damage.is_some(), "{:?}", part.errors);
    let sound = check(&system, recent(false));
    assert!(sound.errors.is_empty() && sound.damage.is_none(), "{:?} {:?}", sound.errors, sound.damage);
    assert_eq!(health(&system).damage, None);
}

fn read_id(text: &str) -> [u8; 32] {
    borg::Id::from_hex(text).unwrap().0
}

#[test]
fn content_that_is_not_what_its_id_promises_needs_a_check_of_the_content() {
    let system = System::new(EncryptionMode::None);
    backup(&system, "one", &[&noise(1, 3000)]);
    backup(&system, "two", &[&noise(2, 3000)]);
    check(&system, CheckPlan::everything(true));
    // Another content under a right checksum: put by whoever has the repository.
    let (lent, _) = system.release();
    let data = noise(1, 3000);
    let id = borg::Key::none().id_hash(&data);
    let mut repository = repository::Repository::open(&repository::OpenOptions {
        exclusive: true,
        reserve: repository::Reserve::NONE,
        ..repository::OpenOptions::at(system.repo().to_str().unwrap().to_owned())
    })
    .unwrap();
    let envelope = borg::Key::none().seal(&[&[0, 0][..], b"something else"].concat(), 0);
    repository.put(&id, &envelope, 14).unwrap();
    repository.commit().unwrap();
    repository.close();
    drop(lent);
    assert!(check(&system, CheckPlan::everything(false)).damage.is_none_or(|damage| damage.chunks == 0));
    let found = check(&system, CheckPlan::everything(true)).damage.unwrap();
    assert_eq!((found.needs_data, found.chunks, found.archives.len()), (true, 1, 1), "{found:?}");
    assert_eq!(found.archives[0].name, "one");
    // One that does not look at content does not end it.
    assert!(check(&system, CheckPlan::everything(false)).damage.is_some());
    backup(&system, "three", &[&data]);
    assert!(check(&system, CheckPlan::everything(false)).damage.is_some());
    let sound = check(&system, CheckPlan::everything(true));
    assert!(sound.damage.is_none(), "{:?}", sound.damage);
}

/// Waits until everything that a session has sent is stored: it is in the order in which it was sent.
fn arrived(client: &mut Client) {
    let last = client.put(b"the last one");
    assert!(client.read(last.id).is_some());
}

#[test]
fn what_was_sent_again_stays_damaged_for_a_check_until_it_is_committed() {
    let mut system = System::new(EncryptionMode::Repokey);
    let lost = noise(7, 200_000);
    backup(&system, "first", &[&lost]);
    flip(&largest(&system));
    assert_eq!(check(&system, CheckPlan::everything(true)).chunks.len(), 1);
    let (worker, mut client) = system.backup("a/x", "broken-off");
    let job = client.opened.job;
    client.put(&lost);
    arrived(&mut client);
    // What it reads is sound, and goes again if that session breaks off. (One of the segments would wait for that session.)
    assert_eq!(check(&system, CheckPlan { structure: false, ..CheckPlan::everything(false) }).chunks.len(), 1);
    // Somebody else's commit makes it durable.
    let (other, mut another) = system.backup("b/x", "beside");
    let number = another.opened.job;
    assert_eq!(another.archive("file", &[&noise(9, 1000)], false), Verdict::Accepted);
    another.end();
    assert!(other.finish(number).archive.is_some());
    drop(client);
    worker.finish(job);
    // Closing tidies whatever is to go.
    system.stop();
    system.start();
    let after = check(&system, CheckPlan::everything(true));
    assert!(after.chunks.is_empty(), "{:?}", after.errors);
    assert_eq!(system.delete(&["first"]), 2);
}

#[test]
fn what_is_damaged_and_in_a_view_is_not_saved_by_a_delete() {
    let mut system = System::new(EncryptionMode::Repokey);
    let lost = noise(7, 200_000);
    backup(&system, "first", &[&lost]);
    backup(&system, "other", &[&noise(8, 1000)]);
    let (worker, mut client) = system.backup("a/x", "next");
    let job = client.opened.job;
    flip(&largest(&system));
    let found = check(&system, CheckPlan::everything(true));
    assert_eq!(found.chunks.len(), 1);
    // The chunk and its list of files: the session has nothing of it but a damaged copy.
    assert!(system.delete(&["first"]) >= 1);
    let chunk = Reference { id: read_id(&found.chunks[0]), size: 200_000, csize: 200_000 };
    let refused = client.archive_of("file", &[chunk], false);
    assert!(matches!(&refused, Verdict::Failed(failure) if failure.cause == Cause::ViewStale), "{refused:?}");
    drop(client);
    assert!(worker.finish(job).archive.is_none());
    assert!(check(&system, CheckPlan::everything(true)).chunks.is_empty());
    backup(&system, "again", &[&lost]);
    system.stop();
}

#[test]
fn what_a_session_has_stored_and_is_damaged_since_is_no_part_of_its_archive() {
    let system = System::new(EncryptionMode::Repokey);
    backup(&system, "first", &[&noise(8, 1000)]);
    let (worker, mut client) = system.backup("a/x", "next");
    let job = client.opened.job;
    let chunk = client.put(&noise(7, 200_000));
    arrived(&mut client);
    // Somebody else's commit makes it durable.
    backup(&system, "beside", &[&noise(9, 1000)]);
    flip(&largest(&system));
    assert_eq!(check(&system, CheckPlan::everything(true)).chunks.len(), 1);
    let refused = client.archive_of("file", &[chunk], false);
    assert!(matches!(&refused, Verdict::Failed(failure) if failure.cause == Cause::ViewStale), "{refused:?}");
    drop(client);
    assert!(worker.finish(job).archive.is_none());
}

/// Whether the repository still has this object; nobody may have it open.
fn is_stored(system: &System, id: &str) -> bool {
    let options = repository::OpenOptions { exclusive: true, lock_wait: 5, ..repository::OpenOptions::at(system.repo().to_str().unwrap()) };
    let mut repository = repository::Repository::open(&options).unwrap();
    let got = repository.get(&borg::Id(read_id(id)));
    repository.close();
    !matches!(got, Err(repository::Error::ObjectNotFound(_)))
}

/// A system with two archives, of which the first has a damaged chunk; that, and its id.
fn damaged() -> (System, Vec<u8>, String) {
    let system = System::new(EncryptionMode::Repokey);
    let lost = noise(7, 200_000);
    backup(&system, "first", &[&lost]);
    backup(&system, "other", &[&noise(8, 1000)]);
    flip(&largest(&system));
    let id = check(&system, CheckPlan::everything(true)).chunks.pop().unwrap();
    (system, lost, id)
}

#[test]
fn a_delete_that_breaks_off_leaves_no_damaged_chunk_behind() {
    let (mut system, _, id) = damaged();
    again(&mut system, &[("BORGCUBE_TEST_PAUSE", "after-removal")]);
    let deleting = Maintenance::begin(&system, Operation::Delete { archives: vec!["first".into()], dry_run: false });
    system.wait_for_pause();
    system.kill();
    drop(deleting);
    system.set("BORGCUBE_TEST_PAUSE", "");
    system.start();
    // Opens it, and what is known to be nobody's goes.
    system.maintain(Operation::Compact { threshold: 0 }).unwrap();
    system.stop();
    assert!(!is_stored(&system, &id));
}

#[test]
fn what_is_sent_again_while_its_last_archive_goes_leaves_nothing_behind() {
    for commit in [false, true] {
        let (mut system, lost, id) = damaged();
        let (worker, mut client) = system.backup("a/x", "broken-off");
        let job = client.opened.job;
        client.put(&lost);
        arrived(&mut client);
        system.delete(&["first"]);
        if commit {
            // Somebody else's makes it durable.
            backup(&system, "beside", &[&noise(9, 1000)]);
        }
        drop(client);
        assert!(worker.finish(job).archive.is_none());
        system.stop();
        assert!(!is_stored(&system, &id), "{commit}");
        system.start();
    }
}

#[test]
fn what_was_damaged_and_is_queued_again_is_read_as_it_was_sent() {
    let (mut system, lost, _) = damaged();
    again(&mut system, &[("BORGCUBE_TEST_PAUSE", "group=1500")]);
    let (worker, mut client) = system.backup("a/x", "next");
    let job = client.opened.job;
    let (other, mut another) = system.backup("b/x", "beside");
    let number = another.opened.job;
    let list = another.put(&item("file", &[]));
    assert_eq!(another.propose(&[list.id], &[], false), Verdict::Accepted);
    wire::frame::write(&mut another.stream, wire::session::kind::COMMIT, &[]).unwrap();
    // The writer does nothing for a while.
    system.wait_for_pause();
    let chunk = client.put(&lost);
    assert_eq!(client.read(chunk.id).unwrap(), lost);
    assert_eq!(another.verdict(), Verdict::Accepted);
    another.end();
    assert!(other.finish(number).archive.is_some());
    assert_eq!(client.archive_of("file", &[chunk], false), Verdict::Accepted);
    client.end();
    assert!(worker.finish(job).archive.is_some());
}
