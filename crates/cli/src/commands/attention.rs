//! What cannot wait: repositories that are damaged, checks that are overdue, restore tests that failed. `status` and `doctor` say it first.

use super::doctor::finding::{Finding, or_ok};
use super::{check_config, damage, repository, restore_test};
use crate::control::Control;
use crate::error::Result;
use crate::output::{count, duration};
use model::check::{Coverage, Health, days};
use model::{Cause, CheckConfig, Job, JobState, Repository, Timestamp};
use wire::control::{Call, JobFilter, Jobs, ListedTests};

/// A repository that nobody promised anything about is to be checked once in so many hours.
const UNPROMISED: u32 = model::check::CheckPlan::PROMISE_HOURS;

/// A restore test is good for so many days.
const TESTED_DAYS: i64 = 90;

/// Jobs of a repository among which the last one that tells something of it is looked for.
const JOBS: u32 = 20;

/// Names that a sentence has; more are counted.
const NAMED: usize = 5;

/// What is judged.
#[derive(Debug, Default)]
pub struct Facts {
    repositories: Vec<(Repository, Option<Health>, Option<Job>)>,
    configs: Vec<CheckConfig>,
    tests: Vec<ListedTests>,
}

/// Asks the server.
pub fn facts(control: &mut Control) -> Result<Facts> {
    let mut repositories = vec![];
    for checked in damage::checked(repository::all(control)?, control)? {
        let filter = JobFilter { repository: Some(checked.repository.name.clone()), limit: JOBS, ..JobFilter::default() };
        let jobs = control.call::<Jobs>(Call::ListJobs { filter })?.jobs.into_iter();
        let last = jobs.map(|listed| listed.job).find(|job| matches!(job.state, JobState::Done | JobState::Failed));
        repositories.push((checked.repository, checked.health, last));
    }
    Ok(Facts { repositories, configs: check_config::all(control)?, tests: restore_test::all(control)? })
}

/// What there is to say, worst first within each subject.
pub fn judge(facts: &Facts, now: Timestamp) -> Vec<Finding> {
    let mut findings = vec![];
    let (mut damaged, mut overdue) = (vec![], vec![]);
    for (repository, health, last) in &facts.repositories {
        match health_of(repository, health.as_ref(), last.as_ref()) {
            Some(finding) => damaged.push(finding),
            None => overdue.extend(lateness(repository, health.as_ref(), &facts.configs, now)),
        }
    }
    findings.extend(or_ok("damage", damaged, "no repository is known to be damaged"));
    findings.extend(or_ok("checks", overdue, "no check is overdue"));
    findings.extend(or_ok("restore-tests", tests(&facts.tests, now), "none has failed, and none is overdue"));
    findings
}

fn health_of(repository: &Repository, health: Option<&Health>, last: Option<&Job>) -> Option<Finding> {
    let name = &repository.name;
    if let Some(damage) = health.and_then(|health| health.damage.as_ref()) {
        let rest = if damage.unopenable.is_some() { "nothing runs on it until it can be" } else { "nothing is pruned meanwhile" };
        let message = format!("repository {name} is DAMAGED since {}: {}; {rest}", damage.since.to_local(), damage.summary());
        return Some(Finding::problem("damage", message).run(format!("borgcube repository damage {name}")));
    }
    let failure = last?.failure.as_ref()?;
    let is_damage = matches!(failure.cause, Cause::RepositoryCheckNeeded | Cause::RepositoryIntegrity);
    is_damage.then(|| {
        let message = format!("repository {name} may be damaged: job {} ended with {}", last.map_or(0, |job| job.number), failure.line());
        Finding::problem("damage", message).run(format!("borgcube repository check {name}"))
    })
}

