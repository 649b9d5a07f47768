//! Ours writes and theirs reads; theirs writes and ours reads.

use crate::common::*;
use borg::Id;
use repository::{Error, OpenOptions, Repository};
use testkit::{Borg, BorgWorld};

#[test]
fn objects_come_back_and_go() {
    for borg in borgs() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("repo");
        let mut repository = create(&path);
        let name = repository.id();
        assert_eq!(repository.load_key().unwrap(), None);
        repository.save_key(b"a key\nof lines").unwrap();
        assert_eq!(repository.free_nonce().unwrap(), None);
        repository.reserve_nonce(77, None).unwrap();
        assert!(repository.reserve_nonce(78, None).is_err());
        let big = vec![7; 1 << 20];
        for n in 0..40 {
            repository.put(&id(n), &big, 5).unwrap();
        }
        for n in 40..2000 {
            repository.put(&id(n), &n.to_le_bytes(), 0).unwrap();
        }
        let reader = repository.reader().unwrap();
        assert_eq!(reader.get(&id(1999)).unwrap().unwrap(), 1999u32.to_le_bytes());
        assert_eq!(reader.get(&id(39)).unwrap().unwrap(), big);
        assert_eq!(reader.entry(&id(0)).unwrap().map(|e| (e.size, e.csize)), Some((5, 1 << 20)));
        repository.commit().unwrap();
        let before = segments(&path);
        repository.put(&id(5000), b"never committed", 0).unwrap();
        repository.put(&id(5), b"never committed", 0).unwrap();
        repository.delete(&id(6)).unwrap();
        assert_eq!(repository.get(&id(5)).unwrap(), b"never committed");
        assert!(segments(&path) > before);
        repository.discard().unwrap();
        assert_eq!(segments(&path), before);
        assert!(!reader.contains(&id(5000)).unwrap());
        assert_eq!(repository.get(&id(5)).unwrap(), big);
        repository.put(&id(5000), b"never committed", 0).unwrap();
        repository.close();
        assert!(matches!(reader.get(&id(5)), Err(Error::Unsupported(_))));

        // Theirs, by its files and by its way of serving.
        let theirs = OpenOptions { served: true, borg: borg.program.to_str().unwrap().into(), ..options(&path) };
        let mut repository = Repository::open(&OpenOptions { expected: Some(name), ..theirs }).unwrap();
        assert_eq!(repository.load_key().unwrap().unwrap(), b"a key\nof lines");
        assert_eq!(repository.free_nonce().unwrap(), Some(77));
        assert_eq!(repository.object_count().unwrap(), 2000);
        let mut ids = repository.list_ids().unwrap();
        ids.sort();
        let mut expected: Vec<_> = (0..2000).map(id).collect();
        expected.sort();
        assert_eq!(ids, expected);
        assert_eq!(repository.get(&id(5000)), Err(Error::ObjectNotFound(id(5000))));
        assert_eq!(repository.get(&id(3)).unwrap(), big);
        repository.delete(&id(3)).unwrap();
        repository.put(&id(4), b"new", 0).unwrap();
        repository.commit().unwrap();
        repository.close();

        let mut repository = open(&path);
        assert_eq!(repository.object_count().unwrap(), 1999);
        assert_eq!(repository.get(&id(3)), Err(Error::ObjectNotFound(id(3))));
        assert_eq!(repository.get(&id(4)).unwrap(), b"new");
        assert_eq!(repository.delete(&id(3)), Err(Error::ObjectNotFound(id(3))));
        repository.delete(&id(5)).unwrap();
        repository.commit().unwrap();
        repository.close();
    }
}

/// Copies a repository object by object; with key type none nothing binds them to one.
fn copied(from: &mut Repository, to: &mut Repository) {
    let objects = objects(from);
    for (id, envelope) in objects.iter().filter(|(id, _)| *id != Id::MANIFEST) {
        to.put(id, envelope, 0).unwrap();
    }
    to.put(&Id::MANIFEST, &from.get(&Id::MANIFEST).unwrap(), 0).unwrap();
    to.commit().unwrap();
}

