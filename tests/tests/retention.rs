//! Retention against the real thing: for honest archives, a policy keeps what `borg prune` keeps, by the same rules.
//!
//! The archives are real ones, made once with chosen times; then many policies are tried on them, in several zones, by stock borg and by
//! our plan. Weeks in which clocks change, ends of years and archives of the same second are among them.

use model::Timestamp;
use model::retention::{Candidate, Count, Fate, Period, Policy, Rule, Situation, Standing, Verdict, plan};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use testkit::borgs::Borg;
use testkit::tree::Random;
use testkit::world::BorgWorld;

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

/// Policies that are tried with each borg.
const POLICIES: usize = 150;

/// Zones with and without summer time, with half hours, on both sides of the date line, and one that skipped a day.
const ZONES: [&str; 8] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "Pacific/Apia",
    "America/St_Johns",
    "Africa/Casablanca",
];

/// Honest archives of one config. `PREFIX-N`, and a second of the epoch.
struct Set {
    prefix: &'static str,
    archives: Vec<(String, i64)>,
}

fn seconds(text: &str) -> i64 {
    let said = Command::new("date").args(["-u", "-d", text, "+%s"]).output().expect("date");
    String::from_utf8(said.stdout).unwrap().trim().parse().unwrap()
}

fn set(prefix: &'static str, times: impl IntoIterator<Item = i64>) -> Set {
    let name = |(number, time)| (format!("{prefix}-{number}"), time);
    Set { prefix, archives: (0..).zip(times).map(name).collect::<Vec<(String, i64)>>() }
}

fn sets(random: &mut Random, now: i64) -> Vec<Set> {
    let mut between =
        |from: i64, to: i64, count: usize| (0..count).map(|_| from + random.below((to - from) as u64) as i64).collect::<Vec<i64>>();
    let years = [
        between(seconds("2019-01-01"), seconds("2026-01-01"), 14),
        vec![seconds("2020-12-31 23:30"), seconds("2021-01-03 23:30"), seconds("2021-01-04 00:30")],
    ];
    let autumn = (0..24).map(|number| seconds("2025-10-25 20:10") + number * 37 * 60);
    let spring = (0..14).map(|number| seconds("2025-03-08 22:10") + number * 53 * 60);
    let apia = (0..8).map(|number| seconds("2011-12-29 00:30") + number * 9 * HOUR);
    let weeks = between(seconds("2025-03-01"), seconds("2025-11-30"), 20);
    // Half past, so that no interval of whole hours ends near one.
    let recent = [0, 1, 2, 5, 11, 23, 24, 30, 47, 49, 100, 167, 169, 400, 740, 750, 1500, 8700, 8800];
    let dense = between(seconds("2024-02-29 23:50"), seconds("2024-03-01 00:10"), 12);
    let mut sets = vec![
        set("years", years.concat()),
        set("autumn", autumn),
        set("spring", spring),
        set("apia", apia),
        set("weeks", weeks),
        set("recent", recent.map(|hours| now - hours * HOUR - HOUR / 2)),
        set("dense", dense),
        set("same", [0, 0, 0, 60, 60, 3600].map(|second| seconds("2024-07-01") + second)),
        set("two", [0, 400 * DAY].map(|second| seconds("2024-01-01") + second)),
        set("one", [seconds("2024-01-01")]),
    ];
    // Checkpoints count for neither of us.
    sets[4].archives.push(("weeks-x.checkpoint".into(), seconds("2025-11-30 12:00")));
    sets[4].archives.push(("weeks-y.checkpoint.1".into(), seconds("2025-06-30 12:00")));
    sets
}

