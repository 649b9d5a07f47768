//! The rules one by one, and that nothing hostile gets around them. That honest sets give what `borg prune` gives is
//! compared with the real ones, in `tests/tests/retention.rs`.

use super::*;
use crate::time::Timestamp;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const NOW: Timestamp = Timestamp(1_795_287_991_055_717);
const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

/// An archive's own data; a candidate borrows it.
#[derive(Debug, Clone)]
struct Made {
    id: String,
    name: String,
    job: u64,
    time: Timestamp,
    standing: Standing,
    held: bool,
    going: bool,
    imported: bool,
}

fn made(job: u64, age: i64) -> Made {
    let id = format!("{job:064x}");
    Made {
        name: format!("web1-etc-{job}"),
        id,
        job,
        time: NOW.plus_seconds(-age),
        standing: Standing::Complete,
        held: false,
        going: false,
        imported: false,
    }
}

/// Archives of these ages in seconds, the oldest made first.
fn ages(ages: impl IntoIterator<Item = i64>) -> Vec<Made> {
    let mut ages: Vec<i64> = ages.into_iter().collect();
    ages.sort_by_key(|age| -age);
    (1..).zip(ages).map(|(job, age)| made(job, age)).collect()
}

fn candidate(made: &Made) -> Candidate<'_> {
    let Made { id, name, job, time, standing, held, going, imported } = made;
    Candidate { id, name, job: *job, time: *time, standing: *standing, held: *held, going: *going, imported: *imported }
}

fn policy(keep: &[(Period, i64)]) -> Policy {
    Policy {
        name: "standard".parse().unwrap(),
        description: String::new(),
        within: None,
        keep: keep.iter().map(|(period, count)| (*period, Count::try_from(*count).unwrap())).collect(),
        minimum: 0,
        zone: "UTC".parse().unwrap(),
        most_per_day: Policy::MOST_PER_DAY,
        grace_hours: Policy::GRACE_HOURS,
        applies: vec![],
        confirmed: vec![],
        created: Timestamp(0),
    }
}

fn calm() -> Situation<'static> {
    Situation { now: NOW, jumps: &[], confirmed: 0 }
}

fn decide<'a>(archives: &'a [Made], policy: &Policy, situation: &Situation<'_>) -> Result<Vec<Verdict<'a>>, Stop> {
    plan(&archives.iter().map(candidate).collect::<Vec<_>>(), policy, situation)
}

/// `JOB FATE` of each archive, the newest first.
fn told(archives: &[Made], policy: &Policy) -> Vec<String> {
    decide(archives, policy, &calm()).unwrap().iter().map(|v| format!("{} {}", v.archive.job, v.fate)).collect()
}

fn gone(archives: &[Made], policy: &Policy, situation: &Situation<'_>) -> BTreeSet<u64> {
    let Ok(verdicts) = decide(archives, policy, situation) else { return BTreeSet::new() };
    verdicts.iter().filter(|v| matches!(v.fate, Fate::Goes { .. })).map(|v| v.archive.job).collect()
}

fn stopped(archives: &[Made], policy: &Policy, situation: &Situation<'_>) -> String {
    decide(archives, policy, situation).unwrap_err().to_string()
}

#[test]
fn each_archive_hears_why() {
    let archives = ages([0, HOUR, DAY, DAY + HOUR, 2 * DAY, 3 * DAY, 40 * DAY]);
    let expected = [
        "7 kept by daily #1",
        "6 goes: newer archives are kept: daily; enough are kept: monthly",
        "5 kept by daily #2",
        "4 goes: newer archives are kept: daily; enough are kept: monthly",
        "3 goes: enough are kept: daily, monthly",
        "2 goes: enough are kept: daily, monthly",
        "1 kept by monthly #1",
    ];
    // The newest of the month is kept as a daily one; that does not count for the months.
    let two = policy(&[(Period::Daily, 2), (Period::Monthly, 1)]);
    let told = told(&archives, &two);
    assert_eq!(told[0], expected[0]);
    assert_eq!(told[2], expected[2]);
    assert_eq!(told[6], expected[6]);
    assert!(told[1].starts_with("6 goes: newer archives are kept: daily"), "{told:?}");
    assert!(told[4].contains("enough are kept: daily"), "{told:?}");
}

