//! Daemons are restarted in the middle of a backup, and it ends in `done`. A small service manager does what systemd does; what real systemd does, the tests on booted
//! machines show.

use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;
use testkit::borgs::Borg;
use testkit::manager::{BORGCUBED, owner};
use testkit::process;
use testkit::retry::retry_until;
use testkit::system::TestSystem;
use testkit::world::BorgWorld;
use tests::{PATIENCE, Tap, job, start, text, wait_for_end, wait_for_state};

const PASSPHRASE: &str = "a passphrase that outlives daemons";
const PAIR: &str = "host/slow";

/// A client whose backup lasts until its tap is closed.
struct Scene {
    system: TestSystem,
    repository: PathBuf,
    tap: Option<Tap>,
}

impl Scene {
    fn new(options: &[&str]) -> Scene {
        Scene::with(&[], options)
    }

    fn with(variables: &[(&str, &str)], options: &[&str]) -> Scene {
        let system = TestSystem::managed(variables);
        let repository = system.add_repository("main", "repokey-blake2", Some(PASSPHRASE));
        system.manager().add_owner("main", &[]);
        let borg = Borg::v1_4_5().expect("borg 1.4.5 is needed");
        system.cli_ok(&["client", "add", "host", "--local", &format!("--remote-borg={}", borg.program.display())]);
        let source = system.join("source");
        fs::create_dir(&source).unwrap();
        fs::write(source.join("before"), testkit::tree::Random::new(1).bytes(3_000_000)).unwrap();
        // Borg reads a directory in the order of the inodes.
        let tap = Tap::open(&source.join("tap"), 400_000);
        fs::write(source.join("zz"), testkit::tree::Random::new(2).bytes(3_000_000)).unwrap();
        system.add_config("host", "slow", "main", &[&["--read-special"], options].concat(), &[&source]);
        Scene { system, repository, tap: Some(tap) }
    }

    /// A job whose client is in the middle of its tap.
    fn running(&self) -> u64 {
        let number = start(&self.system, PAIR);
        wait_for_state(&self.system, number, "client_in_progress");
        self.grows(number);
        number
    }

    /// What the client has read of the tap, as the daemon that runs now has heard.
    fn progress(&self, number: u64) -> u64 {
        let shown = self.system.cli_json(&["job", "show", &number.to_string()]);
        shown["progress"]["statistics"]["original_size"].as_u64().unwrap_or(0)
    }

    /// Waits for the client to read on.
    #[track_caller]
    fn grows(&self, number: u64) {
        let before = self.progress(number);
        let grown = retry_until(PATIENCE, || (self.progress(number) > before.max(1_000_000)).then_some(()));
        assert!(grown.is_some(), "no progress beyond {before}: {}\n{}", job(&self.system, number), self.system.log());
    }

    fn log_of(&self, number: u64) -> String {
        self.system.cli_ok(&["job", "log", &number.to_string()])
    }

    /// The job ends well, and stock borg finds in its archive what the client has.
    fn ends_well(&mut self, number: u64) -> Value {
        self.tap.take().unwrap().close();
        let record = wait_for_end(&self.system, number);
        assert_eq!(text(&record, "state"), "done", "{record}\n{}", self.system.log());
        self.judge(&record);
        record
    }

    fn judge(&self, record: &Value) {
        self.system.settle();
        let world = BorgWorld::with_passphrase(PASSPHRASE);
        for judge in Borg::judges() {
            let failed = |e| panic!("judge {}: {e:#}", judge.version);
            judge.check_verify_data(&world, &self.repository).unwrap_or_else(failed);
            let into = tempfile::tempdir().unwrap();
            judge.extract(&world, &self.repository, text(record, "archive_name"), into.path()).unwrap_or_else(failed);
            let source = self.system.join("source");
            let extracted = into.path().join(source.strip_prefix("/").unwrap());
            for name in ["before", "zz"] {
                assert!(fs::read(source.join(name)).unwrap() == fs::read(extracted.join(name)).unwrap(), "{name}");
            }
            assert!(fs::metadata(extracted.join("tap")).unwrap().len() > 0);
        }
    }

