//! The queue: from a call to a finished job, in order, within limits.

use crate::harness::{Daemon, wait};
use model::queue::Limits;
use model::{Cause, JobState};
use serde_json::json;
use wire::control::ErrorKind;

#[test]
fn a_job_goes_all_the_way() {
    let daemon = Daemon::start();
    daemon.with(&[("web1/etc", "well")]);
    let number = daemon.run("web1/etc");
    let job = daemon.reaches(number, JobState::Done);
    let states: Vec<_> = job.history.iter().map(|step| step.state).collect();
    assert_eq!(states, [&JobState::ALL[..6], &[JobState::Done]].concat());
    assert!(job.history.is_sorted_by_key(|step| step.time));
    assert_eq!(job.actor, "root");
    assert!(job.archive_name.unwrap().starts_with("web1-etc-20"));
    assert_eq!(job.archive, Some("ab".repeat(32)));
    assert_eq!(job.statistics.unwrap().nfiles, 3);
    assert_eq!((job.warnings.len(), job.warning_count), (1, 1));
    assert_eq!(job.client_borg.as_deref(), Some("1.4.5"));
    assert_eq!(job.failure, None);
    assert_eq!(daemon.job_log(number).matches("line ").count(), 10);
    let status = daemon.ok("GetStatus", json!({}));
    assert_eq!((&status["queued"], &status["configs"], &status["stopping"]), (&json!(0), &json!(1), &json!(false)));
}

#[test]
fn a_repository_is_checked_and_compacted_by_jobs_that_need_no_client() {
    let daemon = Daemon::start();
    daemon.with(&[("web1/etc", "well")]);
    daemon.limits(Limits { per_client: 1, per_repository: 1, total: 9 });
    let check = json!({ "kind": "check", "verify_data": true });
    let compact = json!({ "kind": "compact", "threshold": 10 });
    let run =
        |work: &serde_json::Value| daemon.ok("RunMaintenance", json!({ "repository": "main", "work": work }))["job"].as_u64().unwrap();
    let first = run(&check);
    daemon.reaches(first, JobState::RepositoryInProgress);
    let steps = wait("progress", || daemon.detail(first).progress?.steps);
    assert_eq!((steps.unit.as_str(), steps.done, steps.total), ("segments", 1, 2));
    // One after the other, each kind once, and no place of a backup is taken.
    let second = run(&compact);
    assert_eq!(daemon.detail(second).waits.unwrap(), format!("waits for job {first} on repository main"));
    let (kind, message) = daemon.fails("RunMaintenance", json!({ "repository": "main", "work": &compact }));
    assert_eq!((kind, message.contains(&format!("as job {second}"))), (ErrorKind::Conflict, true), "{message}");
    daemon.reaches(daemon.run("web1/etc"), JobState::Done);
    daemon.go(first);
    let job = daemon.reaches(first, JobState::Done);
    let states: Vec<_> = job.history.iter().map(|step| step.state).collect();
    assert_eq!(states, [JobState::JobCreated, JobState::RepositoryPreparing, JobState::RepositoryInProgress, JobState::Done]);
    let checked =
        model::Yield::Checked { objects: 5, bytes: 50, error_count: 0, complete: true, structure: None, data: None, not_due_since: None };
    assert_eq!(job.yielded, Some(checked));
    daemon.reaches(second, JobState::RepositoryInProgress);
    daemon.ok("CancelJob", json!({ "job": second }));
    assert!(matches!(daemon.reaches(second, JobState::Cancelled).failure.unwrap().cause, Cause::Cancelled { .. }));
    let marks = daemon.marks().join("\n");
    assert!(
        marks.contains("CheckBy { plan: CheckPlan { structure: true, archives: true, data: true, skip_hours: 0")
            && marks.contains("Compact { threshold: 10 }"),
        "{marks}"
    );
    let of_kind = |kind: &str| daemon.ok("ListJobs", json!({ "filter": { "kind": kind } }))["jobs"].as_array().unwrap().len();
    assert_eq!(["backup", "check", "compact"].map(of_kind), [1, 1, 1]);

    assert_eq!(daemon.fails("RunMaintenance", json!({ "repository": "other", "work": &check })).0, ErrorKind::NotFound);
    let backup = json!({ "kind": "backup", "client": "web1", "label": "etc" });
    assert_eq!(daemon.fails("RunMaintenance", json!({ "repository": "main", "work": &backup })).0, ErrorKind::InvalidArgument);
}