#[test]
fn the_oldest_stays_while_there_are_fewer_periods_than_wanted() {
    let archives = ages([0, HOUR, 2 * HOUR]);
    let expected = ["3 kept by yearly #1", "2 goes: newer archives are kept: yearly", "1 kept by yearly[oldest] #2"];
    assert_eq!(told(&archives, &policy(&[(Period::Yearly, 2)])), expected);
    assert_eq!(told(&archives, &policy(&[(Period::Yearly, 1)]))[2], "1 goes: enough are kept: yearly");
    assert_eq!(told(&archives, &policy(&[(Period::Yearly, -1)]))[2], "1 goes: newer archives are kept: yearly");
}

#[test]
fn minimum_and_holds_come_behind_the_rules() {
    let mut archives = ages((0..6).map(|hour| hour * HOUR));
    archives[0].held = true;
    let mut one = policy(&[(Period::Yearly, 1)]);
    one.minimum = 3;
    let all = told(&archives, &one);
    assert_eq!(all[..3], ["6 kept by yearly #1", "5 kept by minimum", "4 kept by minimum"]);
    assert_eq!(all[3], "3 goes: enough are kept: yearly");
    assert_eq!(all[5], "1 kept by hold");
}

#[test]
fn within_has_no_second_too_many() {
    let archives = ages([DAY - 1, DAY, DAY + 1]);
    let mut day = policy(&[]);
    day.within = Some("1d".parse().unwrap());
    assert_eq!(told(&archives, &day), ["3 kept by within #1", "2 goes", "1 goes"]);
}

#[test]
fn what_is_going_is_gone_for_the_rules() {
    let mut archives = ages([0, DAY, 2 * DAY]);
    archives[1].going = true;
    let two = policy(&[(Period::Daily, 2)]);
    assert_eq!(told(&archives, &two), ["3 kept by daily #1", "2 is going already", "1 kept by daily #2"]);
}

#[test]
fn a_day_begins_where_the_zone_says() {
    // 23:30 and 00:30 in Berlin are 22:30 and 23:30 of one day in UTC.
    let time = |text: &str| Timestamp(text.parse::<jiff::Timestamp>().unwrap().as_microsecond());
    let mut archives = ages([0, 1]);
    archives[0].time = time("2026-07-01T21:30:00Z");
    archives[1].time = time("2026-07-01T22:30:00Z");
    let mut days = policy(&[(Period::Daily, -1)]);
    assert_eq!(gone(&archives, &days, &calm()), [1].into());
    days.zone = "Europe/Berlin".parse().unwrap();
    assert_eq!(gone(&archives, &days, &calm()), [].into());
}

