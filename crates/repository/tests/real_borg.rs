//! Against every real borg of this machine.
#![allow(clippy::unwrap_used, reason = "these are tests")]

use borg::Id;
use repository::{Error, OpenOptions, Repository};
use std::path::Path;
use testkit::Borg;

fn options(borg: &Borg, path: &Path) -> OpenOptions {
    OpenOptions {
        borg: borg.program.to_str().unwrap().to_owned(),
        lock_wait: 1,
        exclusive: true,
        served: true,
        host_id: Some("test@1".into()),
        ..OpenOptions::at(path.to_str().unwrap())
    }
}

fn id(n: u32) -> Id {
    let mut id = [1; 32];
    id[..4].copy_from_slice(&n.to_le_bytes());
    Id(id)
}

fn servers() -> Vec<Borg> {
    let mut all = Borg::judges();
    all.extend(Borg::v1_1_18());
    all
}

#[test]
fn objects_come_back_and_go() {
    for borg in servers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("repo");
        let mut repository = Repository::open(&OpenOptions { create: true, ..options(&borg, &path) }).unwrap();
        let name = repository.id();
        assert_eq!(repository.load_key().unwrap(), None);
        repository.save_key(b"a key\nof lines").unwrap();
        assert_eq!(repository.free_nonce().unwrap(), None);
        repository.reserve_nonce(77, None).unwrap();
        // More than any pipe holds, so that pipelining would dead-lock if it could.
        let big = vec![7; 1 << 20];
        for n in 0..40 {
            repository.put(&id(n), &big, 0).unwrap();
        }
        for n in 40..2000 {
            repository.put(&id(n), &n.to_le_bytes(), 0).unwrap();
        }
        assert_eq!(repository.get(&id(1999)).unwrap(), 1999u32.to_le_bytes());
        repository.commit().unwrap();
        let segments = || std::fs::read_dir(path.join("data/0")).unwrap().count();
        let before = segments();
        repository.put(&id(5000), b"never committed", 0).unwrap();
        repository.get(&id(5000)).unwrap();
        assert!(segments() > before);
        repository.discard().unwrap();
        assert_eq!(segments(), before);
        repository.put(&id(5000), b"never committed", 0).unwrap();
        repository.close();

        let mut repository = Repository::open(&OpenOptions { expected: Some(name), ..options(&borg, &path) }).unwrap();
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
        repository.rollback().unwrap();
        assert_eq!(repository.get(&id(3)).unwrap(), big);
        repository.delete(&id(3)).unwrap();
        repository.commit().unwrap();
        assert_eq!(repository.object_count().unwrap(), 1999);
    }
}

#[test]
fn every_failure_has_its_kind() {
    for borg in servers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("repo");
        let open = |o: OpenOptions| Repository::open(&o).map(drop).unwrap_err();
        let plain = || options(&borg, &path);
        assert!(matches!(open(plain()), Error::DoesNotExist(_)));
        assert!(matches!(open(OpenOptions { url: "elsewhere".into(), ..plain() }), Error::BadUrl(_)));
        let nested = dir.path().join("no/repo").to_str().unwrap().to_owned();
        assert!(matches!(open(OpenOptions { create: true, url: nested, ..plain() }), Error::ParentMissing(_)), "{}", borg.version);
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("x"), "x").unwrap();
        assert!(matches!(open(plain()), Error::Invalid(_)), "{}", borg.version);
        assert!(matches!(open(OpenOptions { create: true, ..plain() }), Error::Exists(_)));
        std::fs::remove_dir_all(&path).unwrap();

        let mut holder = Repository::open(&OpenOptions { create: true, ..plain() }).unwrap();
        holder.put(&id(1), b"x", 0).unwrap();
        holder.commit().unwrap();
        match open(OpenOptions { lock_wait: 0, ..plain() }) {
            Error::LockTimeout { holder: Some(holder), .. } => assert!(holder.starts_with("test@1."), "{holder}"),
            other => panic!("{other:?}"),
        }
        let found = holder.id();
        holder.close();
        let expected = borg::RepositoryId([9; 32]);
        assert_eq!(open(OpenOptions { expected: Some(expected), ..plain() }), Error::IdMismatch { expected, found });
        // The refused one has released its lock.
        Repository::open(&plain()).unwrap().close();
        let doomed = Repository::open(&plain()).unwrap();
        doomed.destroy().unwrap();
        assert!(!path.exists());
    }
}

