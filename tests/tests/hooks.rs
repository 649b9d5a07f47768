//! Hooks and dumps in whole backups, with real borgs: dumps come back byte for byte, and one that failed never gets into an archive.

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use testkit::Sshd;
use testkit::borgs::Borg;
use testkit::retry::retry_until;
use testkit::system::TestSystem;
use tests::{PATIENCE, assert_failed, newest_archive, newest_job, number, start, text, wait_for_end, wait_for_state};

/// A repository, a source with a pipe and a link to a device in it, and a client with that borg.
struct Scene {
    system: TestSystem,
    source: PathBuf,
}

impl Scene {
    fn new(borg: &Borg) -> Scene {
        let system = TestSystem::start();
        system.add_repository("main", "repokey-blake2", Some("what commands write"));
        let source = system.join("source");
        fs::create_dir(&source).unwrap();
        fs::write(source.join("file"), "ordinary").unwrap();
        // Whoever reads one of these waits for ever.
        assert!(Command::new("mkfifo").arg(source.join("pipe")).status().unwrap().success());
        std::os::unix::fs::symlink("/dev/zero", source.join("zero")).unwrap();
        system.cli_ok(&["client", "add", "db1", "--local", &format!("--remote-borg={}", borg.program.display())]);
        Scene { system, source }
    }

    fn config(&self, label: &str, options: &[&str]) {
        self.system.add_config("db1", label, "main", options, &[&self.source]);
    }

