//! Schedules and triggers in a whole system: what is due happens once, and what does not happen is on record with its reason.

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};
use testkit::process;
use testkit::retry::retry_until;
use testkit::system::TestSystem;
use tests::{Tap, assert_failed, job, number, start, text, wait_for_end, wait_for_state};

const SOON: Duration = Duration::from_secs(60);

/// A system with the config `host/all` of one small file.
fn system() -> (TestSystem, PathBuf) {
    let system = TestSystem::start();
    system.add_repository("main", "repokey-blake2", Some("correct horse battery staple"));
    system.add_local_client("host");
    let source = system.join("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("file"), b"content").unwrap();
    system.add_config("host", "all", "main", &[], &[&source]);
    (system, source)
}

/// So many seconds from now, as an RDATE with a DTSTART of its own. A second RDATE an hour later leaves the schedule with something to come.
fn once_in(seconds: i64) -> String {
    let at = model::Timestamp::now().plus_seconds(seconds);
    let stamp = |at: model::Timestamp| at.to_name().replace(['-', ':'], "");
    format!("DTSTART:20260101T000000Z RDATE:{}Z RDATE:{}Z", stamp(at), stamp(at.plus_seconds(7200)))
}

fn history(system: &TestSystem, schedule: &str) -> Vec<Value> {
    system.cli_json(&["schedule", "history", schedule]).as_array().cloned().unwrap_or_default()
}

/// Waits for the newest entry of a schedule's history that fits.
#[track_caller]
fn wait_for_entry(system: &TestSystem, schedule: &str, fits: impl Fn(&Value) -> bool) -> Value {
    let found = retry_until(SOON, || history(system, schedule).into_iter().find(|entry| fits(entry)));
    found.unwrap_or_else(|| panic!("{schedule} has only {:#?}\n{}", history(system, schedule), system.log()))
}

fn jobs(system: &TestSystem) -> Vec<Value> {
    system.cli_json(&["job", "list"]).as_array().cloned().unwrap_or_default()
}

fn is_run(entry: &Value) -> bool {
    entry["outcome"]["kind"] == "run"
}

fn skipped_for<'a>(reason: &'a str) -> impl Fn(&Value) -> bool + 'a {
    move |entry| entry["outcome"]["kind"] == "skip" && entry["outcome"]["reason"] == reason
}

#[test]
fn what_cannot_be_scheduled_is_refused_with_its_reason() {
    let (system, _) = system();
    let add = |at: &str| system.cli_fails(&["schedule", "add", "x", "--at", at, "--run", "host/all"]).1;
    assert!(add("DTSTART:20260101T000000Z RRULE:FREQ=MINUTELY").contains("no finer than hourly"));
    assert!(add("DTSTART:20260101T000000Z RRULE:FREQ=HOURLY;BYMINUTE=0,1").contains("no finer than hourly"));
    assert!(add("DTSTART:20260101T000000 RRULE:FREQ=DAILY").contains("has no time zone"));
    assert!(add("DTSTART:20200101T000000Z RRULE:FREQ=DAILY;COUNT=2").contains("no next run"));
    assert!(add("every now and then").contains("daily 02:30"));
    let missing = system.cli_fails(&["schedule", "add", "x", "--at", "daily 02:30 UTC", "--run", "host/other"]).1;
    assert!(missing.contains("there is no config host/other"), "{missing}");
    assert_eq!(system.cli_json(&["schedule", "list"]), json!([]));
}

