//! Which policy decides about which archives.

use super::Policy;
use crate::names::{ClientName, ConfigName, Label, PolicyName};
use crate::schedule::Matcher;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a policy is for. An archive belongs to the config it was made by, also when that is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Scope {
    /// One config. This goes before all regular expressions.
    Config {
        /// The config.
        config: ConfigName,
    },
    /// Every config whose client and label match. The expressions are anchored: they match the whole name.
    Configs {
        /// Regular expression for the client's name.
        client: String,
        /// Regular expression for the config's label.
        label: String,
    },
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scope::Config { config } => write!(f, "{config}"),
            Scope::Configs { client, label } => write!(f, "clients /{client}/ with labels /{label}/"),
        }
    }
}

/// Two policies claim a config, and neither of them by its name alone: nothing of it is pruned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("the policies {first} and {second} both are for it; attach it to one of them by its name")]
pub struct Ambiguous {
    /// One of them.
    pub first: PolicyName,
    /// Another one.
    pub second: PolicyName,
}

/// All policies, ready to be asked.
#[derive(Debug)]
pub struct Policies<'a> {
    entries: Vec<(&'a Policy, Vec<Compiled<'a>>)>,
}

#[derive(Debug)]
enum Compiled<'a> {
    Named(&'a ConfigName),
    Matching(Matcher),
}

impl<'a> Policies<'a> {
    /// Compiles what they are for. The error is a sentence; a policy that was checked has none.
    pub fn new(policies: &'a [Policy]) -> Result<Policies<'a>, String> {
        let compile = |scope: &'a Scope| match scope {
            Scope::Config { config } => Ok(Compiled::Named(config)),
            Scope::Configs { client, label } => Matcher::new(client, label).map(Compiled::Matching),
        };
        let entry = |policy: &'a Policy| Ok((policy, policy.applies.iter().map(compile).collect::<Result<_, String>>()?));
        Ok(Policies { entries: policies.iter().map(entry).collect::<Result<_, String>>()? })
    }

    /// The policy that decides about the archives of a config; None: nothing of it is ever pruned.
    pub fn deciding(&self, client: &ClientName, label: &Label) -> Result<Option<&'a Policy>, Ambiguous> {
        let named = |scope: &Compiled<'_>| matches!(scope, Compiled::Named(config) if config.client == *client && config.label == *label);
        let matching = |scope: &Compiled<'_>| matches!(scope, Compiled::Matching(matcher) if matcher.matches(client, label));
        match self.only(named)? {
            Some(policy) => Ok(Some(policy)),
            None => self.only(matching),
        }
    }

    fn only(&self, fits: impl Fn(&Compiled<'_>) -> bool) -> Result<Option<&'a Policy>, Ambiguous> {
        let mut found = self.entries.iter().filter(|(_, scopes)| scopes.iter().any(&fits)).map(|(policy, _)| *policy);
        match (found.next(), found.next()) {
            (Some(first), Some(second)) => Err(Ambiguous { first: first.name.clone(), second: second.name.clone() }),
            (only, _) => Ok(only),
        }
    }
}
