//! Checking: what is sound is called sound, and every kind of damage is found.
#![allow(clippy::unwrap_used, reason = "these are tests")]

#[allow(dead_code, reason = "other tests need more of it")]
#[path = "local/common.rs"]
mod common;

use borg::Id;
use common::*;
use repository::{CheckOptions, CheckReport, Reader, Repository, Step};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use testkit::BorgWorld;

fn check(reader: &Reader) -> CheckReport {
    reader.check(&CheckOptions { threads: 2, ..CheckOptions::default() }, &mut |_, _| true).unwrap()
}

#[track_caller]
fn sound(reader: &Reader, objects: u64) {
    let report = check(reader);
    assert_eq!((report.findings.as_slice(), report.count, report.unjudged, report.stopped), (&[][..], 0, 0, false));
    assert_eq!(report.objects, objects);
}

/// A repository of several segments, with deletions and superseded objects.
fn filled(path: &Path) -> Repository {
    create(path).close();
    let config = std::fs::read_to_string(path.join("config")).unwrap();
    let config = config.lines().map(|line| if line.starts_with("max_segment_size") { "max_segment_size = 20000" } else { line });
    std::fs::write(path.join("config"), config.collect::<Vec<_>>().join("\n") + "\n").unwrap();
    let mut repository = open(path);
    for n in 0..200 {
        repository.put(&id(n), &vec![n as u8; 500], 0).unwrap();
    }
    repository.commit().unwrap();
    for n in (0..200).step_by(5) {
        repository.delete(&id(n)).unwrap();
        repository.put(&id(n + 1), b"anew", 0).unwrap();
    }
    repository.put(&Id::MANIFEST, b"manifest", 0).unwrap();
    repository.commit().unwrap();
    repository
}

#[test]
fn what_real_borgs_wrote_is_sound() {
    for borg in borgs() {
        let world = BorgWorld::new();
        let path = world.join("repo");
        let tree = source(&world, 0);
        borg.init(&world, &path, "none").unwrap();
        borg.create(&world, &path, "one", &[], &[&tree]).unwrap();
        borg.create(&world, &path, "two", &[], &[&source(&world, 1)]).unwrap();
        borg.run(&world, ["delete".to_owned(), format!("{}::one", path.display())]).unwrap();
        let mut repository = open(&path);
        let count = repository.object_count().unwrap();
        sound(&repository.reader().unwrap(), count);
        // Decryption and everything behind it is for others to know.
        let seen = Mutex::new(vec![]);
        let key = borg::Key::none();
        let verify = |id: &Id, envelope: &[u8]| {
            seen.lock().unwrap().push(*id);
            let payload = key.open(envelope).map_err(|e| e.to_string())?;
            let plain = borg::compress::decompress(&payload, borg::MAX_PLAINTEXT).map_err(|e| e.to_string())?;
            if *id == Id::MANIFEST || key.id_hash(&plain) == *id { Ok(()) } else { Err("it is something else".to_owned()) }
        };
        let options = CheckOptions { verify: Some(&verify), threads: 0 };
        let report = repository.reader().unwrap().check(&options, &mut |_, _| true).unwrap();
        assert_eq!(report.findings, []);
        let mut seen = seen.into_inner().unwrap();
        seen.sort();
        assert_eq!(seen, {
            let mut ids = repository.list_ids().unwrap();
            ids.sort();
            ids
        });
        let refuse = |id: &Id, _: &[u8]| if *id == Id::MANIFEST { Err("I do not like it".to_owned()) } else { Ok(()) };
        let options = CheckOptions { verify: Some(&refuse), threads: 1 };
        let report = repository.reader().unwrap().check(&options, &mut |_, _| true).unwrap();
        assert_eq!((report.count, report.findings[0].id), (1, Some(Id::MANIFEST)));
        assert!(report.findings[0].to_string().ends_with("I do not like it"), "{}", report.findings[0]);
    }
}