    fn worker(&self) -> i32 {
        let workers = self.system.pids("borgcube-worker");
        assert_eq!(workers.len(), 1);
        workers[0]
    }

    /// The same worker is there and no borgcubed lost anything.
    fn is_kept(&self, number: u64) {
        let mut kept = self.system.manager().kept(BORGCUBED);
        kept.sort();
        assert_eq!(kept, [format!("job-{number}-process"), format!("job-{number}-socket")]);
    }
}

#[test]
fn a_restart_of_borgcubed_twice_in_a_row() {
    let mut scene = Scene::new(&[]);
    let number = scene.running();
    let worker = scene.worker();
    for _ in 0..2 {
        scene.is_kept(number);
        scene.system.manager().restart(BORGCUBED);
        assert_eq!(text(&job(&scene.system, number), "state"), "client_in_progress");
        // The new daemon hears of progress.
        scene.grows(number);
        assert_eq!(scene.worker(), worker);
    }
    assert_eq!(scene.system.manager().exits(BORGCUBED), ["exited with code 0", "exited with code 0"]);
    scene.ends_well(number);
    let log = scene.log_of(number);
    for once in ["the client's view has", "the client runs", "borg on the client ended with code 0", "committed"] {
        assert_eq!(log.matches(once).count(), 1, "{once}: {log}");
    }
    assert!(scene.system.manager().kept(BORGCUBED).is_empty());
    // And the next one is a backup like any other.
    scene.system.manager().restart(BORGCUBED);
    assert!(scene.system.cli(&["status"]).status.success());
}

#[test]
fn a_job_that_the_service_manager_does_not_keep_is_not_left_behind() {
    let mut scene = Scene::with(&[("BORGCUBE_STOP_SECONDS", "60")], &[]);
    scene.system.manager().deafen(BORGCUBED, true);
    let number = scene.running();
    let starts = scene.system.manager().exits(BORGCUBED).len();
    scene.system.manager().signal(BORGCUBED, Signal::SIGTERM);
    // It waits for the job, in place of leaving it to a successor that would not find it.
    let log = retry_until(PATIENCE, || Some(scene.system.log()).filter(|log| log.contains("SIGTERM: stopping; ")));
    let log = log.expect("it stops");
    assert!(log.contains("a restart of borgcubed will end it") && log.contains("stopping; 1 running jobs have"), "{log}");
    scene.tap.take().unwrap().close();
    scene.system.manager().deafen(BORGCUBED, false);
    let again = || (scene.system.manager().exits(BORGCUBED).len() > starts && scene.system.cli(&["status"]).status.success()).then_some(());
    assert!(retry_until(PATIENCE, again).is_some(), "{}", scene.system.log());
    let record = job(&scene.system, number);
    assert_eq!(text(&record, "state"), "done", "{record}\n{}", scene.system.log());
    scene.judge(&record);
}

#[test]
fn borgcubed_is_killed_again_and_again() {
    let mut scene = Scene::new(&["--extra-option=--list"]);
    let number = start(&scene.system, PAIR);
    let kept = || (scene.system.manager().kept(BORGCUBED).len() == 2).then_some(());
    assert!(retry_until(PATIENCE, kept).is_some(), "the worker is not kept");
    // At any moment: also while states change.
    for pause in [0, 20, 50, 150, 300, 700] {
        std::thread::sleep(Duration::from_millis(pause));
        scene.system.manager().kill(BORGCUBED);
    }
    wait_for_state(&scene.system, number, "client_in_progress");
    scene.grows(number);
    scene.system.manager().kill(BORGCUBED);
    scene.grows(number);
    scene.ends_well(number);
    assert!(scene.system.manager().kept(BORGCUBED).is_empty());
}

#[test]
fn a_worker_that_ends_while_borgcubed_is_away_is_heard() {
    let mut scene = Scene::new(&[]);
    let number = scene.running();
    let worker = scene.worker();
    let pid = scene.system.manager().pid(BORGCUBED).unwrap();
    scene.system.manager().signal(BORGCUBED, Signal::SIGSTOP);
    scene.tap.take().unwrap().close();
    // The client ends; nobody answers the worker.
    let clients = || process::descendants(worker).is_empty().then_some(());
    assert!(retry_until(Duration::from_secs(3), clients).is_none() || process::is_alive(worker));
    assert_eq!(scene.system.manager().pid(BORGCUBED), Some(pid));
    scene.system.manager().kill(BORGCUBED);
    let record = wait_for_end(&scene.system, number);
    assert_eq!(text(&record, "state"), "done", "{record}");
    scene.judge(&record);
    assert!(retry_until(PATIENCE, || (!process::is_alive(worker)).then_some(())).is_some(), "the worker stays");
}