#[test]
fn a_worker_gets_a_group_and_a_descriptor_of_its_own_and_no_agent() {
    let daemon = Daemon::start_with(&[("BORGCUBE_BORG", "/opt/borg"), ("SECRET", "x")]);
    daemon.with(&[("web1/etc", "look")]);
    let number = daemon.run("web1/etc");
    daemon.reaches(number, JobState::Done);
    let marks = daemon.marks();
    let of = |what: &str| marks.iter().find_map(|m| m.strip_prefix(&format!("{number} {what} "))).unwrap().to_owned();
    assert_eq!(of("group"), "own");
    // The socket, its clone in the fake, and the directory that is being listed.
    assert!(of("descriptors").parse::<u32>().unwrap() <= 3, "{marks:?}");
    let environment = of("environment");
    let names: Vec<_> = environment.split(',').collect();
    for kept in ["PATH", "HOME", "BORGCUBE_STATE", "BORGCUBE_BORG"] {
        assert!(names.contains(&kept), "{kept}: {names:?}");
    }
    assert!(!names.contains(&"SSH_AUTH_SOCK") && !names.contains(&"SECRET"), "{names:?}");
}

#[test]
fn first_come_first_served_within_the_limits() {
    let daemon = Daemon::start();
    daemon.with(&[("a/x", "hold"), ("a/y", "hold"), ("b/x", "hold"), ("c/x", "hold")]);
    daemon.limits(Limits { per_client: 1, per_repository: 8, total: 2 });
    let [ax, ay, bx, cx] = ["a/x", "a/y", "b/x", "c/x"].map(|config| daemon.run(config));
    daemon.reaches(ax, JobState::ClientInProgress);
    // The second one of client a does not hold up those behind it.
    daemon.reaches(bx, JobState::ClientInProgress);
    assert_eq!(daemon.detail(ay).waits.unwrap(), "waits for another job of client a");
    assert_eq!(daemon.detail(cx).waits.unwrap(), "waits: as many jobs run as the server allows");
    assert_eq!(daemon.detail(ax).waits, None);
    assert_eq!(daemon.detail(ax).progress.unwrap().path, "file 1");
    daemon.go(bx);
    daemon.reaches(bx, JobState::Done);
    daemon.reaches(cx, JobState::ClientInProgress);
    assert_eq!(daemon.job(ay).state, JobState::JobCreated);
    daemon.go(ax);
    daemon.reaches(ay, JobState::ClientInProgress);
    for job in [ay, cx] {
        daemon.go(job);
        daemon.reaches(job, JobState::Done);
    }
    let mut started: Vec<_> = daemon.marks().into_iter().filter(|mark| mark.ends_with("started")).collect();
    // The first two start at the same moment; which process is first to say so, is chance.
    started[..2].sort_unstable();
    assert_eq!(started, [ax, bx, cx, ay].map(|job| format!("{job} started")));
}

#[test]
fn raised_limits_count_at_once() {
    let daemon = Daemon::start();
    daemon.with(&[("a/x", "hold"), ("b/x", "hold")]);
    daemon.limits(Limits { per_client: 1, per_repository: 1, total: 9 });
    let (a, b) = (daemon.run("a/x"), daemon.run("b/x"));
    daemon.reaches(a, JobState::ClientInProgress);
    assert_eq!(daemon.detail(b).waits.unwrap(), "waits for another job of repository main");
    daemon.limits(Limits { per_client: 1, per_repository: 2, total: 9 });
    daemon.reaches(b, JobState::ClientInProgress);
}

#[test]
fn one_runs_and_one_waits_but_never_two() {
    let daemon = Daemon::start();
    daemon.with(&[("a/x", "hold")]);
    let first = daemon.run("a/x");
    daemon.reaches(first, JobState::ClientInProgress);
    let second = daemon.run("a/x");
    assert_eq!(daemon.detail(second).waits.unwrap(), format!("waits for job {first} of the same config"));
    let (kind, message) = daemon.fails("RunConfig", json!({"config": "a/x"}));
    assert_eq!(kind, ErrorKind::Conflict);
    assert!(message.contains(&format!("as job {second}")), "{message}");
    daemon.go(first);
    daemon.reaches(second, JobState::ClientInProgress);
    daemon.go(second);
    daemon.reaches(second, JobState::Done);
}

#[test]
fn jobs_are_refused_before_they_exist() {
    let daemon = Daemon::start();
    daemon.with(&[("a/x", "well")]);
    assert_eq!(daemon.fails("RunConfig", json!({"config": "a/y"})).0, ErrorKind::NotFound);
    let (kind, message) = daemon.fails("RunConfig", json!({"config": "a/x", "archive_name": "a b"}));
    assert_eq!(kind, ErrorKind::InvalidArgument);
    assert!(message.contains("printable"), "{message}");
    let job = daemon.ok("RunConfig", json!({"config": "a/x", "archive_name": "mine"}))["job"].as_u64().unwrap();
    assert_eq!(daemon.reaches(job, JobState::Done).archive_name.as_deref(), Some("mine"));
    assert_eq!(daemon.fails("GetJob", json!({"job": job + 1})).0, ErrorKind::NotFound);
    let (kind, message) = daemon.fails("CancelJob", json!({"job": job}));
    assert_eq!(kind, ErrorKind::Conflict);
    assert!(message.contains("has ended already (done)"), "{message}");
}

