//! Restore tests of a whole system, with real borgs: what is good, what only looks like it, and what is left behind.

use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};
use testkit::borgs::{Borg, not_run};
use testkit::process;
use testkit::retry::retry_until;
use testkit::system::{TestSystem, programs};
use testkit::tree::{Random, Spec, make};
use tests::{PATIENCE, assert_failed, job, newest_archive, number, text, wait_for_end, wait_for_state};

const PASSPHRASE: &str = "a rumour no more";

/// A system with one archive of a client on this machine.
struct Scene {
    system: TestSystem,
    source: PathBuf,
}

impl Scene {
    fn of(borg: &Borg, fill: impl FnOnce(&Path)) -> Scene {
        let system = TestSystem::start();
        system.add_repository("main", "repokey-blake2", Some(PASSPHRASE));
        let source = system.join("source");
        fs::create_dir(&source).unwrap();
        fill(&source);
        system.cli_ok(&["client", "add", "web1", "--local", &format!("--remote-borg={}", borg.program.display())]);
        system.add_config("web1", "all", "main", &[], &[&source]);
        system.run_ok("web1/all");
        Scene { system, source }
    }

    fn new(fill: impl FnOnce(&Path)) -> Scene {
        Scene::of(&Borg::debian().expect("the distribution's borg"), fill)
    }

    /// Asks for a test; the job's number.
    fn start(&self, options: &[&str]) -> u64 {
        let words = [&["restore-test", "run", "web1/all"], options].concat();
        number(&self.system.cli_json(&words), "job")
    }

    /// The same, and its record at its end. Whatever came of it, nothing is left.
    #[track_caller]
    fn tested(&self, options: &[&str]) -> Value {
        let record = wait_for_end(&self.system, self.start(options));
        assert_eq!(self.left(), Vec::<PathBuf>::new(), "{record}");
        record
    }

    /// The same, which must not fail; what came of it.
    #[track_caller]
    fn done(&self, options: &[&str]) -> Value {
        let record = self.tested(options);
        let log = self.system.cli_ok(&["job", "log", &number(&record, "number").to_string()]);
        assert_eq!(text(&record, "state"), "done", "{record}\n{log}");
        record["yield"].clone()
    }