#[test]
fn cancelled_before_and_after_a_restart() {
    let scene = Scene::new(&[]);
    let number = scene.running();
    scene.system.manager().restart(BORGCUBED);
    scene.system.cli_ok(&["job", "cancel", &number.to_string()]);
    scene.system.manager().restart(BORGCUBED);
    let record = wait_for_end(&scene.system, number);
    assert_eq!(text(&record, "state"), "cancelled", "{record}");
}

#[test]
fn a_real_stop_ends_the_job_and_the_next_start_says_so() {
    let scene = Scene::new(&[]);
    let number = scene.running();
    let worker = scene.worker();
    scene.system.manager().stop(BORGCUBED);
    let gone = retry_until(PATIENCE, || (!process::is_alive(worker)).then_some(()));
    assert!(gone.is_some(), "the worker stays for ever\n{}", scene.system.log());
    scene.system.manager().begin(BORGCUBED);
    let record = wait_for_end(&scene.system, number);
    tests::assert_failed(&record, "borgcubed-restart");
    // The client was asked to end in good order: what it had sent is there for the next run.
    let archives = scene.system.cli_json(&["archive", "list"]);
    let kept = archives.as_array().unwrap();
    assert!(kept.len() == 1 && kept[0]["incomplete"] == true, "{archives}\n{}", scene.system.log());
}

#[test]
fn a_worker_that_is_killed_while_borgcubed_is_away() {
    let scene = Scene::new(&[]);
    let number = scene.running();
    scene.system.manager().signal(BORGCUBED, Signal::SIGSTOP);
    process::kill_all(&[scene.worker()]);
    scene.system.manager().kill(BORGCUBED);
    let record = wait_for_end(&scene.system, number);
    tests::assert_failed(&record, "borgcubed-restart");
}

#[test]
fn a_restart_of_the_owner_three_times_in_a_row() {
    let mut scene = Scene::new(&[]);
    let number = scene.running();
    let session = scene.system.wait_for("borgcube-session", PATIENCE);
    for _ in 0..3 {
        scene.system.manager().restart(&owner("main"));
        // What is not to be found twice is gone from the store.
        assert!(scene.system.manager().kept(&owner("main")).is_empty());
        scene.grows(number);
        assert_eq!(scene.system.pids("borgcube-session"), [session]);
    }
    assert_eq!(scene.system.manager().exits(&owner("main")), ["exited with code 0"; 3]);
    let record = scene.ends_well(number);
    // Every chunk was sent once, and all of them count.
    let archive = tests::newest_archive(&scene.system);
    let (new, all) = (&archive["statistics"]["deduplicated_size"], &archive["statistics"]["original_size"]);
    assert!(new.as_u64().unwrap() > all.as_u64().unwrap() / 2, "{archive}");
    assert_eq!(record["statistics"], archive["statistics"]);
    assert!(!scene.system.log().contains("chunks that no archive refers to"), "{}", scene.system.log());
}

#[test]
fn the_owner_and_borgcubed_at_once_and_before_the_client_comes() {
    let mut scene = Scene::new(&[]);
    let number = start(&scene.system, PAIR);
    // Whatever it is doing: preparing, waiting for the client, at work.
    for pause in [0, 30, 60, 120, 250, 500] {
        std::thread::sleep(Duration::from_millis(pause));
        if scene.system.manager().pid(&owner("main")).is_some() {
            scene.system.manager().restart(&owner("main"));
        }
        scene.system.manager().restart(BORGCUBED);
    }
    wait_for_state(&scene.system, number, "client_in_progress");
    scene.grows(number);
    scene.ends_well(number);
}

