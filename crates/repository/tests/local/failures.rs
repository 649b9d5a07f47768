//! Full file systems, killed processes, and what every mistake is called.

use crate::common::*;
use repository::{Error, OpenOptions, Repository, Reserve};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use testkit::borgs::not_run;
use testkit::{Borg, BorgWorld};

#[test]
fn every_failure_has_its_kind() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("repo");
    let fails = |o: OpenOptions| Repository::open(&o).map(drop).unwrap_err();
    let plain = || options(&path);
    assert!(matches!(fails(plain()), Error::DoesNotExist(_)));
    assert!(matches!(fails(OpenOptions { url: "elsewhere".into(), ..plain() }), Error::BadUrl(_)));
    let nested = dir.path().join("no/repo").to_str().unwrap().to_owned();
    assert!(matches!(fails(OpenOptions { create: true, url: nested, ..plain() }), Error::ParentMissing(_)));
    std::fs::create_dir(&path).unwrap();
    assert!(matches!(fails(plain()), Error::Invalid(_)));
    std::fs::write(path.join("x"), "x").unwrap();
    assert!(matches!(fails(plain()), Error::Invalid(_)));
    assert!(matches!(fails(OpenOptions { create: true, ..plain() }), Error::Exists(_)));
    assert_eq!(beside(&path, ""), ["x"]);
    std::fs::remove_file(path.join("x")).unwrap();

    let mut holder = create(&path);
    let inside = path.join("inside").to_str().unwrap().to_owned();
    assert!(matches!(fails(OpenOptions { create: true, url: inside, ..plain() }), Error::Exists(_)));
    assert!(matches!(fails(OpenOptions { create: true, ..plain() }), Error::Exists(_)));
    holder.put(&id(1), b"x", 0).unwrap();
    holder.commit().unwrap();
    assert!(matches!(holder.put(&id(2), &vec![0; borg::MAX_OBJECT + 1], 0), Err(Error::Invalid(_))));
    match fails(OpenOptions { lock_wait: 0, ..plain() }) {
        Error::LockTimeout { holder: Some(holder), .. } => assert!(holder.starts_with("test@1."), "{holder}"),
        other => panic!("{other:?}"),
    }
    let found = holder.id();
    holder.close();
    let expected = borg::RepositoryId([9; 32]);
    assert_eq!(fails(OpenOptions { expected: Some(expected), ..plain() }), Error::IdMismatch { expected, found });
    let mut reading = Repository::open(&OpenOptions { exclusive: false, ..plain() }).unwrap();
    assert_eq!(reading.get(&id(1)).unwrap(), b"x");
    assert!(matches!(reading.put(&id(2), b"x", 0), Err(Error::Unsupported(_))));
    assert!(matches!(reading.reserve_nonce(5, None), Err(Error::Unsupported(_))));
    reading.commit().unwrap();
    reading.close();
    std::fs::write(path.join("nonce"), "what").unwrap();
    assert!(matches!(open(&path).free_nonce(), Err(Error::Damaged(_))));

    let config = std::fs::read_to_string(path.join("config")).unwrap();
    for (from, to) in [("version = 1", "version = 2"), ("[repository]", "[other]"), ("max_segment_size = ", "max_segment_size = 9")] {
        std::fs::write(path.join("config"), config.replace(from, to)).unwrap();
        assert!(matches!(fails(plain()), Error::Invalid(_)), "{to}");
        assert_eq!(beside(&path, "lock"), [""; 0]);
    }
    std::fs::write(path.join("config"), &config).unwrap();
    open(&path).destroy().unwrap();
    assert!(!path.exists());
}

#[test]
fn a_quota_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("repo");
    create(&path).close();
    let config = std::fs::read_to_string(path.join("config")).unwrap();
    std::fs::write(path.join("config"), config.replace("storage_quota = 0", "storage_quota = 1M")).unwrap();
    let mut repository = open(&path);
    let error = (0..).find_map(|n| repository.put(&id(n), &[0; 10_000], 0).err().map(|e| (n, e))).unwrap();
    assert!(matches!(&error, (99, Error::NoSpace(why)) if why.contains("quota")), "{error:?}");
    repository.commit().unwrap();
    assert!(matches!(repository.put(&id(500), &[0; 10_000], 0), Err(Error::NoSpace(_))));
    repository.delete(&id(1)).unwrap();
    repository.commit().unwrap();
    repository.close();
    let mut repository = open(&path);
    assert_eq!(repository.object_count().unwrap(), 98);
    assert!(matches!(repository.put(&id(500), &[0; 10_000], 0), Err(Error::NoSpace(_))));
}

