//! Prunes of more archives than anybody makes in a test, and of archives that somebody wants to keep in the middle of it.
#![allow(clippy::unwrap_used, reason = "tests, their helper functions included")]

mod harness;

use borg::compress::{Compression, compress};
use borg::manifest::{ArchiveEntry, Manifest};
use borg::{Id, Key};
use harness::{Maintenance, System};
use model::archive::{Hold, PendingDeletion};
use model::progress::{SessionCounters, Statistics};
use model::{Archive, EncryptionMode, Timestamp};
use repositoryd::viewlist::{MAX_DEPTH, hex};
use sha2::{Digest, Sha256};
use store::{ArchiveKey, Deletion};
use wire::maintenance::{Operation, Report};

/// Chunks that all archives have.
const SHARED: u64 = 5;

fn id(space: u64, number: u64) -> Id {
    Id(Sha256::digest([space.to_le_bytes(), number.to_le_bytes()].concat()).into())
}

fn name(n: u64) -> String {
    format!("a{n:05}")
}

/// The bytes of a list: whole, or with the base's id and digest.
fn encode(depth: u32, chain: u64, base: Option<(Id, &str)>, references: &[Id], removed: &[Id]) -> Vec<u8> {
    let mut bytes = b"BCVIEW2\n".to_vec();
    bytes.extend(u64::from(depth).to_le_bytes());
    for count in [references.len() as u64, removed.len() as u64, 0, SHARED + 1, chain] {
        bytes.extend(count.to_le_bytes());
    }
    let (id, digest) = base.map_or(([0; 32], [0; 32]), |(id, digest)| (id.0, Id::from_hex(digest).unwrap().0));
    bytes.extend(id);
    bytes.extend(digest);
    bytes.extend([0; 48]);
    for id in references {
        bytes.extend(id.0);
        bytes.extend(100_u32.to_le_bytes());
        bytes.extend(100_u32.to_le_bytes());
    }
    removed.iter().for_each(|id| bytes.extend(id.0));
    bytes
}

/// A repository with so many archives of one config, each with a chunk of its own, of which all are due.
fn scene(count: u64) -> System {
    let mut system = System::new(EncryptionMode::None);
    system.stop();
    let key = Key::none();
    let options = repository::OpenOptions {
        exclusive: true,
        reserve: repository::Reserve::NONE,
        ..repository::OpenOptions::at(system.repo().to_str().unwrap())
    };
    let mut repository = repository::Repository::open(&options).unwrap();
    let own = |n: u64| id(1, n);
    let shared: Vec<Id> = (0..SHARED).map(|n| id(2, n)).collect();
    let envelope = key.seal(&compress(Compression::Lz4, &[7; 100]), 0);
    for id in (0..count).map(own).chain(shared.iter().copied()) {
        repository.put(&id, &envelope, 100).unwrap();
    }
    let now = Timestamp::now();
    let mut manifest = Manifest::empty(&borg::time::format(now.0));
    let mut records = vec![];
    let mut last: Option<(Id, String)> = None;
    let (mut depth, mut chain) = (0, 0);
    for n in 0..count {
        let archive = id(3, n);
        manifest.archives.insert(name(n).into_bytes(), ArchiveEntry { id: archive, time: borg::time::format(now.0) });
        let is_whole = n == 0 || depth == MAX_DEPTH;
        (depth, chain) = if is_whole { (0, 0) } else { (depth + 1, chain + 72) };
        let bytes = if is_whole {
            let mut all: Vec<Id> = shared.iter().copied().chain([own(n)]).collect();
            all.sort_unstable();
            encode(0, 0, None, &all, &[])
        } else {
            encode(depth, chain, last.as_ref().map(|(id, digest)| (*id, digest.as_str())), &[own(n)], &[own(n - 1)])
        };
        let digest = hex(&Sha256::digest(&bytes));
        std::fs::write(system.layout.view("main", &archive.to_hex()), bytes).unwrap();
        last = Some((archive, digest.clone()));
        records.push(Archive {
            id: archive.to_hex(),
            name: name(n),
            repository: system.name.clone(),
            client: "web1".parse().unwrap(),
            label: "etc".parse().unwrap(),
            job: 1,
            comment: String::new(),
            statistics: Statistics::default(),
            counters: SessionCounters::default(),
            start: now,
            end: now,
            incomplete: false,
            view_digest: digest,
            claims: vec![],
            suspicious: false,
            warnings: vec![],
            hold: None,
            pending_deletion: Some(PendingDeletion { since: now, due: Timestamp(now.0 - 1), by: "a test".into(), policy: None }),
            imported: None,
        });
    }
    let packed = manifest.pack(&key, [0; 64]);
    repository.put(&Id::MANIFEST, &key.seal(&compress(Compression::Lz4, &packed), 0), 0).unwrap();
    repository.commit().unwrap();
    repository.close();
    system.store.write("test", "test", |w| records.iter().try_for_each(|record| w.archives().put(record))).unwrap();
    system
}