#[test]
fn a_schedule_is_shown_changed_and_brought_back() {
    let (system, _) = system();
    system.cli_ok(&["schedule", "add", "nightly", "--at", "daily 02:30 Europe/Berlin", "--run-matching", "ho.*/.*", "--jitter", "60"]);
    let next = system.cli_json(&["schedule", "next", "-n", "20"]);
    assert_eq!(next.as_array().map(Vec::len), Some(20));
    let times: Vec<u64> = next.as_array().unwrap().iter().map(|due| number(due, "time")).collect();
    assert!(times.is_sorted() && times[19] - times[0] >= 18 * 86_400_000_000, "{times:?}");
    let month = system.cli_command(&["schedule", "calendar", "2027-02"]).env("LC_ALL", "C").output().unwrap();
    let month = String::from_utf8(month.stdout).unwrap();
    assert!(month.contains("February 2027") && month.contains(" 28 *1") && month.lines().all(|line| line.len() < 80), "{month}");
    assert!(system.cli_ok(&["schedule", "next", "nightly", "--calendar"]).contains("Mon "));
    let shown = system.cli_ok(&["schedule", "show", "nightly"]);
    assert!(shown.contains("run all configs of clients /ho.*/ with labels /.*/"), "{shown}");
    assert!(system.cli_ok(&["status"]).contains("nightly"), "{}", system.cli_ok(&["status"]));

    system.cli_ok(&["schedule", "edit", "nightly", "--at", "daily 03:30 UTC", "--description", "every night"]);
    assert_eq!(text(&system.cli_json(&["schedule", "show", "nightly"])["recurrence"], "text"), "daily 03:30 UTC");
    // Every change is on record with its author, and can be taken back.
    let log = system.cli_json(&["log"]);
    assert_eq!(text(&log[0], "note"), "change schedule nightly");
    assert!(!text(&log[0], "actor").is_empty());
    system.cli_ok(&["undo", &number(&log[0], "transaction").to_string()]);
    assert_eq!(text(&system.cli_json(&["schedule", "show", "nightly"])["recurrence"], "text"), "daily 02:30 Europe/Berlin");
    system.cli_ok(&["schedule", "remove", "nightly"]);
    let removal = number(&system.cli_json(&["log"])[0], "transaction");
    assert!(system.cli_fails(&["schedule", "show", "nightly"]).1.contains("there is no schedule nightly"));
    system.cli_ok(&["undo", &removal.to_string()]);
    system.cli_ok(&["schedule", "show", "nightly"]);
}

#[test]
fn what_is_due_runs_exactly_once() {
    let (system, _) = system();
    system.cli_ok(&["schedule", "add", "soon", "--at", &once_in(3), "--run", "host/all"]);
    let entry = wait_for_entry(&system, "soon", is_run);
    let done = wait_for_end(&system, entry["outcome"]["jobs"][0].as_u64().unwrap());
    assert_eq!(text(&done, "state"), "done", "{done}");
    assert_eq!((text(&done, "schedule"), text(&done, "origin")), ("soon", "schedule"));
    // Woken again, and twice at once, the scheduler finds nothing more to do.
    for _ in 0..3 {
        run_schedulers(&system, "soon", 2);
    }
    assert_eq!(history(&system, "soon").len(), 1, "{:#?}", history(&system, "soon"));
    assert_eq!(jobs(&system).len(), 1);
}

