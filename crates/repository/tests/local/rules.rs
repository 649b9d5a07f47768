//! Which transaction holds, and what an index is worth (Borg 1.x: fact 9.3).

use crate::common::*;
use repository::{Error, Repository};
use std::io::Write;
use std::path::Path;

/// Two transactions: object 1, then object 2.
fn two(path: &Path) {
    let mut repository = create(path);
    for n in [1, 2] {
        repository.put(&id(n), &[n as u8; 100], 0).unwrap();
        repository.commit().unwrap();
    }
    repository.close();
    assert_eq!(segments(path), [0, 1]);
}

fn present(path: &Path) -> Vec<bool> {
    let mut repository = open(path);
    let ours: Vec<_> = [1, 2].map(|n| repository.get(&id(n)).is_ok()).into();
    repository.close();
    for borg in borgs() {
        let theirs = repository::OpenOptions { served: true, borg: borg.program.to_str().unwrap().into(), ..options(path) };
        let mut repository = Repository::open(&theirs).unwrap();
        let theirs: Vec<_> = [1, 2].map(|n| repository.get(&id(n)).is_ok()).into();
        assert_eq!(ours, theirs, "borg {}", borg.version);
        repository.close();
    }
    ours
}

#[test]
fn the_newest_sound_commit_holds() {
    let dir = tempfile::tempdir().unwrap();
    let make = |name: &str| {
        let path = dir.path().join(name);
        two(&path);
        path
    };
    // The index is that of the newest commit.
    assert_eq!(present(&make("equal")), [true, true]);
    // Of an older one, and none.
    let path = make("older");
    let mut repository = open(&path);
    repository.delete(&id(1)).unwrap();
    repository.commit().unwrap();
    drop(repository);
    assert_eq!(beside(&path, "index."), ["index.1"]);
    assert_eq!(present(&path), [false, true]);
    let path = make("none");
    for kind in ["index.1", "hints.1", "integrity.1"] {
        std::fs::remove_file(path.join(kind)).unwrap();
    }
    assert_eq!(present(&path), [true, true]);
    // Of a newer one than there is.
    let path = make("newer");
    std::fs::remove_file(segment(&path, 1)).unwrap();
    assert_eq!(present(&path), [true, false]);
    assert_eq!(beside(&path, "index."), ["index.0"]);
    // Without any commit.
    let path = make("lost");
    for n in [0, 1] {
        let file = std::fs::OpenOptions::new().write(true).open(segment(&path, n)).unwrap();
        file.set_len(20).unwrap();
    }
    assert!(matches!(Repository::open(&options(&path)), Err(Error::CheckNeeded(_))));
}

#[test]
fn a_torn_commit_does_not_hold() {
    let dir = tempfile::tempdir().unwrap();
    for cut in [1, 8, 9, 10, 50] {
        let path = dir.path().join(cut.to_string());
        two(&path);
        let file = std::fs::OpenOptions::new().write(true).open(segment(&path, 1)).unwrap();
        file.set_len(file.metadata().unwrap().len() - cut).unwrap();
        let mut repository = open(&path);
        assert!(repository.get(&id(1)).is_ok() && repository.get(&id(2)).is_err(), "{cut}");
        assert_eq!(segments(&path), [0], "{cut}");
        // And the number is used again.
        repository.put(&id(2), b"again", 0).unwrap();
        repository.commit().unwrap();
        repository.close();
        assert_eq!(present(&path), [true, true]);
    }
}