#[test]
fn a_checkpoint_before_the_restart_and_the_end_right_after_it() {
    let mut scene = Scene::new(&["--checkpoint-interval=1"]);
    let number = scene.running();
    let checkpoint = || {
        let archives = scene.system.cli_json(&["archive", "list"]);
        archives.as_array().unwrap().iter().any(|archive| archive["incomplete"] == true).then_some(())
    };
    assert!(retry_until(PATIENCE, checkpoint).is_some(), "no checkpoint\n{}", scene.system.log());
    scene.system.manager().restart(&owner("main"));
    scene.ends_well(number);
    let archives = scene.system.cli_json(&["archive", "list"]);
    assert_eq!(archives.as_array().unwrap().len(), 1, "the checkpoint outlived the success");
}

#[test]
fn the_owner_is_restarted_again_and_again_until_the_end() {
    let mut scene = Scene::new(&["--checkpoint-interval=2"]);
    let number = scene.running();
    scene.tap.take().unwrap().close();
    // The end of a backup is when references are judged and archives committed.
    let mut restarts = 0;
    while text(&job(&scene.system, number), "state") != "done" {
        if scene.system.manager().pid(&owner("main")).is_some() {
            scene.system.manager().restart(&owner("main"));
            restarts += 1;
        }
        std::thread::sleep(Duration::from_millis(20));
        let state = text(&job(&scene.system, number), "state").to_owned();
        assert!(state != "failed", "{}\n{}", job(&scene.system, number), scene.system.log());
    }
    assert!(restarts > 0);
    scene.judge(&job(&scene.system, number));
}

#[test]
fn a_real_stop_of_the_owner_ends_the_job_with_a_reason() {
    let mut scene = Scene::new(&[]);
    let number = scene.running();
    scene.system.manager().stop(&owner("main"));
    scene.system.manager().begin(&owner("main"));
    let record = wait_for_end(&scene.system, number);
    tests::assert_failed(&record, "owner-lost");
    // What it had sent goes, and the next one is a backup like any other.
    scene.tap.take();
    let tap = scene.system.join("source/tap");
    fs::remove_file(&tap).unwrap();
    fs::write(&tap, b"no tap any more").unwrap();
    scene.system.run_ok(PAIR);
    scene.judge(&tests::newest_job(&scene.system));
}

#[test]
fn restarts_while_nothing_runs() {
    let scene = Scene::new(&[]);
    for _ in 0..3 {
        scene.system.manager().restart(BORGCUBED);
    }
    assert!(scene.system.cli(&["status"]).status.success());
    let messages = scene.system.manager().messages(BORGCUBED);
    for wanted in ["READY=1", "STOPPING=1", "STATUS=no job runs"] {
        assert!(messages.iter().any(|message| message == wanted), "{wanted}: {messages:?}");
    }
    scene.system.manager().signal(BORGCUBED, Signal::SIGHUP);
    let reloaded = || {
        let messages = scene.system.manager().messages(BORGCUBED);
        let at = messages.iter().position(|message| message == "RELOADING=1")?;
        let clock = messages.get(at + 1)?.strip_prefix("MONOTONIC_USEC=")?.parse::<u64>().ok()?;
        (clock > 0 && messages[at..].iter().any(|message| message == "READY=1")).then_some(())
    };
    assert!(retry_until(PATIENCE, reloaded).is_some(), "{:?}", scene.system.manager().messages(BORGCUBED));
}

#[test]
fn a_daemon_that_is_stopped_shows_no_sign_of_life() {
    let scene = Scene::new(&[]);
    let manager = scene.system.manager();
    let before = manager.beats(BORGCUBED);
    assert!(retry_until(PATIENCE, || (manager.beats(BORGCUBED) > before + 2).then_some(())).is_some(), "it says nothing");
    manager.signal(BORGCUBED, Signal::SIGSTOP);
    std::thread::sleep(Duration::from_millis(700));
    let stopped = manager.beats(BORGCUBED);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(manager.beats(BORGCUBED), stopped);
    manager.signal(BORGCUBED, Signal::SIGCONT);
    assert!(retry_until(PATIENCE, || (manager.beats(BORGCUBED) > stopped).then_some(())).is_some(), "it does not come back");
}