/// A small file system for one test; needs root.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path, megabytes: u32) -> Option<SmallDisk> {
        std::fs::create_dir_all(at).unwrap();
        let size = format!("size={megabytes}m,mode=0700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).status();
        mounted.is_ok_and(|s| s.success()).then(|| SmallDisk(at.to_owned()))
    }

    fn fill(&self) -> PathBuf {
        let file = self.0.join("filler");
        let _ = Command::new("dd").arg("if=/dev/zero").arg(format!("of={}", file.display())).args(["bs=4k", "status=none"]).status();
        file
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_gives_everything_back() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(&dir.path().join("disk"), 16) else {
        return not_run("a_full_disk_gives_everything_back", "mounting a tmpfs needs root");
    };
    let path = disk.0.join("repo");
    let mut repository = create(&path);
    repository.put(&id(0), &[1; 100_000], 0).unwrap();
    repository.commit().unwrap();
    let free = || rustix_free(&disk.0);
    let before = free();
    for size in [600, 40_000, 3_000_000] {
        let error = (1..).find_map(|n| repository.put(&id(n), &vec![2; size], 0).err()).unwrap();
        assert!(matches!(error, Error::NoSpace(_)), "{error:?}");
        assert_eq!(repository.commit(), Err(error.clone()));
        assert_eq!(repository.put(&id(9), b"x", 0), Err(error));
        repository.discard().unwrap();
        assert!(free() + 100_000 > before, "{} of {before}", free());
        assert_eq!(repository.object_count().unwrap(), 1);
        assert_eq!(repository.get(&id(0)).unwrap(), [1; 100_000]);
    }
    // Nothing at all is left, and still the repository can be given up, or opened and read.
    repository.put(&id(1), &[3; 100], 0).unwrap();
    let filler = disk.fill();
    assert!(matches!(repository.commit(), Err(Error::NoSpace(_))));
    repository.discard().unwrap();
    repository.close();
    std::fs::remove_file(&filler).unwrap();
    let mut repository = open(&path);
    repository.put(&id(1), b"goes on", 0).unwrap();
    repository.commit().unwrap();
    repository.close();
    // With a reserve, room is left before it is too late, and it can be used for deleting.
    let mut repository = Repository::open(&OpenOptions { reserve: Reserve::default(), ..options(&path) }).unwrap();
    let error = (2..).find_map(|n| repository.put(&id(n), &[2; 40_000], 0).err()).unwrap();
    assert!(matches!(&error, Error::NoSpace(why) if why.contains("kept")), "{error}");
    assert!(free() > 1 << 20, "{}", free());
    repository.delete(&id(0)).unwrap();
    repository.put(&borg::Id::MANIFEST, b"of a kind", 0).unwrap();
    repository.commit().unwrap();
    repository.close();
    let borg = Borg::judges().remove(0);
    let theirs = OpenOptions { served: true, borg: borg.program.to_str().unwrap().into(), ..options(&path) };
    let mut repository = Repository::open(&theirs).unwrap();
    assert_eq!(repository.get(&borg::Id::MANIFEST).unwrap(), b"of a kind");
}

fn rustix_free(path: &Path) -> u64 {
    let output = Command::new("df").args(["-B1", "--output=avail"]).arg(path).output().unwrap();
    String::from_utf8(output.stdout).unwrap().lines().last().unwrap().trim().parse().unwrap()
}

/// Writes until it is killed; run by the test below only.
#[test]
fn helper_that_writes() {
    let Some(path) = std::env::var_os("WRITE") else { return };
    let path = Path::new(&path);
    let mut repository = Repository::open(&kept(path, &path.with_extension("index"))).unwrap();
    let first: u32 = std::env::var("FIRST").unwrap().parse().unwrap();
    for n in first.. {
        repository.put(&id(2 * n), &vec![n as u8; 100 + n as usize % 5000], 0).unwrap();
        repository.put(&id(2 * n + 1), &vec![n as u8; 100 + n as usize % 5000], 0).unwrap();
        if n > first && n % 7 == 0 {
            repository.delete(&id(2 * n - 1)).unwrap();
            repository.delete(&id(2 * n - 2)).unwrap();
        }
        if n % 3 == 0 {
            repository.commit().unwrap();
            // Whoever kills us must not find half of it.
            std::fs::write(path.with_extension("new"), n.to_string()).unwrap();
            std::fs::rename(path.with_extension("new"), path.with_extension("committed")).unwrap();
        }
    }
}

#[test]
fn a_killed_writer_loses_nothing_that_was_committed() {
    let world = BorgWorld::new();
    let path = world.join("repo");
    let judges = borgs();
    create(&path).close();
    std::fs::write(path.with_extension("committed"), "0").unwrap();
    let committed = || -> u32 { std::fs::read_to_string(path.with_extension("committed")).unwrap().parse().unwrap_or(0) };
    let mut first = 1;
    for round in 0..8u64 {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "failures::helper_that_writes"]).env("WRITE", &path).env("FIRST", first.to_string());
        let mut child = command.stdout(Stdio::null()).spawn().unwrap();
        // After its first commit, at any moment.
        testkit::retry_until(std::time::Duration::from_secs(20), || (committed() >= first).then_some(())).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(round * 67 % 150));
        child.kill().unwrap();
        assert!(!child.wait().unwrap().success());
        let at_least = committed();
        let judge = &judges[round as usize % judges.len()];
        let theirs = OpenOptions { served: true, borg: judge.program.to_str().unwrap().into(), ..options(&path) };
        let mut all = vec![];
        for options in [kept(&path, &path.with_extension("index")), options(&path), theirs] {
            let mut repository = Repository::open(&options).unwrap();
            all.push(objects(&mut repository));
            repository.close();
        }
        assert!(all[0] == all[1] && all[1] == all[2], "round {round}: {:?}", all.iter().map(Vec::len).collect::<Vec<_>>());
        // Everything comes in pairs, and what was told to be committed is there.
        let ids: std::collections::BTreeSet<_> = all[0].iter().map(|(id, _)| *id).collect();
        let highest = (0..at_least + 10).rev().find(|n| ids.contains(&id(2 * n))).unwrap_or(0);
        assert!(highest >= at_least, "round {round}: {highest} < {at_least}");
        (1..highest).for_each(|n| assert_eq!(ids.contains(&id(2 * n)), ids.contains(&id(2 * n + 1)), "round {round}: {n}"));
        first = highest + 1;
    }
    assert!(first > 30, "{first}");
}
