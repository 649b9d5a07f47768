//! Compaction: nothing is lost, nothing comes back, nobody waits.
#![allow(clippy::unwrap_used, reason = "these are tests")]

#[allow(dead_code, reason = "other tests need more of it")]
#[path = "local/common.rs"]
mod common;

use borg::Id;
use common::*;
use repository::{Compaction, Error, OpenOptions, Repository, Reserve, Step};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use testkit::borgs::not_run;
use testkit::{Borg, BorgWorld};

fn compacted(repository: &mut Repository, threshold: u8) -> Compaction {
    let mut compaction = repository.plan_compaction(threshold).unwrap();
    loop {
        match repository.compact_step(&mut compaction, Duration::from_millis(5)).unwrap() {
            Step::More => {}
            Step::Commit => repository.commit().unwrap(),
            Step::Done => return compaction,
        }
    }
}

/// Segments of no more than about so many bytes.
fn small_segments(path: &Path, bytes: u32) {
    let config = std::fs::read_to_string(path.join("config")).unwrap();
    let lines =
        config.lines().map(|line| if line.starts_with("max_segment_size") { format!("max_segment_size = {bytes}") } else { line.into() });
    std::fs::write(path.join("config"), lines.collect::<Vec<_>>().join("\n") + "\n").unwrap();
}

fn without_index(path: &Path) {
    for name in ["index.", "hints.", "integrity."] {
        beside(path, name).iter().for_each(|file| std::fs::remove_file(path.join(file)).unwrap());
    }
}

/// A copy of everything but the lock: what would be there after a crash. What is being removed meanwhile is removed in its order, so that a
/// copy is one of a moment if nothing has vanished before its end.
fn crashed(path: &Path, into: &Path) {
    let there = || (segments(path), beside(path, ""));
    loop {
        let _ = std::fs::remove_dir_all(into);
        let before = there();
        let output = Command::new("cp").arg("-a").arg(path).arg(into).output().unwrap();
        if there() == before {
            assert!(output.status.success(), "{output:?}");
            break;
        }
    }
    let _ = std::fs::remove_dir_all(into.join("lock.exclusive"));
    let _ = std::fs::remove_file(into.join("lock.roster"));
}

fn served(path: &Path, borg: &Borg) -> Repository {
    Repository::open(&OpenOptions { served: true, borg: borg.program.to_str().unwrap().into(), ..options(path) }).unwrap()
}

fn bytes_in(path: &Path) -> u64 {
    segments(path).iter().map(|number| std::fs::metadata(segment(path, *number)).unwrap().len()).sum()
}

