//! Schedules: when, and which actions.

use crate::names::{CheckName, ClientName, ConfigName, Label, PolicyName, RepositoryName, ScheduleName};
use crate::recurrence::Recurrence;
use crate::time::Timestamp;
use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};
use std::fmt;

/// When something is done, and what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// Its name here, and the instance of its timer unit.
    pub name: ScheduleName,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// When.
    pub recurrence: Recurrence,
    /// Whether its occurrences lead to runs. While it is not, each is recorded as a skip.
    pub enabled: bool,
    /// What is done, in this order.
    pub actions: Vec<Action>,
    /// A run begins up to this many seconds behind its occurrence, so that not everything begins at once.
    #[serde(default)]
    pub jitter_seconds: u32,
    /// All occurrences up to this moment are dealt with: each was run, or its skip is recorded.
    pub handled: Timestamp,
    /// The latest [`Schedule::handled`] before the clock went back. Up to it there are entries of what was run or skipped while the clock
    /// was ahead (if it was): what ran does not run again, what was skipped may run after all. None: the clock is not behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ahead: Option<Timestamp>,
    /// When it was added.
    pub created: Timestamp,
}

/// One thing that a schedule does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Action {
    /// Runs one backup config.
    RunConfig {
        /// The config.
        config: ConfigName,
    },
    /// Runs every backup config whose client and label match. The expressions are anchored: they match the whole name.
    RunConfigs {
        /// Regular expression for the client's name.
        client: String,
        /// Regular expression for the config's label.
        label: String,
    },
    /// Checks a repository.
    Check {
        /// The repository.
        repository: RepositoryName,
        /// Also decrypt each object and recompute its id.
        #[serde(default)]
        verify_data: bool,
    },
    /// Checks what a check config says.
    CheckBy {
        /// The check config.
        config: CheckName,
    },
    /// Compacts a repository.
    Compact {
        /// The repository.
        repository: RepositoryName,
    },
    /// Lets retention policies decide, deletes what is due and gives the space back.
    Prune {
        /// In this repository. None: in each.
        #[serde(default)]
        repository: Option<RepositoryName>,
        /// What this policy decides about. None: all policies.
        #[serde(default)]
        policy: Option<PolicyName>,
        /// Archives of clients whose whole name matches this regular expression.
        #[serde(default)]
        clients: Option<String>,
        /// Archives of configs whose whole label matches this regular expression.
        #[serde(default)]
        labels: Option<String>,
    },
    /// Tests a restore of every backup config whose client and label match.
    RestoreTest {
        /// Regular expression for the client's name.
        client: String,
        /// Regular expression for the config's label.
        label: String,
        /// Compare with what is on the client then.
        #[serde(default)]
        live: bool,
    },
    /// Enables another schedule.
    EnableSchedule {
        /// The schedule.
        schedule: ScheduleName,
    },
    /// Disables another schedule.
    DisableSchedule {
        /// The schedule.
        schedule: ScheduleName,
    },
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::RunConfig { config } => write!(f, "run {config}"),
            Action::RunConfigs { client, label } => write!(f, "run all configs of clients /{client}/ with labels /{label}/"),
            Action::Check { repository, verify_data: false } => write!(f, "check repository {repository}"),
            Action::Check { repository, verify_data: true } => write!(f, "check repository {repository} and verify its data"),
            Action::CheckBy { config } => write!(f, "check by config {config}"),
            Action::Compact { repository } => write!(f, "compact repository {repository}"),
            Action::Prune { repository, policy, clients, labels } => {
                f.write_str("prune")?;
                repository.as_ref().map_or(Ok(()), |repository| write!(f, " repository {repository}"))?;
                policy.as_ref().map_or(Ok(()), |policy| write!(f, " by policy {policy}"))?;
                clients.as_ref().map_or(Ok(()), |clients| write!(f, " clients /{clients}/"))?;
                labels.as_ref().map_or(Ok(()), |labels| write!(f, " labels /{labels}/"))
            }
            Action::RestoreTest { client, label, live } => {
                write!(f, "test restores of clients /{client}/ with labels /{label}/")?;
                f.write_str(if *live { " against the live clients" } else { "" })
            }
            Action::EnableSchedule { schedule } => write!(f, "enable schedule {schedule}"),
            Action::DisableSchedule { schedule } => write!(f, "disable schedule {schedule}"),
        }
    }
}