    fn left(&self) -> Vec<PathBuf> {
        fs::read_dir(self.system.state().join("restore-tests")).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    /// What is known of the config's tests.
    fn known(&self) -> Value {
        self.system.cli_json(&["restore-test", "list"])[0].clone()
    }

    /// A path in the archive.
    fn inside(&self, name: &str) -> String {
        self.source.join(name).display().to_string().trim_start_matches('/').to_owned()
    }
}

/// Names that are nobody's friends, links, pipes, and files of different sizes.
fn awkward(source: &Path) {
    for name in ["plain", "with space", "new\nline", "back\\slash", "-rf", "$(touch x)", "ümläut"] {
        fs::write(source.join(name), format!("content of {name}")).unwrap();
    }
    fs::write(source.join("empty"), "").unwrap();
    fs::write(source.join("big"), Random::new(7).bytes(3_000_000)).unwrap();
    fs::write(source.join("closed"), "nobody may read it").unwrap();
    if nix::unistd::geteuid().is_root() {
        fs::set_permissions(source.join("closed"), fs::Permissions::from_mode(0o000)).unwrap();
    }
    fs::write(source.join("set-id"), "as somebody else").unwrap();
    fs::set_permissions(source.join("set-id"), fs::Permissions::from_mode(0o6755)).unwrap();
    fs::hard_link(source.join("plain"), source.join("same as plain")).unwrap();
    symlink("/etc/passwd", source.join("link")).unwrap();
    nix::unistd::mkfifo(&source.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
}

#[test]
fn the_first_test_records_and_the_second_one_is_good() {
    for borg in Borg::all_clients() {
        let scene = Scene::of(&borg, awkward);
        let first = scene.done(&[]);
        assert_eq!((number(&first, "recorded"), number(&first, "first_seen"), &first["good"]), (0, 11, &Value::Bool(false)), "{first}");
        let known = scene.known();
        assert!(known["last_good"].is_null() && known["last_failed"].is_null() && known["recorded_files"] == 11, "{known}");
        assert!(text(&known["last_unproven"], "what").contains("11 files"), "{known}");
        let record = job(&scene.system, 2);
        assert!(record["warnings"][0].as_str().unwrap().contains("nothing to compare with yet"), "{record}");
        assert!(scene.system.cli_json(&["client", "show", "web1"])["last_good_restore_test"].is_null());

        let second = scene.done(&[]);
        assert_eq!((number(&second, "recorded"), number(&second, "files"), &second["good"]), (11, 11, &Value::Bool(true)), "{second}");
        assert_eq!(text(&second, "archive"), text(&newest_archive(&scene.system), "name"));
        let known = scene.known();
        assert_eq!(number(&known["last_good"], "job"), 3);
        assert!(known["good_age_seconds"].as_u64().unwrap() < 100, "{known}");
        let client = &scene.system.cli_json(&["client", "list"])[0];
        assert_eq!((number(&client["last_good_restore_test"], "job"), number(client, "configs_without_restore_test")), (3, 0));
        assert!(scene.system.cli_ok(&["client", "show", "web1"]).contains("good 10 s ago (job 3)") || client.is_object());
    }
}

#[test]
fn a_sample_is_drawn_and_can_be_drawn_again() {
    let scene = Scene::new(|source| {
        make(&source.join("tree"), Spec::default());
        for n in 0..60 {
            fs::write(source.join(format!("file-{n}")), format!("{n}")).unwrap();
        }
    });
    let first = scene.done(&["--files", "10", "--bytes", "500K"]);
    assert!(number(&first, "files") <= 10 && number(&first, "bytes") <= 500_000 && number(&first, "of_files") > 60, "{first}");
    // The same archive again: half of it is what was recorded.
    let second = scene.done(&["--files", "10", "--bytes", "500K"]);
    assert!(number(&second, "recorded") >= 5 && second["good"] == true, "{second}");
    let seed = number(&second, "seed").to_string();
    let archive = text(&newest_archive(&scene.system), "name").to_owned();
    let third = scene.done(&["--files", "10", "--bytes", "500K", "--seed", &seed, "--archive", &archive]);
    assert_eq!(number(&third, "seed").to_string(), seed);

    // Listed paths in whole; what is not there, or is too much, fails plainly.
    let path = scene.inside("file-7");
    let one = scene.done(&["--path", &path]);
    assert_eq!((number(&one, "files"), number(&one, "of_files")), (1, 1), "{one}");
    assert_failed(&scene.tested(&["--path", &scene.inside("nothing")]), "path-not-in-archive");
    assert_failed(&scene.tested(&["--path", &scene.inside(""), "--bytes", "10"]), "quota-exceeded");
    // Mistakes of whoever asks say nothing about the archive.
    assert!(scene.known()["last_failed"].is_null(), "{}", scene.known());
    let (_, said) = scene.system.cli_fails(&["restore-test", "run", "web1/other"]);
    assert!(said.contains("no whole archive of web1/other"), "{said}");
    let (_, said) = scene.system.cli_fails(&["restore-test", "run", "web2"]);
    assert!(said.contains("there is no client web2"), "{said}");
}

#[test]
fn expected_hashes_are_met_or_the_test_fails() {
    let scene = Scene::new(|source| fs::write(source.join("a"), "abc").unwrap());
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let list = scene.system.join("SHA256SUMS");
    let path = list.display().to_string();
    fs::write(&list, format!("{abc}  {}\n", scene.source.join("a").display())).unwrap();
    let good = scene.done(&["--expect", &path]);
    assert_eq!((number(&good, "expected"), &good["good"]), (1, &Value::Bool(true)), "{good}");
    let since = number(&scene.known()["last_good"], "job");

    fs::write(&list, format!("{}  {}\n", abc.replace('b', "c"), scene.source.join("a").display())).unwrap();
    let record = scene.tested(&["--expect", &path]);
    assert_failed(&record, "restore-test-differs");
    assert!(text(&record["failure"], "message").contains(abc), "{record}");
    fs::write(&list, format!("{abc}  {}\n{abc}  /not/there\n", scene.source.join("a").display())).unwrap();
    assert_failed(&scene.tested(&["--expect", &path]), "restore-test-differs");
    // The age of the last good one is what it was.
    assert_eq!(number(&scene.known()["last_good"], "job"), since);
    // What is a directory now is no file that could have that hash.
    fs::remove_file(scene.source.join("a")).unwrap();
    fs::create_dir(scene.source.join("a")).unwrap();
    // An archive without files would be suspicious, and not the one that is tested.
    fs::write(scene.source.join("b"), "b").unwrap();
    scene.system.run_ok("web1/all");
    fs::write(&list, format!("{abc}  {}\n", scene.source.join("a").display())).unwrap();
    let record = scene.tested(&["--expect", &path]);
    assert_failed(&record, "restore-test-differs");
    assert!(text(&record["failure"], "message").contains("it is no file in the archive"), "{record}");
    let (code, said) = scene.system.cli_fails(&["restore-test", "run", "web1/all", "--expect", "/dev/null"]);
    assert!(code == 2 && said.contains("cannot read"), "{said}");
}

/// Writes other bytes of the same length and gives the file its time back.
fn change_behind_the_back(path: &Path) {
    let time = fs::metadata(path).unwrap().modified().unwrap();
    let mut content = fs::read(path).unwrap();
    content[0] ^= 0xff;
    fs::write(path, content).unwrap();
    File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

#[test]
fn the_live_client_is_compared() {
    let scene = Scene::new(|source| {
        awkward(source);
        fs::write(source.join("will go"), "soon").unwrap();
        fs::write(source.join("will change"), "soon").unwrap();
    });
    fs::remove_file(scene.source.join("will go")).unwrap();
    fs::write(scene.source.join("will change"), "something longer").unwrap();
    // The same content with another mode or a new inode is the same.
    let plain = scene.source.join("with space");
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o600)).unwrap();
    let good = scene.done(&["--live"]);
    let of = |field: &str| number(&good, field);
    assert_eq!((of("live"), of("changed"), of("gone"), &good["good"]), (11, 1, 1, &Value::Bool(true)), "{good}");
    let since = number(&scene.known()["last_good"], "job");

    // The client tells whole seconds of status changes.
    tests::wait_for_another_second();
    change_behind_the_back(&scene.source.join("new\nline"));
    let record = scene.tested(&["--live"]);
    assert_failed(&record, "restore-test-live-differs");
    let message = text(&record["failure"], "message");
    assert!(message.contains("new\\nline") && message.contains("set its time back"), "{message}");
    let known = scene.known();
    assert_eq!((number(&known["last_good"], "job"), number(&known["last_failed"], "job")), (since, number(&record, "number")));
    // Without a look at the client it is what it was.
    assert_eq!(scene.done(&[])["good"], true);
    // It is the client's file that changed: with another time it is a change like any other.
    let changed = scene.source.join("new\nline");
    File::options().write(true).open(&changed).unwrap().set_modified(SystemTime::now() - Duration::from_secs(5)).unwrap();
    assert_eq!(number(&scene.done(&["--live"]), "changed"), 2);
}

/// A client whose `ssh` is this script: it does what the client would, until there is a file named `lie` beside it, which it runs instead.
fn false_client() -> (tempfile::TempDir, Scene) {
    let directory = tempfile::tempdir().unwrap();
    let lie = directory.path().join("lie");
    let ssh = directory.path().join("ssh");
    fs::write(&ssh, format!("#!/bin/sh\nif [ -f {0} ]; then . {0}; exit; fi\nfor last; do :; done\nexec sh -c \"$last\"\n", lie.display()))
        .unwrap();
    fs::set_permissions(&ssh, fs::Permissions::from_mode(0o755)).unwrap();
    let system = TestSystem::start();
    system.add_repository("main", "repokey-blake2", Some(PASSPHRASE));
    let source = system.join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("a"), "abc").unwrap();
    fs::write(source.join("b"), "abcd").unwrap();
    let back = format!(
        "--client-rsh={} --socket {}",
        programs().join("borgcube-proxy").display(),
        system.state().join("run/session.sock").display()
    );
    let rsh = format!("--rsh={}", ssh.display());
    system.cli_ok(&["client", "add", "web1", "--remote", "root@nowhere", "--server", "borgcube-ssh@localhost", &rsh, &back]);
    system.add_config("web1", "all", "main", &[], &[&source]);
    system.run_ok("web1/all");
    (directory, Scene { system, source })
}