#[test]
fn every_borg_is_content_with_what_is_left() {
    for borg in borgs() {
        let world = BorgWorld::new();
        let (path, index) = (world.join("repo"), world.join("index"));
        borg.init(&world, &path, "none").unwrap();
        small_segments(&path, 100_000);
        let trees: Vec<_> = (0..4).map(|number| source(&world, number)).collect();
        for (number, tree) in trees.iter().enumerate() {
            borg.create(&world, &path, &number.to_string(), &[], &[tree]).unwrap();
        }
        let delete = |name: &str| borg.run(&world, ["delete".to_owned(), format!("{}::{name}", path.display())]).unwrap();
        delete("1");
        let mut repository = Repository::open(&kept(&path, &index)).unwrap();
        let (before, bytes) = (objects(&mut repository), bytes_in(&path));
        let compaction = compacted(&mut repository, 0);
        // 1.1 has compacted already.
        let least = if borg.at_least([1, 2, 0]) { 10_000 } else { 100 };
        assert!(compaction.segments() > 0 && compaction.freed() > least, "{} {compaction:?}", borg.version);
        assert!(bytes_in(&path) < bytes + 100);
        assert!(objects(&mut repository) == before);
        drop(repository);
        // From the log alone, by every borg; then by ours with the index it kept, and without.
        for judge in borgs() {
            crashed(&path, &world.join("copy"));
            without_index(&world.join("copy"));
            assert!(objects(&mut served(&world.join("copy"), &judge)) == before, "{} after {}", judge.version, borg.version);
            judge.judge(&world, &world.join("copy"), "2", &trees[2]).unwrap();
        }
        assert!(objects(&mut open(&path)) == before);
        let mut repository = Repository::open(&kept(&path, &index)).unwrap();
        assert!(objects(&mut repository) == before);
        repository.close();
        for judge in borgs() {
            judge.judge(&world, &path, "0", &trees[0]).unwrap();
        }
        // Theirs after ours, and ours after theirs.
        delete("0");
        if borg.at_least([1, 2, 0]) {
            borg.run(&world, ["compact".as_ref(), "--threshold=1".as_ref(), path.as_os_str()]).unwrap();
        }
        borg.create(&world, &path, "again", &[], &[&trees[0]]).unwrap();
        delete("2");
        let mut repository = Repository::open(&kept(&path, &index)).unwrap();
        let before = objects(&mut repository);
        compacted(&mut repository, 0);
        assert!(objects(&mut repository) == before);
        repository.close();
        for judge in borgs() {
            crashed(&path, &world.join("copy"));
            without_index(&world.join("copy"));
            assert!(objects(&mut served(&world.join("copy"), &judge)) == before, "{} after {}", judge.version, borg.version);
            judge.judge(&world, &path, "again", &trees[0]).unwrap();
            judge.judge(&world, &path, "3", &trees[3]).unwrap();
        }
    }
}

/// Numbers as good as random ones.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// Whatever is put, deleted, committed, discarded and compacted in whatever order: a map that does the same has the same objects, and so
/// has the log from its beginning, at each step.
#[test]
fn nothing_is_lost_and_nothing_comes_back() {
    for seed in 0..6 {
        let mut dice = Dice(seed);
        let dir = tempfile::tempdir().unwrap();
        let (path, index, copy) = (dir.path().join("repo"), dir.path().join("index"), dir.path().join("copy"));
        create(&path).close();
        small_segments(&path, 3000);
        let mut repository = Repository::open(&kept(&path, &index)).unwrap();
        repository.put(&id(1000), b"first", 0).unwrap();
        repository.commit().unwrap();
        let mut now = BTreeMap::from([(id(1000), b"first".to_vec())]);
        let mut committed = now.clone();
        let mut compaction: Option<Compaction> = None;
        let (mut done, mut removed) = (0, 0);
        for turn in 0..1500u32 {
            match dice.roll(100) {
                0..40 => {
                    let (id, data) = (id(dice.roll(60) as u32), vec![turn as u8; dice.roll(600) as usize]);
                    repository.put(&id, &data, 0).unwrap();
                    now.insert(id, data);
                }
                40..60 => {
                    let id = id(dice.roll(60) as u32);
                    if now.remove(&id).is_some() {
                        repository.delete(&id).unwrap();
                    }
                }
                60..70 => {
                    repository.commit().unwrap();
                    committed = now.clone();
                }
                70..72 => {
                    repository.discard().unwrap();
                    now = committed.clone();
                }
                72..74 => {
                    repository.close();
                    compaction = None;
                    now = committed.clone();
                    repository = Repository::open(&kept(&path, &index)).unwrap();
                }
                _ => {
                    let threshold = dice.roll(60) as u8;
                    let at_work = compaction.get_or_insert_with(|| repository.plan_compaction(threshold).unwrap());
                    let before = at_work.segments();
                    let mut step = Step::More;
                    for _ in 0..=dice.roll(10) {
                        if step == Step::More {
                            step = repository.compact_step(at_work, Duration::ZERO).unwrap();
                        }
                    }
                    removed += at_work.segments() - before;
                    match step {
                        Step::More => {}
                        Step::Commit => {
                            repository.commit().unwrap();
                            committed = now.clone();
                        }
                        Step::Done => {
                            done += 1;
                            compaction = None;
                        }
                    }
                }
            }
            if turn % 10 == 0 {
                let found: BTreeMap<Id, Vec<u8>> = objects(&mut repository).into_iter().collect();
                assert!(found == now, "seed {seed}, turn {turn}");
                crashed(&path, &copy);
                without_index(&copy);
                let found: BTreeMap<Id, Vec<u8>> = objects(&mut open(&copy)).into_iter().collect();
                assert!(found == committed, "seed {seed}, turn {turn}: from the log alone");
            }
        }
        assert!(done > 10 && removed > 30, "{done} {removed}");
        repository.close();
        for judge in borgs() {
            crashed(&path, &copy);
            without_index(&copy);
            let found: BTreeMap<Id, Vec<u8>> = objects(&mut served(&copy, &judge)).into_iter().collect();
            assert!(found == committed, "seed {seed}: {}", judge.version);
        }
    }
}

