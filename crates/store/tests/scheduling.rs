//! What is due becomes jobs and history, once.
#![allow(clippy::unwrap_used, reason = "tests, their helper functions included")]

mod common;

use common::{config, config_name, store, verify};
use model::cause::{Cause, Failure};
use model::trigger::{AccessContext, TriggerRefusal, TriggerTarget};
use model::{Action, Client, JobState, Occurrence, Origin, Outcome, Recurrence, Schedule, SkipReason, Timestamp, Trigger};
use store::{Error, OccurrenceFilter, Store};

fn moment(text: &str) -> Timestamp {
    Timestamp(text.parse::<jiff::Timestamp>().unwrap().as_microsecond())
}

fn schedule(name: &str, rule: &str, created: &str, actions: Vec<Action>) -> Schedule {
    let created = moment(created);
    let recurrence = Recurrence::parse(rule, "Europe/Berlin", created).unwrap();
    Schedule { name: name.parse().unwrap(), recurrence, actions, handled: created, created, ..common::schedule("x") }
}

fn matching(client: &str, label: &str) -> Action {
    Action::RunConfigs { client: client.into(), label: label.into() }
}

fn run(config: &str) -> Action {
    Action::RunConfig { config: config_name(config) }
}

/// A store with three configs of two clients and the schedules.
fn world(schedules: &[Schedule]) -> (tempfile::TempDir, Store) {
    let (dir, store) = store();
    store
        .write("set up", "root", |w| {
            for client in ["web1", "web2"] {
                w.clients().insert(&common::client(client))?;
            }
            for name in ["web1/etc", "web1/home", "web2/etc"] {
                w.configs().insert(&config(name, "main"))?;
            }
            schedules.iter().try_for_each(|s| w.add_schedule(s, s.created))
        })
        .unwrap();
    (dir, store)
}

fn due(store: &Store, name: &str, now: &str) -> Option<Occurrence> {
    let (name, now) = (name.parse().unwrap(), moment(now));
    store.write_at(now, "due", "scheduler", |w| w.run_due(&name, now, "scheduler")).unwrap().0
}

fn history(store: &Store, name: &str) -> Vec<(String, String)> {
    let filter = OccurrenceFilter { schedule: Some(name.parse().unwrap()), ..OccurrenceFilter::default() };
    let mut page = store.read(|r| r.occurrences().page(&filter, 1000)).unwrap();
    page.reverse();
    page.iter().map(|o| (o.time.to_rfc3339(), o.skipped().map_or("run".to_owned(), |reason| reason.to_string()))).collect()
}

fn lines<const N: usize>(lines: [(&str, &str); N]) -> Vec<(String, String)> {
    lines.iter().map(|(time, what)| ((*time).to_owned(), (*what).to_owned())).collect()
}