#[test]
fn what_stops() {
    let days = policy(&[(Period::Daily, 2)]);
    let mut burst = ages((0..49).map(|number| DAY + number * 60));
    assert!(stopped(&burst, &days, &calm()).contains("49 archives were made between"));
    burst.pop();
    assert!(!gone(&burst, &days, &calm()).is_empty(), "48 in 24 hours are none");

    let mut odd = ages([0, DAY, 2 * DAY, 3 * DAY]);
    odd[2].standing = Standing::Suspicious;
    assert_eq!(stopped(&odd, &days, &calm()), "archive web1-etc-3 is suspicious");
    assert_eq!(gone(&odd, &days, &Situation { confirmed: 3, ..calm() }), [1, 2].into());

    let ahead = [made(1, 0), made(2, -2 * HOUR)];
    assert!(stopped(&ahead, &days, &calm()).contains("it went back, or it was ahead"));
    let behind = [made(1, DAY), made(2, 3 * DAY)];
    assert!(stopped(&behind, &days, &calm()).contains("made after one of"));

    let plain = ages([0, DAY, 2 * DAY]);
    let late = jump(NOW.plus_seconds(-41 * DAY), NOW, 3).unwrap();
    let jumps = [late, Jump { job: 1, ..late }];
    assert!(stopped(&plain, &days, &Situation { jumps: &jumps, ..calm() }).contains("before job 3"));
    assert!(!gone(&plain, &days, &Situation { jumps: &jumps[1..], ..calm() }).is_empty(), "before all of its archives");
    assert!(!gone(&plain, &days, &Situation { jumps: &jumps, confirmed: 3, ..calm() }).is_empty());
    assert!(stopped(&plain, &policy(&[(Period::Daily, 0)]), &calm()).contains("no rule"));
}

#[test]
fn clocks_that_jump() {
    let after = |seconds| jump(NOW, NOW.plus_seconds(seconds), 2).is_some();
    assert!(!after(0) && !after(-HOUR) && !after(40 * DAY));
    assert!(after(-HOUR - 1) && after(41 * DAY));
    assert!(jump(Timestamp(i64::MIN), Timestamp(i64::MAX), 2).is_some());
}

#[test]
fn confirmed_archives_of_the_future_count_for_nothing() {
    let archives = [made(1, 2 * DAY), made(2, DAY), made(3, -100 * DAY), made(4, -99 * DAY)];
    let two = policy(&[(Period::Daily, 2)]);
    let situation = Situation { confirmed: 4, ..calm() };
    let verdicts = decide(&archives, &two, &situation).unwrap();
    assert_eq!(verdicts.iter().filter(|v| v.fate == Fate::Future {}).count(), 2);
    assert_eq!(gone(&archives, &two, &situation), [].into());
}

#[test]
fn what_people_write() {
    for bad in ["", "d", "0d", "-1d", "+1d", "7", "7D", "7 d", "99999999999d", "7ä"] {
        assert!(bad.parse::<Interval>().is_err(), "{bad}");
    }
    assert_eq!("2w".parse::<Interval>().unwrap().seconds(), 14 * DAY);
    assert_eq!("36H".parse::<Interval>().unwrap().to_string(), "36H");
    assert_eq!(("all".parse(), "-1".parse()), (Ok(Count::All), Ok(Count::All)));
    assert!("-2".parse::<Count>().is_err() && "x".parse::<Count>().is_err() && "4294967296".parse::<Count>().is_err());
    assert!("Mars/Olympus".parse::<Zone>().unwrap_err().contains("no time zone"));
}

#[test]
fn policies_are_checked() {
    let good = policy(&[(Period::Daily, 7)]);
    assert_eq!(good.check(), Ok(()));
    assert!(policy(&[]).check().unwrap_err().contains("at least one rule"));
    assert!(policy(&[(Period::Daily, 0)]).check().is_err());
    assert!(
        policy(&[(Period::Quarterly13Weekly, 1), (Period::Quarterly3Monthly, 1)]).check().unwrap_err().contains("13 weeks or 3 months")
    );
    let scope = |client: &str| Scope::Configs { client: client.into(), label: ".*".into() };
    assert!(Policy { applies: vec![scope("(")], ..good.clone() }.check().unwrap_err().contains("regular expression"));
    assert!(Policy { applies: vec![scope("a"); 201], ..good.clone() }.check().is_err());
    assert!(Policy { most_per_day: 0, ..good.clone() }.check().is_err());
    assert!(Policy { description: "a\nb".into(), ..good.clone() }.check().is_err());
    assert!(Policy { grace_hours: u32::MAX, ..good.clone() }.check().is_err());
    assert!(policy(&[(Period::Secondly, 7)]).warnings()[0].contains("within a day"));
    let json = serde_json::to_value(&good).unwrap();
    assert_eq!(json["keep"], serde_json::json!({"daily": 7}));
    assert_eq!(serde_json::from_value::<Policy>(json).unwrap(), good);
}

