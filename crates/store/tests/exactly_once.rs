//! Random rules, restarts, crashes and clocks that jump: each occurrence leads to one run or one recorded skip.
//!
//! `BORGCUBE_SEED=N` repeats one life, `BORGCUBE_LIVES=N` tries as many.
#![allow(clippy::unwrap_used, reason = "tests, their helper functions included")]

mod common;

use std::collections::BTreeMap;

use common::{config, verify};
use model::cause::{Cause, Failure};
use model::{Action, JobState, Occurrence, Origin, Outcome, Recurrence, Schedule, ScheduleName, SkipReason, Timestamp};
use store::Store;

/// A generator whose numbers follow from its seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: i64) -> i64 {
        i64::try_from(self.next() >> 1).unwrap() % limit
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[usize::try_from(self.below(i64::try_from(of.len()).unwrap())).unwrap()]
    }
}

const START: Timestamp = Timestamp(1_795_300_000_000_000); // 2026-11-21T22:26:40Z
const DAY: i64 = 86_400;

fn rule(random: &mut Random) -> Recurrence {
    let zone = random.pick(&["UTC", "Europe/Berlin", "America/New_York", "America/Santiago", "Australia/Lord_Howe", "Asia/Kolkata"]);
    let hour = random.below(24);
    let minute = random.below(60);
    let text = match random.below(8) {
        0 => format!("hourly {minute:02} {zone}"),
        1 => format!("daily {hour:02}:{minute:02} {zone}"),
        2 => format!("daily 02:30 {zone}"),
        3 => format!("weekly mon,thu,sun {hour:02}:{minute:02} {zone}"),
        4 => format!("monthly 1,15,last 00:{minute:02} {zone}"),
        5 => format!("DTSTART;TZID={zone}:20261101T{hour:02}{minute:02}00 RRULE:FREQ=DAILY;INTERVAL=3"),
        6 => {
            let also = (hour + 6) % 24;
            let extra = format!("RDATE;TZID={zone}:20261203T{also:02}{minute:02}00 EXDATE;TZID={zone}:20261205T{hour:02}{minute:02}00");
            format!("DTSTART;TZID={zone}:20261101T{hour:02}{minute:02}00 RRULE:FREQ=DAILY {extra}")
        }
        _ => format!("DTSTART;TZID={zone}:20261101T023000 RRULE:FREQ=DAILY;COUNT=90"),
    };
    Recurrence::parse(&text, "UTC", START).unwrap_or_else(|e| panic!("{text}: {e}"))
}

/// What happens to a server.
struct Life {
    random: Random,
    dir: tempfile::TempDir,
    store: Option<Store>,
    name: ScheduleName,
    now: Timestamp,
    /// What happened, for who has to find out why.
    story: Vec<String>,
}