/// Characters of a regular expression, at most.
const MAX_PATTERN: usize = 500;

/// Bytes that a compiled regular expression may take: it is matched against names of 64 ASCII characters.
const PATTERN_SIZE: usize = 1 << 18;

/// Compiles a regular expression that has to match a whole name of `what`; the error is a sentence.
pub fn whole_name(what: &str, text: &str) -> Result<Regex, String> {
    pattern(what, text)
}

/// Compiles a regular expression that has to match a whole name.
fn pattern(what: &str, text: &str) -> Result<Regex, String> {
    if text.len() > MAX_PATTERN {
        return Err(format!("the regular expression for the {what} has more than {MAX_PATTERN} characters"));
    }
    let compiled = |text: &str| RegexBuilder::new(text).size_limit(PATTERN_SIZE).dfa_size_limit(PATTERN_SIZE).nest_limit(50).build();
    // By itself first: `a)|(b` must not become whole by what is put around it.
    // Its own account of it takes several lines, with a mark below the place.
    let why = |e: &regex::Error| e.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
    let wrong = |e: regex::Error| format!("{text:?} is no usable regular expression for the {what} (`.*` matches all): {}", why(&e));
    compiled(text).map_err(wrong)?;
    // (?x) would make a comment of what follows on the same line.
    compiled(&format!("^(?:{text}\n)$")).map_err(wrong)?;
    compiled(&format!("^(?:{text})$")).map_err(wrong)
}

/// What an action of kind [`Action::RunConfigs`] matches.
#[derive(Debug, Clone)]
pub struct Matcher {
    client: Regex,
    label: Regex,
}

impl Matcher {
    /// Compiles both expressions; the error is a sentence.
    pub fn new(client: &str, label: &str) -> Result<Matcher, String> {
        Ok(Matcher { client: pattern("client", client)?, label: pattern("label", label)? })
    }

    /// Compiles what there is of them; None: neither narrows anything.
    pub fn maybe(client: Option<&str>, label: Option<&str>) -> Result<Option<Matcher>, String> {
        match (client, label) {
            (None, None) => Ok(None),
            _ => Matcher::new(client.unwrap_or(".*"), label.unwrap_or(".*")).map(Some),
        }
    }

    /// Whether both match the whole of their name.
    #[must_use]
    pub fn matches(&self, client: &ClientName, label: &Label) -> bool {
        self.client.is_match(client.as_str()) && self.label.is_match(label.as_str())
    }
}

impl Action {
    /// Says what is wrong with an action before it is stored.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Action::RunConfigs { client, label } | Action::RestoreTest { client, label, .. } => Matcher::new(client, label).map(drop),
            Action::Prune { clients, labels, .. } => Matcher::maybe(clients.as_deref(), labels.as_deref()).map(drop),
            _ => Ok(()),
        }
    }
}

impl Schedule {
    /// Actions that one schedule may have.
    pub const MAX_ACTIONS: usize = 100;

    /// The longest jitter, in seconds.
    pub const MAX_JITTER: u32 = 86_400;