    /// What an archive has at that path.
    fn content(&self, archive: &str, path: &str) -> Vec<u8> {
        let output = self.system.cli(&["archive", "cat", archive, path]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    fn archives(&self) -> usize {
        let all = self.system.cli_json(&["archive", "list"]);
        all.as_array().unwrap().iter().filter(|archive| archive["incomplete"] != true).count()
    }
}

/// Bytes that no shell, no terminal and no codec leaves alone.
fn strange(size: usize) -> Vec<u8> {
    (0..size as u64).map(|n| (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 29) as u8).collect()
}

#[test]
fn dumps_come_back_byte_for_byte() {
    for borg in Borg::all_clients() {
        let scene = Scene::new(&borg);
        let (one, two) = (scene.system.join("one.bin"), scene.system.join("two.bin"));
        fs::write(&one, strange(9_000_000)).unwrap();
        fs::write(&two, strange(100_001)).unwrap();
        let cat = |path: &Path| format!("cat '{}'", path.display());
        // One that is streamed and one from the disk beside ordinary paths; excludes do not concern them.
        scene.config("all", &["--exclude", "*.bin", "--dump", &format!("one.bin={}", cat(&one))]);
        scene.system.cli_ok(&["dump", "add", "db1/all", "two.bin", "--command", &cat(&two), "--spool"]);
        assert_eq!(
            scene.system.cli_fails(&["dump", "add", "db1/all", "two.bin", "--command", "true", "--spool"]).0,
            4,
            "its name is taken"
        );
        scene.system.run_ok("db1/all");
        let archive = text(&newest_archive(&scene.system), "name").to_owned();
        assert!(scene.content(&archive, "borgcube-dumps/one.bin") == fs::read(&one).unwrap(), "{}", borg.version);
        assert!(scene.content(&archive, "borgcube-dumps/two.bin") == fs::read(&two).unwrap());
        let below = scene.source.strip_prefix("/").unwrap();
        assert_eq!(scene.content(&archive, below.join("file").to_str().unwrap()), b"ordinary");
        let job = newest_job(&scene.system);
        let sizes: Vec<_> = job["commands"].as_array().unwrap().iter().map(|c| (text(c, "ended").to_owned(), number(c, "bytes"))).collect();
        assert_eq!(sizes, [("well".to_owned(), 100_001), ("well".to_owned(), 9_000_000)]);
        // The same client restores it.
        let restore =
            scene.system.cli_json(&["restore", &archive, "borgcube-dumps", "--into", scene.system.join("back").to_str().unwrap()]);
        let restored = wait_for_end(&scene.system, number(&restore, "job"));
        assert_eq!(text(&restored, "state"), "done", "{restored}");
        let back = scene.system.join("back/borgcube-dumps/one.bin");
        assert!(fs::read(&back).unwrap() == fs::read(&one).unwrap());
        assert!(fs::metadata(&back).unwrap().modified().unwrap().elapsed().unwrap().as_secs() < 3600);

        // Several that are streamed, in an archive of their own.
        let dumps = [("a", &one), ("b", &two), ("c", &one)].map(|(name, path)| format!("{name}={}", cat(path)));
        let words =
            ["config", "add", "dumps", "--client=db1", "--repository=main", "--dump", &dumps[0], "--dump", &dumps[1], "--dump", &dumps[2]];
        scene.system.cli_ok(&words);
        scene.system.run_ok("db1/dumps");
        let archive = text(&newest_archive(&scene.system), "name").to_owned();
        for (name, path) in [("a", &one), ("b", &two), ("c", &one)] {
            assert!(scene.content(&archive, &format!("borgcube-dumps/{name}")) == fs::read(path).unwrap(), "{name} {}", borg.version);
        }
        let said = scene.system.cli_fails(&["config", "edit", "db1/dumps", "--path", "/etc"]).1;
        assert!(said.contains("--spool"), "{said}");
    }
}

#[test]
fn a_dump_that_failed_is_in_no_archive() {
    for borg in Borg::all_clients() {
        let scene = Scene::new(&borg);
        scene.config("all", &["--dump", "db.sql=head -c 5000000 /dev/zero; echo out of memory >&2; exit 9"]);
        let more = [
            "config",
            "add",
            "dumps",
            "--client=db1",
            "--repository=main",
            "--dump",
            "good=echo good",
            "--dump",
            "bad=echo half; kill -9 $$",
        ];
        scene.system.cli_ok(&more);
        for (config, says) in [("db1/all", "dump db.sql ended with code 9"), ("db1/dumps", "dump bad was ended by signal 9")] {
            let job = wait_for_end(&scene.system, start(&scene.system, config));
            assert_failed(&job, "dump-failed");
            assert!(text(&job["failure"], "message").contains(says), "{job}");
            assert_eq!(scene.archives(), 0, "{}", borg.version);
        }
        let log = scene.system.cli_ok(&["job", "log", "1"]);
        assert!(log.contains("out of memory"), "{log}");
        // One that fails while borg starts: nobody wants to know where Python was then.
        scene.system.cli_ok(&["config", "add", "early", "--client=db1", "--repository=main", "--dump", "early=exit 3"]);
        let job = wait_for_end(&scene.system, start(&scene.system, "db1/early"));
        assert_failed(&job, "dump-failed");
        let log = scene.system.cli_ok(&["job", "log", &number(&job, "number").to_string()]);
        assert!(!log.contains("Traceback") && !log.contains("KeyboardInterrupt"), "{} {log}", borg.version);
    }
}

fn ended(job: &Value) -> Vec<String> {
    let shown = |c: &Value| format!("{} {} {}", text(c, "part"), text(c, "name"), text(c, "ended"));
    job["commands"].as_array().unwrap().iter().map(shown).collect()
}

#[test]
fn hooks_around_a_backup() {
    let scene = Scene::new(&Borg::debian().expect("the distribution's borg"));
    let (system, marks) = (&scene.system, scene.system.join("marks"));
    scene.config("all", &[]);
    let mark = |text: &str| format!("echo {text} >>'{}'", marks.display());
    let add = |name: &str, words: &[&str]| system.cli_ok(&[&["hook", "add", "db1/all", name][..], words].concat());
    add("second", &["--before", &mark("before-second"), "--after", &mark("after-second $BORGCUBE_RESULT")]);
    add("first", &["--before", &mark("before-first"), "--after", &mark("after-first"), "--position", "1", "--time-limit", "1m"]);
    add(
        "odd",
        &["--before", "echo '{\"type\":\"log_message\",\"levelname\":\"ERROR\",\"message\":\"forged\"}'; exit 4", "--on-failure", "warn"],
    );
    let listed = system.cli_ok(&["hook", "list", "db1/all"]);
    assert!(listed.find("first").unwrap() < listed.find("second").unwrap(), "{listed}");
    assert_eq!(system.cli_json(&["hook", "show", "db1/all", "first"])["seconds"], 60);

    let job = wait_for_end(system, start(system, "db1/all"));
    assert_eq!(text(&job, "state"), "done", "{job}");
    assert_eq!(fs::read_to_string(&marks).unwrap(), "before-first\nbefore-second\nafter-second success\nafter-first\n");
    assert_eq!(ended(&job), ["before first well", "before second well", "before odd code", "after second well", "after first well"]);
    assert!(job["warnings"].to_string().contains("hook odd ended with code 4"), "{job}");
    let log = system.cli_ok(&["job", "log", &number(&job, "number").to_string()]);
    assert!(log.contains("forged") && !job["warnings"].to_string().contains("forged"), "{log}");
    assert!(system.cli_ok(&["job", "show", &number(&job, "number").to_string()]).contains("the before command of hook first ended well"));

    // One that must not fail.
    system.cli_ok(&["hook", "edit", "db1/all", "odd", "--on-failure", "fail"]);
    fs::remove_file(&marks).unwrap();
    let job = wait_for_end(system, start(system, "db1/all"));
    assert_failed(&job, "hook-failed");
    assert!(text(&job["failure"], "message").contains("hook odd ended with code 4; nothing was backed up"), "{job}");
    assert_eq!(scene.archives(), 1);
    assert_eq!(fs::read_to_string(&marks).unwrap(), "before-first\nbefore-second\nafter-second failed\nafter-first\n");

    // After the backup: the archive is there, and somebody hears of it.
    system.cli_ok(&["hook", "edit", "db1/all", "odd", "--clear", "before", "--after", "exit 5"]);
    let job = wait_for_end(system, start(system, "db1/all"));
    assert_failed(&job, "hook-failed");
    assert!(text(&job["failure"], "message").contains("is complete"), "{job}");
    assert_eq!(scene.archives(), 2);

    // A cancelled job and one whose worker is gone: what was begun is undone.
    system.cli_ok(&["hook", "remove", "db1/all", "odd"]);
    let begun = system.join("begun");
    let slow = format!(": >'{}'; sleep 600", begun.display());
    add("slow", &["--before", &slow, "--after", &mark("after-slow")]);
    for end in ["cancel", "kill"] {
        fs::remove_file(&marks).unwrap();
        let number = start(system, "db1/all");
        retry_until(PATIENCE, || begun.exists().then_some(())).expect("the hook begins");
        fs::remove_file(&begun).unwrap();
        wait_for_state(system, number, "client_preparing");
        if end == "cancel" {
            system.cli_ok(&["job", "cancel", &number.to_string()]);
        } else {
            let worker = system.pids("borgcube-worker").pop().expect("a worker").to_string();
            assert!(Command::new("kill").args(["-KILL", &worker]).status().unwrap().success());
        }
        let job = wait_for_end(system, number);
        assert_eq!(text(&job, "state"), if end == "cancel" { "cancelled" } else { "failed" });
        let wanted = "before-first\nbefore-second\nafter-slow\nafter-second stopped\nafter-first\n";
        let there = retry_until(PATIENCE, || (fs::read_to_string(&marks).ok()? == wanted).then_some(()));
        assert!(there.is_some(), "{end}: {}", fs::read_to_string(&marks).unwrap());
    }
    assert_eq!(scene.archives(), 2);
}

/// On the road of a permanent key, and on that of the worker's own connection.
#[test]
fn hooks_and_dumps_over_a_real_sshd() {
    let scene = Scene::new(&Borg::debian().expect("the distribution's borg"));
    let system = &scene.system;
    let (mut there, mut here) = (Sshd::start(), Sshd::start());
    let dump = system.join("dump");
    fs::write(&dump, strange(3_000_000)).unwrap();
    for client in ["by-key", "by-carrier"] {
        let cache = format!("--remote-cache-dir={}", system.join(client).display());
        match client {
            "by-key" => system.add_ssh_client(client, &mut there, &mut here, &[&cache]),
            _ => system.add_carrier_client(client, &mut there, &[&cache]),
        }
        let marks = system.join(format!("{client}.marks"));
        let config = format!("{client}/all");
        let streamed = format!("one.bin=cat '{}'", dump.display());
        system.add_config(client, "all", "main", &["--dump", &streamed], &[&scene.source]);
        system.cli_ok(&["dump", "add", &config, "two.bin", "--command", &format!("cat '{}'", dump.display()), "--spool"]);
        let mark = |text: &str| format!("echo {text} >>'{}'", marks.display());
        system.cli_ok(&["hook", "add", &config, "mark", "--before", &mark("before"), "--after", &mark("after $BORGCUBE_RESULT")]);
        let job = wait_for_end(system, start(system, &config));
        assert_eq!(text(&job, "state"), "done", "{client}: {job}");
        assert_eq!(fs::read_to_string(&marks).unwrap(), "before\nafter success\n", "{client}");
        let archive = text(&newest_archive(system), "name").to_owned();
        for name in ["one.bin", "two.bin"] {
            assert!(scene.content(&archive, &format!("borgcube-dumps/{name}")) == fs::read(&dump).unwrap(), "{name} {client}");
        }
        // A command that fails fails the job on this road as well.
        system.cli_ok(&["dump", "edit", &config, "one.bin", "--command", "head -c 5000000 /dev/zero; exit 9"]);
        assert_failed(&wait_for_end(system, start(system, &config)), "dump-failed");
        assert_eq!(text(&newest_archive(system), "name"), archive, "{client}");
    }
}

/// The script ends borg before there is an archive. Should there be one all the same, nobody takes it for a good one.
#[test]
fn an_archive_without_its_dump_is_in_doubt() {
    let debian = Borg::debian().expect("the distribution's borg");
    let odd = Borg { version: debian.version.clone(), program: std::env::temp_dir().join(format!("bc-odd-borg-{}", std::process::id())) };
    let script = format!("#!/bin/sh\ntrap '' INT\n'{}' \"$@\" </dev/null\n", debian.program.display());
    fs::write(&odd.program, script).unwrap();
    fs::set_permissions(&odd.program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let scene = Scene::new(&odd);
    scene.config("all", &["--dump", "db.sql=while echo more; do :; done"]);
    let job = wait_for_end(&scene.system, start(&scene.system, "db1/all"));
    fs::remove_file(&odd.program).unwrap();
    assert_failed(&job, "dump-failed");
    assert!(text(&job["failure"], "message").contains("has not all of it"), "{job}");
    let archive = newest_archive(&scene.system);
    assert!(archive["suspicious"] == true && archive["warnings"].to_string().contains("its dumps may not be whole"), "{archive}");
}
