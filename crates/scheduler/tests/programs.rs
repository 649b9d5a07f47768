//! The programs themselves, on a database of their own.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests, their helper functions included")]

use model::trigger::{AccessContext, TriggerTarget};
use model::{
    Action, BackupConfig, Client, Connection, JobState, Occurrence, Recurrence, Schedule, SkipReason, Timestamp, Trigger, TriggerId,
};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use store::{OccurrenceFilter, Store};
use unix::paths::Layout;

const DAY: i64 = 86_400;

struct World {
    _dir: tempfile::TempDir,
    layout: Layout,
    state: PathBuf,
}

fn config(client: &str) -> BackupConfig {
    BackupConfig {
        client: client.parse().unwrap(),
        label: "etc".parse().unwrap(),
        repository: "main".parse().unwrap(),
        paths: vec!["/etc".into()],
        excludes: vec![],
        patterns: vec![],
        one_file_system: false,
        compression: None,
        checkpoint_interval: None,
        read_special: false,
        ignore_inode: false,
        extra_options: vec![],
        target_age_hours: 26,
        commands: Default::default(),
        created: Timestamp(0),
    }
}

fn schedule(name: &str, recurrence: Recurrence) -> Schedule {
    Schedule {
        name: name.parse().unwrap(),
        description: String::new(),
        recurrence,
        enabled: true,
        actions: vec![Action::RunConfigs { client: "web.*".into(), label: ".*".into() }],
        jitter_seconds: 0,
        handled: Timestamp(0),
        ahead: None,
        created: Timestamp(0),
    }
}

/// A rule that was due yesterday at this time (and the days before), and is due tomorrow.
fn daily(now: Timestamp) -> Recurrence {
    let start = now.plus_seconds(-10 * DAY).to_name().replace(['-', ':'], "");
    Recurrence::parse(&format!("DTSTART:{start}Z RRULE:FREQ=DAILY"), "UTC", now).unwrap()
}

impl World {
    fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let layout = Layout::new(&state);
        layout.create_directories().unwrap();
        let world = World { _dir: dir, layout, state };
        world
            .store()
            .write("set up", "root", |w| {
                for client in ["web1", "web2"] {
                    let connection = Connection::Local { remote_borg: None, remote_cache_dir: None };
                    let name = client.parse().unwrap();
                    w.clients().insert(&Client {
                        name,
                        description: String::new(),
                        connection,
                        keys: vec![],
                        blackouts: vec![],
                        borg_binary: Default::default(),
                        created: Timestamp(0),
                    })?;
                    w.configs().insert(&config(client))?;
                }
                Ok(())
            })
            .unwrap();
        world
    }

    fn store(&self) -> Store {
        Store::open(self.layout.db()).unwrap()
    }

    /// Adds a daily schedule as if it had been there for `days` days.
    fn add(&self, name: &str, days: i64) {
        let now = Timestamp::now();
        let schedule = schedule(name, daily(now.plus_seconds(-3600)));
        self.store().write("add", "root", |w| w.add_schedule(&schedule, now.plus_seconds(-days * DAY))).unwrap();
    }

    fn scheduler(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_borgcube-scheduler"));
        command.args(arguments).env("BORGCUBE_STATE", &self.state).env_remove("TRIGGER_UNIT").env_remove("INVOCATION_ID");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    fn timer(&self, name: &str) -> Command {
        let mut command = self.scheduler(&["run", name]);
        command.env("TRIGGER_UNIT", format!("borgcube-schedule@{name}.timer"));
        command
    }

    fn history(&self, name: &str) -> Vec<Occurrence> {
        let filter = OccurrenceFilter { schedule: Some(name.parse().unwrap()), ..OccurrenceFilter::default() };
        self.store().read(|r| r.occurrences().page(&filter, 1000)).unwrap()
    }

    fn jobs(&self) -> usize {
        self.store().read(|r| r.jobs().in_state(JobState::JobCreated)).unwrap().len()
    }

    fn spool(&self) -> PathBuf {
        let spool = self.layout.timers();
        fs::create_dir_all(&spool).unwrap();
        spool
    }
}

