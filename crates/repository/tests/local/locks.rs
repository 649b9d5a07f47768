//! Borg's lock, ours against theirs.

use crate::common::*;
use repository::{Error, OpenOptions, Repository};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use testkit::{Borg, BorgWorld, retry_until};

const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

fn refused(options: &OpenOptions) -> String {
    match Repository::open(options).map(drop) {
        Err(Error::LockTimeout { holder: Some(holder), .. }) => holder,
        other => panic!("{other:?}"),
    }
}

fn held(borg: &Borg, world: &BorgWorld, path: &Path) -> Child {
    let mut command = borg.command(world);
    command.env("BORG_HOST_ID", "test@1").arg("with-lock").arg(path).args(["sleep", "1000"]).stdout(Stdio::null());
    let child = command.spawn().unwrap();
    retry_until(PATIENCE, || std::fs::read(path.join("lock.roster")).ok().filter(|text| !text.is_empty())).unwrap();
    child
}

#[test]
fn theirs_keeps_us_out_and_ours_keeps_them_out() {
    for borg in borgs() {
        let world = BorgWorld::new();
        let path = world.join("repo");
        borg.init(&world, &path, "none").unwrap();
        let mut child = held(&borg, &world, &path);
        let holder = refused(&options(&path));
        assert_eq!(holder, format!("test@1.{0}-0 (process {0} on this host)", child.id()));
        refused(&OpenOptions { exclusive: false, ..options(&path) });
        // Its command goes on without it; it must not stay.
        let sleeping = testkit::process::descendants(child.id() as i32);
        child.kill().unwrap();
        child.wait().unwrap();
        testkit::process::kill_all(&sleeping);
        // Another host cannot know that it is dead, ours does.
        let holder = refused(&OpenOptions { host_id: Some("other@1".into()), ..options(&path) });
        assert!(!holder.contains("this host"), "{holder}");
        let repository = open(&path);
        let output = borg.command(&world).env("BORG_HOST_ID", "test@1").args(["--lock-wait=1", "list"]).arg(&path).output().unwrap();
        assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("lock"), "{output:?}");
        repository.close();
        assert_eq!(beside(&path, "lock"), [""; 0]);
        borg.run(&world, ["list".as_ref(), path.as_os_str()]).unwrap();

        // Readers beside each other, and a writer behind them.
        let reading = Repository::open(&OpenOptions { exclusive: false, ..options(&path) }).unwrap();
        borg.run(&world, ["list".as_ref(), path.as_os_str()]).unwrap();
        let holder = refused(&options(&path));
        assert!(holder.starts_with("test@1."), "{holder}");
        let output = borg.command(&world).args(["--lock-wait=1", "with-lock"]).arg(&path).arg("true").output().unwrap();
        assert!(!output.status.success(), "{output:?}");
        reading.close();
        open(&path).close();
    }
}

/// Takes the lock in another process; run by the tests below only.
#[test]
fn helper_that_holds_a_lock() {
    let Some(path) = std::env::var_os("HOLD") else { return };
    let exclusive = std::env::var_os("SHARED").is_none();
    let repository = Repository::open(&OpenOptions { exclusive, ..options(Path::new(&path)) }).unwrap();
    std::fs::write(Path::new(&path).with_extension("held"), "").unwrap();
    std::thread::sleep(PATIENCE * 10);
    drop(repository);
}

fn holder(path: &Path, shared: bool) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "locks::helper_that_holds_a_lock"]).env("HOLD", path).stdout(Stdio::null());
    if shared {
        command.env("SHARED", "1");
    }
    let child = command.spawn().unwrap();
    let mark = path.with_extension("held");
    retry_until(PATIENCE, || mark.exists().then_some(())).unwrap();
    std::fs::remove_file(mark).unwrap();
    child
}

#[test]
fn what_a_killed_process_of_ours_left_is_taken_over() {
    for borg in borgs() {
        let world = BorgWorld::new();
        let path = world.join("repo");
        borg.init(&world, &path, "none").unwrap();
        for shared in [false, true] {
            for ours in [false, true] {
                let mut child = holder(&path, shared);
                let name = refused(&options(&path));
                assert_eq!(name, format!("test@1.{0}-0 (process {0} on this host)", child.id()));
                child.kill().unwrap();
                assert_eq!(child.wait().unwrap().signal(), Some(9));
                assert!(path.join("lock.roster").exists());
                if ours {
                    open(&path).close();
                } else {
                    let output =
                        borg.command(&world).env("BORG_HOST_ID", "test@1").arg("with-lock").arg(&path).arg("true").output().unwrap();
                    assert!(output.status.success(), "{output:?}");
                }
                assert_eq!(beside(&path, "lock"), [""; 0], "borg {}", borg.version);
            }
        }
    }
}

