//! Checkpoints, cancelling and resuming: what was sent once is not sent again.

use std::fs;
use std::time::Duration;
use testkit::borgs::Borg;
use testkit::process;
use testkit::retry::retry_until;
use testkit::sshd::Sshd;
use testkit::system::TestSystem;
use testkit::tree::{Spec, make};
use testkit::world::BorgWorld;
use tests::{PATIENCE, Tap, assert_failed, job, newest_archive, number, start, text, wait_for_end, wait_for_state};

const PASSPHRASE: &str = "long enough for a checkpoint";

struct Scene {
    system: TestSystem,
    repository: std::path::PathBuf,
    source: std::path::PathBuf,
    tap: Option<Tap>,
}

/// Two directories: `a` is read at once; `z`, which is named last, holds a tap that drips. They are named one by one, because
/// borg reads the entries of one directory in the order of their inode numbers, which is the file system's to choose.
fn scene(borg: &Borg) -> Scene {
    let system = TestSystem::start();
    system.cli_ok(&["client", "add", "host", "--local", &format!("--remote-borg={}", borg.program.display())]);
    scene_with(system)
}

/// `system` has a client called host.
fn scene_with(system: TestSystem) -> Scene {
    let repository = system.add_repository("main", "repokey", Some(PASSPHRASE));
    let source = system.join("source");
    make(&source.join("a"), Spec { big: 6 << 20, ..Spec::default() });
    // Reading special files would block on the tree's own FIFOs.
    remove_fifos(&source);
    fs::create_dir(source.join("z")).unwrap();
    let tap = Tap::open(&source.join("z/tap"), 1 << 20);
    let options = ["--read-special", "--checkpoint-interval=1", "--extra-option=--chunker-params=10,16,13,4095"];
    system.add_config("host", "all", "main", &options, &[&source.join("a"), &source.join("z")]);
    Scene { system, repository, source, tap: Some(tap) }
}

fn remove_fifos(directory: &std::path::Path) {
    use std::os::unix::fs::FileTypeExt;
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            remove_fifos(&entry.path());
        } else if kind.is_fifo() || kind.is_char_device() || kind.is_block_device() {
            fs::remove_file(entry.path()).unwrap();
        }
    }
}

fn checkpoints(scene: &Scene) -> Vec<serde_json::Value> {
    let archives = scene.system.cli_json(&["archive", "list"]);
    archives.as_array().unwrap().iter().filter(|a| a["incomplete"] == true).cloned().collect()
}

/// After an interruption: the checkpoint is there, stock borg agrees, and the next run sends only what is new.
fn resumes(mut scene: Scene, borg: &Borg) {
    let kept = checkpoints(&scene);
    let log = scene.system.cli_ok(&["job", "log", &number(&tests::newest_job(&scene.system), "number").to_string()]);
    assert_eq!(kept.len(), 1, "{kept:?}\n{log}\n{}", scene.system.log());
    assert!(text(&kept[0], "name").ends_with(".checkpoint"), "{}", kept[0]);
    scene.system.settle();
    let world = BorgWorld::with_passphrase(PASSPHRASE);
    for judge in Borg::judges() {
        judge.check_verify_data(&world, &scene.repository).unwrap_or_else(|e| panic!("judge {}: {e:#}", judge.version));
    }

    // The tap is gone: an ordinary file takes its place.
    scene.tap.take();
    fs::remove_file(scene.source.join("z/tap")).unwrap();
    fs::write(scene.source.join("z/new"), b"what is new").unwrap();
    scene.system.run_ok("host/all");
    let archive = newest_archive(&scene.system);
    assert_eq!(archive["incomplete"], false);
    let sent = number(&archive["counters"], "put_bytes");
    let all = number(&archive["statistics"], "original_size");
    assert!(all > 6 << 20);
    assert!(sent < all / 10, "client {}: {sent} of {all} bytes were sent again", borg.version);
    assert!(checkpoints(&scene).is_empty(), "the checkpoint outlived the success");
    scene.system.settle();
    let judges = Borg::judges();
    for judge in &judges {
        for directory in ["a", "z"] {
            judge.judge(&world, &scene.repository, text(&archive, "name"), &scene.source.join(directory)).unwrap();
        }
        let names = judge.archives(&world, &scene.repository).unwrap();
        assert_eq!(names, [text(&archive, "name")], "judge {}", judge.version);
    }
}