#[test]
fn what_is_compact_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("repo");
    create(&path).close();
    small_segments(&path, 50_000);
    let mut repository = open(&path);
    for n in 0..500 {
        repository.put(&id(n), &[n as u8; 1000], 0).unwrap();
    }
    repository.commit().unwrap();
    for n in (0..500).step_by(3) {
        repository.delete(&id(n)).unwrap();
    }
    // As every deletion ends.
    repository.put(&Id::MANIFEST, b"manifest", 0).unwrap();
    repository.commit().unwrap();
    let bytes = bytes_in(&path);
    let compaction = compacted(&mut repository, 10);
    // New segments have a beginning, and commits an entry.
    let less = bytes - bytes_in(&path);
    assert!(compaction.freed() > 160_000 && (less..less + 500).contains(&compaction.freed()), "{less} {compaction:?}");
    assert_eq!(repository.plan_compaction(10).unwrap().victims(), 0);
    // Every DELETE could go with what it was about.
    assert!(bytes_in(&path) < 333 * 1041 + 3000, "{}", bytes_in(&path));
    // A little more is gone in a segment that is not worth it: the DELETE must stay, and stays where it is.
    repository.delete(&id(1)).unwrap();
    repository.put(&Id::MANIFEST, b"manifest", 0).unwrap();
    repository.commit().unwrap();
    compacted(&mut repository, 10);
    assert_eq!(repository.plan_compaction(10).unwrap().victims(), 0);
    repository.close();
    assert!(!open(&path).list_ids().unwrap().contains(&id(1)));
}

#[test]
fn what_only_grows_is_not_compacted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("repo");
    create(&path).close();
    let config = std::fs::read_to_string(path.join("config")).unwrap();
    std::fs::write(path.join("config"), config.replace("append_only = 0", "append_only = 1")).unwrap();
    let mut repository = open(&path);
    repository.put(&id(1), b"x", 0).unwrap();
    repository.delete(&id(1)).unwrap();
    repository.commit().unwrap();
    assert!(matches!(repository.plan_compaction(0), Err(Error::Unsupported(_))));
}

