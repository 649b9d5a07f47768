//! What goes wrong: each ends in the right cause and one sentence, nothing completed is lost, and the next run works.

use nix::sys::signal::Signal;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use testkit::borgs::{Borg, not_run};
use testkit::process;
use testkit::retry::retry_until;
use testkit::sshd::Sshd;
use testkit::system::TestSystem;
use testkit::tree::{Spec, make};
use testkit::world::BorgWorld;
use tests::{PATIENCE, Tap, assert_failed, job, newest_archive, newest_job, number, start, text, wait_for_end, wait_for_state};

const PASSPHRASE: &str = "the right one, and no other";

/// A system with one good backup.
struct Scene {
    system: TestSystem,
    repository: PathBuf,
    source: PathBuf,
    first: String,
}

impl Scene {
    fn new() -> Scene {
        let system = TestSystem::start();
        system.add_local_client("host");
        Scene::with(system)
    }

    /// `system` has a client called host.
    fn with(system: TestSystem) -> Scene {
        let repository = system.add_repository("main", "repokey", Some(PASSPHRASE));
        let source = system.join("source");
        make(&source, Spec { files: 20, ..Spec::default() });
        system.add_config("host", "all", "main", &[], &[&source]);
        system.run_ok("host/all");
        let first = text(&newest_archive(&system), "name").to_owned();
        system.settle();
        Scene { system, repository, source, first }
    }

    /// The next run fails with this cause, and the person who waits for it reads the sentence.
    #[track_caller]
    fn fails_with(&self, cause: &str) {
        let output = self.system.run("host/all");
        assert_eq!(output.status.code(), Some(10), "{output:?}\n{}", self.system.log());
        let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        let record = newest_job(&self.system);
        assert_failed(&record, cause);
        assert!(said.contains(cause) && said.contains(text(&record["failure"], "message")), "{said}");
    }

    /// All is well again: the first archive is there, the next run works, stock borg agrees with both.
    #[track_caller]
    fn works_again(&self) {
        self.system.run_ok("host/all");
        let newest = newest_archive(&self.system);
        assert_ne!(text(&newest, "name"), self.first);
        self.system.settle();
        let world = BorgWorld::with_passphrase(PASSPHRASE);
        for judge in Borg::judges() {
            let names = judge.archives(&world, &self.repository).unwrap();
            assert!(names.contains(&self.first), "{names:?}");
            judge
                .judge(&world, &self.repository, text(&newest, "name"), &self.source)
                .unwrap_or_else(|e| panic!("{}: {e:#}", judge.version));
        }
    }
}

#[test]
fn wrong_passphrase() {
    let mut scene = Scene::new();
    let wrong = scene.system.secret_file("wrong", "not the right passphrase");
    let right = scene.system.secret_file("right", PASSPHRASE);
    // The CLI looks before it believes.
    let (_, said) = scene.system.cli_fails(&["repository", "edit", "main", "--passphrase-file", wrong.to_str().unwrap()]);
    assert!(said.contains("passphrase"), "{said}");
    scene.system.down();
    fs::copy(&wrong, scene.system.state().join("credentials/main/passphrase")).unwrap();
    scene.system.up();
    scene.fails_with("passphrase-wrong");
    scene.system.cli_ok(&["repository", "edit", "main", "--passphrase-file", right.to_str().unwrap()]);
    scene.works_again();
}

#[test]
fn repository_gone_replaced_or_no_repository_at_all() {
    let scene = Scene::new();
    let aside = scene.system.join("aside");
    fs::rename(&scene.repository, &aside).unwrap();
    scene.fails_with("repository-does-not-exist");

    fs::create_dir(&scene.repository).unwrap();
    fs::write(scene.repository.join("holiday.jpg"), b"not a repository").unwrap();
    scene.fails_with("repository-invalid");
    fs::remove_dir_all(&scene.repository).unwrap();

    let Some(borg) = Borg::v1_4_5() else { panic!("borg 1.4.5 is needed") };
    borg.init(&BorgWorld::with_passphrase(PASSPHRASE), &scene.repository, "repokey").unwrap();
    scene.fails_with("repository-id-mismatch");
    fs::remove_dir_all(&scene.repository).unwrap();

    fs::rename(&aside, &scene.repository).unwrap();
    scene.works_again();
}