/// Starts `borgcube-scheduler run` so often at once, as timers do.
fn run_schedulers(system: &TestSystem, schedule: &str, times: usize) -> Vec<Output> {
    let start = |_| {
        let mut command = system.command("borgcube-scheduler");
        command.env("BORGCUBE_STATE", system.state()).env("TRIGGER_UNIT", format!("borgcube-schedule@{schedule}.timer"));
        command.env("INVOCATION_ID", "0123456789abcdef0123456789abcdef");
        command.args(["run", schedule]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let children: Vec<_> = (0..times).map(start).collect();
    let outputs: Vec<Output> = children.into_iter().map(|child| child.wait_with_output().unwrap()).collect();
    for output in &outputs {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    outputs
}

/// The scheduler of `borgcube up` is out of the way; only what the test starts deals with what is due.
fn without_loop(system: &TestSystem) {
    let pid = system.wait_for("borgcube-scheduler", SOON);
    process::signal(pid, Signal::SIGSTOP);
}

#[test]
fn two_schedulers_at_once_make_one_job() {
    let (system, _) = system();
    without_loop(&system);
    system.cli_ok(&["schedule", "add", "soon", "--at", &once_in(2), "--run", "host/all"]);
    std::thread::sleep(Duration::from_millis(2500));
    run_schedulers(&system, "soon", 8);
    assert_eq!(history(&system, "soon").len(), 1);
    assert_eq!(jobs(&system).len(), 1);
    // They woke the queue: nothing else does.
    wait_for_end(&system, 1);
}

#[test]
fn what_was_missed_is_caught_up_once_and_the_rest_is_on_record() {
    let (mut system, _) = system();
    system.cli_ok(&["schedule", "add", "often", "--at", "hourly 07 UTC", "--run", "host/all"]);
    system.cli_ok(&["schedule", "add", "off", "--at", "hourly 07 UTC", "--run", "host/all", "--disabled"]);
    system.cli_ok(&["schedule", "add", "soon", "--at", &once_in(3), "--run", "host/all"]);
    system.down();
    // As if it had been down since five hours ago.
    let store = store::Store::open(system.state().join("db")).unwrap();
    let written = store.write("the test's", "test", |w| {
        for name in ["often", "off"] {
            w.schedules().update(&name.parse().unwrap(), |schedule| {
                schedule.created = model::Timestamp::now().plus_seconds(-5 * 3600);
                schedule.handled = schedule.created;
                Ok(())
            })?;
        }
        Ok(())
    });
    written.unwrap();
    drop(store);
    std::thread::sleep(Duration::from_secs(4));
    system.up();
    let entry = wait_for_entry(&system, "often", is_run);
    assert!(number(&entry, "recorded") > number(&entry, "time"));
    // The same config at the same moment: one of the two schedules gets it, the other one says why not.
    let soon = wait_for_entry(&system, "soon", |_| true);
    wait_for_entry(&system, "off", skipped_for("disabled"));
    let of = |schedule: &str, fits: &dyn Fn(&Value) -> bool| history(&system, schedule).iter().filter(|entry| fits(entry)).count();
    assert_eq!((of("often", &is_run), of("often", &skipped_for("missed"))), (1, 4), "{:#?}", history(&system, "often"));
    assert_eq!((of("off", &is_run), of("off", &skipped_for("disabled"))), (0, 5), "{:#?}", history(&system, "off"));
    assert!(is_run(&soon) || skipped_for("still-running")(&soon), "{soon}");
    assert_eq!(history(&system, "soon").len(), 1);
    for job in jobs(&system) {
        wait_for_end(&system, number(&job, "number"));
    }
}

#[test]
fn a_schedule_that_is_disabled_runs_nothing_until_it_is_enabled() {
    let (system, _) = system();
    system.cli_ok(&["schedule", "add", "soon", "--at", &once_in(3), "--run", "host/all"]);
    assert!(system.cli_ok(&["schedule", "disable", "soon"]).contains("is disabled"));
    assert_eq!(system.cli_json(&["schedule", "next"]), json!([]));
    std::thread::sleep(Duration::from_secs(5));
    // What came and went meanwhile is not caught up, but it is on record.
    system.cli_ok(&["schedule", "enable", "soon"]);
    wait_for_entry(&system, "soon", skipped_for("disabled"));
    assert_eq!((history(&system, "soon").len(), jobs(&system).len()), (1, 0), "{:#?}", history(&system, "soon"));
    assert_eq!(system.cli_json(&["schedule", "next"]).as_array().map(Vec::len), Some(1));
    // By hand it runs at any time.
    let ran = system.cli_json(&["schedule", "run", "soon"]);
    assert_eq!(ran["jobs"], json!([1]));
    assert_eq!(text(&wait_for_end(&system, 1), "state"), "done");
    assert_eq!(history(&system, "soon")[0]["origin"], "manual");
}

#[test]
fn one_schedule_switches_another() {
    let (system, _) = system();
    system.cli_ok(&["schedule", "add", "other", "--at", "daily 02:30 UTC", "--run", "host/all"]);
    system.cli_ok(&["schedule", "add", "switch", "--at", &once_in(2), "--disable", "other"]);
    wait_for_entry(&system, "switch", is_run);
    assert_eq!(system.cli_json(&["schedule", "show", "other"])["enabled"], false);
    let refused = system.cli_fails(&["schedule", "remove", "other"]).1;
    assert!(refused.contains("switch"), "{refused}");
}

#[test]
fn a_thousand_triggers_at_once_queue_each_config_once() {
    let (system, source) = system();
    let tap = Tap::open(&source.join("tap"), 100);
    system.cli_ok(&["config", "edit", "host/all", "--read-special"]);
    let id = text(&system.cli_json(&["trigger", "add", "--config", "host/all", "--comment", "test"]), "id").to_owned();
    let fired: Vec<Value> = call_many(
        &system,
        1000,
        &json!({
            "method": "org.borgcube.Control.FireTrigger", "parameters": {"id": id, "context": "local-cli"}
        }),
    );
    assert_eq!(fired.len(), 1000);
    let with_job = fired.iter().filter(|reply| reply["parameters"]["jobs"].as_array().is_some_and(|jobs| !jobs.is_empty()));
    assert_eq!(with_job.count(), 1);
    // So many at once, and one more every other second; the log tells of the others once.
    let taken = fired.iter().filter(|reply| reply.get("error").is_none()).count();
    assert!((30..200).contains(&taken), "{taken}");
    assert!(fired.iter().all(|reply| reply.get("error").is_none_or(|error| error == "org.borgcube.Control.Conflict")));
    assert!(system.log().matches("is used too often").count() <= 2, "{}", system.log());
    assert_eq!(jobs(&system).len(), 1, "neither a second queued one nor a second running one");
    assert!(number(&system.cli_json(&["trigger", "list"])[0], "last_used") > 0);
    system.cli_ok(&["job", "cancel", "1"]);
    wait_for_end(&system, 1);
    tap.close();
}

/// The same call so often, spread over connections that are all open at once.
fn call_many(system: &TestSystem, times: usize, call: &Value) -> Vec<Value> {
    let socket = system.state().join("run/control.sock");
    let message = [serde_json::to_vec(call).unwrap(), vec![0]].concat();
    let connections = 50;
    let mut streams: Vec<_> = (0..connections).map(|_| std::os::unix::net::UnixStream::connect(&socket).unwrap()).collect();
    for at in 0..times {
        streams[at % connections].write_all(&message).unwrap();
    }
    let mut replies = vec![];
    for stream in streams {
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut bytes = vec![];
        std::io::Read::read_to_end(&mut &stream, &mut bytes).unwrap();
        replies
            .extend(bytes.split(|byte| *byte == 0).filter(|reply| !reply.is_empty()).map(|reply| serde_json::from_slice(reply).unwrap()));
    }
    replies
}

#[test]
fn every_refusal_of_a_trigger_is_in_the_log_with_its_reason() {
    let (system, source) = system();
    system.add_config("host", "gone", "main", &[], &[&source]);
    let add = |words: &[&str]| text(&system.cli_json(&[&["trigger", "add"], words].concat()), "id").to_owned();
    let (web, off, gone) = (
        add(&["--config", "host/all", "--access", "anonymous-web"]),
        add(&["--config", "host/all", "--disabled"]),
        add(&["--config", "host/gone"]),
    );
    system.cli_ok(&["config", "remove", "host/gone"]);
    let unknown = "0".repeat(32);
    let fire = |id: &str| system.cli_fails(&["trigger", "run", id]).1;
    assert!(fire(&unknown).contains("there is no such trigger"));
    assert!(fire(&web).contains("for anonymous-web, not for local-cli"));
    assert!(fire(&off).contains("is disabled"));
    assert!(fire(&gone).contains("does not exist any more"));
    // From the web all of that sounds the same.
    let from_web = |id: &str| {
        let call = json!({"method": "org.borgcube.Control.FireTrigger", "parameters": {"id": id, "context": "anonymous-web"}});
        call_many(&system, 1, &call).remove(0)
    };
    let answers: Vec<Value> = [unknown.as_str(), &off, &gone, "nonsense\u{1b}[2J"].into_iter().map(from_web).collect();
    assert!(answers.iter().all(|answer| *answer == answers[0] && answer["error"] == "org.borgcube.Control.NotFound"), "{answers:?}");
    let log = system.log();
    for (id, reason) in [(&unknown, "no such trigger"), (&web, "for anonymous-web"), (&off, "disabled"), (&gone, "does not exist any more")]
    {
        let told = log.lines().any(|line| line.contains(&id[..8]) && line.contains("refused") && line.contains(reason));
        assert!(told, "{reason} is not in the log:\n{log}");
        assert!(!log.contains(id.as_str()), "a whole id is in the log");
    }
    assert!(!log.contains('\u{1b}'));
    assert_eq!(jobs(&system).len(), 0);
    // And it works where it may.
    assert_eq!(from_web(&web)["parameters"]["jobs"], json!([1]));
    wait_for_end(&system, 1);
    system.cli_ok(&["trigger", "enable", &off[..12]]);
    assert_eq!(system.cli_json(&["trigger", "run", &off])["jobs"], json!([2]));
    system.cli_ok(&["trigger", "remove", &off]);
    wait_for_end(&system, 2);
}

#[test]
fn a_blackout_holds_off_schedules_and_warns_people() {
    let (system, _) = system();
    system.cli_ok(&["client", "edit", "host", "--blackout", "00:00-24:00 UTC"]);
    assert!(system.cli_ok(&["client", "show", "host"]).contains("00:00-24:00 UTC"));
    system.cli_ok(&["schedule", "add", "soon", "--at", &once_in(2), "--run", "host/all"]);
    let entry = wait_for_entry(&system, "soon", skipped_for("blackout"));
    assert_eq!(entry["outcome"]["left_out"][0]["what"], "host/all");
    assert_eq!(jobs(&system).len(), 0);
    let by_hand = system.cli(&["run", "host/all"]);
    let said = String::from_utf8_lossy(&by_hand.stderr);
    assert!(by_hand.status.success() && said.contains("blackout 00:00-24:00 UTC"), "{said}");
    assert_eq!(text(&wait_for_end(&system, 1), "state"), "done");
    system.cli_ok(&["client", "edit", "host", "--no-blackout"]);
    assert!(!system.cli_ok(&["client", "show", "host"]).contains("Blackout"));
}

#[test]
fn an_unreachable_client_is_tried_again_later_and_the_wait_survives_a_restart() {
    let (mut system, source) = system();
    system.cli_ok(&["client", "add", "away", "--remote", "root@127.0.0.1", "--server", "x@127.0.0.1", "--rsh-option=-p", "--rsh-option=1"]);
    system.add_config("away", "all", "main", &[], &[&source]);
    // With --wait a person looks at it himself.
    assert!(!system.run("away/all").status.success());
    assert_eq!(jobs(&system).len(), 1);

    let first = start(&system, "away/all");
    assert_failed(&wait_for_end(&system, first), "client-connection-failed");
    let again = system.cli_json(&["job", "show", &first.to_string()])["retried_as"].as_u64().expect("it is tried again");
    let waits = |system: &TestSystem| system.cli_json(&["job", "show", &again.to_string()])["waits"].as_str().map(str::to_owned);
    let why = waits(&system).expect("it says what it waits for");
    assert!(why.starts_with("waits until 20") && why.ends_with("(attempt 2 of 6)"), "{why}");
    assert!(system.cli_ok(&["job", "list"]).contains(&why), "the list tells it as well");
    let until = number(&job(&system, again), "not_before");
    system.down();
    system.up();
    assert_eq!(waits(&system), Some(why));
    assert_eq!((number(&job(&system, again), "not_before"), text(&job(&system, again), "state")), (until, "job_created"));

    // Who does not want to wait runs it by hand: the same job, now.
    assert_eq!(start(&system, "away/all"), again);
    assert_failed(&wait_for_end(&system, again), "client-connection-failed");
    let third = system.cli_json(&["job", "show", &again.to_string()])["retried_as"].as_u64().expect("it is tried again");
    assert!(text(&system.cli_json(&["job", "show", &third.to_string()]), "waits").ends_with("(attempt 3 of 6)"));
    // Who waits for it asks for no further tries, and is told what runs.
    let run = system.run("away/all");
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(
        !run.status.success()
            && said.contains(&format!("job {third}, attempt 3, was waiting already; it runs now, and is not tried again")),
        "{said}"
    );
    assert!(system.cli_json(&["job", "show", &third.to_string()])["retried_as"].is_null());
    // And it is cancelled like any other.
    let next = start(&system, "away/all");
    assert_failed(&wait_for_end(&system, next), "client-connection-failed");
    let third = system.cli_json(&["job", "show", &next.to_string()])["retried_as"].as_u64().expect("it is tried again");
    assert!(system.cli_ok(&["job", "cancel", &third.to_string()]).contains("is cancelled"));
    let began = Instant::now();
    assert_eq!(text(&wait_for_end(&system, third), "state"), "cancelled");
    assert!(began.elapsed() < SOON);
    assert!(system.cli_json(&["job", "show", &third.to_string()])["retried_as"].is_null());
}

#[test]
fn a_cancellation_under_way_shows_in_the_list() {
    let (system, source) = system();
    let tap = Tap::open(&source.join("tap"), 100);
    system.cli_ok(&["config", "edit", "host/all", "--read-special"]);
    let running = start(&system, "host/all");
    wait_for_state(&system, running, "client_in_progress");
    let queued = start(&system, "host/all");
    let list = || system.cli_json(&["job", "list"]);
    assert_eq!(text(&list()[0], "waits"), format!("waits for job {running} of the same config"));
    // A stopped worker cannot hurry.
    let worker = system.wait_for("borgcube-worker", SOON);
    process::signal(worker, Signal::SIGSTOP);
    system.cli_ok(&["job", "cancel", &running.to_string()]);
    assert!(!text(&list()[1], "cancelled_by").is_empty());
    assert!(system.cli_ok(&["job", "list"]).contains("being cancelled by"));
    assert!(system.cli_ok(&["job", "show", &running.to_string()]).contains("Cancellation:"));
    process::signal(worker, Signal::SIGCONT);
    tap.close();
    system.cli_ok(&["job", "cancel", &queued.to_string()]);
    wait_for_end(&system, running);
}

#[test]
fn the_status_tells_who_has_a_repository() {
    let (system, _) = system();
    let (program, state) = (testkit::system::programs().join("borgcube"), system.state());
    let (program, state) = (program.to_str().unwrap(), state.to_str().unwrap());
    let seen = system.cli_ok(&["repository", "release", "main", "--", program, "--state", state, "status"]);
    assert!(seen.contains("repository main is lent to another borg since"), "{seen}");
    assert!(!system.cli_ok(&["status"]).contains("lent"));
}
