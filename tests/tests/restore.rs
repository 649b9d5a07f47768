//! Restores to clients, with real borgs: what comes back is what was backed up, and everything that can go wrong has its cause.

use serde_json::Value;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use testkit::borgs::Borg;
use testkit::process;
use testkit::retry::retry_until;
use testkit::sshd::Sshd;
use testkit::system::{TestSystem, programs};
use testkit::tree::{Random, Spec, differences, listed, make};
use tests::{PATIENCE, assert_failed, job, newest_archive, number, text, wait_for_end, wait_for_state};

const PASSPHRASE: &str = "what was lost comes back";

/// A system with one archive of a client on this machine.
struct Scene {
    system: TestSystem,
    source: PathBuf,
    archive: String,
}

impl Scene {
    fn new() -> Scene {
        Scene::of(Borg::debian().expect("the distribution's borg"), |source| drop(make(source, Spec::default())))
    }

    fn of(borg: Borg, fill: impl FnOnce(&Path)) -> Scene {
        let system = TestSystem::start();
        system.add_repository("main", "repokey-blake2", Some(PASSPHRASE));
        let source = system.join("source");
        fill(&source);
        add_client(&system, "web1", &borg);
        system.add_config("web1", "all", "main", &[], &[&source]);
        system.run_ok("web1/all");
        let archive = text(&newest_archive(&system), "name").to_owned();
        Scene { system, source, archive }
    }

    /// Asks for a restore; the job's number.
    #[track_caller]
    fn restore(&self, options: &[&str]) -> u64 {
        let mut words = vec!["restore", &self.archive];
        words.extend(options);
        number(&self.system.cli_json(&words), "job")
    }

    /// The same, which must end well; its record.
    #[track_caller]
    fn restored(&self, options: &[&str]) -> Value {
        let record = wait_for_end(&self.system, self.restore(options));
        assert_eq!(
            text(&record, "state"),
            "done",
            "{record}\n{}",
            self.system.cli_ok(&["job", "log", &number(&record, "number").to_string()])
        );
        record
    }

    /// Below a directory that was restored into.
    fn below(&self, target: &Path) -> PathBuf {
        target.join(self.source.strip_prefix("/").unwrap())
    }

    #[track_caller]
    fn same(&self, target: &Path) {
        let differences = differences(&self.source, &self.below(target));
        assert!(differences.is_empty(), "{}", listed(&differences));
    }
}

fn add_client(system: &TestSystem, name: &str, borg: &Borg) {
    // As on hosts of their own.
    let cache = format!("--remote-cache-dir={}", system.home().join(name).display());
    system.cli_ok(&["client", "add", name, "--local", &format!("--remote-borg={}", borg.program.display()), &cache]);
}

fn target(record: &Value) -> PathBuf {
    PathBuf::from(text(&record["yield"], "target"))
}

#[test]
fn every_borg_gets_back_what_every_borg_has_saved() {
    let borgs = Borg::all_clients();
    for borg in &borgs {
        let scene = Scene::of(borg.clone(), |source| drop(make(source, Spec::default())));
        for reader in &borgs {
            let name = format!("host-{}", reader.version);
            add_client(&scene.system, &name, reader);
            let record = scene.restored(&["--to-client", &name]);
            let yielded = &record["yield"];
            assert_eq!(number(yielded, "chunks"), number(yielded, "of"), "{record}");
            let target = target(&record);
            assert_eq!(target, scene.system.home().join(format!("borgcube-restore-{}", number(&record, "number"))));
            assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o7777, 0o700);
            scene.same(&target);
            let log = scene.system.cli_ok(&["log"]);
            assert!(log.contains(&format!("restore archive {} of client web1 to {name}, into a new directory", scene.archive)), "{log}");
        }
    }
}