fn ok(mut command: Command) -> String {
    let output: Output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

#[test]
fn twenty_timers_at_once_create_each_job_once() {
    let world = World::new();
    world.add("nightly", 3);
    let children: Vec<Child> = (0..20).map(|_| world.timer("nightly").stderr(Stdio::null()).spawn().unwrap()).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(world.jobs(), 2);
    let history = world.history("nightly");
    assert_eq!(history.iter().filter(|entry| entry.skipped().is_none()).count(), 1);
    assert_eq!(history.iter().filter(|entry| entry.skipped() == Some(SkipReason::Missed)).count(), 2);
}

/// R04: killed at any moment, nothing is lost and nothing done twice.
#[test]
fn a_scheduler_that_is_killed_neither_loses_nor_repeats() {
    let world = World::new();
    for round in 0..20_u64 {
        let name = format!("s{round}");
        world.add(&name, 2);
        let mut child = world.timer(&name).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(round * 1500));
        child.kill().unwrap();
        child.wait().unwrap();
        ok(world.timer(&name));
        let history = world.history(&name);
        let runs = history.iter().filter(|entry| entry.skipped().is_none()).count();
        let left_out = history.iter().filter(|entry| entry.skipped() == Some(SkipReason::StillRunning)).count();
        // The jobs of the first round are still queued.
        assert_eq!((runs, left_out), if round == 0 { (1, 0) } else { (0, 1) }, "{history:?}");
        assert_eq!(history.len(), 2, "{history:?}");
    }
    assert_eq!(world.jobs(), 2);
}

#[test]
fn a_thousand_triggers_at_once_create_each_job_once() {
    let world = World::new();
    world.add("nightly", 0);
    let store = world.store();
    let target = TriggerTarget::Schedule { schedule: "nightly".parse().unwrap() };
    let id = TriggerId::from_random([7; 16]);
    let trigger = Trigger {
        id: id.clone(),
        access: AccessContext::AnonymousWeb,
        enabled: true,
        comment: String::new(),
        target,
        created: Timestamp(0),
        last_used: None,
    };
    store.write("add", "root", |w| w.add_trigger(&trigger)).unwrap();
    let started = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let fire = || store.write("fire", "web", |w| w.fire_trigger(&id, AccessContext::AnonymousWeb, Timestamp::now()));
                    (0..125).map(|_| fire().unwrap().0.unwrap().jobs.len()).sum::<usize>()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
    });
    assert_eq!(started, 2);
    drop(store);
    assert_eq!((world.jobs(), world.history("nightly").len()), (2, 1));
}

#[test]
fn by_hand_is_a_run_and_by_timer_only_what_is_due() {
    let world = World::new();
    world.add("nightly", 0);
    let said = ok(world.timer("nightly"));
    assert!(said.contains("nothing is due"), "{said}");
    assert_eq!(world.jobs(), 0);
    let said = ok(world.scheduler(&["run", "nightly"]));
    // No daemon runs here.
    assert!(said.contains("wait in the database until borgcubed runs"), "{said}");
    let history = world.history("nightly");
    assert_eq!((world.jobs(), history.len()), (2, 1));
    assert_eq!(history[0].origin, model::Origin::Manual);
    let output = world.scheduler(&["run", "nonsense"]).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("borgcube schedule list"));
    ok(world.timer("nonsense"));
}

#[test]
fn sync_catches_up_and_writes_only_what_changed() {
    let world = World::new();
    let spool = world.spool();
    fs::write(spool.join("gone.json"), "{}").unwrap();
    fs::write(spool.join("README"), "not ours").unwrap();
    world.add("nightly", 3);
    ok(world.scheduler(&["sync"]));
    assert_eq!(world.jobs(), 2);
    assert_eq!(world.history("nightly").len(), 3);
    assert!(!spool.join("gone.json").exists() && spool.join("README").exists());
    let file = spool.join("nightly.json");
    let before = (fs::read(&file).unwrap(), fs::metadata(&file).unwrap().modified().unwrap());
    ok(world.scheduler(&["sync"]));
    assert_eq!(before, (fs::read(&file).unwrap(), fs::metadata(&file).unwrap().modified().unwrap()));
    assert_eq!(world.history("nightly").len(), 3);
    let stored = world.store().read(|r| r.schedules().require(&"nightly".parse().unwrap())).unwrap();
    let off = Schedule { enabled: false, ..stored.clone() };
    world.store().write("off", "root", |w| w.update_schedule(&stored, &off, Timestamp::now(), "root")).unwrap();
    ok(world.scheduler(&["sync"]));
    assert!(!file.exists());
}

/// From the schedule to the drop-in, with the program that runs as root.
#[test]
fn timers_follow_the_spool() {
    let world = World::new();
    world.spool();
    world.add("nightly", 0);
    ok(world.scheduler(&["sync"]));
    let units = world.state.join("units");
    fs::create_dir(&units).unwrap();
    let (systemctl, calls) = recorder(&world.state, "waiting");
    ok(timers(&world, &units, &systemctl));
    let text = fs::read_to_string(units.join("borgcube-schedule@nightly.timer.d/50-calendar.conf")).unwrap();
    assert!(text.contains("[Timer]\nOnCalendar=\nOnCalendar="), "{text}");
    let unit = "borgcube-schedule@nightly.timer";
    let show = format!("show --property=Id,SubState -- {unit}");
    assert_eq!(taken(&calls), [show.clone(), "daemon-reload".to_owned(), format!("restart -- {unit}")]);
    ok(timers(&world, &units, &systemctl));
    assert_eq!(taken(&calls), [show], "nothing has changed");
    fs::remove_file(world.spool().join("nightly.json")).unwrap();
    ok(timers(&world, &units, &systemctl));
    assert_eq!(taken(&calls), [format!("stop -- {unit}"), "daemon-reload".to_owned()]);
    assert_eq!(fs::read_dir(&units).unwrap().count(), 0);
}

