//! `borgcube up` with the real programs. They have to be built: cargo build --workspace --bins, as make test does.

use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use testkit::{TestSystem, retry_until};

const SOON: Duration = Duration::from_secs(20);

fn kill(signal: &str, pid: i32) {
    assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
}

fn code(output: &Output) -> (i32, String) {
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn daemon_pid(system: &TestSystem) -> i64 {
    system.cli_json(&["status"])["pid"].as_i64().unwrap()
}

fn alive(pid: i32) -> bool {
    // A zombie has no command line any more.
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
}

fn backup_of(system: &TestSystem) {
    let source = system.join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "content").unwrap();
    system.add_repository("main", "repokey-blake2", Some("correct horse battery"));
    system.add_local_client("here");
    system.add_config("here", "source", "main", &[], &[&source]);
}

#[test]
fn a_second_one_in_the_same_directory_is_refused() {
    let system = TestSystem::start();
    let (code, said) = system.cli_fails(&["up"]);
    assert_eq!(code, 4, "{said}");
    assert!(said.contains(&format!("borgcube up runs already in {} (process {})", system.state().display(), system.up_pid())), "{said}");
    system.cli_ok(&["status"]);
}

#[test]
fn it_needs_a_directory_and_a_daemon_that_starts() {
    let up = |state: Option<&Path>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_borgcube"));
        command.env_remove("BORGCUBE_STATE").arg("up").stdin(Stdio::null());
        if let Some(state) = state {
            command.arg("--state").arg(state);
        }
        code(&command.output().unwrap())
    };
    let (number, said) = up(None);
    assert_eq!(number, 2, "{said}");
    let foreign = tempfile::tempdir().unwrap();
    fs::write(foreign.path().join("letter"), "").unwrap();
    let (number, said) = up(Some(foreign.path()));
    assert_eq!(number, 4, "{said}");
    assert!(said.contains("nothing in it is BorgCube's") && fs::read_dir(&foreign).unwrap().count() == 1, "{said}");
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir_all(directory.path().join("db/data.mdb")).unwrap();
    let (number, said) = up(Some(directory.path()));
    assert_eq!(number, 1, "{said}");
    assert!(said.contains("before it was ready"), "{said}");
    assert!(!directory.path().join("run/control.sock").exists(), "a stop leaves no socket");
}

#[test]
fn the_lock_identity_is_the_one_of_stock_borg() {
    let system = TestSystem::start();
    let stored = fs::read_to_string(system.state().join("host-id")).unwrap();
    let repository = system.join("scratch");
    let borg = |arguments: &[&str]| {
        let output = Command::new("borg").env("BORG_BASE_DIR", system.home()).args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let path = repository.display().to_string();
    borg(&["init", "--encryption=none", &path]);
    let roster: Value = serde_json::from_str(&borg(&["with-lock", &path, "cat", &format!("{path}/lock.roster")])).unwrap();
    assert_eq!(roster["exclusive"][0][0], stored);
}

#[test]
fn a_missing_borg_is_refused_with_a_way_out() {
    let mut system = TestSystem::start();
    system.down();
    let state = system.state().display().to_string();
    let output = system.command("borgcube").args(["up", "--state", &state, "--borg", "/nonexistent/borg"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("there is no borg at /nonexistent/borg") && said.contains("apt install borgbackup"), "{said}");
    // Nothing is lost: with a borg it starts again.
    system.up();
}

#[test]
fn the_daemon_is_started_again_and_nobody_notices() {
    let system = TestSystem::start();
    let before = daemon_pid(&system);
    kill("-KILL", i32::try_from(before).unwrap());
    let after = daemon_pid(&system);
    assert_ne!(before, after);
    // Its news arrive again as well: the command waits for the socket.
    system.add_repository("later", "none", None);
    assert!(system.state().join("run/repositories/later.sock").exists(), "{}", system.log());
}

#[test]
fn sockets_come_and_go_with_repositories() {
    let system = TestSystem::start();
    let socket = system.state().join("run/repositories/main.sock");
    system.add_repository("main", "none", None);
    assert!(socket.exists());
    system.cli_ok(&["repository", "remove", "main", "--yes"]);
    assert!(retry_until(SOON, || (!socket.exists()).then_some(())).is_some(), "{}", system.log());
}

#[test]
fn one_backup_and_what_is_shown_of_it() {
    let system = TestSystem::start();
    backup_of(&system);
    let said = system.run_ok("here/source");
    assert!(said.starts_with("Job 1 done: archive here-source-"), "{said}");
    let job = system.cli_json(&["job", "show", "1"]);
    assert_eq!((&job["state"], &job["statistics"]["nfiles"]), (&"done".into(), &1.into()));
    let archives = system.cli_json(&["archive", "list"]);
    assert_eq!(archives[0]["id"], job["archive"]);
    let id = archives[0]["id"].as_str().unwrap();
    let shown = system.cli_ok(&["archive", "show", &id[..10]]);
    assert!(shown.contains(id), "{shown}");
    assert!(!system.cli_ok(&["job", "log", "1"]).is_empty());
}

#[test]
fn an_owner_that_was_killed_is_there_for_the_next_job() {
    let system = TestSystem::start();
    backup_of(&system);
    system.run_ok("here/source");
    let owner = system.wait_for("borgcube-repositoryd", SOON);
    kill("-KILL", owner);
    assert!(retry_until(SOON, || (!alive(owner)).then_some(())).is_some());
    system.run_ok("here/source");
    assert_ne!(system.wait_for("borgcube-repositoryd", SOON), owner);
}

#[test]
fn sigterm_ends_everything_in_good_order() {
    let directory = tempfile::Builder::new().prefix("bc-").tempdir().unwrap();
    let state = directory.path().join("state");
    let mut command = Command::new(env!("CARGO_BIN_EXE_borgcube"));
    command.arg("up").arg("--state").arg(&state).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let up = command.spawn().unwrap();
    let status = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_borgcube"));
        command.arg("--state").arg(&state).args(["status", "--wait", "30", "--json"]).output().unwrap()
    };
    let status: Value = serde_json::from_slice(&status().stdout).unwrap();
    kill("-TERM", i32::try_from(up.id()).unwrap());
    let output = up.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!alive(i32::try_from(status["pid"].as_i64().unwrap()).unwrap()));
    assert!(!state.join("run/control.sock").exists());
    assert!(String::from_utf8_lossy(&output.stdout).contains("nothing is isolated"));
}

#[test]
fn children_do_not_outlive_a_killed_supervisor() {
    let mut system = TestSystem::start();
    backup_of(&system);
    system.run_ok("here/source");
    let daemon = i32::try_from(daemon_pid(&system)).unwrap();
    let owner = system.wait_for("borgcube-repositoryd", SOON);
    kill("-KILL", system.up_pid());
    assert!(retry_until(SOON, || (!alive(daemon) && !alive(owner)).then_some(())).is_some());
    system.crash();
    system.up();
    system.run_ok("here/source");
}