fn lateness(repository: &Repository, health: Option<&Health>, configs: &[CheckConfig], now: Timestamp) -> Option<Finding> {
    // Stock borg checks those, and nobody here knows when.
    if repository.is_remote() {
        return None;
    }
    let name = &repository.name;
    let promises = |wants: fn(&CheckConfig) -> bool| {
        let meant = configs.iter().filter(|config| wants(config));
        let meant = meant.filter(|config| config.repositories.choose([name.clone()]).is_ok_and(|chosen| !chosen.is_empty()));
        meant.map(|config| config.plan.promise_hours).min()
    };
    let (structure, data) = (promises(|config| config.plan.structure), promises(|config| config.plan.data));
    let late = |coverage: Option<&Coverage>, promise: Option<u32>| {
        let hours = promise.or(coverage.map(|coverage| coverage.promise_hours)).unwrap_or(UNPROMISED);
        let age = coverage.map_or_else(|| Some(now.seconds_since(repository.created)), |coverage| coverage.age(now))?;
        (age > f64::from(hours) * 3600.0).then(|| match coverage {
            Some(_) => format!("was not checked for {}, and is to be checked every {}", duration(age), days(hours)),
            None => format!("was never checked, and is to be checked every {}", days(hours)),
        })
    };
    let of_structure = late(health.and_then(|health| health.structure.as_ref()), structure);
    let of_data = health.and_then(|health| health.data.as_ref());
    // Whoever has never verified content has not promised it, unless a config says so.
    let of_data = (data.is_some() || of_data.is_some()).then(|| late(of_data, data)).flatten();
    let (what, why, option) = match (of_structure, of_data) {
        (Some(why), _) => ("", why, ""),
        (None, Some(why)) => ("the content of ", why, " --verify-data"),
        (None, None) => return None,
    };
    let part = if why.starts_with("was never") { "" } else { "a part of " };
    let finding = Finding::warning("checks", format!("{part}{what}repository {name} {why}"));
    Some(finding.run(format!("borgcube repository check {name}{option}")))
}

fn tests(all: &[ListedTests], now: Timestamp) -> Vec<Finding> {
    let mut findings = vec![];
    let (mut old, mut never) = (vec![], vec![]);
    for tests in all {
        let name = format!("{}/{}", tests.client, tests.label);
        let newer = |failed: &&model::restore_test::TestResult| tests.last_good.as_ref().is_none_or(|good| good.time < failed.time);
        match (tests.last_failed.as_ref().filter(newer), &tests.last_good) {
            (Some(failed), _) => {
                let message = format!("the last restore test of {name} failed: {}", failed.what);
                findings.push(Finding::problem("restore-tests", message).run(format!("borgcube job show {}", failed.job)));
            }
            (None, None) => never.push(name),
            (None, Some(good)) if good.time.plus_seconds(TESTED_DAYS * 86_400) < now => old.push(name),
            (None, Some(_)) => {}
        }
    }
    if !old.is_empty() {
        let message = format!("{} had no good restore test for more than {TESTED_DAYS} days: {}", configs(old.len()), named(&old));
        findings.push(Finding::warning("restore-tests", message).run(format!("borgcube restore-test run {}", old[0])));
    }
    if !never.is_empty() {
        let message = format!("{} never had a good restore test: {}", configs(never.len()), named(&never));
        findings.push(Finding::note("restore-tests", message).run(format!("borgcube restore-test run {}", never[0])));
    }
    findings
}

fn configs(number: usize) -> String {
    count(number as u64, "config")
}

fn named(names: &[String]) -> String {
    let more = names.len().saturating_sub(NAMED);
    let text = names.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{text} and {more} more") } else { text }
}

#[cfg(test)]
mod tests {
    use super::super::doctor::finding::Verdict;
    use super::*;
    use model::check::{CheckPlan, Damage, Repositories};
    use model::restore_test::TestResult;
    use model::{EncryptionMode, Failure};

    const NOW: Timestamp = Timestamp(1_800_000_000_000_000);

    fn ago(days: i64) -> Timestamp {
        NOW.plus_seconds(-days * 86_400)
    }

    fn repository(url: &str, created: Timestamp) -> Repository {
        Repository {
            name: "main".parse().unwrap(),
            url: url.into(),
            description: String::new(),
            repository_id: "aa".into(),
            encryption: EncryptionMode::Repokey,
            remote_borg: None,
            rsh: None,
            created,
        }
    }

    fn health(oldest: i64) -> Health {
        let coverage =
            Coverage { at: ago(0), bytes: 9, checked: 9, oldest: Some(ago(oldest)), promise_hours: 14 * 24, ..Coverage::default() };
        Health {
            repository: "main".parse().unwrap(),
            checked: ago(oldest),
            structure: Some(coverage),
            data: None,
            archives: None,
            index: None,
            damage: None,
        }
    }

    fn said(facts: &Facts) -> Vec<(Verdict, String)> {
        let findings = judge(facts, NOW).into_iter().filter(|finding| finding.verdict != Verdict::Ok);
        findings.map(|finding| (finding.verdict, format!("{} [{}]", finding.message, finding.run.join("; ")))).collect()
    }