#[test]
fn slices_are_short_and_readers_find_everything() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("repo");
    create(&path).close();
    small_segments(&path, 50_000_000);
    let mut repository = open(&path);
    let large = vec![7; borg::MAX_OBJECT];
    for n in 0..12 {
        repository.put(&id(n), &large, 0).unwrap();
    }
    for n in 100..20_000 {
        repository.put(&id(n), &n.to_le_bytes(), 0).unwrap();
    }
    repository.commit().unwrap();
    for n in (0..12).step_by(2).chain((100..20_000).step_by(2)) {
        repository.delete(&id(n)).unwrap();
    }
    repository.commit().unwrap();
    let reader = repository.reader().unwrap();
    let ended = AtomicBool::new(false);
    let (mut longest, mut steps) = (Duration::ZERO, 0);
    std::thread::scope(|scope| {
        for first in [1, 101] {
            let (ended, reader) = (&ended, reader.clone());
            scope.spawn(move || {
                let mut n = first;
                while !ended.load(Ordering::Relaxed) {
                    let data = reader.get(&id(n)).unwrap().unwrap_or_else(|| panic!("{n} is gone"));
                    assert!(if n < 12 { data.len() == borg::MAX_OBJECT } else { data == n.to_le_bytes() });
                    assert!(!reader.contains(&id(n + 1)).unwrap());
                    n += 2;
                    n = if n < 100 { n % 12 } else { 101 + n % 10_000 / 2 * 2 };
                }
            });
        }
        let mut compaction = repository.plan_compaction(10).unwrap();
        loop {
            let begin = Instant::now();
            let step = repository.compact_step(&mut compaction, Duration::from_millis(50)).unwrap();
            longest = longest.max(begin.elapsed());
            steps += 1;
            match step {
                Step::More => {}
                Step::Commit => repository.commit().unwrap(),
                Step::Done => break,
            }
        }
        ended.store(true, Ordering::Relaxed);
        println!("{steps} steps, the longest took {longest:?}; {} segments, {} bytes freed", compaction.segments(), compaction.freed());
        assert!(compaction.freed() > 100 << 20);
    });
    assert!(longest < Duration::from_secs(10), "{longest:?}");
    assert_eq!(repository.object_count().unwrap(), 6 + 9950);
}

/// Compacts until it is killed, after having deleted some; run by the test below only.
#[test]
fn helper_that_compacts() {
    let Some(path) = std::env::var_os("COMPACT") else { return };
    let path = Path::new(&path);
    let mut repository = Repository::open(&kept(path, &path.with_extension("index"))).unwrap();
    std::fs::write(path.with_extension("ready"), "").unwrap();
    let mut compaction = repository.plan_compaction(0).unwrap();
    loop {
        match repository.compact_step(&mut compaction, Duration::ZERO).unwrap() {
            Step::More => {}
            Step::Commit => repository.commit().unwrap(),
            Step::Done => break,
        }
    }
    repository.close();
}

#[test]
fn a_killed_compaction_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("repo");
    create(&path).close();
    small_segments(&path, 20_000);
    let judges = borgs();
    let (mut killed, mut dice) = (0, Dice(5));
    for round in 0..14u32 {
        let mut repository = Repository::open(&kept(&path, &path.with_extension("index"))).unwrap();
        for n in 0..600 {
            repository.put(&id(dice.roll(2000) as u32), &vec![n as u8; dice.roll(400) as usize], 0).unwrap();
        }
        for id in repository.list_ids().unwrap() {
            if dice.roll(3) == 0 {
                repository.delete(&id).unwrap();
            }
        }
        repository.commit().unwrap();
        let before = objects(&mut repository);
        repository.close();
        let ready = path.with_extension("ready");
        let _ = std::fs::remove_file(&ready);
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "helper_that_compacts"]).env("COMPACT", &path).stdout(Stdio::null());
        let mut child = command.spawn().unwrap();
        testkit::retry_until(Duration::from_secs(20), || ready.exists().then_some(())).unwrap();
        std::thread::sleep(Duration::from_millis(dice.roll(40)));
        child.kill().unwrap();
        killed += u32::from(!child.wait().unwrap().success());
        let judge = &judges[round as usize % judges.len()];
        let copy = dir.path().join("copy");
        crashed(&path, &copy);
        without_index(&copy);
        assert!(objects(&mut served(&copy, judge)) == before, "round {round}: {}", judge.version);
        assert!(objects(&mut Repository::open(&kept(&path, &path.with_extension("index"))).unwrap()) == before, "round {round}");
        assert!(objects(&mut open(&path)) == before, "round {round}");
    }
    println!("{killed} of 14 were killed at work");
    assert!(killed > 3, "{killed}");
}

