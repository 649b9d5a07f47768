//! Restarts, stops, and a second daemon.

use crate::harness::{Caller, Daemon, wait, workers_of};
use model::{Cause, JobState};
use serde_json::json;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};
use unix::Signal;
use wire::control::ErrorKind;

#[test]
fn after_a_crash_running_jobs_have_failed_and_queued_ones_run() {
    let mut daemon = Daemon::start();
    daemon.with(&[("a/x", "hold"), ("a/y", "well"), ("b/x", "hold")]);
    let (x, b) = (daemon.run("a/x"), daemon.run("b/x"));
    let y = daemon.run("a/y");
    daemon.reaches(x, JobState::ClientInProgress);
    daemon.reaches(b, JobState::ClientInProgress);
    for job in [x, b] {
        // From then on they only listen.
        wait("progress", || daemon.detail(job).progress);
    }
    daemon.crash();
    // The workers see it and end by themselves.
    wait("the workers to end", || workers_of(&daemon.state).is_empty().then_some(()));
    assert!(daemon.marks().contains(&format!("{x} eof")));
    daemon.up();
    for job in [x, b] {
        let failure = daemon.job(job).failure.unwrap();
        assert_eq!(failure.cause, Cause::BorgcubedRestart);
        assert!(failure.message.contains("client_in_progress"), "{failure:?}");
        assert!(daemon.job_log(job).contains("borgcubed-restart"));
    }
    daemon.reaches(y, JobState::Done);
    let next = daemon.run("a/x");
    assert!(next > y);
    daemon.go(next);
    daemon.reaches(next, JobState::Done);
}

#[test]
fn what_was_acknowledged_survives_every_crash() {
    let mut daemon = Daemon::start();
    daemon.with(&[("a/x", "well")]);
    let mut known = vec![];
    for round in 0..8_u64 {
        let end = Instant::now() + Duration::from_millis(40 + 35 * round);
        let name = format!("client-{round}");
        daemon.client(&name);
        while Instant::now() < end {
            if let Ok(job) = daemon.call::<wire::control::JobNumber>("RunConfig", json!({"config": "a/x"})) {
                known.push(job.job);
            }
        }
        daemon.crash();
        daemon.up();
        assert!(daemon.ok("ListClients", json!({}))["clients"].as_array().unwrap().iter().any(|c| c["name"] == name.as_str()));
        for job in &known {
            assert!(daemon.job(*job).number == *job);
        }
    }
    assert!(known.len() >= 8);
    assert!(known.is_sorted_by(|a, b| a < b), "numbers repeat: {known:?}");
    // Everything comes to an end: nothing hangs in a running state.
    for job in known {
        wait("every job to end", || daemon.job(job).state.is_final().then_some(()));
    }
}

#[test]
fn a_stop_waits_for_running_jobs_and_keeps_the_queue() {
    let mut daemon = Daemon::start();
    daemon.with(&[("a/x", "hold"), ("a/y", "well")]);
    let x = daemon.run("a/x");
    daemon.reaches(x, JobState::ClientInProgress);
    let y = daemon.run("a/y");
    let mut open = daemon.connect();
    assert!(open.call::<serde_json::Value>("GetStatus", json!({})).is_ok());
    daemon.signal(Signal::SIGTERM);
    wait("the socket to be gone", || (!daemon.socket().exists()).then_some(()));
    // Who is connected is still answered.
    let status: wire::control::Status = open.call("GetStatus", json!({})).unwrap();
    assert!(status.stopping && status.running.len() == 1 && status.queued == 1);
    let refused = open.call::<serde_json::Value>("RunConfig", json!({"config": "a/x"})).unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Stopping);
    let detail: wire::control::JobDetail = open.call("GetJob", json!({"job": y})).unwrap();
    assert_eq!(detail.waits.as_deref(), Some("waits: borgcubed is stopping"));
    let mut watcher = open;
    watcher.send("Watch", json!({}), true);
    daemon.go(x);
    assert!(daemon.ended().success());
    // The watcher saw the end of the job and was told why the stream ended.
    let mut states = vec![];
    let last = loop {
        let reply = watcher.reply();
        match reply.error {
            Some(error) => break error,
            None => states.extend(reply.parameters["event"]["job"]["state"].as_str().map(str::to_owned)),
        }
    };
    assert_eq!(last, "org.borgcube.Control.Stopping");
    assert_eq!(states.last().map(String::as_str), Some("done"));
    daemon.up();
    assert_eq!(daemon.job(x).state, JobState::Done);
    daemon.reaches(y, JobState::Done);
}