#[test]
fn a_timer_that_has_elapsed_is_started_again() {
    let world = World::new();
    world.spool();
    world.add("nightly", 0);
    ok(world.scheduler(&["sync"]));
    let units = world.state.join("units");
    fs::create_dir(&units).unwrap();
    let (systemctl, calls) = recorder(&world.state, "elapsed");
    ok(timers(&world, &units, &systemctl));
    taken(&calls);
    ok(timers(&world, &units, &systemctl));
    let unit = "borgcube-schedule@nightly.timer";
    assert_eq!(taken(&calls), [format!("show --property=Id,SubState -- {unit}"), format!("restart -- {unit}")]);
}

/// Whoever may write the spool, and no more, gets nothing of their own into a unit.
#[test]
fn a_hostile_spool_injects_nothing() {
    let world = World::new();
    let spool = world.spool();
    let units = world.state.join("units");
    fs::create_dir(&units).unwrap();
    let (systemctl, calls) = recorder(&world.state, "waiting");
    let entry = |name: &str, zone: &str, times: &str, jitter: &str| {
        let calendar = format!(r#"{{"weekdays":[],"months":[],"days":[],"hours":[2],"minute":0,"second":0,"zone":{zone:?}}}"#);
        format!(r#"{{"version":1,"schedule":{name:?},"calendar":{calendar},"times":{times},"jitter":{jitter}}}"#)
    };
    let evil = "UTC\nExecStart=/bin/sh";
    for (file, text) in [
        ("zone.json", entry("zone", evil, "[]", "0")),
        ("path.json", entry("path", "../../../etc/passwd", "[]", "0")),
        ("name.json", entry("other", "UTC", "[]", "0")),
        ("text.json", entry("text", "UTC", r#"["1\nExecStart=/bin/sh"]"#, "0")),
        ("negative.json", entry("negative", "UTC", "[-1]", "0")),
        ("late.json", entry("late", "UTC", "[99999999999999]", "0")),
        ("jitter.json", entry("jitter", "UTC", "[]", r#""1\nUnit=evil.service""#)),
        ("long.json", entry("long", "UTC", "[]", "86401")),
        ("more.json", entry("more", "UTC", "[]", r#"0,"exec":"x""#)),
        ("many.json", entry("many", "UTC", &format!("[{}0]", "0,".repeat(500)), "0")),
        ("empty.json", String::new()),
        ("large.json", " ".repeat(70_000)),
        ("-o.json", entry("-o", "UTC", "[]", "0")),
        ("a b.json", entry("a b", "UTC", "[]", "0")),
        ("x\nExecStart=y.json", entry("x", "UTC", "[]", "0")),
    ] {
        fs::write(spool.join(file), text).unwrap();
    }
    std::os::unix::fs::symlink("/etc/passwd", spool.join("link.json")).unwrap();
    fs::create_dir(spool.join("directory.json")).unwrap();
    assert!(Command::new("mkfifo").arg(spool.join("pipe.json")).status().unwrap().success());
    fs::write(spool.join("good.json"), entry("good", "UTC", "[1795300000]", "60")).unwrap();
    let output = timers(&world, &units, &systemctl).output().unwrap();
    assert!(!output.status.success(), "it says that something is wrong");
    let made: Vec<_> = fs::read_dir(&units).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(made, ["borgcube-schedule@good.timer.d"]);
    let text = fs::read_to_string(units.join("borgcube-schedule@good.timer.d/50-calendar.conf")).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(
        lines,
        [
            "[Timer]",
            "OnCalendar=",
            "OnCalendar=*-*-* 02:00:00 UTC",
            "OnCalendar=2026-11-21 22:26:40 UTC",
            "RandomizedDelaySec=60",
            "FixedRandomDelay=yes"
        ]
    );
    let unit = "borgcube-schedule@good.timer";
    assert_eq!(taken(&calls), [format!("show --property=Id,SubState -- {unit}"), "daemon-reload".to_owned(), format!("restart -- {unit}")]);
}

/// A schedule whose file makes no sense any more keeps its timer.
#[test]
fn a_file_that_makes_no_sense_changes_nothing() {
    let world = World::new();
    world.add("nightly", 0);
    let spool = world.spool();
    ok(world.scheduler(&["sync"]));
    let units = world.state.join("units");
    fs::create_dir(&units).unwrap();
    let (systemctl, calls) = recorder(&world.state, "waiting");
    ok(timers(&world, &units, &systemctl));
    taken(&calls);
    fs::write(spool.join("nightly.json"), "{").unwrap();
    assert!(!timers(&world, &units, &systemctl).output().unwrap().status.success());
    assert_eq!(taken(&calls), [""; 0]);
    assert!(units.join("borgcube-schedule@nightly.timer.d/50-calendar.conf").exists());
}

/// systemd itself reads what the spool becomes.
#[test]
fn systemd_understands_the_lines() {
    let analyze = Path::new("/usr/bin/systemd-analyze");
    if !analyze.exists() {
        eprintln!("NOT RUN: there is no {}", analyze.display());
        return;
    }
    let now = Timestamp(1_774_000_000_000_000); // 2026-03-20
    for rule in
        ["daily 02:30 Europe/Berlin", "weekly sat,sun 03:00 UTC", "monthly 1,15 04:05 UTC", "monthly last 04:00 UTC", "hourly 15 UTC"]
    {
        let recurrence = Recurrence::parse(rule, "UTC", now).unwrap();
        let until = now.plus_seconds(40 * DAY);
        let mut expected = recurrence.between(now, until, usize::MAX);
        expected.truncate(20);
        let mut lines: Vec<String> = recurrence.to_calendar(now).iter().map(ToString::to_string).collect();
        lines.extend(recurrence.moved(now, until).iter().map(|time| format!("{} UTC", time.to_name().replace('T', " "))));
        if lines.is_empty() {
            lines.extend(expected.iter().map(|time| format!("{} UTC", time.to_name().replace('T', " "))));
        }
        let mut found: Vec<String> = lines.iter().flat_map(|line| elapses(analyze, now, line)).collect();
        found.sort_unstable();
        found.dedup();
        found.truncate(expected.len());
        assert_eq!(found, expected.iter().map(|time| time.to_name()).collect::<Vec<_>>(), "{rule}: {lines:?}");
    }
}

fn elapses(analyze: &Path, now: Timestamp, line: &str) -> Vec<String> {
    let base = format!("{} UTC", now.to_name().replace('T', " "));
    let output = Command::new(analyze)
        .args(["calendar", "--iterations=25", &format!("--base-time={base}"), line])
        .env("TZ", "UTC")
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let moments = text.lines().filter(|line| line.contains("Next elapse:") || line.contains("Iter. #") || line.contains("Iteration #"));
    moments
        .map(|line| line.split_whitespace().rev().skip(1).take(2).collect::<Vec<_>>())
        .map(|words| format!("{}T{}", words[1], words[0]))
        .collect()
}

#[test]
fn the_loop_starts_what_is_due_and_stops_when_asked() {
    let world = World::new();
    world.add("nightly", 1);
    let mut child = world.scheduler(&["loop"]).spawn().unwrap();
    let (tell, told) = mpsc::channel();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    std::thread::spawn(move || {
        while let Some(Ok(line)) = lines.next() {
            if tell.send(line).is_err() {
                return;
            }
        }
    });
    loop {
        let line = told.recv_timeout(Duration::from_secs(60)).unwrap();
        if line.contains("schedule nightly: run of") {
            break;
        }
    }
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert!(child.wait().unwrap().success());
    assert_eq!(world.jobs(), 2);
    assert_eq!(world.history("nightly").iter().filter(|entry| entry.skipped().is_none()).count(), 1);
}

fn timers(world: &World, units: &Path, systemctl: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_borgcube-timers"));
    command.arg("--spool").arg(world.layout.timers()).arg("--units").arg(units).arg("--systemctl").arg(systemctl);
    command.stdin(Stdio::null()).stderr(Stdio::piped());
    command
}

/// A program in the place of systemctl that writes down what it is asked, and says that all timers are in `state`.
fn recorder(directory: &Path, state: &str) -> (PathBuf, PathBuf) {
    use std::os::unix::fs::PermissionsExt;
    let (program, calls) = (directory.join("systemctl"), directory.join("calls"));
    let script = format!(
        "#!/bin/sh\necho \"$*\" >> {calls}\nif [ \"$1\" = show ]; then shift 3; for unit; do printf 'Id=%s\\nSubState={state}\\n\\n' \"$unit\"; done; fi\n",
        calls = calls.display()
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    (program, calls)
}

/// The calls since the last time.
fn taken(calls: &Path) -> Vec<String> {
    let text = fs::read_to_string(calls).unwrap_or_default();
    let _ = fs::remove_file(calls);
    text.lines().map(str::to_owned).collect()
}