impl Life {
    fn begin(seed: u64) -> Life {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let recurrence = rule(&mut random);
        let story = vec![format!("rule {recurrence}")];
        let name: ScheduleName = "nightly".parse().unwrap();
        let actions = vec![Action::RunConfig { config: common::config_name("web1/etc") }];
        let schedule = Schedule { name: name.clone(), recurrence, actions, jitter_seconds: 0, ..common::schedule("x") };
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store
            .write_at(START, "set up", "root", |w| {
                w.clients().insert(&common::client("web1"))?;
                w.configs().insert(&config("web1/etc", "main"))?;
                w.add_schedule(&schedule, START)
            })
            .unwrap();
        Life { random, dir, store: Some(store), name, now: START, story }
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn wake(&mut self) {
        let (name, now) = (self.name.clone(), self.now);
        self.store().write_at(now, "due", "scheduler", |w| w.run_due(&name, now, "scheduler")).unwrap();
    }

    fn step(&mut self) {
        let what = self.random.below(100);
        let told = match what {
            0..=29 => self.pass(2 * 3600),
            30..=54 => self.pass(3 * DAY),
            55..=64 => self.pass(60 * DAY),
            65..=69 => self.pass(-3000),
            70..=73 => self.pass(-4 * DAY),
            74..=75 => self.pass(-400 * DAY),
            76..=77 => {
                // A battery is empty, and a time server puts it right.
                let before = self.now;
                self.now = Timestamp(9_000_000);
                self.wake();
                self.now = before.plus_seconds(self.random.below(2 * DAY));
                "1970 and back".to_owned()
            }
            78..=82 => {
                // Killed in the middle of it.
                let (name, now) = (self.name.clone(), self.now);
                let killed = self.store().write_at(now, "due", "scheduler", |w| {
                    w.run_due(&name, now, "scheduler")?;
                    Err::<(), _>(store::Error::caller("killed"))
                });
                assert!(killed.is_err());
                "killed".to_owned()
            }
            83..=85 => {
                self.store = None;
                self.store = Some(Store::open(self.dir.path()).unwrap());
                "restarted".to_owned()
            }
            86..=91 => {
                let stored = self.store().read(|r| r.schedules().require(&self.name)).unwrap();
                let other = Schedule { enabled: !stored.enabled, ..stored.clone() };
                let now = self.now;
                self.store().write_at(now, "switch", "root", |w| w.update_schedule(&stored, &other, now, "root")).unwrap();
                format!("enabled: {}", other.enabled)
            }
            _ => {
                self.store()
                    .write("end", "root", |w| {
                        for job in w.jobs().view().in_state(JobState::JobCreated)? {
                            w.jobs().force_state(job.number, JobState::Failed, Failure::new(Cause::Internal, "x"), Timestamp(0))?;
                        }
                        Ok(())
                    })
                    .unwrap();
                "jobs ended".to_owned()
            }
        };
        self.story.push(format!("{} {told}", self.now.to_rfc3339()));
        // Two timers at once, or none.
        for _ in 0..self.random.below(3) {
            self.wake();
        }
    }

    fn pass(&mut self, seconds: i64) -> String {
        let by = self.random.below(seconds.abs()) * seconds.signum();
        self.now = self.now.plus_seconds(by);
        format!("{by:+} seconds")
    }

    fn entries(&self) -> Vec<Occurrence> {
        let all = self.store().read(|r| r.occurrences().list()).unwrap();
        all.into_iter().filter(|entry| entry.origin == Origin::Schedule && entry.skipped() != Some(SkipReason::ClockWentBack)).collect()
    }

    fn check(&mut self) -> Result<(), String> {
        // One hour more, so that what a clock within its tolerance hides is behind us.
        self.now = self.now.plus_seconds(3601);
        self.wake();
        self.wake();
        let schedule = self.store().read(|r| r.schedules().require(&self.name)).unwrap();
        if schedule.handled > self.now {
            return Err(format!("it is handled up to {}, and it is {}", schedule.handled.to_rfc3339(), self.now.to_rfc3339()));
        }
        let entries = self.entries();
        let mut single: BTreeMap<Timestamp, &Occurrence> = BTreeMap::new();
        for entry in entries.iter().filter(|entry| entry.first == entry.time) {
            if let Some(other) = single.insert(entry.time, entry) {
                return Err(format!("two entries: {other:?} and {entry:?}"));
            }
            if entry.count != 1 {
                return Err(format!("counts other than one: {entry:?}"));
            }
        }
        let groups: Vec<&Occurrence> = entries.iter().filter(|entry| entry.first < entry.time).collect();
        let mut counted: BTreeMap<u64, u64> = BTreeMap::new();
        let last = entries.iter().map(|entry| entry.time).max().unwrap_or(START).max(self.now);
        for time in schedule.recurrence.between(Timestamp(0), last, usize::MAX) {
            let inside: Vec<_> = groups.iter().filter(|group| (group.first..=group.time).contains(&time)).collect();
            let of_its_own = single.contains_key(&time);
            if inside.len() > 1 {
                return Err(format!("{} is in two groups", time.to_rfc3339()));
            }
            if !of_its_own && let Some(group) = inside.first() {
                *counted.entry(group.number).or_default() += 1;
            }
            if time > START && time <= self.now && !of_its_own && inside.is_empty() {
                return Err(format!("{} has no entry", time.to_rfc3339()));
            }
        }
        for group in groups {
            if counted.get(&group.number).copied().unwrap_or_default() != group.count {
                return Err(format!("its count is wrong: {group:?}, {counted:?}"));
            }
        }
        let jobs: usize = entries.iter().map(|entry| entry.jobs().len()).sum();
        let stored = self.store().read(|r| r.jobs().count()).unwrap();
        if jobs as u64 != stored {
            return Err(format!("{stored} jobs, {jobs} of them in the history"));
        }
        if entries.iter().any(|entry| matches!(&entry.outcome, Outcome::Run { jobs, .. } if jobs.len() != 1)) {
            return Err("a run with more or less than one job".into());
        }
        Ok(())
    }
}

#[test]
fn each_occurrence_is_run_once_or_skipped_once() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seeds = match number("BORGCUBE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..number("BORGCUBE_LIVES").unwrap_or(30) + 1,
    };
    let mut runs = 0;
    for seed in seeds {
        let mut life = Life::begin(seed);
        for _ in 0..40 {
            life.step();
        }
        if let Err(why) = life.check() {
            panic!("seed {seed}: {why}\n{}", life.story.join("\n"));
        }
        verify(life.store());
        runs += life.entries().iter().filter(|entry| entry.skipped().is_none()).count();
    }
    assert!(runs > 0, "nothing ever ran, so nothing was shown");
}
