//! Events and logs while they happen.

use crate::harness::{Caller, Daemon};
use model::queue::Limits;
use model::{JobState, Timestamp};
use serde_json::{Value, json};
use wire::control::{ErrorKind, Event, JobLog};

/// Job states until the stream ends or `last` is seen; progress is counted.
fn follow(caller: &mut Caller, last: Option<(u64, JobState)>) -> (Vec<(u64, JobState)>, usize) {
    let (mut states, mut progress) = (vec![], 0);
    loop {
        let (event, more) = caller.event();
        match event {
            Event::Job(job) => {
                states.push((job.number, job.state));
                if !more || last == Some((job.number, job.state)) {
                    return (states, progress);
                }
            }
            Event::Progress { .. } => progress += 1,
            Event::Repository(_) | Event::RepositoryRemoved(_) | Event::SchedulesChanged | Event::UsersChanged => {}
        }
    }
}

#[test]
fn two_watchers_see_the_same_job() {
    let daemon = Daemon::start();
    daemon.with(&[("a/x", "talk")]);
    let (mut all, mut one) = (daemon.connect(), daemon.connect());
    all.send("Watch", json!({}), true);
    let job = daemon.run("a/x");
    one.send("Watch", json!({ "job": job }), true);
    let (first, more) = one.event();
    assert!(more && matches!(first, Event::Job(j) if j.number == job));
    daemon.go(job);
    let (mut seen, progress) = follow(&mut one, None);
    assert_eq!(seen.last(), Some(&(job, JobState::Done)));
    assert!(progress >= 3, "{progress}");
    // Everybody sees every state once and in order; the one who came later sees the rest.
    let (everything, progress) = follow(&mut all, Some((job, JobState::Done)));
    let expected: Vec<_> = [&JobState::ALL[..6], &[JobState::Done]].concat().iter().map(|state| (job, *state)).collect();
    assert_eq!(everything, expected);
    assert!(progress >= 3);
    seen.dedup();
    assert!(expected.ends_with(&seen), "{seen:?}");
    // The connection of the ended stream takes further calls.
    assert!(one.call::<Value>("GetStatus", json!({})).is_ok());
    // A job that has ended is one event.
    one.send("Watch", json!({ "job": job }), true);
    let (event, more) = one.event();
    assert!(!more && matches!(event, Event::Job(j) if j.state == JobState::Done));
}

#[test]
fn a_job_that_the_scheduler_has_queued_before_ours_is_an_event_too() {
    let daemon = Daemon::start();
    daemon.with(&[("a/x", "hold"), ("a/y", "talk"), ("a/z", "talk")]);
    daemon.limits(Limits { per_client: 1, per_repository: 1, total: 1 });
    let first = daemon.run("a/x");
    daemon.reaches(first, JobState::ClientInProgress);
    let store = store::Store::open(unix::paths::Layout::new(&daemon.state).db()).unwrap();
    let create =
        |number| model::Job::backup(number, &"a/y".parse().unwrap(), "main".parse().unwrap(), "schedule:nightly", Timestamp::now());
    let (theirs, _) = store.write("queue", "scheduler", |w| w.jobs().create(create)).unwrap();
    let ours = daemon.run("a/z");
    assert!(ours > theirs.number);
    let mut watcher = daemon.connect();
    watcher.send("Watch", json!({}), true);
    daemon.ok("Wake", json!({}));
    assert!(matches!(watcher.event().0, Event::Job(job) if job.number == theirs.number));
    // Once is enough.
    daemon.ok("Wake", json!({}));
    daemon.go(first);
    assert!(matches!(watcher.event().0, Event::Job(job) if job.number == first));
}

#[test]
fn repositories_are_events() {
    let daemon = Daemon::start();
    let mut watcher = daemon.connect();
    watcher.send("Watch", json!({}), true);
    // Its call is carried out before the next one on another connection is accepted.
    assert!(daemon.call::<Value>("GetStatus", json!({})).is_ok());
    daemon.repository("main");
    assert!(matches!(watcher.event().0, Event::Repository(r) if r.name.as_str() == "main"));
    daemon.ok("RemoveRepository", json!({"name": "main"}));
    assert!(matches!(watcher.event().0, Event::RepositoryRemoved(name) if name.as_str() == "main"));
    daemon.ok("Undo", json!({"transaction": daemon.ok("GetLog", json!({"limit": 1}))["entries"][0]["transaction"]}));
    assert!(matches!(watcher.event().0, Event::Repository(r) if r.name.as_str() == "main"));
}

