//! `run --wait` and `job wait` in front of a control socket.

use crate::fake::{Answers, Fake, more, ok, said};
use model::progress::{Progress, Statistics};
use model::{Cause, Failure, Job, JobState, Timestamp};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

fn job(state: JobState) -> Job {
    let mut job = Job::backup(7, &"web1/etc".parse().unwrap(), "main".parse().unwrap(), "root", Timestamp(0));
    if matches!(state, JobState::Failed) {
        job.force_state(state, Failure::new(Cause::PathMissing, "there is no /x"), Timestamp(5)).unwrap();
    } else if matches!(state, JobState::Cancelled) {
        job.force_state(state, Failure::new(Cause::Cancelled { by: "ada".into() }, "ada cancelled it"), Timestamp(5)).unwrap();
    } else {
        let mut seconds = 0;
        while job.state != state {
            seconds += 1_000_000;
            job.update_state(job.state, job.state.next(job.kind()).unwrap(), Timestamp(seconds)).unwrap();
        }
    }
    if state == JobState::Done {
        job.archive_name = Some("web1-etc-1".into());
        job.statistics = Some(Statistics { nfiles: 1200, original_size: 5_000_000, compressed_size: 2_000_000, deduplicated_size: 999 });
    }
    job
}

fn event(job: &Job) -> Value {
    json!({ "event": { "job": job } })
}

fn progress() -> Value {
    let statistics = Statistics { nfiles: 3, original_size: 1000, compressed_size: 500, deduplicated_size: 20 };
    let progress = Progress { statistics, path: "etc/x\u{1b}[2J".into(), rate: 100, expected: None, steps: None, time: Timestamp(0) };
    json!({ "event": { "progress": { "job": 7, "progress": progress } } })
}

fn server(watched: impl Fn(usize) -> Answers + Send + 'static, end: JobState) -> Fake {
    Fake::start(move |method, _, before| match method {
        "RunConfig" => ok(json!({ "job": 7 })),
        "Watch" => watched(before),
        "GetJob" => ok(json!({ "job": job(end), "progress": null, "waits": null })),
        other => panic!("{other} was not expected"),
    })
}

fn to_the_end(end: JobState) -> impl Fn(usize) -> Answers {
    move |_| vec![more(event(&job(JobState::ClientInProgress))), more(progress()), json!({ "parameters": event(&job(end)) })]
}

#[test]
fn a_job_that_ends_well() {
    let fake = server(to_the_end(JobState::Done), JobState::Done);
    let (code, out, err) = fake.run(&["run", "web1/etc", "--wait"]);
    assert_eq!(code, 0, "{err}");
    assert_eq!(out, "Job 7 done: archive web1-etc-1, 1200 files, 5.00 MB original, 2.00 MB compressed, 999 B new, 5.0 s\n");
    let lines: Vec<&str> = err.lines().collect();
    let figures = "3 files, 1.00 kB original, 500 B compressed, 20 B deduplicated, 100 B/s, etc/x\\u{1b}[2J";
    assert_eq!(lines, ["Job 7 is in the queue.", "job 7 client_in_progress", figures, "job 7 done"]);
    assert_eq!(fake.methods(), ["RunConfig", "Watch", "GetJob"]);
}

#[test]
fn quiet_and_json() {
    let fake = server(to_the_end(JobState::Done), JobState::Done);
    assert_eq!(fake.run(&["run", "web1/etc", "--wait", "--quiet"]), (0, String::new(), String::new()));
    let (code, out, err) = fake.run(&["run", "web1/etc", "--wait", "--json"]);
    assert_eq!((code, err.as_str()), (0, ""));
    let record: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&record["number"], &record["state"]), (&json!(7), &json!("done")));
    let (_, out, _) = fake.run(&["run", "web1/etc", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap(), json!({ "job": 7 }));
}

#[test]
fn failure_and_cancellation_have_exit_codes_of_their_own() {
    let failed = server(to_the_end(JobState::Failed), JobState::Failed);
    let (code, out, err) = failed.run(&["run", "web1/etc", "--wait", "--quiet"]);
    assert_eq!((code, out.as_str()), (10, ""));
    let advice = Cause::PathMissing.advice();
    assert_eq!(err, format!("borgcube: job 7 failed: path-missing: there is no /x\n  {advice}\n  Its log: borgcube job log 7\n"));
    let (code, out, err) = failed.run(&["job", "wait", "7", "--json"]);
    assert_eq!(code, 10);
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["failure"]["cause"]["word"], "path-missing");
    assert_eq!(serde_json::from_str::<Value>(&err).unwrap()["error"]["kind"], "job-failed");
    let cancelled = server(to_the_end(JobState::Cancelled), JobState::Cancelled);
    assert_eq!(cancelled.run(&["run", "web1/etc", "--wait"]).0, 11);
}