fn due(names: impl Iterator<Item = u64>) -> Operation {
    Operation::DeleteDue { archives: names.map(name).collect(), compact: Some(0) }
}

fn lists(system: &System) -> usize {
    let all = std::fs::read_dir(system.layout.views("main")).unwrap();
    all.filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|extension| extension == "view")).count()
}

#[test]
fn ten_thousand_archives_go_at_once() {
    const ALL: u64 = 10_050;
    let mut system = scene(ALL);
    system.start();
    let go = || (0..ALL).filter(|n| n % 1000 != 7);
    let Report::Pruned { archives, chunks, kept_because: None, freed: Some(_), .. } = system.maintain(due(go())).unwrap() else { panic!() };
    assert_eq!((archives.len(), chunks), (go().count(), go().count() as u64));
    let left = system.archives();
    assert_eq!(left.len(), 11);
    // Somebody who looks at the log sees a line.
    let note = system.store.read(|r| r.log().newest(1)).unwrap().remove(0).note;
    assert!(note.contains("a00000, a00001") && note.contains(" more") && note.len() < 2000, "{note}");
    assert!(lists(&system) < 1200, "lists that nothing builds on are gone: {}", lists(&system));
    // What is left is what they say, and goes as well.
    let rest = || (0..ALL).filter(|n| n % 1000 == 7);
    let Report::Pruned { chunks, kept_because: None, .. } = system.maintain(due(rest())).unwrap() else { panic!() };
    assert_eq!((chunks, lists(&system), system.archives().len()), (11 + SHARED, 0, 0));
}

/// The owner is killed between the announcement and the commit.
#[test]
fn a_deletion_that_was_broken_off_is_forgotten() {
    let mut system = scene(4);
    let deletion = Deletion { repository: system.name.clone(), archives: vec![id(3, 1).to_hex()], time: Timestamp::now() };
    system.store.write("deleting", "owner", |w| w.deletions().put(&deletion)).unwrap();
    assert!(hold(&system, 1).unwrap_err().to_string().contains("is being deleted"));
    system.start();
    let Report::Pruned { archives, .. } = system.maintain(due(2..3)).unwrap() else { panic!() };
    assert_eq!(archives, [name(2)]);
    hold(&system, 1).unwrap();
    assert_eq!(system.archives().len(), 3);
    assert!(!system.store.read(|r| r.deletions().exists(&system.name)).unwrap());
}

fn hold(system: &System, n: u64) -> store::Result<()> {
    let key = ArchiveKey { repository: system.name.clone(), id: id(3, n).to_hex() };
    let hold = Hold { since: Timestamp::now(), by: "somebody".into(), reason: String::new() };
    system.store.write("hold", "somebody", |w| w.hold(std::slice::from_ref(&key), &hold)).map(drop)
}

#[test]
fn who_is_told_that_an_archive_is_held_has_it() {
    for (place, is_held) in [("before-removal=1500", true), ("after-removal=1500", false)] {
        let mut system = scene(4);
        system.set("BORGCUBE_TEST_PAUSE", place);
        system.start();
        let pruning = Maintenance::begin(&system, due(0..3));
        system.wait_for_pause();
        // Chosen already, or even out of the manifest.
        assert_eq!(hold(&system, 1).is_ok(), is_held, "{place}");
        let Report::Pruned { archives, .. } = pruning.report().unwrap() else { panic!() };
        let mut names: Vec<String> = system.archives().into_iter().map(|archive| archive.name).collect();
        names.sort();
        let expected: &[u64] = if is_held { &[1, 3] } else { &[3] };
        assert_eq!(names, expected.iter().map(|n| name(*n)).collect::<Vec<_>>(), "{place}");
        assert_eq!(archives.len() + names.len(), 4);
    }
}