#[test]
fn a_client_that_lies_fails_its_test_and_nothing_else() {
    let (directory, scene) = false_client();
    assert_eq!(scene.done(&["--live"])["good"], true);
    let lie = |script: &str| fs::write(directory.path().join("lie"), script).unwrap();
    let stat = |name: &str| {
        let meta = fs::metadata(scene.source.join(name)).unwrap();
        format!("{} {} {} -", meta.size(), meta.mtime(), meta.ctime())
    };
    // Another hash for a file that looks as it was.
    let (a, b, zeros) = (stat("a"), stat("b"), "0".repeat(64));
    lie(&format!("echo borgcube file 0 {zeros} {a} / {a}; echo borgcube file 1 {zeros} {b} / {b}; echo borgcube end"));
    assert_failed(&scene.tested(&["--live"]), "restore-test-live-differs");
    // Nothing that means anything: nothing was compared with the client, and that is said.
    lie("echo borgcube file 0 nonsense; echo borgcube file 1; echo borgcube end");
    let record = scene.tested(&["--live"]);
    assert_eq!((text(&record, "state"), number(&record["yield"], "live")), ("done", 0), "{record}");
    assert!(record["warnings"].to_string().contains("nothing usable about 2 files"), "{record}");
    // Much more than it was asked for, for ever, to whatever is asked.
    lie("while echo borgcube gone 0; do :; done");
    assert_failed(&scene.tested(&["--live"]), "policy-violation");
    lie("while echo welcome; do :; done");
    assert_failed(&scene.tested(&["--live"]), "policy-violation");
    // Nothing at all.
    lie("echo no such host >&2; exit 255");
    assert_failed(&scene.tested(&["--live"]), "client-connection-failed");
    lie("exit 0");
    assert_failed(&scene.tested(&["--live"]), "client-connection-failed");
    // What the server has recorded itself is none of its business.
    assert_eq!(number(&scene.done(&[]), "recorded"), 2);
}

