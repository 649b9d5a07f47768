//! Cancellation: in the queue, in good order, and by force.

use crate::harness::{Daemon, wait, workers_of};
use model::{Cause, JobState};
use serde_json::json;
use std::time::{Duration, Instant};

#[test]
fn a_queued_job_is_cancelled_at_once() {
    let daemon = Daemon::start();
    daemon.with(&[("a/x", "hold"), ("a/y", "hold")]);
    let (x, y) = (daemon.run("a/x"), daemon.run("a/y"));
    daemon.ok("CancelJob", json!({ "job": y }));
    let job = daemon.job(y);
    assert_eq!(job.state, JobState::Cancelled);
    assert_eq!(job.failure.unwrap().cause, Cause::Cancelled { by: "root".into() });
    assert_eq!(job.history.len(), 2);
    daemon.go(x);
    daemon.reaches(x, JobState::Done);
    assert!(!daemon.marks().iter().any(|mark| mark.starts_with(&format!("{y} "))), "it ran all the same");
}

#[test]
fn a_running_job_ends_in_good_order() {
    let daemon = Daemon::start();
    daemon.with(&[("a/x", "hold")]);
    let job = daemon.run("a/x");
    daemon.reaches(job, JobState::ClientInProgress);
    daemon.ok("CancelJob", json!({ "job": job }));
    let failure = daemon.reaches(job, JobState::Cancelled).failure.unwrap();
    assert_eq!(failure.cause, Cause::Cancelled { by: "root".into() });
    assert_eq!(failure.message, "a checkpoint was written");
    assert!(daemon.marks().contains(&format!("{job} cancelled")));
    assert!(daemon.job_log(job).contains("cancelled by root"));
}

#[test]
fn one_that_does_not_listen_is_made_to_end() {
    let daemon = Daemon::start_with(&[("BORGCUBE_CANCEL_SECONDS", "1")]);
    daemon.with(&[("a/x", "deaf")]);
    let job = daemon.run("a/x");
    daemon.reaches(job, JobState::ClientInProgress);
    let begin = Instant::now();
    daemon.ok("CancelJob", json!({ "job": job }));
    // Twice does not change anything.
    daemon.ok("CancelJob", json!({ "job": job }));
    let failure = daemon.reaches(job, JobState::Cancelled).failure.unwrap();
    assert!(begin.elapsed() >= Duration::from_millis(900));
    assert_eq!(failure.cause, Cause::Cancelled { by: "root".into() });
    assert!(failure.message.contains("SIGTERM"), "{failure:?}");
    wait("its process to be gone", || workers_of(&daemon.state).is_empty().then_some(()));
}

#[test]
fn one_that_ignores_sigterm_is_killed_with_its_group() {
    let daemon = Daemon::start_with(&[("BORGCUBE_CANCEL_SECONDS", "0")]);
    // A shell that ignores SIGTERM and waits for a child that does so, too.
    let script = "#!/bin/sh\ntrap '' TERM\n[ \"$1\" ] && FAKE_WORKER_IN=\"$BORGCUBE_STATE\" sleep 100\nexit 5\n";
    std::fs::write(daemon.directory.path().join("worker"), script).unwrap();
    daemon.with(&[("a/x", "deaf")]);
    let job = daemon.run("a/x");
    wait("the child", || (!workers_of(&daemon.state).is_empty()).then_some(()));
    daemon.ok("CancelJob", json!({ "job": job }));
    let failure = daemon.reaches(job, JobState::Cancelled).failure.unwrap();
    assert!(failure.message.contains("SIGKILL"), "{failure:?}");
    wait("the group to be gone", || workers_of(&daemon.state).is_empty().then_some(()));
}