#[test]
fn fates_travel() {
    let by = [Rule::Within, Rule::Newest(Period::Quarterly13Weekly), Rule::Oldest(Period::Yearly), Rule::Minimum, Rule::Hold];
    let kept = by.into_iter().map(|by| Fate::Kept { by, number: 2 });
    let goes = Fate::Goes { older_in: vec![Period::Daily], enough: vec![Period::Quarterly3Monthly] };
    for fate in kept.chain([goes, Fate::Incomplete {}, Fate::Future {}, Fate::Going {}]) {
        let json = serde_json::to_value(&fate).unwrap();
        assert_eq!(serde_json::from_value::<Fate>(json.clone()).unwrap(), fate, "{json}");
    }
}

#[test]
fn who_decides_about_a_config() {
    let scope = |client: &str| Scope::Configs { client: client.into(), label: ".*".into() };
    let named = Scope::Config { config: "web1/etc".parse().unwrap() };
    let with = |name: &str, applies: Vec<Scope>| Policy { name: name.parse().unwrap(), applies, ..policy(&[(Period::Daily, 1)]) };
    let policies = [with("web", vec![scope("web.*")]), with("all", vec![scope("web2|db.*")]), with("one", vec![named])];
    let policies = Policies::new(&policies).unwrap();
    let ask = |client: &str, label: &str| {
        let found = policies.deciding(&client.parse().unwrap(), &label.parse().unwrap());
        found.map(|found| found.map(|policy| policy.name.to_string()))
    };
    assert_eq!(ask("web1", "etc"), Ok(Some("one".into())), "a name goes before expressions");
    assert_eq!(ask("web1", "home"), Ok(Some("web".into())));
    assert_eq!(ask("mail", "etc"), Ok(None));
    assert!(ask("web2", "etc").unwrap_err().to_string().contains("the policies web and all both are for it"));
}

#[test]
fn confirmations_are_of_a_config_or_of_all() {
    let confirmed =
        |config: Option<&str>, job| Confirmation { config: config.map(|c| c.parse().unwrap()), job, by: "root".into(), at: NOW };
    let policy = Policy { confirmed: vec![confirmed(None, 5), confirmed(Some("web1/etc"), 9)], ..policy(&[]) };
    assert_eq!(policy.confirmed_for(&"web1/etc".parse().unwrap()), 9);
    assert_eq!(policy.confirmed_for(&"web2/etc".parse().unwrap()), 5);
}

fn policies() -> impl Strategy<Value = Policy> {
    let keep = proptest::collection::btree_map(0..9usize, -1..6i64, 0..4);
    let within = proptest::option::of(1..40u32);
    (keep, within, 0..4u32, prop_oneof!["UTC", "Europe/Berlin", "America/St_Johns", "Pacific/Apia"]).prop_map(
        |(keep, within, minimum, zone)| {
            let keep: BTreeMap<Period, Count> = keep.into_iter().map(|(at, n)| (Period::ALL[at], Count::try_from(n).unwrap())).collect();
            let within = within.map(|days| format!("{days}d").parse().unwrap());
            Policy { keep, within, minimum, zone: zone.parse().unwrap(), ..policy(&[]) }
        },
    )
}