/// The repository's owner stands still, and so does whoever would start another one.
struct Stopped(Vec<i32>);

impl Stopped {
    fn owners(system: &TestSystem) -> Stopped {
        let mut stopped = Stopped(vec![system.up_pid()]);
        process::signal(system.up_pid(), Signal::SIGSTOP);
        stopped.0.extend(system.pids("borgcube-repositoryd"));
        stopped.0.iter().for_each(|pid| process::signal(*pid, Signal::SIGSTOP));
        stopped
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        self.0.iter().for_each(|pid| process::signal(*pid, Signal::SIGCONT));
    }
}

#[test]
fn a_worker_that_is_killed_leaves_nothing_behind() {
    let scene = Scene::new(|source| fs::write(source.join("a"), "abc").unwrap());
    let stopped = Stopped::owners(&scene.system);
    let number = scene.start(&[]);
    let there = retry_until(PATIENCE, || scene.left().pop()).expect("a directory of the test");
    fs::create_dir(there.join("files")).unwrap();
    fs::write(there.join("files/extracted"), "somebody's").unwrap();
    // The first one: the confined process comes after it.
    let worker = scene.system.pids("borgcube-worker").into_iter().min().expect("a worker");
    process::signal(worker, Signal::SIGKILL);
    drop(stopped);
    let record = wait_for_end(&scene.system, number);
    assert_failed(&record, "worker-crashed");
    let clean = retry_until(PATIENCE, || (scene.left().is_empty() && scene.system.pids("borgcube-worker").is_empty()).then_some(()));
    assert!(clean.is_some(), "{:?}", scene.left());

    // And so does a machine that loses power: the next start finds it.
    let mut scene = scene;
    scene.system.crash();
    fs::create_dir_all(scene.system.state().join("restore-tests/99/files/a")).unwrap();
    fs::write(scene.system.state().join("restore-tests/99/files/a/b"), "somebody's").unwrap();
    scene.system.up();
    assert!(scene.left().is_empty());
}