#[test]
fn repository_locked_by_somebody_else() {
    let scene = Scene::new();
    let Some(borg) = Borg::v1_2_4().or_else(Borg::debian) else { panic!("the distribution's borg is needed") };
    let world = BorgWorld::with_passphrase(PASSPHRASE);
    let mut holder = borg.command(&world).arg("with-lock").arg(&scene.repository).args(["sleep", "600"]).spawn().unwrap();
    let locked = retry_until(PATIENCE, || scene.repository.join("lock.exclusive").exists().then_some(()));
    assert!(locked.is_some());
    scene.fails_with("repository-lock-timeout");
    process::end_tree(&mut holder, Duration::from_secs(5));
    let _ = fs::remove_dir_all(scene.repository.join("lock.exclusive"));
    let _ = fs::remove_file(scene.repository.join("lock.roster"));
    scene.works_again();
}

#[test]
fn archive_name_taken() {
    let scene = Scene::new();
    // A name of ours is refused at once.
    scene.system.cli_ok(&["run", "host/all", "--name", "monday", "--wait"]);
    let (code, said) = scene.system.cli_fails(&["run", "host/all", "--name", "monday", "--wait"]);
    assert_eq!(code, 4, "{said}");
    // One that only the repository knows, when the job begins.
    scene.system.settle();
    let Some(borg) = Borg::v1_4_5() else { panic!("borg 1.4.5 is needed") };
    borg.create(&BorgWorld::with_passphrase(PASSPHRASE), &scene.repository, "tuesday", &[], &[Path::new("/etc/hostname")]).unwrap();
    let output = scene.system.cli(&["run", "host/all", "--name", "tuesday", "--wait"]);
    assert_eq!(output.status.code(), Some(10));
    assert_failed(&newest_job(&scene.system), "archive-exists");
    let (code, _) = scene.system.cli_fails(&["run", "host/all", "--name", "a/b"]);
    assert_ne!(code, 0);
    scene.works_again();
}

#[test]
fn paths_that_do_not_exist() {
    let scene = Scene::new();
    let nowhere = scene.system.join("nowhere");
    scene.system.add_config("host", "none", "main", &[], &[&nowhere]);
    scene.system.run("host/none");
    assert_failed(&newest_job(&scene.system), "path-missing");
    assert_eq!(text(&newest_archive(&scene.system), "name"), scene.first);

    // What exists is backed up all the same, and the job says what is missing.
    scene.system.add_config("host", "half", "main", &[], &[&nowhere, &scene.source]);
    scene.system.run("host/half");
    let record = newest_job(&scene.system);
    assert_failed(&record, "path-missing");
    assert!(text(&record["failure"], "message").contains("nowhere"), "{record}");
    assert_eq!(text(&newest_archive(&scene.system), "label"), "half");
    scene.works_again();
}

#[test]
fn patterns_that_borg_does_not_take() {
    let scene = Scene::new();
    // What is wrong for every borg is not stored,
    let (_, said) = scene.system.cli_fails(&["config", "edit", "host/all", "--exclude", "re:*.o"]);
    assert!(said.contains("repeats nothing"), "{said}");
    // and what only borg finds has a cause that says so, whichever way borg goes down by it.
    scene.system.cli_ok(&["config", "edit", "host/all", "--exclude", "sh:/[z-a]"]);
    let others = [Borg::v1_1_18(), Borg::v1_4_5()].into_iter().flatten().map(|borg| borg.program.to_str().unwrap().to_owned());
    for program in std::iter::once("borg".to_owned()).chain(others) {
        scene.system.cli_ok(&["client", "edit", "host", "--remote-borg", &program]);
        scene.fails_with("client-borg-refused");
        assert!(text(&newest_job(&scene.system)["failure"], "message").contains("bad character range z-a"), "{program}");
    }
    scene.system.cli_ok(&["client", "edit", "host", "--remote-borg", "borg"]);
    scene.system.cli_ok(&["config", "edit", "host/all", "--clear", "excludes"]);
    scene.works_again();
}