    /// Says what is wrong with a schedule before it is stored.
    pub fn check(&self) -> Result<(), String> {
        if self.actions.is_empty() {
            return Err("a schedule needs at least one action, such as a config to run".into());
        }
        if self.actions.len() > Schedule::MAX_ACTIONS {
            return Err(format!(
                "a schedule has at most {} actions: run many configs by a regular expression instead",
                Schedule::MAX_ACTIONS
            ));
        }
        if self.description.len() > 1000 || self.description.chars().any(char::is_control) {
            return Err("a description has at most 1000 characters, and no line breaks".into());
        }
        if self.jitter_seconds > Schedule::MAX_JITTER {
            return Err("the jitter is at most one day, 86400 seconds".into());
        }
        let distance = self.recurrence.shortest_distance().unwrap_or(i64::MAX);
        if i64::from(self.jitter_seconds) >= distance {
            return Err(format!("the jitter must be less than the {distance} seconds between two occurrences, or the next one overtakes"));
        }
        for action in &self.actions {
            action.check()?;
            if let Action::EnableSchedule { schedule } | Action::DisableSchedule { schedule } = action
                && *schedule == self.name
            {
                return Err("a schedule can't enable or disable itself".into());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(actions: Vec<Action>) -> Schedule {
        let now = Timestamp(1_795_300_000_000_000);
        Schedule {
            name: "nightly".parse().unwrap(),
            description: String::new(),
            recurrence: Recurrence::parse("daily 02:30", "Europe/Berlin", now).unwrap(),
            enabled: true,
            actions,
            jitter_seconds: 0,
            handled: now,
            ahead: None,
            created: now,
        }
    }

    fn matching(client: &str, label: &str) -> Action {
        Action::RunConfigs { client: client.into(), label: label.into() }
    }

    #[test]
    fn expressions_match_whole_names() {
        let hits = |client: &str, name: &str| Matcher::new(client, ".*").unwrap().matches(&name.parse().unwrap(), &"etc".parse().unwrap());
        assert!(hits("web[0-9]+", "web12"));
        assert!(!hits("web[0-9]+", "web12.example.net"));
        assert!(!hits("web[0-9]+", "oldweb1"));
        assert!(hits("a|b", "b") && !hits("a|b", "ba") && !hits("a|b", "ab"));
        assert!(!Matcher::new("web1", "etc").unwrap().matches(&"web1".parse().unwrap(), &"etcetera".parse().unwrap()));
    }

    #[test]
    fn expressions_that_hurt_are_refused() {
        for bad in ["(", "a)|(b", "[", "*", "(?x) a #", r"\w{1000}{1000}", &"(".repeat(200), &"a".repeat(501)] {
            let error = schedule(vec![matching(bad, ".*")]).check().unwrap_err();
            assert!(error.contains("regular expression for the client"), "{bad}: {error}");
            assert!(schedule(vec![matching(".*", bad)]).check().unwrap_err().contains("for the label"));
        }
    }

    #[test]
    fn what_a_schedule_needs() {
        let good = schedule(vec![Action::RunConfig { config: "web1/etc".parse().unwrap() }, matching(".*", ".*")]);
        assert_eq!(good.check(), Ok(()));
        assert!(schedule(vec![]).check().unwrap_err().contains("at least one action"));
        let prune = |clients: &str| Action::Prune { repository: None, policy: None, clients: Some(clients.into()), labels: None };
        assert!(schedule(vec![prune("(")]).check().unwrap_err().contains("regular expression"));
        assert_eq!(schedule(vec![prune("web.*")]).check(), Ok(()));
        assert_eq!(prune("web.*").to_string(), "prune clients /web.*/");
        let itself = Action::DisableSchedule { schedule: "nightly".parse().unwrap() };
        assert!(schedule(vec![itself]).check().unwrap_err().contains("itself"));
        assert!(Schedule { jitter_seconds: 86_401, ..good.clone() }.check().is_err());
        assert!(Schedule { description: "a\nb".into(), ..good.clone() }.check().is_err());
        let hourly = Recurrence::parse("hourly UTC", "UTC", good.created).unwrap();
        let overtaken = Schedule { jitter_seconds: 3600, recurrence: hourly, ..good.clone() };
        assert!(overtaken.check().unwrap_err().contains("overtakes"));
        assert_eq!(Schedule { jitter_seconds: 3599, ..overtaken }.check(), Ok(()));
        let many = vec![matching(".*", ".*"); 101];
        assert!(Schedule { actions: many, ..good }.check().unwrap_err().contains("at most 100"));
    }

    #[test]
    fn json_is_flat() {
        let json = serde_json::to_value(matching("web.*", ".*")).unwrap();
        assert_eq!(json, serde_json::json!({"kind": "run-configs", "client": "web.*", "label": ".*"}));
    }
}