#[test]
fn a_test_can_be_cancelled() {
    let scene = Scene::new(|source| fs::write(source.join("a"), "abc").unwrap());
    let stopped = Stopped::owners(&scene.system);
    let number = scene.start(&[]);
    wait_for_state(&scene.system, number, "repository_in_progress");
    scene.system.cli_ok(&["job", "cancel", &number.to_string()]);
    let record = wait_for_end(&scene.system, number);
    drop(stopped);
    assert_eq!(text(&record, "state"), "cancelled");
    assert!(scene.left().is_empty() && scene.known()["last_failed"].is_null());
}

#[test]
fn a_disk_that_is_full_is_said() {
    if !nix::unistd::geteuid().is_root() {
        return not_run("a restore test on a full disk", "only root can mount a small file system");
    }
    let scene = Scene::new(|source| fs::write(source.join("big"), Random::new(7).bytes(3_000_000)).unwrap());
    let place = scene.system.state().join("restore-tests");
    let mount = |program: &str, words: &[&str]| Command::new(program).args(words).arg(&place).status().is_ok_and(|status| status.success());
    if !mount("mount", &["-t", "tmpfs", "-o", "size=4m", "tmpfs"]) {
        return not_run("a restore test on a full disk", "a tmpfs cannot be mounted here");
    }
    let record = wait_for_end(&scene.system, scene.start(&[]));
    assert!(mount("umount", &[]));
    assert_failed(&record, "restore-test-enospc");
    assert!(text(&record["failure"], "message").contains("needs"), "{record}");
}

#[test]
fn damage_in_the_repository_fails_the_test() {
    let scene = Scene::new(|source| fs::write(source.join("big"), Random::new(7).bytes(300_000)).unwrap());
    scene.system.settle();
    // The largest object is the file's content: a byte in the middle of the segment.
    let data = scene.system.join("repository-main/data/0");
    let segment =
        fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().path()).max_by_key(|path| fs::metadata(path).unwrap().size()).unwrap();
    let mut bytes = fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    fs::write(&segment, bytes).unwrap();
    let record = scene.tested(&[]);
    assert_failed(&record, "restore-test-damaged");
    assert!(text(&record["failure"], "message").contains("big: "), "{record}");
    let known = scene.known();
    assert!(known["last_good"].is_null() && known["recorded_files"] == 0, "{known}");
}

#[test]
fn schedules_test_restores() {
    let scene = Scene::new(|source| fs::write(source.join("a"), "abc").unwrap());
    scene.system.add_config("web1", "never", "main", &[], &[&scene.source]);
    scene.system.cli_ok(&["schedule", "add", "proof", "--at", "weekly sat 12:00", "--restore-test-live", "web.*/.*"]);
    let ran = scene.system.cli_json(&["schedule", "run", "proof"]);
    let jobs = ran["jobs"].as_array().unwrap();
    assert_eq!(jobs.len(), 1, "{ran}");
    assert!(ran["left_out"][0]["what"].as_str().unwrap().contains("restore test of web1/never"), "{ran}");
    let record = wait_for_end(&scene.system, jobs[0].as_u64().unwrap());
    assert_eq!((text(&record, "kind"), text(&record, "state"), number(&record["yield"], "live")), ("restore-test", "done", 1), "{record}");
    assert_eq!(scene.known()["last_good"]["job"], record["number"]);
    let shown = scene.system.cli_ok(&["schedule", "show", "proof"]);
    assert!(shown.contains("test restores of clients /web.*/ with labels /.*/ against the live clients"), "{shown}");
}