/// The hints that we write for Borg have no shadow index (see docs/interchange.md): Borg cannot know of a PUT that ours superseded, and may
/// drop the DELETE that is about it. What comes of it in an index that is built from the log alone: such an object is there again, as it was
/// once stored, and nothing else changes.
#[test]
fn what_theirs_deletes_and_compacts_may_come_back_as_it_was_and_nothing_else_changes() {
    for borg in borgs() {
        let world = BorgWorld::new();
        let (path, index, copy) = (world.join("repo"), world.join("index"), world.join("copy"));
        borg.init(&world, &path, "none").unwrap();
        small_segments(&path, 200_000);
        // Much that stays, and the first version of an object; then the second one, of ours, and much that goes.
        let twice = id(5000);
        let mut repository = Repository::open(&kept(&path, &index)).unwrap();
        for n in 0..90 {
            repository.put(&id(n), &vec![n as u8; 1000], 0).unwrap();
        }
        repository.put(&twice, b"the first", 0).unwrap();
        repository.commit().unwrap();
        repository.put(&twice, b"the second", 0).unwrap();
        for n in 1000..1050 {
            repository.put(&id(n), &vec![n as u8; 1000], 0).unwrap();
        }
        repository.commit().unwrap();
        let mut live = objects(&mut repository);
        live.retain(|(object, _)| *object != twice && !(1000..1050).any(|n| *object == id(n)));
        assert_eq!(live.len(), 91);
        repository.close();
        assert_eq!(beside(&path, "hints.").len(), 1, "they go by our hints");
        let mut theirs = served(&path, &borg);
        theirs.delete(&twice).unwrap();
        (1000..1050).for_each(|n| theirs.delete(&id(n)).unwrap());
        theirs.commit().unwrap();
        theirs.close();
        if borg.at_least([1, 2, 0]) {
            borg.run(&world, ["compact".as_ref(), "--threshold=10".as_ref(), path.as_os_str()]).unwrap();
        }
        // By their index, and by ours that goes on from what it knew.
        assert!(objects(&mut served(&path, &borg)) == live, "{}", borg.version);
        crashed(&path, &copy);
        assert!(objects(&mut Repository::open(&kept(&copy, &index)).unwrap()) == live, "{}", borg.version);
        // From the log alone.
        crashed(&path, &copy);
        without_index(&copy);
        let mut found = objects(&mut open(&copy));
        let back: Vec<_> = found.extract_if(.., |(id, _)| *id == twice).collect();
        assert!(found == live, "{}", borg.version);
        assert!(back.is_empty() || back == [(twice, b"the first".to_vec())], "{}: {back:?}", borg.version);
        println!("borg {}: {} came back", borg.version, back.len());
        without_index(&copy);
        assert_eq!(objects(&mut served(&copy, &borg)).len(), live.len() + back.len(), "{} sees the same", borg.version);
    }
}

#[test]
fn a_rotten_id_keeps_its_segment_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("repo");
    create(&path).close();
    small_segments(&path, 20_000);
    let mut repository = open(&path);
    for n in 0..200 {
        repository.put(&id(n), &vec![n as u8; 1000], 0).unwrap();
    }
    repository.commit().unwrap();
    let victims = segments(&path).len() as u64;
    for n in (1..200).step_by(2) {
        repository.delete(&id(n)).unwrap();
    }
    repository.commit().unwrap();
    // The id of the third object, which is behind the header of its PUT.
    let file = std::fs::OpenOptions::new().write(true).open(segment(&path, 0)).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[0xff], 8 + 2 * 1041 + 9).unwrap();
    for round in 0..2 {
        let compaction = compacted(&mut repository, 10);
        match compaction.skipped() {
            [(0, Error::CheckNeeded(why))] => assert!(why.contains("segment 0 is damaged"), "{why}"),
            other => panic!("{other:?}"),
        }
        assert!(if round == 0 { compaction.segments() >= victims - 2 } else { compaction.segments() <= 1 }, "{round}: {compaction:?}");
        assert_eq!(segments(&path)[0], 0);
        for n in (0..200).step_by(2).filter(|n| *n != 2) {
            assert_eq!(repository.get(&id(n)).unwrap(), vec![n as u8; 1000]);
        }
        assert!(matches!(repository.get(&id(2)), Err(Error::Damaged(_))));
    }
}