/// Bytes of the regular files below; what has several names counts once, as for borg.
fn bytes_in(directory: &std::path::Path, seen: &mut std::collections::HashSet<u64>) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    for path in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
        let meta = path.symlink_metadata().unwrap();
        if meta.is_dir() {
            bytes += bytes_in(&path, seen);
        } else if meta.is_file() && seen.insert(meta.ino()) {
            bytes += meta.len();
        }
    }
    bytes
}

/// Until a checkpoint has everything but what comes out of the tap, which is read last, and whose parts do not count.
fn wait_for_checkpoint(scene: &Scene) {
    let tree = bytes_in(&scene.source.join("a"), &mut std::collections::HashSet::new());
    let has_all = |checkpoint: &serde_json::Value| number(&checkpoint["statistics"], "original_size") >= tree;
    let there = retry_until(PATIENCE, || checkpoints(scene).iter().any(has_all).then_some(()));
    assert!(there.is_some(), "no checkpoint came: {}", scene.system.log());
}

fn killed_client(borg: Borg) {
    let scene = scene(&borg);
    let number = start(&scene.system, "host/all");
    wait_for_state(&scene.system, number, "client_in_progress");
    wait_for_checkpoint(&scene);
    // A backup that is under way has its checkpoint in the list, and then loses its client.
    let worker = scene.system.wait_for("borgcube-worker", PATIENCE);
    let borgs: Vec<i32> =
        process::descendants(worker).into_iter().filter(|pid| process::arguments(*pid).iter().any(|a| a == "create")).collect();
    assert!(!borgs.is_empty());
    borgs.iter().for_each(|pid| process::signal(*pid, nix::sys::signal::Signal::SIGKILL));
    let ended = wait_for_end(&scene.system, number);
    assert_failed(&ended, "client-borg-killed");
    resumes(scene, &borg);
}

#[test]
fn a_killed_client_resumes_1_1_18() {
    match Borg::v1_1_18() {
        Some(borg) => killed_client(borg),
        None => testkit::borgs::not_run("a_killed_client_resumes_1_1_18", "borg 1.1.18 is not installed"),
    }
}

#[test]
fn a_killed_client_resumes_1_2_4() {
    match Borg::v1_2_4() {
        Some(borg) => killed_client(borg),
        None => testkit::borgs::not_run("a_killed_client_resumes_1_2_4", "borg 1.2.4 is not installed"),
    }
}

#[test]
fn a_killed_client_resumes_1_4_5() {
    match Borg::v1_4_5() {
        Some(borg) => killed_client(borg),
        None => testkit::borgs::not_run("a_killed_client_resumes_1_4_5", "borg 1.4.5 is not installed"),
    }
}

