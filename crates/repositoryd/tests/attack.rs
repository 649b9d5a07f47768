//! Damage, deletions, compactions, broken sessions and crashes in any order: what archives refer to stays or is known to be damaged, and what nobody
//! refers to goes.
#![allow(clippy::unwrap_used, reason = "tests, their helper functions included")]

mod harness;

use borg::Id;
use harness::{Maintenance, System, noise};
use model::EncryptionMode;
use model::check::CheckPlan;
use repositoryd::viewlist::{Lists, Named};
use std::collections::BTreeSet;
use wire::maintenance::{Operation, Report};
use wire::session::Verdict;

/// Pieces of data that backups are made of.
const PIECES: u64 = 8;

struct Random(u64);

impl Random {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}

fn piece(n: u64) -> Vec<u8> {
    noise(100 + n, 30_000)
}

fn pieces(random: &mut Random) -> Vec<Vec<u8>> {
    (0..PIECES).filter(|_| random.below(3) == 0).map(piece).collect()
}

fn backup(system: &System, name: &str, chunks: &[Vec<u8>]) {
    let (worker, mut client) = system.backup("a/x", name);
    let job = client.opened.job;
    let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
    assert_eq!(client.archive("file", &chunks, false), Verdict::Accepted);
    client.end();
    assert!(worker.finish(job).archive.is_some());
}

fn check(system: &System) -> BTreeSet<String> {
    match system.maintain(Operation::CheckBy { plan: CheckPlan::everything(true) }).unwrap() {
        Report::Checked { chunks, .. } => chunks.into_iter().collect(),
        other => panic!("{other:?}"),
    }
}

/// A byte in one of the segments.
fn damage(system: &System, random: &mut Random) {
    let mut found: Vec<_> = std::fs::read_dir(system.repo().join("data/0")).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.metadata().unwrap().len() > 30_000);
    found.sort();
    if found.is_empty() {
        return;
    }
    let path = &found[random.below(found.len() as u64) as usize];
    let mut bytes = std::fs::read(path).unwrap();
    // In an object's data: what a damaged head does, others test.
    let mut at = 8;
    let mut places = vec![];
    while at + 9 <= bytes.len() {
        let size = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap()) as usize;
        if bytes[at + 8] == 0 && size > 20_000 {
            places.push(at + size / 2);
        }
        at += size;
    }
    if !places.is_empty() {
        bytes[places[random.below(places.len() as u64) as usize]] ^= 1;
        let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0).unwrap();
    }
}

fn everything(system: &System) -> (BTreeSet<Id>, BTreeSet<Id>) {
    let options = repository::OpenOptions { exclusive: true, lock_wait: 5, ..repository::OpenOptions::at(system.repo().to_str().unwrap()) };
    let mut repository = repository::Repository::open(&options).unwrap();
    let there: BTreeSet<Id> = repository.list_ids().unwrap().into_iter().collect();
    repository.close();
    let lists = Lists::new(system.layout.views("main"));
    let mut wanted = BTreeSet::from([Id::MANIFEST]);
    for archive in system.archives() {
        wanted.insert(Id::from_hex(&archive.id).unwrap());
        wanted.extend(lists.read(&Named::of(&archive)).unwrap().references.iter().map(|reference| Id(reference.id)));
    }
    (there, wanted)
}