#[test]
fn failures_and_crashes_have_their_causes() {
    let daemon = Daemon::start();
    daemon.with(&[("a/fail", "fail"), ("b/early", "early"), ("c/exit", "exit"), ("d/abort", "abort"), ("e/jump", "jump")]);
    let end = |config: &str| {
        let number = daemon.run(config);
        daemon.reaches(number, JobState::Failed)
    };
    let failed = end("a/fail");
    assert_eq!(failed.failure.unwrap().cause, Cause::ClientConnectionFailed);
    assert_eq!(failed.warning_count, 1);
    let early = end("b/early").failure.unwrap();
    assert_eq!(early.cause, Cause::Internal);
    assert!(early.message.contains("client_preparing"), "{early:?}");
    let exit = end("c/exit");
    assert_eq!(exit.failure.as_ref().unwrap().line(), "worker-crashed: the job's worker exited with code 3 without a result");
    assert!(daemon.job_log(exit.number).contains("exited with code 3"));
    let abort = end("d/abort").failure.unwrap();
    assert_eq!(abort.line(), "worker-crashed: the job's worker was killed by SIGKILL without a result");
    let jump = end("e/jump");
    assert_eq!(jump.failure.unwrap().message, "gave up");
    assert_eq!(jump.history.len(), 3);
    assert!(daemon.job_log(jump.number).contains("can't go from client_preparing to done"), "{}", daemon.job_log(jump.number));
}

#[test]
fn a_worker_that_breaks_the_protocol_is_ended() {
    let daemon = Daemon::start();
    daemon.with(&[("a/x", "garbage"), ("b/x", "endless"), ("c/x", "well")]);
    for config in ["a/x", "b/x"] {
        let number = daemon.run(config);
        let failure = daemon.reaches(number, JobState::Failed).failure.unwrap();
        assert_eq!(failure.cause, Cause::WorkerCrashed);
        assert!(failure.message.contains("misbehaved") && failure.message.contains("SIGTERM"), "{failure:?}");
    }
    let good = daemon.run("c/x");
    daemon.reaches(good, JobState::Done);
}

#[test]
fn a_program_that_cannot_be_started_fails_the_job() {
    let mut daemon = Daemon::start();
    daemon.with(&[("a/x", "well")]);
    std::fs::remove_file(daemon.directory.path().join("worker")).unwrap();
    let job = daemon.run("a/x");
    let failure = daemon.reaches(job, JobState::Failed).failure.unwrap();
    assert_eq!(failure.cause, Cause::WorkerCrashed);
    assert!(failure.message.contains("cannot be started"), "{failure:?}");
    assert!(daemon.has_ended().is_none());
}

#[test]
fn what_a_worker_leaves_behind_stands_in_the_way() {
    let daemon = Daemon::start();
    daemon.with(&[("a/x", "leave")]);
    let first = daemon.run("a/x");
    daemon.reaches(first, JobState::Failed);
    let second = daemon.run("a/x");
    assert_eq!(daemon.detail(second).waits.unwrap(), format!("waits for job {first} of the same config"));
    let left = |job: u64| {
        let marks = daemon.marks();
        marks.iter().find_map(|m| m.strip_prefix(&format!("{job} left "))?.parse::<i32>().ok())
    };
    let end = |pid| unix::pidfd::PidFd::open(pid).unwrap().signal(unix::Signal::SIGKILL).unwrap();
    end(left(first).unwrap());
    daemon.reaches(second, JobState::Failed);
    end(wait("the second one's child", || left(second)));
}

#[test]
fn a_stale_view_is_tried_again_once() {
    let daemon = Daemon::start();
    daemon.with(&[("a/x", "stale")]);
    let first = daemon.ok("RunConfig", json!({"config": "a/x", "archive_name": "mine"}))["job"].as_u64().unwrap();
    daemon.reaches(first, JobState::Failed);
    let second = daemon.reaches(first + 1, JobState::Failed);
    assert_eq!((second.retry_of, second.archive_name.as_deref()), (Some(first), Some("mine")));
    assert_eq!(second.failure.unwrap().cause, Cause::ViewStale);
    assert_eq!(daemon.fails("GetJob", json!({"job": first + 2})).0, ErrorKind::NotFound);
    // A name of our own belongs to one job.
    let third = daemon.run("a/x");
    daemon.reaches(third, JobState::Failed);
    let fourth = daemon.reaches(third + 1, JobState::Failed);
    assert!(fourth.archive_name.unwrap().ends_with(&format!("-{}", third + 1)));
}