#[test]
fn a_flipped_byte_is_found_wherever_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("repo");
    let repository = filled(&path);
    let reader = repository.reader().unwrap();
    sound(&reader, 200 - 40 + 1);
    for number in segments(&path) {
        let file = segment(&path, number);
        let good = std::fs::read(&file).unwrap();
        let step = (good.len() / 40).max(1);
        for at in (0..good.len()).step_by(step) {
            let mut bad = good.clone();
            bad[at] ^= 4;
            // In its place: a check opens it anew.
            std::fs::write(&file, &bad).unwrap();
            let report = check(&reader);
            assert!(report.count > 0, "segment {number}, byte {at}");
            let first = report.findings[0].to_string();
            assert!(first.contains(&format!("segment {number}")), "{first}");
        }
        std::fs::write(&file, &good[..good.len() - 1]).unwrap();
        assert!(check(&reader).count > 0, "segment {number}, cut");
        std::fs::remove_file(&file).unwrap();
        assert!(check(&reader).count > 0, "segment {number}, gone");
        std::fs::write(&file, &good).unwrap();
    }
    sound(&reader, 200 - 40 + 1);
}

#[test]
fn an_entry_that_is_sound_but_wrong_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("repo");
    let repository = filled(&path);
    let reader = repository.reader().unwrap();
    // Somebody adds a PUT and a DELETE where nobody knows of them, and replaces an object by another one.
    let file = segment(&path, 0);
    let good = std::fs::read(&file).unwrap();
    let put = |id: &Id, data: &[u8]| [&borg::segment::put_header(id, data)[..], data].concat();
    for more in [put(&id(7777), b"more"), put(&id(2), b"more"), borg::segment::delete(&id(2)).to_vec()] {
        std::fs::write(&file, [&good[..], &more].concat()).unwrap();
        assert!(check(&reader).count > 0);
    }
    let changed = [&good[..8], &put(&id(9999), &[0; 500]), &good[8 + 541..]].concat();
    std::fs::write(&file, changed).unwrap();
    let report = check(&reader);
    assert!(report.findings.iter().any(|finding| finding.id == Some(id(9999)) && finding.offset == Some(8)), "{report:?}");
    std::fs::write(&file, good).unwrap();
    sound(&reader, 161);
}

#[test]
fn it_can_be_ended() {
    let dir = tempfile::tempdir().unwrap();
    let repository = filled(&dir.path().join("repo"));
    let report = repository.reader().unwrap().check(&CheckOptions::default(), &mut |_, _| false).unwrap();
    assert!(report.stopped);
}

/// Puts, deletes, commits, discards and compactions go on beside checks, none of which finds anything.
#[test]
fn it_runs_beside_the_writer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("repo");
    let mut repository = filled(&path);
    let reader = repository.reader().unwrap();
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (ended, reader) = (&ended, &reader);
        let checks = scope.spawn(move || {
            let (mut checks, mut retried) = (0, 0);
            while !ended.load(Ordering::Relaxed) {
                let options = CheckOptions { threads: 2, ..CheckOptions::default() };
                match reader.check(&options, &mut |_, _| !ended.load(Ordering::Relaxed)) {
                    Ok(report) => assert!(report.findings.is_empty() && report.unjudged == 0, "{:?}", report.findings),
                    // It says so if segments vanish too fast.
                    Err(error) => {
                        assert!(matches!(error, repository::Error::Unsupported(_)), "{error}");
                        retried += 1;
                    }
                }
                checks += 1;
            }
            println!("{checks} checks, {retried} of them overtaken");
            checks
        });
        let mut state = 1u64;
        let begin = std::time::Instant::now();
        while begin.elapsed() < Duration::from_secs(6) {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let n = (state >> 33) as u32 % 300;
            match (state >> 50) % 100 {
                0..60 => repository.put(&id(n), &vec![n as u8; n as usize * 3], 0).unwrap(),
                60..80 => drop(repository.delete(&id(n))),
                80..90 => repository.commit().unwrap(),
                90..91 => repository.discard().unwrap(),
                91..92 => {
                    let mut compaction = repository.plan_compaction(30).unwrap();
                    loop {
                        match repository.compact_step(&mut compaction, Duration::from_millis(1)).unwrap() {
                            Step::More => {}
                            Step::Commit => repository.commit().unwrap(),
                            Step::Done => break,
                        }
                    }
                }
                _ => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        repository.commit().unwrap();
        ended.store(true, Ordering::Relaxed);
        assert!(checks.join().unwrap() > 3);
    });
    let count = repository.object_count().unwrap();
    sound(&reader, count);
}