fn policy(random: &mut Random, quarters: bool) -> Policy {
    let mut keep = BTreeMap::new();
    for period in Period::ALL {
        let is_quarter = matches!(period, Period::Quarterly13Weekly | Period::Quarterly3Monthly);
        let is_other = keep.contains_key(&Period::Quarterly13Weekly) && is_quarter;
        if random.below(3) == 0 && !is_other && (quarters || !is_quarter) {
            let count = [-1, 1, 1, 2, 3, 4, 6, 10, 30][random.below(9) as usize];
            keep.insert(period, Count::try_from(count).unwrap());
        }
    }
    let within = (random.below(4) == 0 || keep.is_empty()).then(|| {
        let text = ["1H", "12H", "2d", "1w", "1m", "2m", "1y", "9y"][random.below(8) as usize];
        text.parse().unwrap()
    });
    Policy {
        name: "tried".parse().unwrap(),
        description: String::new(),
        within,
        keep,
        minimum: 0,
        zone: ZONES[random.below(ZONES.len() as u64) as usize].parse().unwrap(),
        most_per_day: u32::MAX,
        grace_hours: 0,
        applies: vec![],
        confirmed: vec![],
        created: Timestamp(0),
    }
}

fn options(policy: &Policy, set: &Set) -> Vec<String> {
    let keep = policy.keep.iter().map(|(period, count)| format!("--keep-{period}={}", i64::from(*count)));
    let within = policy.within.iter().map(|within| format!("--keep-within={within}"));
    keep.chain(within).chain([format!("--glob-archives={}-*", set.prefix)]).collect()
}

/// `RULE #NUMBER` or nothing, by name.
type Kept = BTreeMap<String, Option<String>>;

fn ours(set: &Set, policy: &Policy, now: i64) -> Kept {
    let candidate = |(name, time): &(String, i64)| {
        let standing = if name.contains(".checkpoint") { Standing::Incomplete } else { Standing::Complete };
        let name: &'static str = name.clone().leak();
        Candidate { id: name, name, job: 1, time: Timestamp(time * 1_000_000), standing, held: false, going: false, imported: false }
    };
    let candidates: Vec<Candidate<'_>> = set.archives.iter().map(candidate).collect();
    // Times of the test's making have nothing to do with its jobs.
    let situation = Situation { now: Timestamp(now * 1_000_000), jumps: &[], confirmed: u64::MAX };
    let verdicts = plan(&candidates, policy, &situation).unwrap();
    let counted = verdicts.iter().filter(|verdict| verdict.fate != Fate::Incomplete {});
    counted.map(|Verdict { archive, fate }| (archive.name.to_owned(), kept(fate))).collect()
}

fn kept(fate: &Fate) -> Option<String> {
    let quarterly = |rule: &Rule| match rule {
        Rule::Newest(Period::Quarterly13Weekly | Period::Quarterly3Monthly)
        | Rule::Oldest(Period::Quarterly13Weekly | Period::Quarterly3Monthly) => format!("quarterly_{rule}"),
        _ => rule.to_string(),
    };
    match fate {
        Fate::Kept { by, number } => Some(format!("{} #{number}", quarterly(by))),
        Fate::Goes { .. } => None,
        other => panic!("{other:?}"),
    }
}

/// What stock borg says, without its checkpoints.
fn theirs(lines: &[String]) -> Kept {
    let mut kept = Kept::new();
    for line in lines {
        let (rule, rest) = match line.strip_prefix("Keeping archive (rule: ") {
            Some(rest) => rest.split_once("):").map(|(rule, rest)| (Some(rule.to_owned()), rest)).expect("a rule"),
            None => match line.split_once("Would prune:") {
                Some((_, rest)) => (None, rest),
                None => {
                    assert!(line.starts_with("Keeping checkpoint archive:"), "{line}");
                    continue;
                }
            },
        };
        let name = rest.split_whitespace().next().expect("a name").to_owned();
        if !name.contains(".checkpoint") {
            kept.insert(name, rule);
        }
    }
    kept
}

/// The interpreter that a borg of Python runs in.
fn interpreter(borg: &Borg) -> String {
    let script = std::fs::read(&borg.program).unwrap();
    let line = String::from_utf8_lossy(script.split(|byte| *byte == b'\n').next().unwrap()).into_owned();
    line.strip_prefix("#!").expect("borg is a script").trim().to_owned()
}