/// A small file system for one test.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(dir: &Path, megabytes: u32, test: &str) -> Option<SmallDisk> {
        let disk = dir.join("disk");
        std::fs::create_dir(&disk).unwrap();
        let size = format!("size={megabytes}m,mode=0700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&disk).status();
        if !mounted.is_ok_and(|status| status.success()) {
            not_run(test, "mounting a tmpfs needs root");
            return None;
        }
        Some(SmallDisk(disk))
    }

    /// Leaves so many KiB.
    fn fill(&self, keep: u64) {
        self.clear();
        let free = Command::new("df").args(["-Bk", "--output=avail"]).arg(&self.0).output().unwrap();
        let free: u64 = String::from_utf8(free.stdout).unwrap().lines().last().unwrap().trim().trim_end_matches('K').parse().unwrap();
        let count = format!("count={}", free - keep);
        let mut command = Command::new("dd");
        command.args(["if=/dev/zero", "bs=1k", "status=none", &count]).arg(format!("of={}", self.0.join("filler").display()));
        assert!(command.status().unwrap().success());
    }

    fn clear(&self) {
        let _ = std::fs::remove_file(self.0.join("filler"));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Steps until something goes wrong.
fn fails(repository: &mut Repository, compaction: &mut Compaction) -> Error {
    loop {
        match repository.compact_step(compaction, Duration::from_secs(1)) {
            Ok(Step::Commit) => repository.commit().unwrap(),
            Ok(Step::More) => {}
            Ok(Step::Done) => panic!("there was room: {compaction:?}"),
            Err(error) => return error,
        }
    }
}

#[test]
fn a_full_disk_is_compacted_as_far_as_it_goes() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(dir.path(), 120, "a_full_disk_is_compacted_as_far_as_it_goes") else { return };
    let path = disk.0.join("repo");
    create(&path).close();
    small_segments(&path, 8_000_000);
    let mut repository = open(&path);
    for n in 0..80 {
        repository.put(&id(n), &vec![n as u8; 1 << 20], 0).unwrap();
    }
    repository.commit().unwrap();
    for n in (0..60).filter(|n| n % 10 != 0 || *n < 10) {
        repository.delete(&id(n)).unwrap();
    }
    repository.commit().unwrap();
    let before = objects(&mut repository);
    // Nothing can be copied: only what is empty goes, and that makes the room for the rest.
    disk.fill(100);
    let compaction = compacted(&mut repository, 5);
    assert!(compaction.freed() > 40 << 20, "{compaction:?}");
    assert!(objects(&mut repository) == before);
    // Nothing is empty any more, and nothing can be copied.
    disk.clear();
    for n in (60..80).step_by(2) {
        repository.delete(&id(n)).unwrap();
    }
    repository.commit().unwrap();
    disk.fill(500);
    let before = objects(&mut repository);
    let mut compaction = repository.plan_compaction(5).unwrap();
    assert!(compaction.victims() > 0);
    let error = fails(&mut repository, &mut compaction);
    assert!(matches!(error, Error::NoSpace(_)), "{error}");
    assert!(objects(&mut repository) == before);
    repository.close();
    assert!(objects(&mut open(&path)) == before);
}