#[test]
fn what_we_wrote_is_an_archive_to_every_borg() {
    for writer in borgs() {
        let world = BorgWorld::new();
        let (first, second, index) = (world.join("first"), world.join("second"), world.join("index"));
        let tree = source(&world, 0);
        writer.init(&world, &first, "none").unwrap();
        writer.create(&world, &first, "one", &[], &[&tree]).unwrap();
        let mut from = Repository::open(&kept(&first, &index)).unwrap();
        copied(&mut from, &mut create(&second));
        from.close();
        for judge in borgs() {
            // From the log alone, and after we closed it properly.
            for proper in [false, true] {
                let mut repository = open(&second);
                if !proper {
                    assert_eq!(beside(&second, "index."), [""; 0]);
                }
                assert!(repository.object_count().unwrap() > 20);
                if proper {
                    repository.close();
                    let newest = segments(&second).last().unwrap().to_string();
                    assert_eq!(beside(&second, "index."), [format!("index.{newest}")]);
                    assert_eq!(beside(&second, "integrity."), [format!("integrity.{newest}")]);
                } else {
                    drop(repository);
                }
                judge.judge(&world, &second, "one", &tree).unwrap_or_else(|e| panic!("{proper}: {e:?}"));
                for name in ["index.", "hints.", "integrity."] {
                    for file in beside(&second, name) {
                        std::fs::remove_file(second.join(file)).unwrap();
                    }
                }
            }
        }
        // Theirs goes on, and ours after it.
        let tree = source(&world, 1);
        writer.create(&world, &first, "two", &[], &[&tree]).unwrap();
        writer.run(&world, ["delete".as_ref(), format!("{}::one", first.display()).as_ref() as &std::ffi::OsStr]).unwrap();
        if writer.at_least([1, 2, 0]) {
            writer.run(&world, ["compact".as_ref(), "--threshold=0".as_ref(), first.as_os_str()]).unwrap();
        }
        let by_index = objects(&mut Repository::open(&kept(&first, &index)).unwrap());
        assert!(by_index == objects(&mut open(&first)), "{}: the index kept differs from what the segments say", writer.version);
        let theirs = OpenOptions { served: true, borg: writer.program.to_str().unwrap().into(), ..options(&first) };
        assert!(by_index == objects(&mut Repository::open(&theirs).unwrap()), "{}", writer.version);
    }
}

#[test]
fn theirs_opens_ours_without_reading_the_segments() {
    let judge = Borg::v1_4_5().unwrap_or_else(|| Borg::judges().remove(0));
    let world = BorgWorld::new();
    let path = world.join("repo");
    let tree = source(&world, 0);
    judge.init(&world, &path, "none").unwrap();
    judge.create(&world, &path, "one", &[], &[&tree]).unwrap();
    let mut repository = open(&path);
    repository.put(&id(1), b"one more", 0).unwrap();
    repository.commit().unwrap();
    let said = |path: &std::path::Path| {
        let output = judge.command(&world).args(["--info", "--show-rc", "list"]).arg(path).output().unwrap();
        assert!(output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    drop(repository);
    assert!(said(&path).contains("Replaying"), "this borg does not say what it does");
    open(&path).close();
    let mut repository = open(&path);
    repository.put(&id(2), b"and one more", 0).unwrap();
    repository.commit().unwrap();
    repository.close();
    assert!(!said(&path).contains("Replaying"));
}

#[test]
fn whoever_waits_does_not_wait_for_the_index_of_another_borg() {
    let dir = tempfile::tempdir().unwrap();
    let (path, index) = (dir.path().join("repo"), dir.path().join("index"));
    create(&path).close();
    let mut repository = Repository::open(&kept(&path, &index)).unwrap();
    for n in 0..30_000 {
        repository.put(&id(n), &n.to_le_bytes(), 0).unwrap();
    }
    repository.commit().unwrap();
    repository.close();
    let files = || ["index.", "hints.", "integrity.", "lock"].map(|kind| beside(&path, kind)).concat();
    let old = files();
    assert_eq!(old.len(), 3);
    for asked in [1, 2, 4, 5] {
        let mut repository = Repository::open(&kept(&path, &index)).unwrap();
        repository.put(&id(30_000 + asked), b"x", 0).unwrap();
        repository.commit().unwrap();
        // Somebody comes while it is written.
        let mut times = 0;
        repository.close_unless(&mut || {
            times += 1;
            times >= asked
        });
        assert_eq!((times, files()), (asked, old.clone()));
    }
    for borg in borgs() {
        let theirs = OpenOptions { served: true, borg: borg.program.to_str().unwrap().into(), ..options(&path) };
        assert_eq!(Repository::open(&theirs).unwrap().object_count().unwrap(), 30_004);
    }
    Repository::open(&kept(&path, &index)).unwrap().close();
    assert!(files().len() == 3 && files() != old);
}