    fn of(repository: Repository, health: Option<Health>, last: Option<Job>) -> Facts {
        Facts { repositories: vec![(repository, health, last)], ..Facts::default() }
    }

    #[test]
    fn damage_is_a_problem_whoever_has_met_it() {
        let main = || repository("/srv/main", ago(1));
        let damage = Damage { chunks: 2, unopenable: None, ..Damage::unopened(None, "no index", ago(3)) };
        let known = said(&of(main(), Some(Health { damage: Some(damage.clone()), ..health(1) }), None));
        assert_eq!(known.len(), 1);
        assert!(known[0].0 == Verdict::Problem && known[0].1.contains("DAMAGED since") && known[0].1.contains("2 chunks"), "{known:?}");
        assert!(known[0].1.ends_with("[borgcube repository damage main]"), "{known:?}");
        let closed = Damage { unopenable: Some("no index".into()), ..damage };
        assert!(said(&of(main(), Some(Health { damage: Some(closed), ..health(1) }), None))[0].1.contains("nothing runs on it"));
        // A backup was the first to meet it.
        let mut job = Job::backup(7, &"web1/etc".parse().unwrap(), "main".parse().unwrap(), "root", ago(0));
        job.force_state(JobState::Failed, Failure::new(Cause::RepositoryCheckNeeded, "no commit"), ago(0)).unwrap();
        let met = said(&of(main(), Some(health(1)), Some(job)));
        assert!(met[0].1.contains("job 7 ended with repository-check-needed: no commit"), "{met:?}");
        assert!(met[0].1.ends_with("[borgcube repository check main]"), "{met:?}");
        assert_eq!(said(&of(main(), Some(health(1)), None)), []);
    }

    #[test]
    fn a_check_that_is_overdue_is_a_warning() {
        let promise = |hours, data| CheckConfig {
            name: "c".parse().unwrap(),
            description: String::new(),
            repositories: Repositories::Matching("ma.*".into()),
            plan: CheckPlan { promise_hours: hours, ..CheckPlan::everything(data) },
            created: NOW,
        };
        let facts = |health, configs| Facts { configs, ..of(repository("/srv/main", ago(20)), health, None) };
        let never = said(&facts(None, vec![]));
        assert_eq!(never[0].1, "repository main was never checked, and is to be checked every 14 days [borgcube repository check main]");
        assert_eq!(said(&of(repository("/srv/main", ago(2)), None, None)), []);
        assert_eq!(said(&of(repository("ssh://b@h/./x", ago(20)), None, None)), []);
        assert_eq!(said(&facts(Some(health(13)), vec![])), []);
        let late = said(&facts(Some(health(15)), vec![]));
        assert!(late[0].1.starts_with("a part of repository main was not checked for "), "{late:?}");
        // What a config promises counts.
        assert_eq!(said(&facts(Some(health(15)), vec![promise(30 * 24, false)])), []);
        assert_eq!(said(&facts(Some(health(2)), vec![promise(24, false)])).len(), 1);
        let content = said(&facts(Some(health(1)), vec![promise(10 * 24, true)]));
        assert!(content[0].1.starts_with("the content of repository main was never checked"), "{content:?}");
        assert!(content[0].1.ends_with("check main --verify-data]"), "{content:?}");
    }

    #[test]
    fn restore_tests_that_failed_are_old_or_were_never_made() {
        let result = |days| Some(TestResult { time: ago(days), job: 5, archive: "a".into(), what: "1 file differs".into() });
        let tests = |label: &str, last_good, last_failed| ListedTests {
            client: "web1".parse().unwrap(),
            label: label.parse().unwrap(),
            last_good,
            last_failed,
            last_unproven: None,
            recorded_files: 0,
        };
        let all =
            vec![tests("a", result(5), result(3)), tests("b", result(3), result(5)), tests("c", result(91), None), tests("d", None, None)];
        let found = said(&Facts { tests: all, ..Facts::default() });
        assert_eq!(found[0], (Verdict::Problem, "the last restore test of web1/a failed: 1 file differs [borgcube job show 5]".into()));
        assert!(found[1].0 == Verdict::Warning && found[1].1.contains("90 days: web1/c"), "{found:?}");
        assert!(found[2].0 == Verdict::Note && found[2].1.contains("1 config never had a good restore test: web1/d"), "{found:?}");
        assert_eq!(found.len(), 3);
        assert_eq!(named(&std::array::from_fn::<_, 7, _>(|_| "x".to_owned())), "x, x, x, x, x and 2 more");
    }
}
