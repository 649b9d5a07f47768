//! A short run of every target, without libFuzzer: all seeds, and mutations of them from a seed that is printed.
//!
//! `FUZZ_SEED=N` repeats a run, `FUZZ_ROUNDS=N` makes more mutations of it. What fails is written to a file, which
//! `scripts/fuzz TARGET FILE` runs again.
#![allow(clippy::unwrap_used, reason = "these are tests")]

use fuzz_targets::mutate::{Random, mutate};
use fuzz_targets::{TARGETS, Target};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Mutations of each target; fewer where they take longer than [`LONG`].
const ROUNDS: usize = 4000;
const LONG: Duration = Duration::from_millis(1200);
/// No single input may take longer than this (in this build, on a machine with other work).
const INPUT: Duration = Duration::from_secs(5);

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn seeds(target: &Target) -> Vec<Vec<u8>> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../corpus").join(target.name);
    let entries = std::fs::read_dir(&directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} has no seeds", target.name);
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// Whether the target holds; if not, the input is kept.
fn holds(target: &Target, input: &[u8]) -> bool {
    let began = Instant::now();
    let result = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    let took = began.elapsed();
    if result.is_ok() && took < INPUT {
        return true;
    }
    let file = std::env::temp_dir().join(format!("borgcube-fuzz-{}-{}", target.name, std::process::id()));
    std::fs::write(&file, input).unwrap();
    println!("{}: does not hold (took {took:?}) for {} bytes, kept in {}", target.name, input.len(), file.display());
    false
}

#[test]
fn every_target_on_its_seeds_and_mutations_of_them() {
    let seed = number("FUZZ_SEED").unwrap_or_else(|| std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs());
    let rounds = number("FUZZ_ROUNDS");
    println!("FUZZ_SEED={seed}");
    let run = |target: &Target| {
        let seeds = seeds(target);
        if let Some(bad) = seeds.iter().find(|input| !holds(target, input)) {
            return Some(format!("{} ({} bytes, a seed)", target.name, bad.len()));
        }
        let (mut random, began, mut done) = (Random::new(seed), Instant::now(), 0);
        while rounds.map_or(done < ROUNDS && began.elapsed() < LONG, |rounds| (done as u64) < rounds) {
            let mut input = seeds[random.below(seeds.len())].clone();
            mutate(&mut input, &seeds, &mut random, target.longest);
            if !holds(target, &input) {
                return Some(format!("{} (round {done})", target.name));
            }
            done += 1;
        }
        println!("{}: {} seeds, {done} mutations in {:?}", target.name, seeds.len(), began.elapsed());
        None
    };
    // Two at a time: this is one of many tests that run beside each other.
    let next = std::sync::atomic::AtomicUsize::new(0);
    let worker = || {
        let mut found = Vec::new();
        while let Some(target) = TARGETS.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
            found.extend(run(target));
        }
        found
    };
    let found = std::thread::scope(|scope| {
        let other = scope.spawn(worker);
        let mut found = worker();
        found.extend(other.join().unwrap());
        found
    });
    assert!(found.is_empty(), "FUZZ_SEED={seed}: {found:?}");
}

/// Names are those of directories, and no directory of seeds is without a target.
#[test]
fn every_directory_of_seeds_has_its_target() {
    let corpus = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../corpus");
    for entry in std::fs::read_dir(corpus).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(fuzz_targets::find(&name).is_some(), "corpus/{name} belongs to no target");
    }
}

/// Else the session's target would only ever knock at the door.
#[test]
fn seeds_of_the_session_get_as_far_as_commits() {
    let commits = |name: &str| {
        let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../corpus/session").join(name);
        fuzz_targets::session::play(&std::fs::read(file).unwrap())
    };
    assert_eq!((commits("backup"), commits("slow-owner"), commits("blake2"), commits("unencrypted")), (1, 1, 1, 1));
    assert_eq!((commits("checkpoints"), commits("rollback"), commits("after-the-end")), (3, 1, 1));
}

/// Else nothing behind the first rule would be looked at.
#[test]
fn seeds_of_items_are_accepted() {
    let accepted = |name: &str| {
        let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../corpus/items").join(name);
        fuzz_targets::items::accepted(&std::fs::read(file).unwrap())
    };
    assert_eq!((accepted("all"), accepted("many"), accepted("one-1")), (Some(4), Some(40), Some(2)));
    assert_eq!((accepted("hostile-parent"), accepted("hostile-size"), accepted("late")), (None, None, None));
}

/// A name that is no target is a mistake that shows at once, and not an hour of fuzzing nothing.
#[test]
fn the_script_knows_all_targets_and_no_others() {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../scripts/fuzz");
    for arguments in [["60", "nosuch"], ["nosuch", "/dev/null"], ["1", "../corpus"]] {
        let output = std::process::Command::new(&script).args(arguments).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        let (_, names) = said.split_once("the targets are: ").unwrap();
        let mut expected = fuzz_targets::names();
        expected.sort_unstable();
        assert_eq!(names.split_whitespace().collect::<Vec<_>>(), expected);
    }
}
