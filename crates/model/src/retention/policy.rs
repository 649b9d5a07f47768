//! Retention policies as they are stored.

use super::{Count, Interval, Period, Scope, Zone};
use crate::names::{ConfigName, PolicyName};
use crate::schedule::Matcher;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Which archives are kept, of which configs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Its name.
    pub name: PolicyName,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// Everything younger than this is kept.
    #[serde(default)]
    pub within: Option<Interval>,
    /// How many periods of each kind are kept.
    #[serde(default)]
    pub keep: BTreeMap<Period, Count>,
    /// At least so many of the newest archives of a config are kept, whatever the rules say.
    pub minimum: u32,
    /// In whose calendar days, weeks and so on begin.
    pub zone: Zone,
    /// More archives of a config than this in 24 hours are a burst, which stops pruning.
    pub most_per_day: u32,
    /// Hours between the decision that an archive goes and its deletion.
    pub grace_hours: u32,
    /// What it is for.
    pub applies: Vec<Scope>,
    /// What somebody has looked at and found right.
    #[serde(default)]
    pub confirmed: Vec<Confirmation>,
    /// When it was added.
    pub created: Timestamp,
}

/// Somebody has looked at what stopped pruning, and lets it go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmation {
    /// Of this config. None: of all that the policy is for.
    pub config: Option<ConfigName>,
    /// Everything up to this job is right. (A number, because clocks may be wrong.)
    pub job: u64,
    /// Who says so.
    pub by: String,
    /// When.
    pub at: Timestamp,
}

impl Policy {
    /// Twice the finest schedule.
    pub const MOST_PER_DAY: u32 = 48;

    /// A week to notice that something is missing.
    pub const GRACE_HOURS: u32 = 7 * 24;

    /// What is kept at least, if nobody says otherwise.
    pub const MINIMUM: u32 = 3;

    /// Scopes that one policy may have.
    pub const MAX_SCOPES: usize = 200;

    /// The longest grace period, in hours.
    pub const MAX_GRACE_HOURS: u32 = 366 * 24;

    /// The newest job up to which everything about a config was found right; 0: none.
    #[must_use]
    pub fn confirmed_for(&self, config: &ConfigName) -> u64 {
        let fits = |confirmation: &&Confirmation| confirmation.config.as_ref().is_none_or(|named| named == config);
        self.confirmed.iter().filter(fits).map(|confirmation| confirmation.job).max().unwrap_or(0)
    }

    /// Whether any rule keeps anything. (The minimum alone is none: Borg wants one as well.)
    #[must_use]
    pub fn has_rules(&self) -> bool {
        self.within.is_some() || self.keep.values().any(|count| *count != Count::Number(0))
    }

    /// Whether archives may meet another fate by the other policy. What one has decided is forgotten then, and decided again.
    #[must_use]
    pub fn decides_otherwise(&self, other: &Policy) -> bool {
        let decisive =
            |policy: &Policy| (policy.within, policy.keep.clone(), policy.minimum, policy.zone, policy.applies.clone(), policy.grace_hours);
        decisive(self) != decisive(other)
    }

    /// Says what is wrong with a policy before it is stored.
    pub fn check(&self) -> Result<(), String> {
        if self.description.len() > 1000 || self.description.chars().any(char::is_control) {
            return Err("a description has at most 1000 characters, and no line breaks".into());
        }
        if !self.has_rules() {
            return Err("a policy needs at least one rule, such as daily 7: one without any would keep nothing".into());
        }
        if self.keep.contains_key(&Period::Quarterly13Weekly) && self.keep.contains_key(&Period::Quarterly3Monthly) {
            return Err("a quarter has either 13 weeks or 3 months: choose one of 13weekly and 3monthly".into());
        }
        if self.most_per_day == 0 {
            return Err("most_per_day is the number of archives a day that still is no burst, at least 1".into());
        }
        if self.grace_hours > Policy::MAX_GRACE_HOURS {
            return Err("the grace period is at most 366 days".into());
        }
        if self.applies.len() > Policy::MAX_SCOPES {
            let most = Policy::MAX_SCOPES;
            return Err(format!("a policy names at most {most} configs and expressions: use a regular expression that matches more"));
        }
        for scope in &self.applies {
            if let Scope::Configs { client, label } = scope {
                Matcher::new(client, label)?;
            }
        }
        Ok(())
    }

    /// What a person should know about it all the same.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = vec![];
        let lasting = |period: &Period| *period >= Period::Daily;
        if self.within.is_none() && !self.keep.iter().any(|(period, count)| lasting(period) && *count != Count::Number(0)) {
            warnings.push(format!(
                "a client that makes {} archives a day can push its older ones out within a day: add a rule such as within 7d or daily 7",
                self.most_per_day
            ));
        }
        if self.keep.is_empty() {
            warnings.push(format!(
                "when a client makes no more archives, all but the newest {} go in the end: add a rule such as monthly 1",
                self.minimum
            ));
        }
        if self.applies.is_empty() {
            warnings.push("it is for no config yet".into());
        }
        warnings
    }
}