fn end_all_jobs(store: &Store) {
    store
        .write("end", "root", |w| {
            for job in w.jobs().view().list()?.iter().filter(|job| !job.state.is_final()) {
                w.jobs().force_state(job.number, JobState::Failed, Failure::new(Cause::Internal, "x"), Timestamp(0))?;
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn what_is_due_becomes_jobs_once() {
    let (_dir, store) = world(&[schedule("nightly", "daily 02:30", "2026-11-01T12:00:00Z", vec![matching("web.*", ".*")])]);
    assert_eq!(due(&store, "nightly", "2026-11-02T01:00:00Z"), None);
    let entry = due(&store, "nightly", "2026-11-02T01:30:05Z").unwrap();
    assert_eq!(entry.jobs().len(), 3);
    assert_eq!((entry.origin, entry.count), (Origin::Schedule, 1));
    let jobs = store.read(|r| r.jobs().list()).unwrap();
    assert_eq!(jobs.len(), 3);
    for job in &jobs {
        assert_eq!(job.schedule, Some("nightly".parse().unwrap()));
        assert!(job.origin == Origin::Schedule && job.retry);
    }
    assert_eq!(due(&store, "nightly", "2026-11-02T01:30:05Z"), None);
    assert_eq!(history(&store, "nightly"), lines([("2026-11-02T01:30:00Z", "run")]));
    verify(&store);
}

#[test]
fn a_config_that_is_queued_or_running_is_not_queued_again() {
    let nightly = schedule("nightly", "daily 02:30", "2026-11-01T12:00:00Z", vec![run("web1/etc"), run("web2/etc"), run("web1/etc")]);
    let (_dir, store) = world(&[nightly]);
    let first = due(&store, "nightly", "2026-11-02T01:30:00Z").unwrap();
    assert_eq!(first.jobs().len(), 2, "one config twice is one job");
    let numbers = first.jobs().to_vec();
    store
        .write("end", "root", |w| w.jobs().force_state(numbers[1], JobState::Failed, Failure::new(Cause::Internal, "x"), Timestamp(0)))
        .unwrap();
    let second = due(&store, "nightly", "2026-11-03T01:30:00Z").unwrap();
    let Outcome::Run { jobs, left_out, .. } = &second.outcome else { panic!("{second:?}") };
    assert_eq!(jobs.len(), 1);
    assert_eq!((left_out[0].what.as_str(), left_out[0].reason, left_out[0].job), ("web1/etc", SkipReason::StillRunning, Some(numbers[0])));
    let third = due(&store, "nightly", "2026-11-04T01:30:00Z").unwrap();
    assert_eq!(third.skipped(), Some(SkipReason::StillRunning));
    assert_eq!(store.read(|r| r.jobs().count()).unwrap(), 3);
    verify(&store);
}

#[test]
fn what_was_told_before_is_no_news() {
    let mut nightly = schedule("nightly", "daily 02:30", "2026-11-01T12:00:00Z", vec![run("web1/etc")]);
    nightly.enabled = false;
    let (_dir, store) = world(&[nightly]);
    // By hand, and later than what is recorded behind it.
    let (name, now) = ("nightly".parse().unwrap(), moment("2026-11-02T08:00:00Z"));
    store.write_at(now, "by hand", "ada", |w| w.run_by_hand(&name, now, "ada")).unwrap();
    let entry = due(&store, "nightly", "2026-11-02T09:00:00Z").unwrap();
    assert_eq!((entry.skipped(), entry.time), (Some(SkipReason::Disabled), moment("2026-11-02T01:30:00Z")));
    assert_eq!(due(&store, "nightly", "2026-11-02T09:00:01Z"), None);
}

#[test]
fn machines_that_were_off_are_caught_up_once() {
    let (_dir, store) = world(&[schedule("nightly", "daily 02:30", "2026-11-01T12:00:00Z", vec![run("web1/etc")])]);
    assert_eq!(due(&store, "nightly", "2026-11-04T08:00:00Z").unwrap().jobs().len(), 1);
    let expected = lines([("2026-11-02T01:30:00Z", "missed"), ("2026-11-03T01:30:00Z", "missed"), ("2026-11-04T01:30:00Z", "run")]);
    assert_eq!(history(&store, "nightly"), expected);
    assert_eq!(due(&store, "nightly", "2026-11-04T08:00:01Z"), None);
}

#[test]
fn a_blackout_skips_its_client_only_and_no_run_by_hand() {
    let nightly = schedule("nightly", "daily 09:00", "2026-11-01T12:00:00Z", vec![matching(".*", "etc")]);
    let (_dir, store) = world(&[nightly]);
    store
        .write("blackout", "root", |w| {
            let blackouts = vec!["mon-fri 08:00-18:00 Europe/Berlin".parse().unwrap()];
            w.clients().put(&Client { blackouts, ..common::client("web1") })
        })
        .unwrap();
    let monday = due(&store, "nightly", "2026-11-02T08:00:00Z").unwrap();
    let Outcome::Run { jobs, left_out, .. } = &monday.outcome else { panic!("{monday:?}") };
    assert_eq!(jobs.len(), 1);
    assert_eq!((left_out[0].what.as_str(), left_out[0].reason), ("web1/etc", SkipReason::Blackout));
    let now = moment("2026-11-02T08:30:00Z");
    let name = "nightly".parse().unwrap();
    let (ran, _) = store.write("by hand", "root", |w| w.run_by_hand(&name, now, "root")).unwrap();
    assert_eq!(ran.jobs.len(), 1, "web2's still runs");
    let job = store.read(|r| r.jobs().require(&ran.jobs[0])).unwrap();
    assert_eq!((job.client().unwrap().as_str(), job.origin, job.retry), ("web1", Origin::Manual, false));
    end_all_jobs(&store);
    let sunday = due(&store, "nightly", "2026-11-08T08:00:00Z").unwrap();
    assert_eq!(sunday.jobs().len(), 2);
}

#[test]
fn a_run_by_hand_does_not_change_what_is_due() {
    let off = Schedule { enabled: false, ..schedule("nightly", "daily 02:30", "2026-11-01T12:00:00Z", vec![run("web1/etc")]) };
    let (_dir, store) = world(&[off]);
    let (name, now) = ("nightly".parse().unwrap(), moment("2026-11-01T14:00:00Z"));
    let (ran, _) = store.write("by hand", "ada", |w| w.run_by_hand(&name, now, "ada")).unwrap();
    assert_eq!(ran.jobs.len(), 1);
    let last = store.read(|r| r.occurrences().last(&name)).unwrap().unwrap();
    assert_eq!((last.origin, last.count, last.actor.as_str()), (Origin::Manual, 0, "ada"));
    assert_eq!(due(&store, "nightly", "2026-11-02T08:00:00Z").unwrap().skipped(), Some(SkipReason::Disabled));
}

#[test]
fn a_clock_that_was_ahead_loses_nothing_and_repeats_nothing() {
    let (_dir, store) = world(&[schedule("nightly", "daily 02:30 UTC", "2026-11-01T12:00:00Z", vec![run("web1/etc")])]);
    // Two days ahead by mistake: the 3rd is run, the 2nd recorded as missed.
    assert_eq!(due(&store, "nightly", "2026-11-03T12:30:00Z").unwrap().jobs().len(), 1);
    assert_eq!(history(&store, "nightly"), lines([("2026-11-02T02:30:00Z", "missed"), ("2026-11-03T02:30:00Z", "run")]));
    end_all_jobs(&store);
    // Put right: the 2nd has not come yet, so it was not missed.
    let note = due(&store, "nightly", "2026-11-01T12:40:00Z").unwrap();
    assert_eq!((note.skipped(), note.count), (Some(SkipReason::ClockWentBack), 0));
    assert_eq!(due(&store, "nightly", "2026-11-02T02:30:00Z").unwrap().jobs().len(), 1);
    end_all_jobs(&store);
    assert_eq!(due(&store, "nightly", "2026-11-03T02:30:00Z"), None, "it has run");
    assert_eq!(due(&store, "nightly", "2026-11-04T02:30:00Z").unwrap().jobs().len(), 1);
    let expected = lines([
        ("2026-11-03T02:30:00Z", "run"),
        ("2026-11-01T12:40:00Z", "clock-went-back"),
        ("2026-11-02T02:30:00Z", "run"),
        ("2026-11-04T02:30:00Z", "run"),
    ]);
    assert_eq!(history(&store, "nightly"), expected);
    verify(&store);
}

#[test]
fn schedules_switch_others_and_nobody_catches_up() {
    let created = "2026-11-01T12:00:00Z";
    let weekend = "weekend".parse::<model::ScheduleName>().unwrap();
    let on = schedule("on", "daily 10:00 UTC", created, vec![Action::EnableSchedule { schedule: weekend.clone() }]);
    let off = Schedule { enabled: false, ..schedule("weekend", "daily 02:30 UTC", created, vec![run("web1/etc")]) };
    let (_dir, store) = world(&[on, off]);
    let entry = due(&store, "on", "2026-11-03T10:00:00Z").unwrap();
    let Outcome::Run { done, .. } = &entry.outcome else { panic!("{entry:?}") };
    assert_eq!(done, &["schedule weekend enabled"]);
    assert_eq!(history(&store, "weekend"), lines([("2026-11-02T02:30:00Z", "disabled"), ("2026-11-03T02:30:00Z", "disabled")]));
    assert_eq!(due(&store, "weekend", "2026-11-03T10:00:01Z"), None);
    assert_eq!(due(&store, "weekend", "2026-11-04T02:30:00Z").unwrap().jobs().len(), 1);
    let again = due(&store, "on", "2026-11-04T10:00:00Z").unwrap();
    let Outcome::Run { done, .. } = &again.outcome else { panic!("{again:?}") };
    assert_eq!(done, &["schedule weekend was enabled already"]);
    let error = store.write("remove", "root", |w| w.remove_schedule(&weekend)).unwrap_err();
    assert!(error.to_string().contains("schedule on enables or disables weekend"), "{error}");
}

#[test]
fn another_recurrence_settles_what_was_due_by_the_old_one() {
    let old = schedule("nightly", "daily 02:30 UTC", "2026-11-01T12:00:00Z", vec![run("web1/etc")]);
    let (_dir, store) = world(std::slice::from_ref(&old));
    let now = moment("2026-11-03T12:00:00Z");
    let new = Schedule { recurrence: Recurrence::parse("daily 11:00 UTC", "UTC", old.created).unwrap(), ..old.clone() };
    store.write_at(now, "edit", "root", |w| w.update_schedule(&old, &new, now, "root")).unwrap();
    assert_eq!(history(&store, "nightly"), lines([("2026-11-02T02:30:00Z", "missed"), ("2026-11-03T02:30:00Z", "rule-changed")]));
    assert_eq!(due(&store, "nightly", "2026-11-03T12:00:01Z"), None, "11:00 was before it was asked for");
    assert!(due(&store, "nightly", "2026-11-04T11:00:00Z").is_some());
    // Somebody who read it before sees that it was changed, but not that it ran.
    let stale = store.write_at(now, "edit", "root", |w| w.update_schedule(&old, &old, now, "root")).unwrap_err();
    assert!(matches!(stale, Error::Conflict { .. }), "{stale}");
    let off = Schedule { enabled: false, ..new.clone() };
    store.write_at(now, "edit", "root", |w| w.update_schedule(&new, &off, now, "root")).unwrap();
}

#[test]
fn what_cannot_be_done_is_refused_at_entry() {
    let (_dir, store) = world(&[]);
    let now = moment("2026-11-01T12:00:00Z");
    let none = schedule("x", "daily 02:30", "2026-11-01T12:00:00Z", vec![]);
    assert!(store.write("add", "root", |w| w.add_schedule(&none, now)).unwrap_err().to_string().contains("at least one action"));
    let good = schedule("x", "daily 02:30", "2026-11-01T12:00:00Z", vec![run("web1/etc")]);
    store.write("add", "root", |w| w.add_schedule(&good, now)).unwrap();
    assert!(matches!(store.write("add", "root", |w| w.add_schedule(&good, now)).unwrap_err(), Error::Exists(_)));
    let renamed = Schedule { name: "y".parse().unwrap(), ..good.clone() };
    assert!(store.write("edit", "root", |w| w.update_schedule(&good, &renamed, now, "root")).unwrap_err().to_string().contains("renamed"));
}

#[test]
fn what_names_nothing_is_recorded() {
    let actions = vec![run("gone/etc"), matching("nobody", ".*")];
    let (_dir, store) = world(&[schedule("nightly", "daily 02:30 UTC", "2026-11-01T12:00:00Z", actions)]);
    let entry = due(&store, "nightly", "2026-11-02T02:30:00Z").unwrap();
    let Outcome::Skip { reason, left_out } = &entry.outcome else { panic!("{entry:?}") };
    assert_eq!((*reason, left_out.len()), (SkipReason::NothingToRun, 2));
}

#[test]
fn triggers_start_what_they_may_and_no_more() {
    let created = "2026-11-01T12:00:00Z";
    let (_dir, store) = world(&[schedule("nightly", "daily 02:30 UTC", created, vec![run("web1/etc")])]);
    let now = moment("2026-11-01T13:00:00Z");
    let web = Trigger { last_used: None, target: TriggerTarget::Schedule { schedule: "nightly".parse().unwrap() }, ..common::trigger() };
    let fire = |context| store.write_at(now, "trigger", "web", |w| w.fire_trigger(&web.id, context, now)).unwrap();
    assert_eq!(fire(AccessContext::AnonymousWeb).0, Err(TriggerRefusal::Unknown));
    store.write("add", "root", |w| w.add_trigger(&web)).unwrap();
    assert!(matches!(fire(AccessContext::LocalCli).0, Err(TriggerRefusal::Context { .. })));
    let (fired, number) = fire(AccessContext::AnonymousWeb);
    assert_eq!(fired.unwrap().jobs.len(), 1);
    assert_ne!(number, store::TransactionNumber::NONE);
    // A thousand more leave no trace: the job waits still.
    for _ in 0..1000 {
        let (fired, number) = fire(AccessContext::AnonymousWeb);
        assert_eq!(fired.unwrap().skipped(), Some(SkipReason::StillRunning));
        assert_eq!(number, store::TransactionNumber::NONE);
    }
    assert_eq!(store.read(|r| r.jobs().count()).unwrap(), 1);
    assert_eq!(store.read(|r| r.occurrences().count()).unwrap(), 1);
    assert_eq!(store.read(|r| r.triggers().require(&web.id)).unwrap().last_used, Some(now));
    let log = store.read(|r| r.log().get(number)).unwrap();
    assert!(
        !format!("{:?}", log.changes.iter().map(|c| &c.record).collect::<Vec<_>>()).contains(web.id.as_str()),
        "whole ids stay out of sentences"
    );
    store.write("off", "root", |w| w.update_trigger(&Trigger { enabled: false, ..web.clone() })).unwrap();
    assert_eq!(fire(AccessContext::AnonymousWeb).0, Err(TriggerRefusal::Disabled));
    let error = store.write("remove", "root", |w| w.remove_schedule(&"nightly".parse().unwrap())).unwrap_err();
    assert!(error.to_string().contains("trigger"), "{error}");
    verify(&store);
}

#[test]
fn history_is_kept_within_bounds() {
    let created = "2026-11-01T12:00:00Z";
    let (_dir, store) = world(&[schedule("hourly", "hourly UTC", created, vec![run("gone/etc")])]);
    store
        .write("many", "root", |w| {
            let mut now = moment(created);
            for _ in 0..5100 {
                now = now.plus_seconds(3600);
                w.run_due(&"hourly".parse().unwrap(), now, "scheduler")?;
            }
            Ok(())
        })
        .unwrap();
    let kept = store.read(|r| r.occurrences().count()).unwrap();
    assert!((5000..5016).contains(&kept), "{kept}");
    verify(&store);
}

#[test]
fn a_repository_is_looked_after_once_at_a_time() {
    let main = || "main".parse().unwrap();
    let actions = vec![
        Action::Compact { repository: main() },
        Action::Check { repository: main(), verify_data: true },
        Action::Compact { repository: main() },
    ];
    let gone = vec![Action::Compact { repository: "gone".parse().unwrap() }];
    let (_dir, store) = world(&[
        schedule("upkeep", "daily 02:00", "2026-01-01T00:00:00Z", actions),
        schedule("gone", "daily 02:00", "2026-01-01T00:00:00Z", gone),
    ]);
    store.write("a repository", "root", |w| w.repositories().insert(&common::repository("main"))).unwrap();
    let Outcome::Run { jobs, left_out, .. } = due(&store, "upkeep", "2026-01-02T02:00:00Z").unwrap().outcome else { panic!("a run") };
    assert!(left_out.is_empty(), "{left_out:?}");
    let made = store.read(|r| jobs.iter().map(|number| r.jobs().require(number)).collect::<store::Result<Vec<_>>>()).unwrap();
    assert_eq!(made.iter().map(|job| job.subject()).collect::<Vec<_>>(), ["compact of main", "check of main"]);
    assert!(made.iter().all(|job| job.retry && job.origin == Origin::Schedule));
    // The next day, while the first ones still wait.
    let Outcome::Skip { reason, left_out } = due(&store, "upkeep", "2026-01-03T02:00:00Z").unwrap().outcome else { panic!("a skip") };
    assert_eq!((reason, left_out.len(), left_out[0].job), (SkipReason::StillRunning, 3, Some(jobs[0])));
    assert_eq!(due(&store, "gone", "2026-01-03T02:00:00Z").unwrap().skipped(), Some(SkipReason::NothingToRun));
}

#[test]
fn prunes_are_one_for_each_repository_and_policy() {
    let prune = |repository: Option<&str>, policy: Option<&str>| Action::Prune {
        repository: repository.map(|name| name.parse().unwrap()),
        policy: policy.map(|name| name.parse().unwrap()),
        clients: None,
        labels: None,
    };
    let actions = vec![prune(None, None), prune(Some("main"), Some("short")), prune(Some("main"), None)];
    let (_dir, store) = world(&[schedule("tidy", "daily 02:00", "2026-01-01T00:00:00Z", actions)]);
    let repositories = |w: &mut store::Write<'_>| {
        let other = model::Repository { repository_id: "cd".repeat(32), ..common::repository("other") };
        w.repositories().insert(&common::repository("main")).and_then(|()| w.repositories().insert(&other))
    };
    store.write("repositories", "root", repositories).unwrap();
    let Outcome::Run { jobs, left_out, .. } = due(&store, "tidy", "2026-01-02T02:00:00Z").unwrap().outcome else { panic!("a run") };
    assert!(left_out.is_empty(), "{left_out:?}");
    let made = store.read(|r| jobs.iter().map(|number| r.jobs().require(number)).collect::<store::Result<Vec<_>>>()).unwrap();
    assert_eq!(made.iter().map(|job| job.subject()).collect::<Vec<_>>(), ["prune of main", "prune of other", "prune of main"]);
    let Outcome::Skip { reason, .. } = due(&store, "tidy", "2026-01-03T02:00:00Z").unwrap().outcome else { panic!("a skip") };
    assert_eq!(reason, SkipReason::StillRunning);
}