#[test]
fn borg_missing_or_too_old_on_the_client() {
    let scene = Scene::new();
    scene.system.cli_ok(&["client", "edit", "host", "--remote-borg", "/nonexistent/borg"]);
    scene.fails_with("client-borg-missing");

    let old = scene.system.join("old-borg");
    fs::write(&old, "#!/bin/sh\necho borg 1.0.13\n").unwrap();
    fs::set_permissions(&old, fs::Permissions::from_mode(0o755)).unwrap();
    scene.system.cli_ok(&["client", "edit", "host", "--remote-borg", old.to_str().unwrap()]);
    scene.fails_with("client-borg-outdated");

    scene.system.cli_ok(&["client", "edit", "host", "--remote-borg", "borg"]);
    scene.works_again();
}

#[test]
fn client_cache_that_cannot_be_used() {
    let scene = Scene::new();
    let file = scene.system.join("a-file");
    fs::write(&file, b"").unwrap();
    let below = file.join("cache");
    scene.system.cli_ok(&["client", "edit", "host", "--remote-cache-dir", below.to_str().unwrap()]);
    scene.fails_with("client-cache");
    let fine = scene.system.join("fine-cache");
    scene.system.cli_ok(&["client", "edit", "host", "--remote-cache-dir", fine.to_str().unwrap()]);
    scene.works_again();
}

#[test]
fn ssh_that_fails_in_both_directions() {
    let system = TestSystem::start();
    let (mut there, mut here) = (Sshd::start(), Sshd::start());
    let cache = format!("--remote-cache-dir={}", system.join("client-cache").display());
    system.add_ssh_client("host", &mut there, &mut here, &[&cache]);
    let scene = Scene::with(system);

    there.stop();
    scene.fails_with("client-connection-failed");
    there.come_back();

    there.rotate_host_key();
    scene.fails_with("host-key-changed");
    there.trust_host_key();

    here.stop();
    scene.fails_with("client-cannot-reach-server");
    here.come_back();
    scene.works_again();
}

/// A backup under way, held by its tap.
fn under_way(scene: &Scene) -> (Tap, u64) {
    let slow = scene.system.join("slow");
    fs::create_dir(&slow).unwrap();
    let tap = Tap::open(&slow.join("tap"), 200_000);
    scene.system.add_config("host", "slow", "main", &["--read-special"], &[&slow]);
    let number = start(&scene.system, "host/slow");
    wait_for_state(&scene.system, number, "client_in_progress");
    scene.system.wait_for("borgcube-session", PATIENCE);
    std::thread::sleep(Duration::from_secs(1));
    (tap, number)
}

fn kill(scene: &Scene, program: &str) {
    let pids = scene.system.pids(program);
    assert!(!pids.is_empty(), "{program} does not run");
    pids.iter().for_each(|pid| process::signal(*pid, Signal::SIGKILL));
}

#[test]
fn killed_session() {
    let scene = Scene::new();
    let (tap, number) = under_way(&scene);
    kill(&scene, "borgcube-session");
    assert_failed(&wait_for_end(&scene.system, number), "session-lost");
    drop(tap);
    scene.works_again();
}

#[test]
fn killed_owner() {
    let scene = Scene::new();
    let (tap, number) = under_way(&scene);
    kill(&scene, "borgcube-repositoryd");
    assert_failed(&wait_for_end(&scene.system, number), "owner-lost");
    drop(tap);
    scene.works_again();
}