#[test]
fn parts_and_places() {
    let scene = Scene::new();
    let inside = scene.source.strip_prefix("/").unwrap().to_str().unwrap().to_owned();
    let some = fs::read_dir(&scene.source).unwrap().map(|e| e.unwrap().path()).find(|p| p.is_dir()).expect("a directory");
    let path = some.to_str().unwrap();
    // With its slash or without, into a directory that is not there yet.
    for (n, path) in [path, path.trim_start_matches('/')].into_iter().enumerate() {
        let into = scene.system.join(format!("into-{n}"));
        let record = scene.restored(&[path, "--into", into.to_str().unwrap()]);
        assert_eq!(target(&record), into);
        assert_eq!(fs::metadata(&into).unwrap().permissions().mode() & 0o7777, 0o700);
        assert!(differences(&some, &into.join(some.strip_prefix("/").unwrap())).is_empty());
        assert_eq!(fs::read_dir(scene.below(&into)).unwrap().count(), 1, "nothing else");
    }
    let log = scene.system.cli_ok(&["log"]);
    assert!(log.contains(&format!("restore archive {} to web1, into ", scene.archive)), "{log}");

    // In place: what is gone or different comes back, what is new stays, and who did it stands in the log.
    let kept = scene.system.join("kept");
    scene.restored(&["--into", kept.to_str().unwrap()]);
    let file = find_file(&scene.source);
    fs::write(&file, "something else").unwrap();
    fs::write(scene.source.join("new"), "stays").unwrap();
    let (code, said) = scene.system.cli_fails(&["restore", &scene.archive, "--in-place"]);
    assert!(code == 2 && said.contains("--yes"), "{said}");
    let record = scene.restored(&["--in-place", "--yes"]);
    assert_eq!(target(&record), Path::new("/"));
    assert_eq!(fs::read(scene.source.join("new")).unwrap(), b"stays");
    fs::remove_file(scene.source.join("new")).unwrap();
    assert_eq!(fs::read(&file).unwrap(), fs::read(scene.below(&kept).join(file.strip_prefix(&scene.source).unwrap())).unwrap());
    let log = scene.system.cli_ok(&["log"]);
    assert!(log.contains(&format!("restore archive {} IN PLACE on web1", scene.archive)), "{log}");

    // The plan changes nothing.
    let jobs = scene.system.cli_json(&["job", "list"]).as_array().unwrap().len();
    let plan = scene.system.cli_json(&["restore", &scene.archive, &inside, "--dry-run", "--to-client", "web1"]);
    assert_eq!((&plan["dry_run"], &plan["to_another_client"], &plan["client"]), (&true.into(), &false.into(), &"web1".into()));
    assert_eq!(plan["warnings"], serde_json::json!([]), "the path is there");
    let above = inside.rsplit_once('/').unwrap().0;
    let both = scene.system.cli_json(&["restore", &scene.archive, above, &inside, "--dry-run", "--to-client", "web1"]);
    assert_eq!(both["warnings"], serde_json::json!([]), "one inside of the other");
    let (code, said) = scene.system.cli_fails(&["restore", &scene.archive, "nosuch-path", "--dry-run", "--to-client", "web1"]);
    assert!(code == 3 && said.contains("matches nosuch-path"), "{code} {said}");
    let said = scene.system.cli_ok(&["restore", &scene.archive, &inside, "nosuch", "--dry-run", "--to-client", "web1"]);
    assert!(said.contains("nothing in the archive matches nosuch"), "{said}");
    assert!(number(&plan, "archive_files") > 0);
    add_client(&scene.system, "web2", &Borg::debian().unwrap());
    let said = scene.system.cli_ok(&["restore", &scene.archive, "--dry-run", "--to-client", "web2"]);
    assert!(said.contains("another client") && said.contains("Nothing was restored"), "{said}");
    assert_eq!(scene.system.cli_json(&["job", "list"]).as_array().unwrap().len(), jobs);
}

fn find_file(directory: &Path) -> PathBuf {
    let mut stack = vec![directory.to_owned()];
    while let Some(next) = stack.pop() {
        for entry in fs::read_dir(next).unwrap().map(Result::unwrap) {
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                stack.push(entry.path());
            } else if kind.is_file() && entry.metadata().unwrap().len() > 0 {
                return entry.path();
            }
        }
    }
    panic!("no file")
}