/// No checkpoint is due when the job is cancelled: the one that is kept was written because of the cancellation.
fn cancelled(borg: Borg) {
    let system = TestSystem::start();
    system.cli_ok(&["client", "add", "host", "--local", &format!("--remote-borg={}", borg.program.display())]);
    let repository = system.add_repository("main", "repokey", Some(PASSPHRASE));
    let source = system.join("source");
    make(&source.join("a"), Spec { big: 6 << 20, ..Spec::default() });
    // An ordinary file, because a signal interrupts borg's reading of a FIFO; a hole, because it takes long and no space.
    fs::create_dir(source.join("z")).unwrap();
    fs::File::create(source.join("z/tap")).unwrap().set_len(1 << 40).unwrap();
    let paths: [&std::path::Path; 2] = [&source.join("a"), &source.join("z")];
    system.add_config("host", "all", "main", &["--checkpoint-interval=3600"], &paths);
    let scene = Scene { system, repository, source, tap: None };

    let number = start(&scene.system, "host/all");
    // Progress is seen while it runs, and the database is not asked for it.
    let moved = retry_until(PATIENCE, || {
        let detail = scene.system.cli_json(&["job", "show", &number.to_string()]);
        // Far into the hole: all that has to be sent was sent.
        detail["progress"]["statistics"]["original_size"].as_u64().filter(|size| *size > 200 << 20)
    });
    assert!(moved.is_some(), "no progress: {}", scene.system.log());
    scene.system.cli_ok(&["job", "cancel", &number.to_string()]);
    let ended = wait_for_end(&scene.system, number);
    assert_eq!(text(&ended, "state"), "cancelled", "{ended}");
    assert_failed(&ended, "cancelled");
    let gone = retry_until(Duration::from_secs(10), || {
        let left = scene.system.pids("borgcube-worker").len() + scene.system.pids("borgcube-session").len();
        (left == 0).then_some(())
    });
    assert!(gone.is_some(), "processes were left");
    resumes(scene, &borg);
}

#[test]
fn a_cancelled_job_leaves_a_checkpoint_and_no_process_1_2_4() {
    match Borg::v1_2_4() {
        Some(borg) => cancelled(borg),
        None => testkit::borgs::not_run("a_cancelled_job 1.2.4", "borg 1.2.4 is not installed"),
    }
}

#[test]
fn a_cancelled_job_leaves_a_checkpoint_and_no_process_1_4_5() {
    match Borg::v1_4_5() {
        Some(borg) => cancelled(borg),
        None => testkit::borgs::not_run("a_cancelled_job 1.4.5", "borg 1.4.5 is not installed"),
    }
}

#[test]
fn a_cancelled_job_over_ssh_ends_the_borg_on_the_client() {
    let Some(borg) = Borg::v1_4_5() else { panic!("borg 1.4.5 is needed") };
    let system = TestSystem::start();
    let (mut there, mut here) = (Sshd::start(), Sshd::start());
    let cache = format!("--remote-cache-dir={}", system.join("client-cache").display());
    system.add_ssh_client("host", &mut there, &mut here, &[&format!("--remote-borg={}", borg.program.display()), &cache]);
    let scene = scene_with(system);
    let number = start(&scene.system, "host/all");
    wait_for_state(&scene.system, number, "client_in_progress");
    let far = || {
        process::descendants(there.pid())
            .into_iter()
            .filter(|pid| process::arguments(*pid).iter().any(|a| a == "create"))
            .collect::<Vec<_>>()
    };
    assert!(retry_until(PATIENCE, || (!far().is_empty()).then_some(())).is_some(), "no borg runs behind sshd");
    std::thread::sleep(Duration::from_secs(3));
    scene.system.cli_ok(&["job", "cancel", &number.to_string()]);
    let ended = wait_for_end(&scene.system, number);
    assert_eq!(text(&ended, "state"), "cancelled", "{ended}");
    assert!(retry_until(PATIENCE, || far().is_empty().then_some(())).is_some(), "borg goes on behind sshd");
    resumes(scene, &borg);
}

#[test]
fn a_queued_job_is_cancelled_at_once() {
    let Some(borg) = Borg::v1_4_5() else { panic!("borg 1.4.5 is needed") };
    let scene = scene(&borg);
    scene.system.add_config("host", "other", "main", &[], &[&scene.source.join("a")]);
    let running = start(&scene.system, "host/all");
    wait_for_state(&scene.system, running, "client_in_progress");
    let queued = start(&scene.system, "host/other");
    let shown = scene.system.cli_ok(&["job", "show", &queued.to_string()]);
    assert!(shown.contains("waits for another job of client host"), "{shown}");
    scene.system.cli_ok(&["job", "cancel", &queued.to_string()]);
    assert_eq!(text(&job(&scene.system, queued), "state"), "cancelled");
    scene.system.cli_ok(&["job", "cancel", &running.to_string()]);
    wait_for_end(&scene.system, running);
}