/// The server runs it once more by itself; its result is the one that counts.
#[test]
fn a_job_that_is_run_again_is_followed() {
    let mut stale = job(JobState::JobCreated);
    stale.force_state(JobState::Failed, Failure::new(Cause::ViewStale, "a chunk is gone"), Timestamp(5)).unwrap();
    let mut again = job(JobState::Done);
    again.number = 9;
    again.retry_of = Some(7);
    let fake = Fake::start(move |method, parameters, _| {
        let asked = || if parameters["job"] == 7 { stale.clone() } else { again.clone() };
        match method {
            "RunConfig" => ok(json!({ "job": 7 })),
            "Watch" => vec![json!({ "parameters": event(&asked()) })],
            "GetJob" => ok(json!({ "job": asked(), "progress": null, "waits": null })),
            "ListJobs" => {
                let (filter, mut other) = (&parameters["filter"], again.clone());
                assert_eq!((&filter["client"], &filter["label"]), (&json!("web1"), &json!("etc")));
                (other.number, other.retry_of) = (10, None);
                ok(json!({ "jobs": [other, again, stale] }))
            }
            other => panic!("{other} was not expected"),
        }
    });
    let (code, out, err) = fake.run(&["run", "web1/etc", "--wait"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with("Job 9 done: archive web1-etc-1"), "{out}");
    assert!(err.contains("Job 7 failed (view-stale: a chunk is gone) and is run again as job 9."), "{err}");
    let (_, out, _) = fake.run(&["run", "web1/etc", "--wait", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["number"], 9);
    let (_, out, _) = fake.run(&["job", "show", "7"]);
    assert!(out.contains("Retried as:   job 9\n"), "{out}");
    assert!(out.contains("by itself once"), "{out}");
    let (_, out, _) = fake.run(&["job", "show", "9"]);
    assert!(!out.contains("Retried as"), "{out}");
}

#[test]
fn a_daemon_that_is_started_again_is_waited_for() {
    let watched = |before: usize| match before {
        // The first watch breaks off in the middle.
        0..=1 => vec![more(event(&job(JobState::ClientInProgress))), json!("close")],
        _ => to_the_end(JobState::Done)(before),
    };
    let fake = server(watched, JobState::Done);
    let (code, out, err) = fake.run(&["run", "web1/etc", "--wait"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with("Job 7 done"), "{out}");
    assert!(err.contains("went away"), "{err}");
    assert_eq!(fake.methods(), ["RunConfig", "Watch", "Watch", "GetJob"]);
}

/// `borgcube up` takes its socket along.
#[test]
fn a_borgcube_that_is_stopped_is_not_waited_for() {
    let fake = server(|_| vec![more(event(&job(JobState::ClientInProgress))), json!("sleep"), json!("close")], JobState::Done);
    let mut child = fake.command(&["run", "web1/etc", "--wait"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut err = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("client_in_progress") {
        line.clear();
        assert_ne!(err.read_line(&mut line).unwrap(), 0, "it ended too early");
    }
    std::fs::remove_file(fake.state().join("run/control.sock")).unwrap();
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut err, &mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(6));
    assert!(rest.starts_with("borgcube: BorgCube was stopped while job 7 was waited for; the job does not go on\n"), "{rest}");
    assert!(rest.contains("borgcube job show 7"), "{rest}");
}

/// The end was told before the stop.
#[test]
fn the_end_of_a_job_is_known_even_if_borgcube_stops_right_behind_it() {
    let fake = Fake::start(|method, _, _| match method {
        "RunConfig" => ok(json!({ "job": 7 })),
        "Watch" => vec![json!({ "parameters": event(&job(JobState::Cancelled)) })],
        _ => vec![],
    });
    let (code, _, err) = fake.run(&["run", "web1/etc", "--wait"]);
    assert_eq!(code, 11, "{err}");
    assert!(err.contains("ada cancelled it"), "{err}");
}

#[test]
fn ctrl_c_leaves_the_job_alone_and_says_how_to_cancel() {
    // Events without end, so that only Ctrl-C ends it.
    let endless = |_| {
        let mut answers = vec![more(event(&job(JobState::ClientInProgress)))];
        answers.extend(std::iter::repeat_n(json!("sleep"), 200));
        answers
    };
    let fake = server(endless, JobState::Done);
    let mut child = fake.command(&["run", "web1/etc", "--wait"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut err = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("client_in_progress") {
        line.clear();
        assert_ne!(err.read_line(&mut line).unwrap(), 0, "it ended too early");
    }
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut err, &mut rest).unwrap();
    let (code, out, _) = said(&child.wait_with_output().unwrap());
    assert_eq!((code, out.as_str()), (130, ""));
    assert!(rest.contains("borgcube job cancel 7"), "{rest}");
    assert_eq!(fake.methods(), ["RunConfig", "Watch"]);
}

#[test]
fn logs_are_followed_line_by_line() {
    let line = |text: &str| json!({"time": 0, "level": "info", "source": "borg", "message": text});
    let fake = Fake::start(move |_, parameters, _| {
        assert_eq!(parameters, &json!({"job": 7, "follow": true}));
        vec![more(json!({"lines": [line("one"), line("t\two")]})), json!({"parameters": {"lines": [line("three")]}})]
    });
    let (code, out, _) = fake.run(&["job", "log", "7", "-f"]);
    assert_eq!(code, 0);
    assert_eq!(out, "1970-01-01 00:00:00 borg: one\n1970-01-01 00:00:00 borg: t\\two\n1970-01-01 00:00:00 borg: three\n");
    let (_, out, _) = fake.run(&["job", "log", "7", "-f", "--json"]);
    assert_eq!(out.lines().count(), 3);
    assert!(out.lines().all(|l| serde_json::from_str::<Value>(l).is_ok()));
}