/// Whether stock borg was asked in the end.
fn run(seed: u64, steps: u64) -> bool {
    let mut random = Random(seed);
    let mut system = System::new(EncryptionMode::Repokey);
    backup(&system, "first", &(0..PIECES).map(piece).collect::<Vec<_>>());
    let mut said = vec![];
    for step in 0..steps {
        let what = random.below(9);
        said.push(what);
        match what {
            0 | 1 => backup(&system, &format!("b{step}"), &pieces(&mut random)),
            2 => {
                damage(&system, &mut random);
                check(&system);
            }
            3 => {
                // One that breaks off, with a delete beside it.
                let (worker, mut client) = system.backup("a/x", &format!("broken{step}"));
                let job = client.opened.job;
                for chunk in pieces(&mut random) {
                    client.put(&chunk);
                }
                if random.below(2) == 0 {
                    let last = client.put(b"the last one");
                    assert!(client.read(last.id).is_some());
                }
                let names: Vec<String> =
                    system.archives().into_iter().map(|archive| archive.name).filter(|_| random.below(2) == 0).collect();
                system.delete(&names.iter().map(String::as_str).collect::<Vec<_>>());
                if random.below(2) == 0 {
                    backup(&system, &format!("beside{step}"), &[piece(random.below(PIECES))]);
                }
                drop(client);
                worker.finish(job);
            }
            4 => {
                let names: Vec<String> =
                    system.archives().into_iter().map(|archive| archive.name).filter(|_| random.below(2) == 0).collect();
                system.delete(&names.iter().map(String::as_str).collect::<Vec<_>>());
            }
            5 => drop(system.maintain(Operation::Compact { threshold: 0 }).unwrap()),
            6 => {
                check(&system);
            }
            // A crash in the middle of a delete or a compaction.
            7 | 8 => {
                system.stop();
                let (place, operation) = match random.below(4) {
                    0 => ("after-removal", None),
                    1 => ("after-journal", None),
                    2 => ("compact", Some(Operation::Compact { threshold: 0 })),
                    _ => ("before-removal", None),
                };
                let operation = operation.unwrap_or_else(|| {
                    let archives = system.archives().into_iter().map(|archive| archive.name).filter(|_| random.below(2) == 0).collect();
                    Operation::Delete { archives, dry_run: false }
                });
                system.set("BORGCUBE_TEST_PAUSE", place);
                system.start();
                let asked = Maintenance::begin(&system, operation);
                let marker = system.layout.state().join("paused");
                let mut asked = Some(asked);
                // It may have nothing to do, and end.
                let waiter = asked.take().map(|mut asked| std::thread::spawn(move || drop(asked.next())));
                while !marker.exists() && waiter.as_ref().is_some_and(|waiter| !waiter.is_finished()) {
                    std::thread::yield_now();
                }
                let _ = std::fs::remove_file(&marker);
                system.kill();
                waiter.unwrap().join().unwrap();
                system.set("BORGCUBE_TEST_PAUSE", "");
                system.start();
            }
            _ => {}
        }
    }
    // Opens it, and settles.
    system.maintain(Operation::Compact { threshold: 0 }).unwrap();
    let damaged = check(&system);
    system.stop();
    let (there, wanted) = everything(&system);
    let more: Vec<_> = there.difference(&wanted).collect();
    assert!(more.is_empty(), "seed {seed} {said:?}: {} objects belong to nobody: {more:?}, damaged {damaged:?}", more.len());
    let less: Vec<_> = wanted.difference(&there).filter(|id| !damaged.contains(&id.to_hex())).collect();
    assert!(less.is_empty(), "seed {seed} {said:?}: {less:?} are lost");
    // Whatever was damaged is sent again, and stock borg has the last word, unless what nobody needs any more is still in a damaged segment.
    system.start();
    backup(&system, "last", &(0..PIECES).map(piece).collect::<Vec<_>>());
    assert!(check(&system).is_empty(), "seed {seed} {said:?}");
    let compacted = system.maintain(Operation::Compact { threshold: 0 }).unwrap();
    let Report::Compacted { skipped, .. } = compacted else { panic!("{compacted:?}") };
    let mut archives: Vec<String> = system.archives().into_iter().map(|archive| archive.name).collect();
    system.stop();
    let (there, wanted) = everything(&system);
    assert_eq!(there, wanted, "seed {seed} {said:?}");
    if skipped > 0 {
        return false;
    }
    let mut found = system.judge();
    archives.sort();
    found.sort();
    assert_eq!(found, archives, "seed {seed} {said:?}");
    true
}

#[test]
fn nothing_is_lost_and_nothing_stays_behind() {
    let seeds = std::env::var("BORGCUBE_ATTACK_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(2);
    let judged = (0..seeds).filter(|seed| run(*seed, 14)).count();
    assert!(judged > 0, "stock borg had nothing to say");
}