#[test]
fn what_cannot_be_restored_says_why() {
    let scene = Scene::new();
    let ends = |options: &[&str]| wait_for_end(&scene.system, scene.restore(options));
    // Something is there.
    let full = scene.system.join("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("x"), "x").unwrap();
    assert_failed(&ends(&["--into", full.to_str().unwrap()]), "target-not-empty");
    assert_failed(&ends(&["--into", full.join("x").to_str().unwrap()]), "target-not-empty");
    assert_eq!(fs::read_dir(&full).unwrap().count(), 1);
    // Nobody can write there.
    assert_failed(&ends(&["--into", "/proc/borgcube"]), "client-permission");
    // Not in the archive; of two, one is enough.
    assert_failed(&ends(&["no/such/path"]), "path-not-in-archive");
    let inside = scene.source.to_str().unwrap();
    let record = scene.restored(&["no/such/path", inside]);
    assert!(record["warnings"].to_string().contains("never matched"), "{record}");
    scene.same(&target(&record));
    // What makes no sense makes no job.
    for (options, expected) in [
        (&["--into", "relative"][..], "absolute"),
        (&["../etc"], ".."),
        (&["--to-client", "nobody"], "nobody"),
        (&["--into", "/x", "--in-place"], "--in-place"),
    ] {
        let (_, said) = scene.system.cli_fails(&[&["restore", scene.archive.as_str()], options].concat());
        assert!(said.contains(expected), "{said}");
    }
    let (_, said) = scene.system.cli_fails(&["restore", "no-such-archive"]);
    assert!(said.contains("there is no archive") && said.contains("archive extract"), "{said}");
    // Nothing of all this stays on the client.
    let cache = scene.system.home().join("web1");
    let left: Vec<_> =
        fs::read_dir(&cache).unwrap().map(|e| e.unwrap().file_name()).filter(|n| n.to_string_lossy().starts_with("restore-")).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// A small file system that the files do not fit into.
#[test]
fn a_client_without_room_says_so() {
    if !nix::unistd::geteuid().is_root() {
        return testkit::borgs::not_run("a_client_without_room_says_so", "only root can mount a small file system");
    }
    let scene = Scene::of(Borg::debian().expect("a borg"), |source| {
        fs::create_dir(source).unwrap();
        for n in 0..6 {
            fs::write(source.join(format!("f{n}")), Random::new(n).bytes(1 << 20)).unwrap();
        }
    });
    let small = scene.system.join("small");
    fs::create_dir(&small).unwrap();
    let mounted = std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=3m", "tmpfs"]).arg(&small).output().unwrap();
    if !mounted.status.success() {
        return testkit::borgs::not_run("a_client_without_room_says_so", &String::from_utf8_lossy(&mounted.stderr));
    }
    let _unmount = Unmount(small.clone());
    // Seen before anything is written, and found out where nobody looked.
    let record = wait_for_end(&scene.system, scene.restore(&["--into", small.join("a").to_str().unwrap()]));
    assert_failed(&record, "client-enospc");
    assert_eq!(fs::read_dir(small.join("a")).unwrap().count(), 0);
    let record = wait_for_end(&scene.system, scene.restore(&["--into", small.join("b").to_str().unwrap(), "--ignore-space"]));
    assert_failed(&record, "client-enospc");
    assert!(text(&record["failure"], "message").contains("no room"), "{record}");
}

/// What cannot be read is left out, with all its names; every borg restores everything else, and the job says what is not there.
#[test]
fn damaged_files_are_named_and_everything_else_is_restored() {
    let scene = Scene::of(Borg::debian().expect("a borg"), |source| {
        fs::create_dir(source).unwrap();
        for n in 0..8 {
            let file = source.join(format!("file{n} it's"));
            // Each is one chunk.
            fs::write(&file, Random::new(n).bytes(300_000)).unwrap();
            fs::hard_link(&file, source.join(format!("link{n}"))).unwrap();
        }
        fs::write(source.join(OsStr::from_bytes(b"\xff\n*")), Random::new(8).bytes(300_000)).unwrap();
    });
    scene.system.settle();
    let segments = fs::read_dir(scene.system.join("repository-main/data/0")).unwrap().flatten().map(|entry| entry.path());
    let segment = segments.max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let file = fs::OpenOptions::new().read(true).write(true).open(&segment).unwrap();
    let flip = |share: u64| {
        let at = file.metadata().unwrap().len() * share / 100;
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    };
    // The first and the last, which are read first and last.
    [5, 50, 90].into_iter().for_each(flip);

    let judged = |record: &Value| {
        assert_failed(record, "repository-integrity");
        let message = text(&record["failure"], "message");
        assert!(message.contains("everything else was restored into") && message.contains("borgcube archive extract"), "{message}");
        let (mut there, mut missing) = (0, 0);
        for entry in fs::read_dir(&scene.source).unwrap().flatten() {
            let restored = scene.below(&target(record)).join(entry.file_name());
            if restored.exists() {
                assert_eq!(fs::read(&restored).unwrap(), fs::read(entry.path()).unwrap(), "{message}");
                there += 1;
            } else {
                let log = scene.system.cli_ok(&["job", "log", &number(record, "number").to_string()]);
                let name = unix::logging::escape_bytes(entry.file_name().as_bytes());
                assert!(log.contains(&format!("/{name}")) || log.contains(&unix::logging::escape(&name)), "{name}: {log}");
                missing += 1;
            }
        }
        assert!(there >= 11 && (4..=6).contains(&missing), "{there} {missing} {message}");
    };
    for reader in Borg::all_clients() {
        let name = format!("host-{}", reader.version);
        add_client(&scene.system, &name, &reader);
        judged(&wait_for_end(&scene.system, scene.restore(&["--to-client", &name])));
    }
    // Into a directory that was named, by way of which nothing outside is touched.
    let into = scene.system.join("into");
    judged(&wait_for_end(&scene.system, scene.restore(&["--into", into.to_str().unwrap()])));

    // What a check has found, the plan says, and no borg runs into it.
    let (code, _) = scene.system.cli_fails(&["repository", "check", "main", "--job", "--wait"]);
    assert_eq!(code, 10);
    let plan = scene.system.cli_json(&["restore", &scene.archive, "--dry-run"]);
    assert!(plan["warnings"].to_string().contains("the archive is damaged: "), "{plan}");
    let record = wait_for_end(&scene.system, scene.restore(&[]));
    judged(&record);
    let log = scene.system.cli_ok(&["job", "log", &number(&record, "number").to_string()]);
    assert!(log.contains("is known to be damaged") && log.matches("borg on the client ended with code").count() == 1, "{log}");
    // Nothing of what is asked for is whole.
    let lost = scene.source.read_dir().unwrap().flatten().map(|e| e.path()).find(|path| {
        let name = path.file_name().unwrap().to_str();
        name.is_some_and(|name| name.starts_with("file")) && !scene.below(&target(&record)).join(name.unwrap()).exists()
    });
    let record = wait_for_end(&scene.system, scene.restore(&[lost.expect("a file that is lost").to_str().unwrap()]));
    assert_failed(&record, "repository-integrity");
    assert!(text(&record["failure"], "message").contains("nothing of what is to be restored is whole"), "{record}");
}

struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A restore that stands still in the middle, because its session does.
struct Halted {
    scene: Scene,
    number: u64,
    session: i32,
}

impl Halted {
    fn new() -> Halted {
        let scene = Scene::of(Borg::debian().expect("a borg"), |source| {
            fs::create_dir(source).unwrap();
            for n in 0..40 {
                fs::write(source.join(format!("f{n}")), Random::new(n).bytes(1 << 20)).unwrap();
            }
        });
        let number = scene.restore(&[]);
        wait_for_state(&scene.system, number, "client_in_progress");
        let session = scene.system.wait_for("borgcube-session", PATIENCE);
        process::signal(session, nix::sys::signal::Signal::SIGSTOP);
        Halted { scene, number, session }
    }

    fn go_on(&self) {
        process::signal(self.session, nix::sys::signal::Signal::SIGCONT);
    }

    #[track_caller]
    fn ends_with(self, cause: &str) -> Scene {
        let record = wait_for_end(&self.scene.system, self.number);
        assert_failed(&record, cause);
        // And the next one is a restore like any other.
        let record = self.scene.restored(&[]);
        self.scene.same(&target(&record));
        self.scene
    }
}

#[test]
fn whoever_dies_ends_the_restore_with_a_cause() {
    for (victim, causes) in [
        ("borgcube-session", &["session-lost"][..]),
        ("borgcube-repositoryd", &["owner-lost", "session-lost"]),
        ("borgcube-worker", &["worker-crashed"]),
    ] {
        let halted = Halted::new();
        let pid = halted.scene.system.pids(victim).first().copied().expect("it runs");
        process::signal(pid, nix::sys::signal::Signal::SIGKILL);
        halted.go_on();
        let record = wait_for_end(&halted.scene.system, halted.number);
        let word = record["failure"]["cause"]["word"].as_str().unwrap_or("none").to_owned();
        assert!(causes.contains(&word.as_str()), "{victim}: {record}");
        halted.ends_with(&word);
    }
}

#[test]
fn a_backup_a_compact_and_a_delete_beside_it() {
    let halted = Halted::new();
    let (system, archive) = (&halted.scene.system, halted.scene.archive.clone());
    // How far it is, the owner has counted.
    let steps = retry_until(PATIENCE, || {
        let steps = &system.cli_json(&["job", "show", &halted.number.to_string()])["progress"]["steps"];
        (steps["unit"] == "chunks").then(|| (number(steps, "done"), number(steps, "total")))
    });
    let (done, total) = steps.expect("progress");
    assert!(done <= total && total > 40, "{done} of {total}");
    // The same client, the same repository: neither waits for the other.
    system.run_ok("web1/all");
    let other = text(&newest_archive(system), "name").to_owned();
    assert_ne!(other, archive);
    system.cli_ok(&["repository", "compact", "main"]);
    let (_, said) = system.cli_fails(&["archive", "delete", &archive, "--now", "--yes"]);
    assert!(said.contains("archive-in-use") || said.contains("a restore reads it"), "{said}");
    halted.go_on();
    let record = wait_for_end(system, halted.number);
    assert_eq!(text(&record, "state"), "done", "{record}");
    halted.scene.same(&target(&record));
}

#[test]
fn a_restore_is_cancelled_and_leaves_what_it_has() {
    let halted = Halted::new();
    halted.go_on();
    let system = &halted.scene.system;
    let second = halted.scene.restore(&[]);
    assert!(job(system, second)["waits"].is_null() || text(&job(system, second), "state") == "job_created");
    system.cli_ok(&["job", "cancel", &second.to_string()]);
    system.cli_ok(&["job", "cancel", &halted.number.to_string()]);
    let record = wait_for_end(system, halted.number);
    assert!(["cancelled", "done"].contains(&text(&record, "state")), "{record}");
    let record = wait_for_end(system, second);
    assert!(["cancelled", "done"].contains(&text(&record, "state")), "{record}");
    let archive = halted.scene.archive.clone();
    // Nothing keeps the archive any more.
    let deleted =
        retry_until(PATIENCE, || system.cli(&["archive", "delete", &archive, "--now", "--dry-run"]).status.success().then_some(()));
    assert!(deleted.is_some());
}

/// The two roads over a real sshd that need nothing on the client: a job key, and the worker's own connections.
#[test]
fn roads_over_a_real_sshd() {
    if !nix::unistd::geteuid().is_root() {
        return testkit::borgs::not_run("roads_over_a_real_sshd", "only root's sshd runs an AuthorizedKeysCommand");
    }
    let scene = Scene::new();
    let system = &scene.system;
    let command =
        format!("/usr/bin/env BORGCUBE_STATE={} {}", system.state().display(), programs().join("borgcube-authorized-keys").display());
    let here = Sshd::start_with(&format!("AuthorizedKeysCommand {command} %u %t %k\nAuthorizedKeysCommandUser root\n"));
    let mut there = Sshd::start();
    let host_keys = system.state().join("host-keys");
    fs::create_dir(&host_keys).unwrap();
    fs::copy(here.host_key(), host_keys.join("host_key.pub")).unwrap();
    for (name, options) in [
        ("by-key", vec!["--key=job".to_owned(), format!("--server={}:{}", here.destination(), here.port())]),
        ("by-carrier", vec!["--road=carrier".to_owned()]),
    ] {
        let out = there.authorize("");
        let words = there.ssh_options(&out);
        let words = words.iter().filter(|word| *word != "-i" && !out.as_os_str().eq(word.as_str()));
        let mut arguments: Vec<String> = vec!["client".into(), "add".into(), name.into(), "--remote".into(), there.destination()];
        arguments.extend(words.map(|word| format!("--rsh-option={word}")));
        arguments.push(format!("--ssh-identity-file={}", out.display()));
        arguments.push(format!("--remote-cache-dir={}", system.join(format!("cache of {name}'s")).display()));
        arguments.extend(options);
        system.cli_ok(&arguments);
        let into = system.join(format!("restored {name}'s"));
        let record = scene.restored(&["--to-client", name, "--into", into.to_str().unwrap()]);
        assert_eq!(target(&record), into);
        scene.same(&into);
        assert_eq!(fs::read_dir(system.state().join("run/keys")).unwrap().count(), 0, "sshd knows the key no more");
    }
}