#[test]
fn a_commit_that_we_know_of_is_not_thrown_away_when_it_rots() {
    let dir = tempfile::tempdir().unwrap();
    let flip = |path: &Path, at: u64| {
        use std::os::unix::fs::FileExt;
        let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
        let (mut byte, times) = ([0], std::fs::FileTimes::new().set_modified(file.metadata().unwrap().modified().unwrap()));
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 4], at).unwrap();
        file.set_times(times).unwrap();
    };
    let cut = |path: &Path, _: u64| std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(20).unwrap();
    type Damage<'a> = &'a dyn Fn(&Path, u64);
    let damages: [(Damage<'_>, &str); 2] = [(&flip, "object"), (&cut, "COMMIT")];
    for (number, (damage, why)) in damages.into_iter().enumerate() {
        let (path, index) = (dir.path().join(number.to_string()), dir.path().join(format!("{number}.index")));
        two(&path);
        Repository::open(&kept(&path, &index)).unwrap().close();
        damage(&segment(&path, 1), 100);
        for _ in 0..2 {
            let Err(Error::CheckNeeded(said)) = Repository::open(&kept(&path, &index)).map(drop) else { panic!("{number}: it was opened") };
            assert!(said.contains("transaction 1 ") && said.contains("segment 1,") && said.contains(why), "{said}");
            assert!(said.contains(index.to_str().unwrap()) && said.contains("gives up everything after transaction 0"), "{said}");
            assert_eq!(segments(&path), [0, 1]);
        }
        assert_eq!(beside(&path, "lock"), [""; 0]);
        // A person decides to do without it.
        std::fs::remove_dir_all(&index).unwrap();
        let mut repository = Repository::open(&kept(&path, &index)).unwrap();
        assert!(repository.get(&id(1)).is_ok() && repository.get(&id(2)).is_err());
        repository.put(&id(3), b"three", 0).unwrap();
        repository.commit().unwrap();
        // What was begun after the newest commit that we know of is no commit.
        repository.put(&id(4), &[4; 2 << 20], 0).unwrap();
        drop(repository);
        assert_eq!(Repository::open(&kept(&path, &index)).unwrap().object_count().unwrap(), 2);
    }
    // The only transaction of all.
    let (path, index) = (dir.path().join("one"), dir.path().join("one.index"));
    let mut repository = Repository::open(&repository::OpenOptions { create: true, ..kept(&path, &index) }).unwrap();
    repository.put(&id(1), &[1; 100], 0).unwrap();
    repository.commit().unwrap();
    repository.close();
    for name in ["index.0", "hints.0", "integrity.0"] {
        std::fs::remove_file(path.join(name)).unwrap();
    }
    flip(&segment(&path, 0), 100);
    assert!(matches!(Repository::open(&kept(&path, &index)), Err(Error::CheckNeeded(said)) if said.contains("its beginning")));
    assert_eq!(segments(&path), [0]);
}

#[test]
fn what_follows_a_commit_undoes_it() {
    let dir = tempfile::tempdir().unwrap();
    let append = |path: &Path, bytes: &[u8]| {
        std::fs::OpenOptions::new().append(true).open(segment(path, 1)).unwrap().write_all(bytes).unwrap();
    };
    let delete = borg::segment::delete(&id(1));
    for (name, bytes) in [("garbage", &b"garbage"[..]), ("entry", &delete), ("zeros", &[0; 4096])] {
        let path = dir.path().join(name);
        two(&path);
        append(&path, bytes);
        assert_eq!(present(&path), [true, false], "{name}");
    }
    // An entry between two commits does, too; a second commit does not.
    let path = dir.path().join("between");
    two(&path);
    append(&path, &[&delete[..], &borg::segment::COMMIT].concat());
    assert_eq!(present(&path), [true, false]);
    let path = dir.path().join("twice");
    two(&path);
    append(&path, &borg::segment::COMMIT);
    assert_eq!(present(&path), [true, true]);
}

#[test]
fn a_flipped_bit_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("repo");
    two(&path);
    let mut bytes = std::fs::read(segment(&path, 0)).unwrap();
    bytes[100] ^= 4;
    std::fs::write(segment(&path, 0), bytes).unwrap();
    let mut repository = open(&path);
    assert!(matches!(repository.get(&id(1)), Err(Error::Damaged(_))));
    assert_eq!(repository.get(&id(2)).unwrap(), [2; 100]);
    let reader = repository.reader().unwrap();
    assert!(matches!(reader.get(&id(1)), Err(Error::Damaged(_))));
}

#[test]
fn an_index_that_no_longer_fits_is_built_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (path, index) = (dir.path().join("repo"), dir.path().join("index"));
    let kept = || Repository::open(&kept(&path, &index)).unwrap();
    two(&path);
    let mut repository = kept();
    repository.put(&id(3), b"three", 0).unwrap();
    repository.commit().unwrap();
    repository.close();
    // Nothing happened.
    assert_eq!(kept().object_count().unwrap(), 3);
    // Somebody removed the last transaction.
    std::fs::remove_file(segment(&path, 2)).unwrap();
    let mut repository = kept();
    assert_eq!(repository.object_count().unwrap(), 2);
    assert!(repository.get(&id(3)).is_err());
    repository.put(&id(3), b"other", 0).unwrap();
    repository.commit().unwrap();
    repository.close();
    // Somebody wrote a segment anew.
    let other = dir.path().join("other");
    let mut writer = create(&other);
    writer.put(&id(7), &[7; 100], 0).unwrap();
    writer.commit().unwrap();
    writer.close();
    std::fs::copy(segment(&other, 0), segment(&path, 0)).unwrap();
    let mut repository = kept();
    assert_eq!((repository.get(&id(7)).unwrap(), repository.get(&id(1)).is_err()), (vec![7; 100], true));
    repository.close();
    // It is the index of another repository.
    std::fs::remove_dir_all(&path).unwrap();
    std::fs::rename(&other, &path).unwrap();
    let mut repository = kept();
    assert_eq!(repository.list_ids().unwrap(), [id(7)]);
}

#[test]
fn segments_fill_up_and_go_on_in_the_next_directory() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("repo");
    create(&path).close();
    let config = std::fs::read_to_string(path.join("config")).unwrap();
    let config = config.replace("524288000", "10000").replace("segments_per_dir = 1000", "segments_per_dir = 3");
    std::fs::write(path.join("config"), config).unwrap();
    let mut repository = open(&path);
    let content = |n: u32| vec![n as u8; 900 + n as usize];
    for n in 0..200 {
        repository.put(&id(n), &content(n), 0).unwrap();
    }
    repository.commit().unwrap();
    let reader = repository.reader().unwrap();
    (0..200).for_each(|n| assert_eq!(reader.get(&id(n)).unwrap().unwrap(), content(n)));
    for n in 0..200 {
        repository.delete(&id(n)).unwrap();
    }
    repository.discard().unwrap();
    for borg in borgs() {
        let theirs = repository::OpenOptions { served: true, borg: borg.program.to_str().unwrap().into(), ..options(&path) };
        drop(std::mem::replace(&mut repository, create(&dir.path().join(&borg.version))));
        let mut theirs = Repository::open(&theirs).unwrap();
        (0..200).for_each(|n| assert_eq!(theirs.get(&id(n)).unwrap(), content(n)));
        theirs.put(&id(1000), b"x", 0).unwrap();
        theirs.commit().unwrap();
        theirs.close();
        let mut ours = open(&path);
        assert_eq!(ours.object_count().unwrap(), 201);
        ours.close();
    }
}