#[test]
fn our_own_number_from_an_earlier_life_is_no_lock() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("repo");
    create(&path).close();
    let lock = path.join("lock.exclusive");
    std::fs::create_dir(&lock).unwrap();
    std::fs::write(lock.join(format!("test@1.{}-0", std::process::id())), "").unwrap();
    let first = open(&path);
    // But not while this very process has it.
    refused(&options(&path));
    first.close();
    // Nobody understands this one.
    std::fs::create_dir(&lock).unwrap();
    std::fs::write(lock.join("what"), "").unwrap();
    assert_eq!(refused(&options(&path)), "what");
    assert_eq!(beside(&path, "lock"), ["lock.exclusive"]);
}

#[test]
fn the_roster_is_there_whole_at_any_time() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("repo");
    create(&path).close();
    let roster = path.join("lock.roster");
    // Some process that lives as long as the machine.
    std::fs::write(&roster, r#"{"shared": [["test@1", 1, 0]]}"#).unwrap();
    std::fs::set_permissions(&roster, std::fs::Permissions::from_mode(0o660)).unwrap();
    // What a reader that has just opened it goes on to read.
    let mut before = std::fs::File::open(&roster).unwrap();
    std::fs::write(path.join(".lock.roster.1234.tmp"), "{").unwrap();
    let reading = Repository::open(&OpenOptions { exclusive: false, ..options(&path) }).unwrap();
    assert_eq!(std::io::read_to_string(&mut before).unwrap(), r#"{"shared": [["test@1", 1, 0]]}"#);
    assert_eq!(borg::roster::Roster::parse(&std::fs::read(&roster).unwrap()).shared.len(), 2);
    assert_eq!(std::fs::metadata(&roster).unwrap().permissions().mode() & 0o777, 0o660);
    reading.close();
    assert_eq!(borg::roster::Roster::parse(&std::fs::read(&roster).unwrap()).shared.len(), 1);
    std::fs::remove_file(&roster).unwrap();
    open(&path).close();
    assert_eq!((beside(&path, "lock"), beside(&path, ".")), (vec![], vec![]));
}

#[test]
fn a_broken_lock_stops_the_writer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("repo");
    let mut repository = create(&path);
    repository.put(&id(1), b"x", 0).unwrap();
    std::fs::remove_dir_all(path.join("lock.exclusive")).unwrap();
    assert!(matches!(repository.commit(), Err(Error::Io(why)) if why.contains("broken")));
    assert!(repository.put(&id(2), b"x", 0).is_err());
}

#[test]
fn without_an_id_the_host_is_called_as_borg_calls_it() {
    let Some(borg) = Borg::judges().pop() else { return };
    let world = BorgWorld::new();
    let path = world.join("repo");
    borg.init(&world, &path, "none").unwrap();
    let roster = path.join("lock.roster");
    let text = borg.run(&world, ["with-lock".as_ref(), path.as_os_str(), "cat".as_ref(), roster.as_os_str()]).unwrap();
    let theirs = borg::roster::Roster::parse(text.as_bytes()).exclusive.remove(0).host;
    let _repository = Repository::open(&OpenOptions { host_id: None, ..options(&path) }).unwrap();
    let ours = borg::roster::Roster::parse(&std::fs::read(roster).unwrap()).exclusive.remove(0).host;
    // The resolver may add a domain, which only costs the recognition of stale locks.
    assert_eq!(ours.split_once('@').unwrap().1, theirs.split_once('@').unwrap().1, "{ours} and {theirs}");
}

#[test]
fn whoever_broke_the_lock_keeps_what_it_committed() {
    for begun in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("repo");
        let mut first = create(&path);
        first.put(&id(1), b"one", 0).unwrap();
        first.commit().unwrap();
        if begun {
            first.put(&id(2), b"never committed", 0).unwrap();
        }
        std::fs::remove_dir_all(path.join("lock.exclusive")).unwrap();
        let mut other = Repository::open(&OpenOptions { host_id: Some("other@2".into()), ..options(&path) }).unwrap();
        other.put(&id(3), b"three", 0).unwrap();
        other.commit().unwrap();
        other.close();
        if !begun {
            assert!(first.put(&id(2), b"where the other one has its segment", 0).is_err());
        }
        // Whatever the loser does now.
        assert!(first.reserve_nonce(7, None).is_err());
        assert!(first.check_alive().is_err());
        assert!(first.discard().is_err());
        assert!(first.put(&id(4), b"four", 0).is_err() && first.commit().is_err());
        first.close();
        let mut again = open(&path);
        assert_eq!(again.get(&id(3)).unwrap(), b"three", "{begun}");
        assert_eq!(again.get(&id(1)).unwrap(), b"one");
    }
}