#[test]
fn killed_worker() {
    let scene = Scene::new();
    let (tap, number) = under_way(&scene);
    kill(&scene, "borgcube-worker");
    assert_failed(&wait_for_end(&scene.system, number), "worker-crashed");
    drop(tap);
    let gone = retry_until(PATIENCE, || scene.system.pids("borgcube-session").is_empty().then_some(()));
    assert!(gone.is_some(), "the session outlived its job");
    scene.works_again();
}

#[test]
fn killed_queue_daemon() {
    let scene = Scene::new();
    let (tap, running) = under_way(&scene);
    let queued = start(&scene.system, "host/all");
    let before = scene.system.pids("borgcubed");
    kill(&scene, "borgcubed");
    let back = retry_until(PATIENCE, || scene.system.pids("borgcubed").into_iter().find(|pid| !before.contains(pid)));
    assert!(back.is_some(), "borgcubed did not come back: {}", scene.system.log());
    drop(tap);
    let answers = retry_until(PATIENCE, || scene.system.cli(&["status"]).status.success().then_some(()));
    assert!(answers.is_some());
    assert_failed(&wait_for_end(&scene.system, running), "borgcubed-restart");
    let done = wait_for_end(&scene.system, queued);
    assert_eq!(text(&done, "state"), "done", "{done}\n{}", scene.system.log());
    scene.works_again();
}

#[test]
fn everything_killed_at_once() {
    let mut scene = Scene::new();
    let (tap, number) = under_way(&scene);
    scene.system.crash();
    drop(tap);
    scene.system.up();
    assert_failed(&wait_for_end(&scene.system, number), "borgcubed-restart");
    scene.works_again();
}

#[test]
fn stop_in_good_order_during_a_backup() {
    let mut scene = Scene::new();
    let (tap, number) = under_way(&scene);
    scene.system.down();
    drop(tap);
    scene.system.up();
    let ended = job(&scene.system, number);
    assert!(matches!(text(&ended, "state"), "cancelled" | "failed"), "{ended}");
    scene.works_again();
}

/// A small file system for one test; needs root.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path, megabytes: u32) -> Option<SmallDisk> {
        fs::create_dir_all(at).unwrap();
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
fn not_run_without_root_repository_full() {
    let system = TestSystem::start();
    let Some(disk) = SmallDisk::mount(&system.join("disk"), 24) else {
        return not_run("repository_full", "mounting a tmpfs needs root");
    };
    let repository = disk.0.join("repository");
    let secret = system.secret_file("secret", PASSPHRASE);
    system.cli_ok(&[
        "repository",
        "add",
        "main",
        repository.to_str().unwrap(),
        "--encryption",
        "repokey",
        "--passphrase-file",
        secret.to_str().unwrap(),
    ]);
    system.add_local_client("host");
    let source = system.join("source");
    make(&source, Spec { files: 20, ..Spec::default() });
    system.add_config("host", "all", "main", &[], &[&source]);
    system.run_ok("host/all");
    let first = text(&newest_archive(&system), "name").to_owned();
    let scene = Scene { system, repository, source, first };
    let big = scene.source.join("too-big");
    fs::write(&big, testkit::tree::Random::new(5).bytes(30 << 20)).unwrap();
    scene.fails_with("repository-enospc");
    fs::remove_file(&big).unwrap();
    scene.works_again();
}