/// Ages of honest archives: at most one in an hour, back to three years.
fn honest() -> impl Strategy<Value = Vec<Made>> {
    proptest::collection::btree_set(2..26_000i64, 0..40).prop_map(|hours| ages(hours.into_iter().map(|hour| hour * HOUR)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn minimum_within_and_holds_are_promises(mut archives in honest(), policy in policies(), held in any::<u64>()) {
        for (at, archive) in archives.iter_mut().enumerate() {
            archive.held = held >> (at % 64) & 1 == 1;
        }
        let gone = gone(&archives, &policy, &calm());
        let stays = archives.iter().filter(|a| !gone.contains(&a.job));
        prop_assert!(stays.count() >= archives.len().min(policy.minimum as usize));
        let young = |a: &&Made| policy.within.is_some_and(|within| a.time > NOW.plus_seconds(-within.seconds()));
        prop_assert!(archives.iter().filter(|a| a.held || young(a)).all(|a| !gone.contains(&a.job)));
        // The newest one goes only where no rule but an interval is given.
        if let Some(newest) = archives.last() && policy.keep.values().any(|count| *count != Count::Number(0)) {
            prop_assert!(!gone.contains(&newest.job));
        }
    }

    #[test]
    fn a_second_look_takes_nothing_more(mut archives in honest(), policy in policies()) {
        let first = gone(&archives, &policy, &calm());
        for archive in &mut archives {
            archive.going = first.contains(&archive.job);
        }
        prop_assert_eq!(gone(&archives, &policy, &calm()), BTreeSet::new());
        archives.retain(|archive| !archive.going);
        prop_assert_eq!(gone(&archives, &policy, &calm()), BTreeSet::new());
    }

    #[test]
    fn incomplete_archives_make_no_difference(archives in honest(), policy in policies(), hours in proptest::collection::vec(0..26_000i64, 0..200)) {
        let mut all = archives.clone();
        all.extend(hours.iter().enumerate().map(|(at, hour)| Made { standing: Standing::Incomplete, ..made(at as u64, (hour - 9_000) * HOUR) }));
        prop_assert_eq!(gone(&all, &policy, &calm()), gone(&archives, &policy, &calm()));
    }

    #[test]
    fn names_make_no_difference(archives in honest(), policy in policies(), names in proptest::collection::vec(".{0,12}", 40)) {
        let mut renamed = archives.clone();
        for (archive, name) in renamed.iter_mut().zip(names) {
            archive.name = name;
        }
        prop_assert_eq!(gone(&renamed, &policy, &calm()), gone(&archives, &policy, &calm()));
    }

    #[test]
    fn a_burst_takes_nothing(archives in honest(), policy in policies(), more in 49..400usize, hour in 1..20_000i64, seed in any::<u64>()) {
        let mut all = archives;
        let seconds = (0..more as u64).map(|n| (seed.wrapping_mul(2 * n + 1) >> 11) as i64 % (DAY - 1));
        all.extend(seconds.map(|second| made(0, hour * HOUR + second)));
        all.sort_by_key(|archive| archive.time);
        for (job, archive) in (1..).zip(&mut all) {
            archive.job = job;
        }
        prop_assert_eq!(gone(&all, &policy, &calm()), BTreeSet::new());
    }

    #[test]
    fn one_suspicious_archive_takes_nothing(mut archives in honest(), policy in policies(), which in any::<proptest::sample::Index>()) {
        prop_assume!(!archives.is_empty());
        let at = which.index(archives.len());
        archives[at].standing = Standing::Suspicious;
        prop_assert_eq!(gone(&archives, &policy, &calm()), BTreeSet::new());
    }

    /// A clock that was ahead, whatever it showed, for as many archives as it made; and one that is behind now.
    #[test]
    fn a_clock_that_was_wrong_takes_nothing(archives in honest(), policy in policies(), ahead in 1..3_000i64, steps in proptest::collection::vec(1..72i64, 1..30)) {
        let mut all = archives.clone();
        let mut age = 0;
        let last = archives.len() as u64;
        for (job, step) in (last + 1..).zip(&steps) {
            all.push(made(job, age - ahead * DAY));
            age -= step * HOUR;
        }
        prop_assert_eq!(gone(&all, &policy, &calm()), BTreeSet::new());
        // Later it is right again, and all of them are in the past.
        let job = all.len() as u64 + 1;
        all.push(made(job, 0));
        prop_assert_eq!(gone(&all, &policy, &calm()), BTreeSet::new());
        let later = NOW.plus_seconds(4_000 * DAY);
        prop_assert_eq!(gone(&all, &policy, &Situation { now: later, ..calm() }), BTreeSet::new());
        // The clock goes back, and nothing new is made.
        if let Some(newest) = archives.last() {
            let before = newest.time.plus_seconds(-2 * HOUR);
            prop_assert_eq!(gone(&archives, &policy, &Situation { now: before, ..calm() }), BTreeSet::new());
        }
    }

    /// Below the limit of a burst, each day of a client that makes as many as it can pushes at most one day (week, ...) out, as the rules
    /// by server time say: the newest of each older period is decided about as if it were alone.
    #[test]
    fn a_busy_client_pushes_no_more_than_time_does(archives in honest(), days in 1..30u32, wanted in 1..30u32, each in 1..24i64) {
        // It was busy since all honest archives, for `days` days.
        let mut all: Vec<Made> = archives.iter().map(|a| Made { time: a.time.plus_seconds(-31 * DAY), ..a.clone() }).collect();
        let honest: BTreeSet<u64> = all.iter().map(|a| a.job).collect();
        let mut job = all.len() as u64;
        for day in (0..i64::from(days)).rev() {
            for number in (0..each).rev() {
                job += 1;
                all.push(made(job, day * DAY + number * 60));
            }
        }
        let policy = policy(&[(Period::Daily, i64::from(wanted))]);
        let verdicts = decide(&all, &policy, &calm()).unwrap();
        let kept = verdicts.iter().filter(|v| matches!(v.fate, Fate::Kept { .. }) && honest.contains(&v.archive.job)).count();
        let alone = decide(&archives, &policy, &calm()).unwrap();
        let kept_alone = alone.iter().filter(|v| matches!(v.fate, Fate::Kept { .. })).count();
        // Its archives of a day may lie on two days of the calendar.
        prop_assert!(kept + days as usize + 1 >= kept_alone.min(wanted as usize), "{} of {} are left after {} days", kept, kept_alone, days);
    }
}

fn imported(job: u64, age: i64) -> Made {
    Made { imported: true, name: format!("old-{job}"), ..made(job, age) }
}

#[test]
fn what_was_imported_counts_like_the_others_and_its_order_of_jobs_means_nothing() {
    // All of one job, behind two that were made here.
    let mut archives = ages([0, DAY]);
    archives.extend((2..6).map(|day| Made { id: format!("{:064x}", 100 + day), ..imported(3, day * DAY) }));
    let told = told(&archives, &policy(&[(Period::Daily, 3)]));
    assert_eq!(told[..3], ["2 kept by daily #1", "1 kept by daily #2", "3 kept by daily #3"]);
    assert!(told[3..].iter().all(|line| line.starts_with("3 goes")), "{told:?}");
}

proptest! {
    /// Whatever times the maker of imported archives has chosen.
    #[test]
    fn no_imported_archive_makes_one_go_that_was_made_here(
        own in prop::collection::btree_set(0_i64..2000, 0..20),
        foreign in prop::collection::vec(0_i64..3000, 0..30),
        daily in 0_i64..6,
        monthly in 0_i64..4,
        minimum in 0_u32..4,
    ) {
        let own = ages(own.into_iter().map(|age| age * HOUR));
        let mut rules = policy(&[(Period::Daily, daily), (Period::Monthly, monthly)]);
        rules.minimum = minimum;
        rules.most_per_day = 1000;
        let alone = gone(&own, &rules, &calm());
        let mut all = own.clone();
        all.extend((1000..).zip(foreign).map(|(job, age)| imported(job, age * HOUR)));
        let together = gone(&all, &rules, &calm());
        prop_assert!(together.iter().filter(|job| **job < 1000).all(|job| alone.contains(job)), "{alone:?} {together:?}");
    }
}