fn drive(borg: &Borg, world: &BorgWorld, repository: &Path, archives: &[(String, String)], prunes: &[Value]) -> Vec<Vec<String>> {
    let driver = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/prune.py");
    let mut child = world.command(interpreter(borg)).arg(driver).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let work = json!({ "repository": repository, "archives": archives, "prunes": prunes });
    child.stdin.take().unwrap().write_all(work.to_string().as_bytes()).unwrap();
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success(), "borg {}: {}", borg.version, done.status);
    let done: Value = serde_json::from_slice(&done.stdout).unwrap();
    serde_json::from_value(done["prunes"].clone()).unwrap()
}

/// In the form that `borg create --timestamp` takes: UTC.
fn stamp(time: i64) -> String {
    let said = Command::new("date").args(["-u", "-d", &format!("@{time}"), "+%Y-%m-%dT%H:%M:%S"]).output().expect("date");
    String::from_utf8(said.stdout).unwrap().trim().to_owned()
}

#[test]
fn policies_keep_what_borg_prune_keeps() {
    let mut random = Random::new(20_261_122);
    let now = Timestamp::now().0 / 1_000_000;
    let sets = sets(&mut random, now);
    let archives: Vec<(String, String)> =
        sets.iter().flat_map(|set| &set.archives).map(|(name, time)| (name.clone(), stamp(*time))).collect();
    let judges = Borg::judges();
    let world = BorgWorld::new();
    let repository = world.join("repository");
    drive(&judges[0], &world, &repository, &archives, &[]);
    for borg in judges {
        // A cache of its own: each version makes it from the repository.
        let world = BorgWorld::new();
        let quarters = borg.at_least([1, 4, 0]);
        let tried: Vec<(&Set, Policy)> = (0..POLICIES).map(|at| (&sets[at % sets.len()], policy(&mut random, quarters))).collect();
        let prunes: Vec<Value> =
            tried.iter().map(|(set, policy)| json!({ "zone": policy.zone.to_string(), "arguments": options(policy, set) })).collect();
        let said = drive(&borg, &world, &repository, &[], &prunes);
        let mut rules: BTreeMap<String, usize> = BTreeMap::new();
        for ((set, policy), lines) in tried.iter().zip(&said) {
            let (ours, theirs) = (ours(set, policy, now), theirs(lines));
            assert_eq!(ours, theirs, "borg {} with TZ={} {:?}", borg.version, policy.zone, options(policy, set));
            for rule in theirs.into_values() {
                *rules.entry(rule.map_or("goes".into(), |rule| rule.split(' ').next().unwrap_or("").to_owned())).or_default() += 1;
            }
        }
        // Nothing was compared if nothing happened.
        for rule in ["goes", "within", "secondly", "hourly", "daily", "daily[oldest]", "weekly", "yearly[oldest]"] {
            assert!(rules.get(rule).is_some_and(|count| *count > 1), "borg {}: {rules:?}", borg.version);
        }
        assert_eq!(rules.contains_key("quarterly_13weekly") && rules.contains_key("quarterly_3monthly"), quarters, "{rules:?}");
        // And a few as everybody calls it.
        for (set, policy) in tried.iter().take(sets.len()) {
            let mut command = borg.command(&world);
            command.env("TZ", policy.zone.to_string()).args(["prune", "--dry-run", "--list"]);
            let done = command.args(options(policy, set)).arg(&repository).output().unwrap();
            assert!(done.status.success(), "borg {}: {}", borg.version, String::from_utf8_lossy(&done.stderr));
            let lines = String::from_utf8_lossy(&done.stderr).lines().map(str::to_owned).collect::<Vec<_>>();
            let lines: Vec<String> =
                lines.into_iter().filter(|line| line.contains("archive (rule") || line.contains("Would prune")).collect();
            assert_eq!(ours(set, policy, now), theirs(&lines), "borg {}", borg.version);
        }
    }
}