#[test]
fn not_run_without_root_state_directory_full() {
    let mut scene = Scene::new();
    scene.system.down();
    let state = scene.system.state();
    let aside = scene.system.join("state-aside");
    fs::rename(&state, &aside).unwrap();
    let Some(disk) = SmallDisk::mount(&state, 16) else {
        return not_run("state_directory_full", "mounting a tmpfs needs root");
    };
    let copied = Command::new("cp").arg("-a").arg("--sparse=always").arg(format!("{}/.", aside.display())).arg(&state).status().unwrap();
    assert!(copied.success());
    scene.system.up();
    let filler = disk.fill();
    let said = scene.system.cli(&["run", "host/all"]);
    if said.status.success() {
        // The database had free pages for a job, and the rest of its file system has no room: it ends when there is some.
        let told = || scene.system.log().contains("the file system of the database is full").then_some(());
        testkit::retry_until(PATIENCE, told).expect("the log says why nothing goes on");
        fs::remove_file(filler).unwrap();
        let ended = wait_for_end(&scene.system, number(&newest_job(&scene.system), "number"));
        // By when there was room again it may have missed nothing.
        if text(&ended, "state") != "done" {
            assert_failed(&ended, "database-enospc");
        }
    } else {
        let said = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(said.contains("full") || said.contains("No space"), "{said}");
        fs::remove_file(filler).unwrap();
    }
    scene.works_again();
    assert!(number(&newest_job(&scene.system), "number") > 1);
    scene.system.down();
    drop(disk);
}

#[test]
fn nonsense_at_the_command_line_is_refused_with_a_way_out() {
    let scene = Scene::new();
    let system = &scene.system;
    for (arguments, code, word) in [
        (vec!["run", "host/nothing"], 3, "host/nothing"),
        (vec!["client", "add", "-oProxyCommand=x", "--local"], 2, ""),
        (vec!["client", "add", "host", "--local"], 4, "host"),
        (vec!["client", "remove", "host"], 4, "config"),
        (vec!["repository", "remove", "main", "--yes"], 4, "config"),
        (vec!["job", "show", "4711"], 3, "4711"),
        (vec!["job", "cancel", "1"], 4, "1"),
        (vec!["archive", "show", "nothing"], 3, "nothing"),
        (vec!["config", "add", "x", "--client", "nobody", "--repository", "main", "/etc"], 3, "nobody"),
        (
            vec![
                "config",
                "add",
                "x",
                "--client",
                "host",
                "--repository",
                "main",
                "--extra-option=--timestamp=2099-01-01T00:00:00",
                "/etc",
            ],
            2,
            "--timestamp",
        ),
        (vec!["undo", "99999"], 3, "99999"),
    ] {
        let (got, said) = system.cli_fails(&arguments);
        assert_eq!(got, code, "{arguments:?}: {said}");
        assert!(said.contains(word), "{arguments:?}: {said}");
    }
    let free = system.join("elsewhere");
    let (_, said) = system.cli_fails(&["repository", "add", "other", free.to_str().unwrap(), "--adopt"]);
    assert!(said.contains("repository-does-not-exist"), "{said}");
    let (code, said) = {
        let output = system.command("borgcube").args(["--state", "/nonexistent/state", "status"]).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(code, Some(6), "{said}");
    assert!(said.contains("borgcube up"), "{said}");
}

/// Neither its session nor its borg is there yet, so that nobody but the worker can see that nothing happens.
#[test]
fn a_client_that_does_not_get_to_its_backup() {
    let system = TestSystem::start_with(&[("BORGCUBE_CANCEL_SECONDS", "2")]);
    system.add_repository("main", "repokey", Some("long enough for this"));
    let borg = system.join("hangs");
    fs::write(&borg, "#!/bin/sh\ntrap '' INT TERM\nexec sleep 600\n").unwrap();
    fs::set_permissions(&borg, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    system.cli_ok(&["client", "add", "host", "--local", &format!("--remote-borg={}", borg.display())]);
    let source = system.join("source");
    fs::create_dir(&source).unwrap();
    system.add_config("host", "all", "main", &[], &[&source]);
    system.cli_ok(&["settings", "edit", "--start-seconds=1"]);
    let number = start(&system, "host/all");
    let ended = retry_until(PATIENCE + PATIENCE, || {
        let job = job(&system, number);
        (job["state"] == "failed").then_some(job)
    });
    let ended = ended.unwrap_or_else(|| panic!("it does not end\n{}", system.log()));
    assert_failed(&ended, "too-slow");
    let gone = || system.pids("borgcube-worker").is_empty().then_some(());
    assert!(retry_until(PATIENCE, gone).is_some(), "{}", system.log());
}