#[test]
fn a_stop_does_not_wait_for_ever() {
    let mut daemon = Daemon::start_with(&[("BORGCUBE_STOP_SECONDS", "1"), ("BORGCUBE_CANCEL_SECONDS", "1")]);
    daemon.with(&[("a/x", "hold"), ("b/x", "deaf")]);
    let (a, b) = (daemon.run("a/x"), daemon.run("b/x"));
    daemon.reaches(a, JobState::ClientInProgress);
    daemon.reaches(b, JobState::ClientInProgress);
    let begin = Instant::now();
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.ended().success());
    assert!(begin.elapsed() >= Duration::from_millis(1900) && begin.elapsed() < Duration::from_secs(9), "{:?}", begin.elapsed());
    daemon.up();
    for job in [a, b] {
        let job = daemon.job(job);
        assert_eq!(job.state, JobState::Cancelled);
        assert_eq!(job.failure.unwrap().cause, Cause::Cancelled { by: "shutdown".into() });
    }
}

#[test]
fn a_second_signal_hurries() {
    let mut daemon = Daemon::start();
    daemon.with(&[("a/x", "hold")]);
    let job = daemon.run("a/x");
    daemon.reaches(job, JobState::ClientInProgress);
    daemon.signal(Signal::SIGINT);
    wait("the stop", || (!daemon.socket().exists()).then_some(()));
    std::thread::sleep(Duration::from_millis(100));
    assert!(daemon.has_ended().is_none());
    daemon.signal(Signal::SIGINT);
    assert!(daemon.ended().success());
    daemon.up();
    assert_eq!(daemon.job(job).state, JobState::Cancelled);
}

#[test]
fn an_idle_daemon_stops_at_once_and_tells_its_manager() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut daemon = Daemon::start_with(&[("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "400000")]);
    let mut heard = String::new();
    let mut hear = |word: &str| {
        while !heard.contains(word) {
            let mut buffer = [0; 1000];
            let length = manager.recv(&mut buffer).unwrap_or_else(|e| panic!("never heard {word}: {e}: {heard}"));
            heard.push_str(std::str::from_utf8(&buffer[..length]).unwrap().trim_end());
            heard.push('\n');
            assert!(heard.len() < 10_000, "never heard {word}: {heard}");
        }
    };
    hear("READY=1");
    hear("STATUS=no job runs");
    hear("WATCHDOG=1\nWATCHDOG=1");
    // Settings and queue are looked at again; nothing else happens.
    daemon.signal(Signal::SIGHUP);
    assert!(daemon.call::<serde_json::Value>("GetStatus", json!({})).is_ok());
    daemon.signal(Signal::SIGTERM);
    hear("STOPPING=1");
    assert!(daemon.ended().success());
    assert!(!daemon.socket().exists());
}

#[test]
fn one_state_directory_has_one_daemon() {
    let daemon = Daemon::start();
    daemon.with(&[("a/x", "hold")]);
    let job = daemon.run("a/x");
    daemon.reaches(job, JobState::ClientInProgress);
    let second = daemon.command().output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert_eq!(second.status.signal(), None);
    assert!(daemon.log().contains("another borgcubed serves the state directory"), "{}", daemon.log());
    // It did not take the running job for a lost one.
    assert_eq!(daemon.job(job).state, JobState::ClientInProgress);
}

#[test]
fn a_socket_that_was_handed_over_stays() {
    let directory = tempfile::Builder::new().prefix("bcq-").tempdir().unwrap();
    let path = directory.path().join("handed.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let start = || {
        unix::spawn::Spawn::new(env!("CARGO_BIN_EXE_borgcubed"))
            .env("BORGCUBE_STATE", directory.path().join("state"))
            .fd(std::os::fd::AsFd::as_fd(&listener), "control")
            .stderr(unix::spawn::Stdio::Null)
            .spawn()
            .unwrap()
    };
    // Who comes before the daemon waits for it.
    let mut early = Caller::new(std::os::unix::net::UnixStream::connect(&path).unwrap());
    early.send("GetStatus", json!({}), false);
    let first = start();
    assert_eq!(early.reply().parameters["pid"], first.pid);
    first.pidfd.signal(Signal::SIGTERM).unwrap();
    assert!(first.wait().unwrap().success());
    let mut between = Caller::new(std::os::unix::net::UnixStream::connect(&path).unwrap());
    between.send("GetStatus", json!({}), false);
    let second = start();
    assert_eq!(between.reply().parameters["pid"], second.pid);
    assert!(!directory.path().join("state/run/control.sock").exists());
    second.pidfd.signal(Signal::SIGTERM).unwrap();
    assert!(second.wait().unwrap().success());
}