#[test]
fn users_of_the_status_pages_are_events() {
    let daemon = Daemon::start();
    let mut watcher = daemon.connect();
    watcher.send("Watch", json!({}), true);
    assert!(daemon.call::<Value>("GetStatus", json!({})).is_ok());
    let mut told = || assert!(matches!(watcher.event().0, Event::UsersChanged));
    daemon.ok("AddWebUser", json!({"name": "alice", "role": "operator", "sign_in": "token"}));
    told();
    let alice = daemon.ok("ListWebUsers", json!({}))["users"][0].clone();
    let mut disabled = alice.clone();
    disabled["enabled"] = json!(false);
    daemon.ok("UpdateWebUser", json!({"previous": alice, "user": disabled}));
    told();
    daemon.ok("Undo", json!({"transaction": daemon.ok("GetLog", json!({"limit": 1}))["entries"][0]["transaction"]}));
    told();
    daemon.ok("RenewWebToken", json!({"name": "alice"}));
    told();
    daemon.ok("RemoveWebUser", json!({"name": "alice"}));
    told();
    let settings = daemon.ok("GetSettings", json!({}))["settings"].clone();
    let mut changed = settings.clone();
    changed["web"] = json!({"proxy": true});
    daemon.ok("UpdateSettings", json!({"previous": settings, "settings": changed}));
    told();
}

fn lines(reply: wire::control::Reply) -> (Vec<String>, bool) {
    assert_eq!(reply.error, None, "{reply:?}");
    let log: JobLog = serde_json::from_value(reply.parameters).unwrap();
    (log.lines.into_iter().map(|line| line.message).collect(), reply.continues)
}

#[test]
fn a_log_is_followed_from_the_queue_to_the_end() {
    let daemon = Daemon::start();
    daemon.with(&[("a/x", "hold"), ("a/y", "talk")]);
    let (x, y) = (daemon.run("a/x"), daemon.run("a/y"));
    daemon.go(y);
    let mut reader = daemon.connect();
    reader.send("GetJobLog", json!({"job": y, "follow": true}), true);
    daemon.go(x);
    let mut seen = vec![];
    loop {
        let (more_lines, more) = lines(reader.reply());
        seen.extend(more_lines);
        if !more {
            break;
        }
    }
    assert_eq!(seen, (0..5).map(|n| format!("talk {n}")).collect::<Vec<_>>());
    assert_eq!(daemon.job(y).state, JobState::Done);
}

#[test]
fn a_long_log_comes_in_pieces() {
    let daemon = Daemon::start();
    daemon.with(&[("a/x", "flood")]);
    let job = daemon.run("a/x");
    daemon.reaches(job, JobState::Done);
    let mut reader = daemon.connect();
    // In one reply it does not fit.
    reader.send("GetJobLog", json!({"job": job}), false);
    assert_eq!(reader.reply().error.as_deref(), Some("org.varlink.service.ExpectedMore"));
    reader.send("GetJobLog", json!({"job": job}), true);
    let (mut seen, mut replies) = (vec![], 0);
    loop {
        let (more_lines, more) = lines(reader.reply());
        assert!(more_lines.len() <= 1000);
        seen.extend(more_lines);
        replies += 1;
        if !more {
            break;
        }
    }
    assert_eq!(seen.len(), 10_000);
    for (n, line) in seen.iter().enumerate() {
        assert!(line.starts_with(&format!("{n} ")), "{n}: {line}");
    }
    assert!(replies > 10);
}

#[test]
fn a_watcher_that_sleeps_stops_nobody() {
    let daemon = Daemon::start();
    daemon.with(&[("a/x", "flood")]);
    // Neither reads a byte of the answers.
    let (mut sleeper, mut reader) = (daemon.connect(), daemon.connect());
    sleeper.send("Watch", json!({}), true);
    let job = daemon.run("a/x");
    reader.send("GetJobLog", json!({"job": job, "follow": true}), true);
    daemon.reaches(job, JobState::Done);
    for _ in 0..100 {
        sleeper.send("GetStatus", json!({}), false);
    }
    assert_eq!(daemon.fails("GetJobLog", json!({"job": 99})).0, ErrorKind::NotFound);
}