#[test]
fn programs_that_are_no_borg() {
    let dir = tempfile::tempdir().unwrap();
    let borg = Borg::judges().remove(0);
    for program in ["/nowhere/borg", "/bin/true", "/bin/echo", "/usr/bin/yes", "/bin/cat"] {
        let options = OpenOptions { borg: program.into(), ..options(&borg, dir.path()) };
        let error = Repository::open(&options).map(drop).unwrap_err();
        assert!(matches!(error, Error::Unreachable(_)), "{program}: {error}");
    }
    let options =
        OpenOptions { url: "ssh://host/r".into(), rsh: Some("sh -c 'echo no route >&2; exit 255'".into()), ..options(&borg, dir.path()) };
    let error = Repository::open(&options).map(drop).unwrap_err().to_string();
    assert!(error.ends_with("it said: no route"), "{error}");
}

#[test]
fn a_child_that_dies_is_an_error_at_every_call() {
    let dir = tempfile::tempdir().unwrap();
    let borg = Borg::judges().remove(0);
    let path = dir.path().join("repo");
    let script = dir.path().join("borg");
    std::fs::write(&script, format!("#!/bin/sh\necho $$ > {}/pid\nexec {} serve\n", dir.path().display(), borg.program.display())).unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let options = OpenOptions { create: true, borg: script.to_str().unwrap().into(), ..options(&borg, &path) };
    let mut repository = Repository::open(&options).unwrap();
    let pid = std::fs::read_to_string(dir.path().join("pid")).unwrap();
    assert!(std::process::Command::new("kill").args(["-9", pid.trim()]).status().unwrap().success());
    let error = (0..1000).find_map(|n| repository.put(&id(n), &[0; 5000], 0).err());
    assert!(matches!(error, Some(Error::Unreachable(_))), "{error:?}");
    assert!(matches!(repository.commit(), Err(Error::Unreachable(_))));
    assert!(matches!(repository.get(&id(1)), Err(Error::Unreachable(_))));
}

#[test]
fn over_a_real_ssh() {
    let mut sshd = testkit::Sshd::start();
    let key = sshd.authorize("");
    let borg = Borg::judges().remove(0);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("repo");
    let far = OpenOptions {
        url: format!("ssh://{}:{}{}", sshd.destination(), sshd.port(), path.display()),
        rsh: Some(sshd.rsh(&key)),
        ..options(&borg, &path)
    };
    let mut repository = Repository::open(&OpenOptions { create: true, ..far.clone() }).unwrap();
    for n in 0..300 {
        repository.put(&id(n), &vec![n as u8; 50_000], 0).unwrap();
    }
    repository.commit().unwrap();
    repository.close();
    let mut repository = Repository::open(&options(&borg, &path)).unwrap();
    assert_eq!(repository.object_count().unwrap(), 300);
    repository.close();

    let mut repository = Repository::open(&far).unwrap();
    sshd.stop();
    let error = (0..).find_map(|n| repository.put(&id(n), &[0; 50_000], 0).err()).unwrap();
    assert!(matches!(error, Error::Unreachable(_)), "{error}");
    drop(repository);
    let error = Repository::open(&far).map(drop).unwrap_err();
    assert!(matches!(&error, Error::Unreachable(why) if why.contains("refused")), "{error}");
    sshd.come_back();
    // The far borg noticed the end of its connection and released the lock.
    Repository::open(&OpenOptions { lock_wait: 10, ..far }).unwrap();
}