#[test]
fn a_copy_that_does_not_fit_costs_nobody_anything() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(dir.path(), 120, "a_copy_that_does_not_fit_costs_nobody_anything") else { return };
    let (path, index) = (disk.0.join("repo"), dir.path().join("index"));
    create(&path).close();
    small_segments(&path, 8_000_000);
    let mut repository = Repository::open(&kept(&path, &index)).unwrap();
    for n in 0..400 {
        repository.put(&id(n), &vec![n as u8; 100_000], 0).unwrap();
    }
    repository.commit().unwrap();
    for n in (0..400).step_by(2) {
        repository.delete(&id(n)).unwrap();
    }
    repository.commit().unwrap();
    let mut compaction = repository.plan_compaction(5).unwrap();
    // The first object is gone, the second one is copied.
    for _ in 0..2 {
        assert_eq!(repository.compact_step(&mut compaction, Duration::ZERO), Ok(Step::More));
    }
    // Somebody stores something, and somebody else fills the disk while a segment is copied for which there was room.
    for n in 1000..1005 {
        repository.put(&id(n), &vec![n as u8; 100_000], 0).unwrap();
    }
    let before = objects(&mut repository);
    disk.fill(300);
    let error = fails(&mut repository, &mut compaction);
    assert!(matches!(&error, Error::NoSpace(why) if why.contains("cannot write")), "{error}");
    repository.check_alive().unwrap();
    assert!(objects(&mut repository) == before);
    disk.clear();
    repository.put(&id(2000), b"goes on", 0).unwrap();
    repository.commit().unwrap();
    let before = objects(&mut repository);
    crashed(&path, &dir.path().join("copy"));
    without_index(&dir.path().join("copy"));
    assert!(objects(&mut open(&dir.path().join("copy"))) == before);
    // And so does the same compaction.
    loop {
        match repository.compact_step(&mut compaction, Duration::from_secs(1)).unwrap() {
            Step::Commit => repository.commit().unwrap(),
            Step::More => {}
            Step::Done => break,
        }
    }
    assert!(compaction.freed() > 15 << 20, "{compaction:?}");
    assert!(objects(&mut repository) == before);
    repository.close();
    assert!(objects(&mut open(&path)) == before);
}

#[test]
fn a_compaction_leaves_half_of_the_reserve_and_backups_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(dir.path(), 120, "a_compaction_leaves_half_of_the_reserve_and_backups_go_on") else { return };
    let path = disk.0.join("repo");
    create(&path).close();
    small_segments(&path, 20_000_000);
    let reserve = Reserve { percent: 20, bytes: 0, at_most_percent: 0 };
    let mut repository = Repository::open(&OpenOptions { reserve, ..options(&path) }).unwrap();
    for n in 0..40 {
        repository.put(&id(n), &vec![n as u8; 1 << 20], 0).unwrap();
    }
    repository.commit().unwrap();
    for n in (0..40).step_by(3) {
        repository.delete(&id(n)).unwrap();
    }
    repository.commit().unwrap();
    let before = objects(&mut repository);
    // 24 MiB are the reserve. Segments have 13 MiB that stay, and 12 are left alone.
    disk.fill(20 << 10);
    let mut compaction = repository.plan_compaction(5).unwrap();
    match fails(&mut repository, &mut compaction) {
        Error::NoSpace(why) => assert!(why.contains("are kept for commits") && why.contains("20 MiB are free"), "{why}"),
        other => panic!("{other}"),
    }
    repository.check_alive().unwrap();
    assert!(objects(&mut repository) == before);
    assert!(matches!(repository.put(&id(1000), b"x", 0), Err(Error::NoSpace(_))));
    // With a little more than the reserve, both go on beside each other: what the compaction borrows, it gives back.
    disk.fill(30 << 10);
    let mut compaction = repository.plan_compaction(5).unwrap();
    let mut stored = 1000;
    loop {
        match repository.compact_step(&mut compaction, Duration::ZERO).unwrap() {
            Step::Commit => repository.commit().unwrap(),
            Step::More => {}
            Step::Done => break,
        }
        if stored < 1040 {
            repository.put(&id(stored), &[1; 100_000], 0).unwrap();
            stored += 1;
        }
    }
    assert!(stored == 1040 && compaction.freed() > 10 << 20, "{stored} {compaction:?}");
    repository.commit().unwrap();
    assert_eq!(repository.object_count().unwrap(), 26 + 40);
}
